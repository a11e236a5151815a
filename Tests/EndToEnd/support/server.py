"""The server under test: a real process with a real address, started, stopped, killed and continued by its id."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence

import grpc

from .client import DeviceClient
from .ledger import JWT_SECRET
from .processes import ChildProcess
from .stubs import REPOSITORY
from .waiting import free_port, wait_until

# What the tests must not inherit from the shell they run in.
_PREFIXES = (
    "DEVICERPC_", "DATABASE_", "USER_SERVICE_", "JWT_", "DOCKER_", "ADB_", "WEBRTC_", "REDROID_", "HUAWEI_", "ALIYUN_",
    "PG",
)


def binary() -> pathlib.Path:
    """The binary under test: DEVICERPC_BINARY, or the debug build of this checkout."""
    path = pathlib.Path(os.environ.get("DEVICERPC_BINARY", REPOSITORY / ".build/debug/devicerpc"))
    assert path.exists(), f"{path} is not there: build it, or name it in DEVICERPC_BINARY"
    return path.resolve()


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(_PREFIXES)}


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 120,
    input: str | None = None, cwd: pathlib.Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs the binary's command line to its end; standard output is a pipe."""
    return subprocess.run(
        [str(binary()), *arguments], env={**clean_environment(), **(environment or {})}, timeout=timeout, input=input,
        stdin=None if input is not None else subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd,
    )


class Server:
    """One replica. Its name and data directory stay the same over restarts."""

    def __init__(
        self, name: str, home: pathlib.Path, environment: Mapping[str, str],
        credentials: grpc.ChannelCredentials | None = None, metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.name = name
        # What is started: two versions may serve one database.
        self.program = binary()
        # What its clients speak TLS with, and what `client()` sends along.
        self.credentials = credentials
        self.metadata = tuple(metadata)
        self.home = home
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.ops_port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = home / "server.log"
        self.environment = {
            "DEVICERPC_LISTEN": self.address,
            "DEVICERPC_OPS_LISTEN": f"127.0.0.1:{self.ops_port}",
            "DEVICERPC_DATA_DIR": str(home / "data"),
            "DEVICERPC_INSTANCE": name,
            "DEVICERPC_SIMULATED": "true",
            "DEVICERPC_PROVIDER": "simulated",
            "DEVICERPC_SIMULATED_LATENCY": "2ms",
            "DEVICERPC_SIMULATED_BOOT": "2ms",
            "DEVICERPC_LOG_LEVEL": "debug",
            "JWT_SECRET": JWT_SECRET,
            "USER_SERVICE_IDEMPOTENT": "true",
            **environment,
        }
        self._process: ChildProcess | None = None
        self._clients: list[DeviceClient] = []

    # Life

    def launch(
        self, environment: Mapping[str, str] | None = None, *, stdout: int | None = None, stderr: int | None = None,
        shell: str = "",
    ) -> None:
        """Starts the process and doesn't wait. All is for this start only; `shell`: what a shell does first."""
        assert self._process is None or not self._process.is_running, f"{self.name} runs already"
        self._process = ChildProcess(
            ["/bin/sh", "-c", f'{shell}; exec "$0" serve', self.program] if shell else [self.program, "serve"], self.log,
            {**clean_environment(), **self.environment, **(environment or {})}, cwd=self.home, stdout=stdout,
            stderr=stderr,
        )

    def wait_ready(self, timeout: float = 60) -> None:
        """Waits for health SERVING."""

        with DeviceClient(self.address, self.credentials) as client:

            def serving() -> bool:
                assert self.is_running, "the process has ended"
                return client.health(timeout=1) == "SERVING"

            deadline = time.monotonic() + timeout
            while True:
                if not self.is_running:
                    raise AssertionError(f"{self.name} ended with {self.returncode}\n{self.log_tail()}")
                if serving():
                    return
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.name} isn't SERVING after {timeout:g} s\n{self.log_tail()}")
                time.sleep(0.02)

    def start(self, environment: Mapping[str, str] | None = None, timeout: float = 60) -> Server:
        self.launch(environment)
        self.wait_ready(timeout)
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    @property
    def returncode(self) -> int | None:
        return self._process.returncode if self._process else None

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: the process stands still, its connections stay."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

        wait_until(lambda: self.is_paused, 60, f"{self.name} to stand still")

    @property
    def is_paused(self) -> bool:
        """Stopped by SIGSTOP, its own included."""
        return pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM; see wait_ended."""
        assert self._process is not None
        self._process.send(signal.SIGTERM)

    def wait_ended(self, timeout: float) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    def close(self) -> None:
        """Ends it whatever it does."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._process is not None and self._process.is_running:
            self._process.kill()

    # Talking to it

    def client(self) -> DeviceClient:
        """A client with a connection of its own, closed with the server."""
        return self.client_with(self.metadata)

    def client_with(
        self, metadata: Sequence[tuple[str, str]], credentials: grpc.ChannelCredentials | None = None
    ) -> DeviceClient:
        """The same with other metadata, or other credentials."""
        client = DeviceClient(self.address, credentials or self.credentials, metadata)
        self._clients.append(client)
        return client

    def http(self, path: str, timeout: float = 20) -> tuple[int, str]:
        """GET on the operators' port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}{path}", timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def log_text(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        tail = self.log_text().splitlines()[-lines:]
        return f"--- {self.name}: {self.log} ---\n" + "\n".join(tail)
