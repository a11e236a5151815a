"""A start waits for a database that may come, ends at once where waiting is no use, and repeats no secret."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from support.client import device_status
from support.gatekeeper import Gatekeeper
from support.server import Server, run_command
from support.waiting import free_port, wait_until
from support.world import World

# Long enough for a start that gives up after a few tries to have done so.
STAND_STILL = 4.0


@pytest.fixture
def gate(world: World) -> Iterator[Gatekeeper]:
    gate = Gatekeeper(world.cluster.port)
    try:
        yield gate
    finally:
        gate.close()


def _reset(world: World) -> None:
    with world.cluster.connect("postgres") as connection:
        connection.execute(f'ALTER DATABASE "{world.database.name}" RESET ALL')


def _waits(world: World, *waits: tuple[str, str]) -> list[Server]:
    """Servers that stand still before they serve, and say what they wait for: URLs, and what they say."""
    servers = [world.server(environment={"DATABASE_URL": url}, start=False) for url, _ in waits]
    for server in servers:
        server.launch()
    for server, (_, says) in zip(servers, waits, strict=True):
        wait_until(lambda server=server, says=says: says in server.log_text(), 60, f"it to say {says}")
    time.sleep(STAND_STILL)
    for server, (_, says) in zip(servers, waits, strict=True):
        assert server.is_running, f"it ended with {server.returncode}\n{server.log_tail()}"
        lines = [line for line in server.log_text().splitlines() if "WARNING" in line and says in line]
        assert len(lines) <= 2, "one line per cause and minute"
    return servers


REFUSALS = {
    "57P03": "the database system is starting up", "53300": "sorry, too many clients already", "08P01": "server_login_retry",
    "57P01": "terminating connection due to administrator command", "53200": "out of memory",
    "25006": "cannot execute in a read-only transaction", "58000": "could not open a file",
}


def test_a_database_that_refuses_everything_is_waited_for(world: World) -> None:
    """For every reason, by a server each."""
    with contextlib.ExitStack() as stack:
        gates = [stack.enter_context(contextlib.closing(Gatekeeper(world.cluster.port))) for _ in REFUSALS]
        for gate, refusal in zip(gates, REFUSALS.items(), strict=True):
            gate.refusal = refusal
        urls = [gate.url(world.database.name) for gate in gates]
        servers = _waits(world, *zip(urls, REFUSALS.values(), strict=True))
        for gate in gates:
            gate.refusal = None
        for server in servers:
            server.wait_ready(60)
            assert device_status(server.client().create().device) == "RUNNING"
        world.audit(servers[0].client())


def test_a_database_that_is_not_there_yet_is_waited_for(world: World) -> None:
    port = free_port()
    (server,) = _waits(world, (world.database.url_through(port), "refused"))
    server.terminate()
    assert server.wait_ended(60) == 0


def test_a_database_that_says_nothing_is_waited_for(world: World, gate: Gatekeeper) -> None:
    gate.is_silent = True
    (server,) = _waits(world, (gate.url(world.database.name), "did not answer in time"))
    gate.is_silent = False
    server.wait_ready(60)


def test_a_role_without_connections_left_is_waited_for(world: World) -> None:
    role = f"crowded_{world.database.name}"
    world.database.execute(f'CREATE ROLE "{role}" LOGIN CONNECTION LIMIT 0')
    try:
        world.database.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{role}"')
        url = world.database.url.replace("postgres@", f"{role}@")
        (server,) = _waits(world, (url, "too many connections for role"))
        server.kill()
    finally:
        world.database.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


def test_a_read_only_database_with_nothing_to_migrate(world: World) -> None:
    """Nothing is written before the server has its name, and that is tried until the database takes it."""
    world.server(name="before").terminate()
    world.servers[0].wait_ended(60)
    world.database.execute(f'ALTER DATABASE "{world.database.name}" SET default_transaction_read_only = on')
    done = run_command(["migrate"], {"DATABASE_URL": world.database.url})
    assert done.returncode == 0 and "up to date" in done.stdout, done.stderr
    server = world.server(name="after", start=False)
    server.launch()
    wait_until(lambda: "25006" in server.log_text(), 60, "it to meet the read-only database")
    time.sleep(STAND_STILL)
    assert server.is_running
    _reset(world)
    world.database.terminate_backends()
    server.wait_ready(60)
    assert device_status(server.client().create().device) == "RUNNING"


def test_a_read_only_database_with_something_to_migrate(make_world: Callable[..., World]) -> None:
    world = make_world(migrated=False, user_service=False)
    world.database.execute(f'ALTER DATABASE "{world.database.name}" SET default_transaction_read_only = on')
    (server,) = _waits(world, (world.database.url, "25006"))
    _reset(world)
    server.wait_ready(60)


SECRET = "s3cretp4ssword"
# What is wrong with the connection string, and what the error must say. {port}: PostgreSQL; {nobody}: nobody listens.
WRONG: dict[str, tuple[str, str]] = {
    "no string": ("nonsense", "must be a URI"),
    "an unfinished host": (f"postgresql://app:{SECRET}@[::1/db", "is not a valid URI"),
    "an unknown keyword": (f"host=127.0.0.1 pasword={SECRET}", "is not a valid conninfo"),
    "a password with spaces": (f"host=127.0.0.1 password=a {SECRET} dbname=x", "is not a valid conninfo"),
    "a slash in the password": (f"postgresql://app:{SECRET}/p@127.0.0.1:{{port}}/db", "%2F"),
    "a slash after a number": (f"postgresql://127.0.0.1:{{port}}/{SECRET}@127.0.0.1:{{port}}/db", "%2F"),
    "an @ in the password": (f"postgresql://app:p@{SECRET}@127.0.0.1:{{port}}/db", "%40"),
    "a broken escape": (f"postgresql://app:{SECRET}%zz@127.0.0.1/db", "is not a valid URI"),
    "a port that is no number": (f"host=127.0.0.1 port={SECRET}", "port"),
    "a port that is none": ("host=127.0.0.1 port=70000", "port"),
    "two ports of three": ("host=a,b,c port=1,2", "3 hosts and 2 ports"),
    "an unknown sslmode": ("postgresql://127.0.0.1:{port}/db?sslmode=requird", "sslmode must be one of disable, allow"),
    "a standby": ("postgresql://127.0.0.1:{port}/db?target_session_attrs=standby", "must be one of any, read-write"),
    "a time-out in words": (f"postgresql://127.0.0.1:{{port}}/db?connect_timeout={SECRET}", "connect_timeout must be"),
    "an unknown service": (f"postgresql://127.0.0.1:{{port}}/db?service={SECRET}x&password={SECRET}", "service"),
    "no TLS there": ("postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=require", "does not support SSL"),
    "no root certificate": (
        "postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert=/nowhere", "SSL"),
    "no such database": ("postgresql://postgres@127.0.0.1:{port}/nowhere", "3D000"),
    "no such role": ("postgresql://nobody@127.0.0.1:{port}/postgres", "28000"),
    "an option that is none": (
        f"postgresql://postgres@127.0.0.1:{{port}}/postgres?options=-c%20work_mem%3D{SECRET}", "work_mem"),
}


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_connection_string_ends_the_start(place: World, case: str, command: str) -> None:
    url, says = WRONG[case]
    started = time.monotonic()
    done = run_command(
        [command],
        {"DATABASE_URL": url.format(port=place.cluster.port), "DEVICERPC_SIMULATED": "true",
         "DEVICERPC_LISTEN": "127.0.0.1:0", "DEVICERPC_OPS_LISTEN": "127.0.0.1:0"},
        timeout=120,
    )
    took = time.monotonic() - started
    text = done.stdout + done.stderr
    assert done.returncode == 64, text
    assert "DATABASE_URL" in text and says in text, text
    assert SECRET not in text, text
    assert "waiting for the database" not in text and took < 60


def test_a_wrong_password_ends_the_start(world: World, gate: Gatekeeper) -> None:
    gate.refusal = ("28P01", f'password authentication failed for user "app" with {SECRET}')
    url = gate.url(world.database.name, f"app:{SECRET}")
    done = run_command(["serve"], {"DATABASE_URL": url, "DEVICERPC_SIMULATED": "true"})
    assert done.returncode == 64 and "DATABASE_URL" in done.stderr and "28P01" in done.stderr, done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("written", ["s3cret%2Fp%40ss", "s3cret%2fp%40ss"])
def test_what_the_server_repeats_of_the_password_is_not_shown(world: World, gate: Gatekeeper, written: str) -> None:
    """Whoever repeats it (a pooler does): decoded, as it is written, once a second or at the end."""
    for said in ("s3cret/p@ss", written):
        gate.refusal = ("08P01", f"what is {said} good for?")
        server = world.server(
            environment={"DATABASE_URL": gate.url(world.database.name, f"postgres:{written}")}, start=False)
        server.launch()
        wait_until(lambda: "good for?" in server.log_text(), 60, "the message")
        time.sleep(1.5)
        server.kill()
        assert "s3cret" not in server.log_text()
        assert "what is *** good for?" in server.log_text()
