"""The embedded PostgreSQL's surroundings: what was started is stopped, the shell's variables are not its own, and a process
id that lives again is nobody's proof."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest

from support.client import device_status
from support.server import Server, run_command
from support.waiting import wait_until


@pytest.fixture
def home() -> Iterator[pathlib.Path]:
    home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-embedded-", dir="/tmp"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        for pid in _servers(home):
            os.kill(pid, signal.SIGQUIT)
        shutil.rmtree(home, ignore_errors=True)


def _server(home: pathlib.Path) -> Server:
    server = Server("own", home, {})
    del server.environment["DEVICERPC_SIMULATED"]
    return server


def _servers(home: pathlib.Path) -> list[int]:
    """Every process of PostgreSQL's that works below `home` or has it on its command line: also one that has written no
    postmaster.pid yet, and those that initdb starts."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_text().split("\0")
                words.append(os.readlink(folder / "cwd"))
            except OSError:
                continue
            if words[0].rpartition("/")[2] in ("postgres", "initdb", "pg_ctl") and any(
                word.startswith(str(home)) for word in words
            ):
                found.append(int(folder.name))
    return found


def test_a_start_after_one_that_was_killed(home: pathlib.Path) -> None:
    """initdb outlives the server that has started it: it must not be in the next one's way."""
    server = _server(home)
    for _ in range(6):
        server.launch()
        wait_until(lambda: any(home.glob("data/postgres.new*/base")), 60, "initdb to be at work")
        server.kill()
    server.start(timeout=60)
    server.terminate()
    assert server.wait_ended(60) == 0
    # What the killed ones left goes with a later start.
    wait_until(lambda: not _servers(home), 60, "every initdb to end")
    shutil.rmtree(home / "data/postgres")
    server.start(timeout=60)
    assert not list(home.glob("data/postgres.new*"))
    server.terminate()
    assert server.wait_ended(60) == 0


def _stop_during_the_start(server: Server, after: float, starts: int) -> None:
    server.launch()
    time.sleep(after)
    server.terminate()
    code = server.wait_ended(60)
    # In its first moments, before it has read its settings, it has started nothing and the signal ends it.
    has_started = server.log_text().count("starting the embedded PostgreSQL") > starts
    assert code == 0 or code == -signal.SIGTERM and not has_started, server.log_tail()


# The first start sets the database up; 0.6 s is in the middle of that, or of the start.
@pytest.mark.parametrize("after", [0.05, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0])
def test_a_start_that_is_told_to_stop(home: pathlib.Path, after: float) -> None:
    server = _server(home)
    _stop_during_the_start(server, after, starts=0)
    assert not _servers(home), server.log_tail()
    # And the next one is none the worse for it.
    server.start(timeout=60)
    assert device_status(server.client().create().device) == "RUNNING"
    server.terminate()
    assert server.wait_ended(60) == 0
    assert not _servers(home)


@pytest.mark.parametrize("after", [0.1, 0.3, 0.5, 0.9])
def test_a_second_start_that_is_told_to_stop(home: pathlib.Path, after: float) -> None:
    """The database is set up: the signal meets PostgreSQL's start, the migrations or the server's own."""
    server = _server(home)
    server.start(timeout=60)
    server.terminate()
    assert server.wait_ended(60) == 0
    _stop_during_the_start(server, after, starts=1)
    assert not _servers(home), server.log_tail()


def test_a_second_signal_leaves_no_server(home: pathlib.Path) -> None:
    server = _server(home)
    server.start(timeout=60)
    saga = server.client().create(when="ACCEPTED", options={"latency_ms": "20000"})
    assert saga.saga_id
    server.terminate()
    time.sleep(0.3)
    server.terminate()
    assert server.wait_ended(60) == 130
    wait_until(lambda: not _servers(home), 60, "the embedded PostgreSQL to end")


