"""What README.md and examples/ show for Python does what they say, with stubs made as they say."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from support.stubs import REPOSITORY, saga_pb2
from support.world import World

# The command of examples/create_and_watch.py's docstring.
_PROTOS = [
    *(f"proto/cloudphone/device/v1/{name}.proto" for name in ("device", "saga", "device_service")),
    *(f"proto/google/rpc/{name}.proto" for name in ("error_details", "status")),
]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("stubs")
    command = ["-m", "grpc_tools.protoc", "-Iproto", f"--python_out={folder}", f"--grpc_python_out={folder}", *_PROTOS]
    subprocess.run([sys.executable, *command], cwd=REPOSITORY, check=True, timeout=120)
    return folder


def _run(stubs: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": str(stubs)}, cwd=REPOSITORY, timeout=120,
        capture_output=True, text=True,
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_create_and_watch(world: World, stubs: pathlib.Path) -> None:
    output = _run(stubs, "examples/create_and_watch.py", world.server().address, "my-phone", "me")
    assert "SAGA_STATUS_COMPLETED" in output and "adb_port" in output, output


def test_readme_snippet(world: World, stubs: pathlib.Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    address = world.server().address
    assert '"127.0.0.1:50051"' in snippet
    output = _run(stubs, "-c", snippet.replace("127.0.0.1:50051", address))
    assert output.splitlines()[-1].split()[1] == str(saga_pb2.SAGA_EVENT_TYPE_SAGA_COMPLETED), output
