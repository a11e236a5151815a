"""Programs that are started, watched and ended by their process id."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

TICKS = os.sysconf("SC_CLK_TCK")


class Program:
    """A program that runs until it is stopped; what it writes goes to a log."""

    def __init__(self, arguments: Sequence[str], log: pathlib.Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=None if environment is None else dict(environment), start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, patience: float = 40) -> None:
        """SIGTERM, and SIGKILL if that doesn't help."""
        if not self.is_running:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_for_text(self, text: str, patience: float = 60) -> str:
        """The first line of its log that has `text`."""
        deadline = time.monotonic() + patience
        while True:
            for line in self.log.read_text("utf-8", "replace").splitlines():
                if text in line:
                    return line
            if not self.is_running or time.monotonic() > deadline:
                raise SystemExit(f"{self.log} has no '{text}':\n" + self.log.read_text("utf-8", "replace")[-3000:])
            time.sleep(0.05)


@contextlib.contextmanager
def running(
    arguments: Sequence[str], log: pathlib.Path, environment: Mapping[str, str] | None = None
) -> Iterator[Program]:
    log.write_bytes(b"")
    program = Program(arguments, log, environment)
    try:
        yield program
    finally:
        program.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, program: Program, patience: float = 30) -> None:
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if not program.is_running or time.monotonic() > deadline:
            raise SystemExit(f"nothing listens on {port}; see {program.log}")
        time.sleep(0.05)


def _stat(pid: int) -> list[str]:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def family_cpu_seconds(pid: int) -> float:
    """As `cpu_seconds`, with its children, those that have ended too."""
    fields = _stat(pid)
    total = sum(map(int, fields[11:15])) / TICKS
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int(_stat(int(entry.name))[1]) == pid:
                    total += cpu_seconds(int(entry.name))
    return total


def resident_bytes(pid: int) -> int:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
