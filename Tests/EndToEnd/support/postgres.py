"""A PostgreSQL cluster of the tests' own, in a temporary directory."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

from .processes import ChildProcess
from .waiting import free_port, wait_until

# The tests kill the server, never the machine: without fsync they lose nothing that they look at.
_SETTINGS = """
fsync = off
full_page_writes = off
max_connections = 300
shared_buffers = 128MB
max_wal_size = 512MB
autovacuum = on
timezone = 'UTC'
listen_addresses = '127.0.0.1'
log_min_messages = warning
log_line_prefix = '%m [%p] %a '
deadlock_timeout = '200ms'
"""


def find_binaries() -> pathlib.Path:
    """The folder of initdb and postgres: the newest that is installed."""
    candidates = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    for folder in reversed(candidates):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    found = shutil.which("postgres")
    if found and shutil.which("initdb"):
        return pathlib.Path(found).parent
    raise AssertionError("PostgreSQL is not installed: run ./dev once, it installs what is missing")


@functools.cache
def _template(binaries: pathlib.Path, user: str | None) -> pathlib.Path:
    """A data directory as initdb makes it, once for every process of the tests: a copy takes a tenth of the time."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-initdb-", dir=_in_memory()))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    if user:
        shutil.chown(home, user, user)
    done = subprocess.run(
        [
            binaries / "initdb", "--pgdata", home / "data", "--username", "postgres", "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions",
        ],
        capture_output=True,
        text=True,
        cwd=home,
        **({"user": user, "group": user, "extra_groups": []} if user else {}),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "data"


def _in_memory() -> str | None:
    """Where there is room for it, a file system in memory: to make a database costs seven times as much CPU on a disk's, and
    each test has one of its own."""
    with contextlib.suppress(OSError):
        if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 8 << 30:
            return "/dev/shm"
    return None


class Cluster:
    """Starts and stops one PostgreSQL server. PostgreSQL refuses to run as root; then it runs as user postgres."""

    def __init__(self) -> None:
        self._binaries = find_binaries()
        self._user = "postgres" if os.geteuid() == 0 else None
        self._home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-postgres-", dir=_in_memory()))
        if self._user:
            shutil.chown(self._home, self._user, self._user)
        self._data = self._home / "data"
        self.port = free_port()
        self._process: ChildProcess | None = None
        self._numbers = itertools.count(1)
        self._copy_template()

    def _copy_template(self) -> None:
        subprocess.run(["cp", "-a", _template(self._binaries, self._user), self._data], check=True)
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
            settings.write(f"unix_socket_directories = '{self._home}'\nport = {self.port}\n")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Starts it and waits until it answers. `environment`: in addition to the tests' own."""
        if self.is_running:
            return
        self._process = ChildProcess(
            [self._binaries / "postgres", "-D", self._data], self._home / "postgres.log",
            {**os.environ, **(environment or {})}, user=self._user, cwd=self._home,
        )

        def answers() -> bool:
            assert self._process is not None and self._process.is_running, (
                self._process.log_tail() if self._process else "not started"
            )
            try:
                with self.connect("postgres"):
                    return True
            except psycopg.OperationalError:
                return False

        wait_until(answers, 60, "PostgreSQL to accept connections")

    def stop(self, how: str = "fast") -> None:
        """`fast` closes its connections first; `immediate` is what a crash looks like to the clients."""
        if self._process is None:
            return
        self._process.end({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[how], timeout=60)
        self._process = None

    def remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self._home, ignore_errors=True)

    def log_tail(self) -> str:
        return self._process.log_tail() if self._process else "PostgreSQL does not run"

    def conninfo(self, database: str, port: int | None = None) -> str:
        """What the server under test gets as DATABASE_URL. No TLS: the tests' proxy reads along."""
        return (
            f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"
            "?sslmode=disable&gssencmode=disable"
        )

    @contextlib.contextmanager
    def connect(self, database: str) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.conninfo(database), autocommit=True, connect_timeout=30) as connection:
            yield connection

    def create_database(self, template: str | None = None) -> Database:
        name = f"e2e_{next(self._numbers)}"
        with self.connect("postgres") as connection:
            suffix = f' TEMPLATE "{template}"' if template else ""
            connection.execute(f'CREATE DATABASE "{name}"{suffix}')
        return Database(self, name)


