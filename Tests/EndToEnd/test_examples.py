"""What README.md and examples/ show for Python does what they say, with stubs made as they say."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import re
import subprocess
import sys

import pytest

from support.stubs import REPOSITORY, saga_pb2
from support.client import unique
from support.waiting import wait_until
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


def test_batch_creator_that_dies(world: World, stubs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    server, batch, results = world.server(), unique("batch"), tmp_path / "results.json"
    arguments = ("examples/batch_creator.py", server.address, batch, "150", "me", str(results))
    dying = subprocess.Popen(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": str(stubs)}, cwd=REPOSITORY, stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: results.exists(), 60, "the first result")
    finally:
        dying.send_signal(signal.SIGKILL)
        dying.wait()
    known = json.loads(results.read_text())
    assert len(known) < 150, "it was not in the middle"
    output = _run(stubs, *arguments)
    assert output.splitlines()[-1] == "150 of 150 made", output
    made = json.loads(results.read_text())
    assert all(made[name] == known[name] for name in known)
    devices = {device.name: device.device_id for device in server.client().list_devices(page_size=1000).devices}
    assert devices == {name: one["device_id"] for name, one in made.items()} and len(devices) == 150


def test_template_creator(world: World, stubs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    server, batch = world.server(), unique("batch")
    output = _run(stubs, "examples/template_creator.py", server.address, "examples/phone.json", batch, "10")
    assert output.splitlines()[-1] == "10 of 10 made" and output.count("SAGA_STATUS_COMPLETED") == 10, output
    assert _run(stubs, "examples/template_creator.py", server.address, "examples/phone.json", batch, "10").endswith("10 made\n")
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"userId": "me", "spec": {"cpuCores": 99}}')
    done = subprocess.run(
        [sys.executable, "examples/template_creator.py", server.address, str(wrong), batch, "3"], cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(stubs)}, capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 1 and "spec.cpu_cores" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(server.client().list_devices(page_size=1000).devices) == 10
