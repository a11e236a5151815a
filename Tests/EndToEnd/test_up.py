"""10. From a clean clone: `./dev up`, paste the line that it prints, watch a device being created.

The clone shares the build directory of this checkout, so that the dependencies aren't built twice. It runs apart from the
other tests and after them: its build takes the place of the binary that they use.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest

from support.processes import ChildProcess
from support.server import clean_environment
from support.stubs import REPOSITORY
from support.waiting import free_port

BUILD_TIMEOUT = 1500


@pytest.fixture
def clone() -> Iterator[pathlib.Path]:
    home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-clone-", dir="/tmp"))
    os.chmod(home, 0o755)
    try:
        subprocess.run(
            ["git", "-c", "safe.directory=*", "clone", "--quiet", str(REPOSITORY), str(home / "devicerpc")], check=True
        )
        yield home / "devicerpc"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _pasted(text: str) -> str | None:
    """The line that `./dev up` says to paste."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    for line in plain.splitlines():
        if re.search(r"\bcreate\b", line) and "--watch" in line:
            return line.strip().removeprefix("$ ").strip()
    return None


@pytest.mark.clone
@pytest.mark.timeout(BUILD_TIMEOUT + 120)
def test_up_from_a_clean_clone(clone: pathlib.Path) -> None:
    environment = {
        **clean_environment(),
        "DEVICERPC_BUILD": "debug",
        # SwiftPM's own name for --scratch-path.
        "SWIFTPM_BUILD_DIR": os.environ.get("SWIFTPM_BUILD_DIR", str(REPOSITORY / ".build")),
        "DEVICERPC_LISTEN": f"127.0.0.1:{free_port()}",
        "DEVICERPC_OPS_LISTEN": f"127.0.0.1:{free_port()}",
    }
    process = ChildProcess([clone / "dev", "up"], clone.parent / "up.log", environment, cwd=clone)
    try:
        deadline = time.monotonic() + BUILD_TIMEOUT
        while not (line := _pasted(process.log_text())):
            assert process.is_running, f"./dev up ended with {process.returncode}\n{process.log_tail(200)}"
            assert time.monotonic() < deadline, f"no line to paste\n{process.log_tail(200)}"
            time.sleep(0.2)
        pasted = subprocess.run(
            ["bash", "-c", line], cwd=clone, env=clean_environment(), capture_output=True, text=True, timeout=120,
            stdin=subprocess.DEVNULL,
        )
        shown = pasted.stdout + pasted.stderr
        assert pasted.returncode == 0, f"{line}\n{shown}\n{process.log_tail()}"
        assert "SAGA_COMPLETED" in shown and "RUNNING" in shown, shown
        for step in (
            "ALLOCATE_PORTS", "CREATE_PROVIDER_DEVICE", "CREATE_DATABASE_RECORD", "REPORT_QUOTA_USAGE", "START_DEVICE",
        ):
            assert step in shown, shown
        status = subprocess.run(
            ["git", "-c", "safe.directory=*", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
        )
        assert status.stdout == "", f"./dev up leaves files that git doesn't ignore:\n{status.stdout}"
        # Ctrl-C reaches the whole group.
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
        assert not list(_postmasters(clone)), "its PostgreSQL still runs"
    finally:
        if process.is_running:
            os.killpg(process.pid, signal.SIGKILL)
            process.kill()
        for pid in _postmasters(clone):
            os.kill(pid, signal.SIGQUIT)


def _postmasters(folder: pathlib.Path) -> Iterator[int]:
    for file in folder.rglob("postmaster.pid"):
        try:
            pid = int(file.read_text().splitlines()[0])
            os.kill(pid, 0)
            yield pid
        except (ValueError, IndexError, ProcessLookupError):
            continue
