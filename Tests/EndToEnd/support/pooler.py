"""PgBouncer between the server under test and PostgreSQL."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
import tempfile

from .processes import ChildProcess
from .waiting import free_port, wait_until

# Names of start-up parameters are libpq's own; PgBouncer refuses those that it doesn't know.
_SETTINGS = """
[databases]
* = host=127.0.0.1 port={target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = trust
auth_file = {home}/users.txt
pool_mode = {mode}
default_pool_size = 40
unix_socket_dir =
"""


class Pooler:
    """One PgBouncer of a test. `mode`: session or transaction."""

    def __init__(self, target_port: int, mode: str) -> None:
        # It refuses to run as root; then it runs as user postgres, as the cluster does.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-pooler-"))
        self.port = free_port()
        (self._home / "users.txt").write_text('"postgres" ""\n')
        (self._home / "pgbouncer.ini").write_text(
            _SETTINGS.format(target=target_port, port=self.port, home=self._home, mode=mode)
        )
        if self._user:
            for path in (self._home, *self._home.iterdir()):
                shutil.chown(path, self._user, self._user)
        self._process: ChildProcess | None = None
        self.start()

    def start(self) -> None:
        self._process = ChildProcess(
            [_binary(), self._home / "pgbouncer.ini"], self._home / "pgbouncer.log", os.environ, user=self._user,
            cwd=self._home,
        )

        def answers() -> bool:
            assert self._process and self._process.is_running, self._process.log_tail() if self._process else ""
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return True
            except OSError:
                return False

        wait_until(answers, 60, "PgBouncer to listen")

    def kill(self) -> None:
        """Every connection through it is cut."""
        assert self._process
        self._process.end(signal.SIGKILL, timeout=10)

    def close(self) -> None:
        if self._process and self._process.is_running:
            self.kill()
        shutil.rmtree(self._home, ignore_errors=True)


def _binary() -> str:
    found = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert found, "PgBouncer is not installed: run ./dev once, it installs what is missing"
    return found