def test_a_start_that_fails_leaves_no_server(home: pathlib.Path) -> None:
    """After PostgreSQL is up: a port that is taken, a table that a migration finds in its way."""
    server = _server(home)
    server.start(timeout=60)
    server.terminate()
    assert server.wait_ended(60) == 0
    server.launch({"DEVICERPC_LISTEN": "203.0.113.1:1", "DEVICERPC_INSECURE_LISTEN": "true"})
    assert server.wait_ended(60) == 64
    assert "can't listen" in server.log_text()
    assert not _servers(home), server.log_tail()
    # Its own configuration is broken: it doesn't start, or dies while it does.
    (home / "data/postgres/postgresql.auto.conf").write_text("shared_buffers = '1'\nmax_connections = nonsense\n")
    server.launch()
    assert server.wait_ended(60) == 3, server.log_tail()
    assert not _servers(home), server.log_tail()


def test_migrate_stops_what_it_has_started(home: pathlib.Path) -> None:
    done = run_command(["migrate"], {"DEVICERPC_DATA_DIR": str(home / "data")}, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not _servers(home)


# Variables that change what libpq connects to, or what PostgreSQL's programs do.
SHELL = {
    "PGOPTIONS": "-c default_transaction_read_only=on -c nonsense=1", "PGSERVICE": "nowhere", "PGDATA": "/nowhere",
    "PGHOST": "203.0.113.1", "PGHOSTADDR": "203.0.113.1", "PGPORT": "1", "PGDATABASE": "nowhere", "PGUSER": "nobody",
    "PGSSLMODE": "verify-full", "PGREQUIREPEER": "nobody", "PGTARGETSESSIONATTRS": "standby", "PGGSSENCMODE": "require",
    "PGCHANNELBINDING": "require", "PGCONNECT_TIMEOUT": "nonsense", "PGTZ": "nonsense", "PGDATESTYLE": "nonsense",
    "PGCLIENTENCODING": "SQL_ASCII", "PGPASSFILE": "/nowhere", "PGSERVICEFILE": "/nowhere", "PGSYSCONFDIR": "/nowhere",
    "PG_COLOR": "always", "LC_ALL": "tr_TR.UTF-8", "LANG": "nonsense", "TZ": "nonsense",
}


def test_the_shells_variables_do_not_reach_it(home: pathlib.Path) -> None:
    server = _server(home)
    server.launch(SHELL)
    server.wait_ready(60)
    assert device_status(server.client().create().device) == "RUNNING"
    pid = int((home / "data/postgres/postmaster.pid").read_text().split()[0])
    variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode()
    for name, value in SHELL.items():
        assert f"\0{name}={value}\0" not in f"\0{variables}\0", variables
    server.terminate()
    assert server.wait_ended(60) == 0
    assert not _servers(home)


@pytest.mark.parametrize("whose", ["root's", "its own user's"])
def test_a_process_id_that_lives_again(home: pathlib.Path, whose: str) -> None:
    """As in a container that starts anew: the dead server's number is somebody else's, the lock files name it."""
    server = _server(home)
    server.start(timeout=60)
    device = server.client().create("kept").device
    (postmaster,) = _servers(home)
    server.kill()
    os.kill(postmaster, signal.SIGKILL)
    wait_until(lambda: not _servers(home), 60, "PostgreSQL's end")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if whose != "root's" and os.geteuid() == 0 else {}
    # Its command line names the cluster, as that of somebody does who looks at it.
    with subprocess.Popen(["tail", "-f", "/dev/null", str(home / "data/postgres")], stderr=subprocess.DEVNULL, **user) as somebody:
        try:
            for lock in (home / "data/postgres/postmaster.pid", home / "data/run/.s.PGSQL.5432.lock"):
                lines = lock.read_text().splitlines()
                assert lines[0] == str(postmaster)
                lock.write_text("\n".join([str(somebody.pid), *lines[1:]]) + "\n")
            server.start(timeout=60)
            assert server.client().device(device.device_id).name == "kept"
            server.terminate()
            assert server.wait_ended(60) == 0
            assert somebody.poll() is None, "it was no server of ours"
        finally:
            somebody.kill()
