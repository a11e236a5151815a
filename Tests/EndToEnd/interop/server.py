"""InteropServer, the project's grpc.testing.TestService, as a process."""

from __future__ import annotations

import pathlib
import shutil
import tempfile

from support.processes import ChildProcess
from support.server import binary, clean_environment
from support.waiting import wait_until


class InteropServer:
    """Started on a free port by its constructor."""

    def __init__(self, *flags: str) -> None:
        self._home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-interop-"))
        program = binary().parent / "InteropServer"
        assert program.exists(), f"{program} is not there: swift build --product InteropServer"
        self.process = ChildProcess([program, *flags], self._home / "log", clean_environment())
        try:
            wait_until(lambda: self._port() or not self.process.is_running, 60, "InteropServer to listen")
            assert self._port(), "InteropServer has ended"
        except AssertionError as error:
            tail = self.process.log_tail()
            self.close()
            raise AssertionError(f"{error}\n{tail}") from None
        self.port = self._port() or 0
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> InteropServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def replacing(cls, port: int) -> InteropServer:
        """On the port of a server that is about to let go of it."""

        def start() -> InteropServer:
            return cls("--port", str(port))

        return wait_until(start, 60, f"port {port}")

    def _port(self) -> int | None:
        for line in self.process.log_text().splitlines():
            if line.startswith("listening on "):
                return int(line.rpartition(" ")[2])
        return None

    def close(self) -> None:
        """Ends it whatever it does."""
        if self.process.is_running:
            self.process.kill()
        shutil.rmtree(self._home, ignore_errors=True)
