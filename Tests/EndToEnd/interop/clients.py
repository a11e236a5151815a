"""The clients that run the interop cases, each by its own means; those in C++ and Go are built first."""

from __future__ import annotations

import fcntl
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Protocol

from support.processes import ChildProcess
from support.stubs import REPOSITORY

from .python.grpcio_client import GrpcioClient
from .python.grpclib_client import GrpclibClient

_HERE = REPOSITORY / "Tests/EndToEnd/interop"
_BUILD = REPOSITORY / ".build/interop"


def build() -> None:
    """Builds what has changed."""
    _BUILD.mkdir(parents=True, exist_ok=True)
    with (_BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "-j2", "-f", "Tests/EndToEnd/interop/Makefile"], cwd=REPOSITORY, capture_output=True, text=True,
            # Neither flags of a make around us nor somebody's Go settings.
            env={key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "GO"))},
        )
    assert done.returncode == 0, f"building the interop clients failed\n{done.stdout}\n{done.stderr}"


class Client(Protocol):
    def cases(self) -> set[str]:
        """The cases that there are."""
        ...

    def run(self, case: str, address: str, iterations: int = 10, ca_file: str | None = None) -> None:
        """Fails with what went wrong."""
        ...


class _Process:
    """A program: ADDRESS CASE [ITERATIONS] [CA_FILE]; `list` prints the cases."""

    def __init__(self, *command: str) -> None:
        self._command = command

    def cases(self) -> set[str]:
        return set(self._call("-", "list").split())

    def run(self, case: str, address: str, iterations: int = 10, ca_file: str | None = None) -> None:
        self._call(address, case, str(iterations), *([ca_file] if ca_file else []))

    def start(self, case: str, address: str, log: pathlib.Path) -> ChildProcess:
        """Runs a case that does not end by itself."""
        return ChildProcess([*self._command, address, case], log)

    def start_batch(self, address: str, count: int, batch: str, log: pathlib.Path) -> ChildProcess:
        """Runs BATCH_CASE, which is killed, or ends with 0."""
        environment = {**os.environ, "DEVICE_BATCH": batch}
        return ChildProcess([*self._command, address, BATCH_CASE, str(count)], log, environment, cwd=_HERE.parent)

    def _call(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, f"{self._command[-1]} {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
        return done.stdout


class _Python:
    """A class with a method for each case."""

    def __init__(self, kind: type[GrpcioClient] | type[GrpclibClient]) -> None:
        self._kind = kind

    def cases(self) -> set[str]:
        return {name for name in vars(self._kind) if not name.startswith("_")} - {"close"}

    def run(self, case: str, address: str, iterations: int = 10, ca_file: str | None = None) -> None:
        client = self._kind(address, iterations, ca_file)
        try:
            getattr(client, case)()
        finally:
            client.close()


PROCESSES: Mapping[str, _Process] = {
    "node": _Process("node", str(_HERE / "node/client.mjs")),
    "cpp": _Process(str(_BUILD / "cpp-client")),
    "go": _Process(str(_BUILD / "go-client")),
}
ALL: Mapping[str, Client] = {"grpcio": _Python(GrpcioClient), "grpclib": _Python(GrpclibClient), **PROCESSES}

# Beside the interop cases: the real service, by those that test_clients.py lacks; and calls without end, by those that
# connect again when a server says goodbye.
DEVICE_CASE = "device_create_and_watch"
BATCH_CASE = "device_batch"
BATCHING: Mapping[str, _Process] = {
    **{name: _Process(sys.executable, "-m", "interop.batch", name) for name in ("grpcio", "grpclib")},
    **{name: PROCESSES[name] for name in ("node", "go")},
}
CALLS_WITHOUT_END = "calls_without_end"
RECONNECTING = ("cpp", "go")
