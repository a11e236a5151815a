"""A child process that is always ended by its id, and whose output is kept in a file."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence


class ChildProcess:
    """One process of the tests. Its standard output and error go to `log`, appended over restarts.

    `stdout`, `stderr`: descriptors that they go to instead.
    """

    def __init__(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        log: pathlib.Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: pathlib.Path | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.log = log
        self.name = pathlib.Path(arguments[0]).name
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [os.fspath(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=output if stderr is None else stderr,
                env=dict(environment) if environment is not None else None,
                cwd=cwd,
                start_new_session=True,  # a Ctrl-C of the test run is ours to handle
                **({"user": user, "group": user, "extra_groups": []} if user else {}),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.poll()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.is_running:
            self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} ({self.pid}) still runs after {timeout:g} s\n{self.log_tail()}"
            ) from None

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        if self.is_running:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> int:
        """Asks it to end; kills it after `timeout`. Returns its exit code."""
        self.send(number)
        deadline = time.monotonic() + timeout
        while self.is_running and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.is_running:
            self.kill()
        return self._process.wait(1)

    def log_text(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        tail = self.log_text().splitlines()[-lines:]
        return f"--- {self.log} ---\n" + "\n".join(tail)
