"""A role that may read and write rows, and nothing else, serves a database that its owner has prepared."""

from __future__ import annotations

import pathlib
import re
import time
from collections.abc import Callable, Iterator

import pytest

from support.client import create_request, device_status, unique
from support.days import make_day
from support.server import run_command
from support.stubs import REPOSITORY
from support.waiting import wait_until
from support.world import LEASE_SECONDS, World

DOCUMENT = REPOSITORY / "docs/database.md"


def _grants(role: str) -> tuple[str, str]:
    """What docs/database.md says: the grants, and those of what later migrations make. Its role is called app."""
    chapter = pathlib.Path(DOCUMENT).read_text().partition("## Two roles")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sql\n(.*?)```", chapter, re.DOTALL)
    assert len(blocks) == 2, "the document has the grants in two blocks"
    now, later = (re.sub(r"\bTO app\b", f'TO "{role}"', block) for block in blocks)
    return now, later


class Roles:
    """An owner, and a role that serves, of one database."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.owner, self.app = f"owner_{world.database.name}", f"app_{world.database.name}"
        with world.cluster.connect("postgres") as connection:
            for role in (self.owner, self.app):
                connection.execute(f'CREATE ROLE "{role}" LOGIN')
            connection.execute(f'ALTER DATABASE "{world.database.name}" OWNER TO "{self.owner}"')
        world.database.execute(f'ALTER SCHEMA public OWNER TO "{self.owner}"; REVOKE ALL ON SCHEMA public FROM PUBLIC')

    def url(self, role: str) -> str:
        return self._world.database.url.replace("postgres@", f"{role}@")

    def as_owner(self, sql: str) -> None:
        self._world.database.execute(f'SET ROLE "{self.owner}"; {sql}')

    def drop(self) -> None:
        self._world.database.drop()
        with self._world.cluster.connect("postgres") as connection:
            for role in (self.owner, self.app):
                connection.execute(f'DROP ROLE "{role}"')


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(migrated=False)


@pytest.fixture
def roles(world: World) -> Iterator[Roles]:
    roles = Roles(world)
    yield roles
    for server in world.servers:
        server.close()
    roles.drop()


def _migrate(roles: Roles) -> None:
    done = run_command(["migrate"], {"DATABASE_URL": roles.url(roles.owner), "DEVICERPC_SIMULATED": "true"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ["grants after", "defaults before"])
def test_a_role_that_may_only_read_and_write(world: World, roles: Roles, order: str) -> None:
    """Two replicas, creations, undo, a takeover, and the next day's partitions."""
    now, later = _grants(roles.app)
    if order == "defaults before":
        roles.as_owner(later)
    _migrate(roles)
    if order == "defaults before":
        # All that the first block gives beyond tables and sequences.
        now = "\n".join(line for line in now.splitlines() if "SCHEMA public TO" in line and "ON ALL" not in line or "FUNCTION" in line)
    roles.as_owner(now)
    servers = [world.server(environment={"DATABASE_URL": roles.url(roles.app)}) for _ in range(2)]
    client = servers[0].client()
    calls = [client.start(create_request(request_id=unique("little"))) for _ in range(20)]
    failing = client.start(create_request(options={"fail": "start:refused"}))
    for call in calls:
        assert device_status(call.result().device) == "RUNNING"
    assert failing.outcome()
    partitions = "SELECT count(*), count(DISTINCT relowner) FROM pg_class WHERE relkind = 'r' AND relname ~ '^saga_(state|event)_2'"
    assert world.database.rows(partitions) == [(18, 1)]
    time.sleep(LEASE_SECONDS + 1)
    servers[1].client().create(when="ACCEPTED", options={"latency_ms": "1000"})
    servers[1].kill()
    world.wait_all_over(timeout=60)
    assert "42501" not in servers[0].log_text() + servers[1].log_text()
    world.audit(client)


def test_days_go_by_the_owners_hand(world: World, roles: Roles) -> None:
    """A role that may not remove days says so, and serves on; the owner's command, and a grant, remove them."""
    _migrate(roles)
    roles.as_owner(_grants(roles.app)[0])
    for days_ago in (50, 60):
        make_day(world, days_ago)
    world.database.execute("UPDATE saga_job SET done_at = done_at - interval '2 days'")
    server = world.server(environment={"DATABASE_URL": roles.url(roles.app)})
    wait_until(lambda: "permission denied for function saga_day_detach" in server.log_text(), 60, "the server to say it")
    wait_until(lambda: "saga_retention_failing 1" in server.http("/metrics")[1].splitlines(), 60, "the metric", interval=0.5)
    assert device_status(server.client().create().device) == "RUNNING"
    world.database.execute("UPDATE saga_job SET done_at = now()")
    done = run_command(["retention"], {"DATABASE_URL": roles.url(roles.owner)})
    assert (done.returncode, done.stdout.count("detached")) == (0, 2), done.stdout + done.stderr
    refused = run_command(["retention"], {"DATABASE_URL": roles.url(roles.app), "DEVICERPC_RETENTION": "5d"})
    assert refused.returncode == 0, refused.stderr  # nothing is left to go
    make_day(world, 55)
    refused = run_command(["retention"], {"DATABASE_URL": roles.url(roles.app)})
    assert (refused.returncode, "permission denied" in refused.stdout) == (1, True), refused.stdout
    roles.as_owner(f'GRANT EXECUTE ON FUNCTION saga_day_detach(bigint), saga_day_drop(bigint) TO "{roles.app}"')
    done = run_command(["retention"], {"DATABASE_URL": roles.url(roles.app)})
    assert (done.returncode, done.stdout.count("detached")) == (0, 1), done.stdout + done.stderr
    world.audit(server.client())


def test_a_role_that_finds_migrations_missing(world: World, roles: Roles) -> None:
    done = run_command(
        ["serve"], {"DATABASE_URL": roles.url(roles.app), "DEVICERPC_SIMULATED": "true"}, timeout=120)
    assert done.returncode not in (0, 70), done.stderr
    assert "001_saga_tables" in done.stderr and "devicerpc migrate" in done.stderr, done.stderr


def test_what_the_owners_function_refuses(world: World, roles: Roles) -> None:
    _migrate(roles)
    roles.as_owner(_grants(roles.app)[0])
    for call in ("'pg_class', 20000", "'saga_state; DROP TABLE devices', 20000", "'saga_state', 1000000", "NULL, 20000"):
        with pytest.raises(Exception, match="no partitions of"):
            world.database.execute(f'SET ROLE "{roles.app}"; SELECT saga_partition_make({call})')
    # Nobody who was not given it may call it.
    with pytest.raises(Exception, match="permission denied"):
        world.database.execute(
            f'CREATE ROLE "stranger_{world.database.name}"; GRANT USAGE ON SCHEMA public TO "stranger_{world.database.name}";'
            f' SET ROLE "stranger_{world.database.name}";'
            " SELECT saga_partition_make('saga_state', 20000)")