class Database:
    """One database of a test. Connections that only read are kept: a new one costs PostgreSQL fifty times what a query does,
    and whoever waits for something asks many times."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        # Those that nobody uses now.
        self._kept: list[psycopg.Connection[Any]] = []

    @property
    def url(self) -> str:
        return self.cluster.conninfo(self.name)

    def url_through(self, port: int) -> str:
        """The same database by way of a proxy on `port`."""
        return self.cluster.conninfo(self.name, port)

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._read(sql, parameters, psycopg.rows.tuple_row)

    def records(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        return self._read(sql, parameters, psycopg.rows.dict_row)

    def _read(self, sql: str, parameters: tuple[Any, ...], row_factory: Any) -> list[Any]:
        while sql.lstrip().startswith("SELECT"):
            try:
                connection = self._kept.pop()
            except IndexError:
                break
            # One that has ended meanwhile (PostgreSQL has stopped, a test has ended them all) is no reason to fail.
            with contextlib.suppress(psycopg.OperationalError):
                return self._fetch(connection, sql, parameters, row_factory)
        connection = psycopg.connect(self.cluster.conninfo(self.name), autocommit=True, connect_timeout=30)
        connection.prepare_threshold = None  # tests alter tables, which prepared queries don't bear
        return self._fetch(connection, sql, parameters, row_factory)

    def _fetch(
        self, connection: psycopg.Connection[Any], sql: str, parameters: tuple[Any, ...], row_factory: Any
    ) -> list[Any]:
        try:
            rows = connection.cursor(row_factory=row_factory).execute(sql, parameters or None).fetchall()
        except BaseException:
            connection.close()
            raise
        self._kept.append(connection)
        return rows

    def _forget_connections(self) -> None:
        while self._kept:
            self._kept.pop().close()

    def value(self, sql: str, *parameters: Any) -> Any:
        rows = self.rows(sql, *parameters)
        assert len(rows) == 1, f"{len(rows)} rows from {sql}"
        return rows[0][0]

    def execute(self, sql: str, *parameters: Any) -> None:
        with self.cluster.connect(self.name) as connection:
            connection.execute(sql, parameters or None)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """One that is open until the end of the block."""
        with self.cluster.connect(self.name) as connection, connection.transaction():
            yield connection

    def has_table(self, table: str) -> bool:
        return bool(self.value("SELECT to_regclass(%s) IS NOT NULL", table))

    def refuse_removal_of(self, name: str) -> None:
        """From now on the record of a device of this name can't be deleted (23001), until `allow_removal`."""
        self.execute(
            "CREATE FUNCTION e2e_refuse() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF OLD.name = '{name}' THEN RAISE EXCEPTION 'no' USING ERRCODE = '23001'; END IF; RETURN OLD; END $$"
        )
        self.execute("CREATE TRIGGER e2e_refuse BEFORE DELETE ON devices FOR EACH ROW EXECUTE FUNCTION e2e_refuse()")

    def allow_removal(self) -> None:
        self.execute("DROP TRIGGER e2e_refuse ON devices")

    def terminate_backends(self) -> int:
        """Ends every connection to this database but one's own. Returns how many there were."""
        self._forget_connections()
        return len(
            self.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
                self.name,
            )
        )

    def drop(self) -> None:
        self._forget_connections()
        if not self.cluster.is_running:
            return
        for _ in range(5):
            try:
                with self.cluster.connect("postgres") as connection:
                    connection.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')
                return
            except psycopg.Error:
                time.sleep(0.1)
