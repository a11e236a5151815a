"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import os

# grpcio's handlers for fork() abort the child of a process with busy channels, before it has become another program.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import pathlib
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.postgres import Cluster
from support.server import run_command
from support.world import World


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One PostgreSQL for all tests. A test that stops it takes `own_cluster`."""
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL that a test may stop, restart and break."""
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


def _migrate(cluster: Cluster) -> str:
    database = cluster.create_database()
    done = run_command(["migrate"], {"DATABASE_URL": database.url, "DEVICERPC_SIMULATED": "true"})
    assert done.returncode == 0, f"devicerpc migrate: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return database.name


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """A migrated database that the others are copied from. That servers migrate by themselves: test_clients.py."""
    return _migrate(cluster)


def _attach(request: pytest.FixtureRequest, world: World) -> None:
    request.node.stash.setdefault(_WORLDS, []).append(world)


_WORLDS: pytest.StashKey[list[World]] = pytest.StashKey()
_HAS_FAILED: pytest.StashKey[bool] = pytest.StashKey()


@pytest.fixture
def world(request: pytest.FixtureRequest, cluster: Cluster, template: str) -> Iterator[World]:
    """A database of one's own, a user service and, once asked for, replicas."""
    world = World(cluster, template)
    _attach(request, world)
    try:
        yield world
        _close_well(request, world)
    finally:
        world.close()


@pytest.fixture
def make_world(
    request: pytest.FixtureRequest, cluster: Cluster, template: str
) -> Iterator[Callable[..., World]]:
    """Worlds with other parts: `make_world(user_service=False)`, `make_world(cluster=own_cluster)`."""
    worlds: list[World] = []

    def make(*, cluster_: Cluster | None = None, migrated: bool = True, **options: Any) -> World:
        name = template if migrated and cluster_ is None else None
        world = World(cluster_ or cluster, name, **options)
        worlds.append(world)
        _attach(request, world)
        return world

    try:
        yield make
        for world in worlds:
            _close_well(request, world)
    finally:
        for world in worlds:
            world.close()


def _close_well(request: pytest.FixtureRequest, world: World) -> None:
    """What every test ends with, unless it has failed already."""
    if request.node.stash.get(_HAS_FAILED, False):
        return
    for server in world.servers:
        # Tests end servers by SIGKILL and SIGTERM; any other signal is a crash.
        assert server.returncode is None or server.returncode >= -1 or server.returncode == -signal.SIGKILL, (
            f"{server.name} crashed: {server.returncode}\n{server.log_tail()}"
        )
        assert "Fatal error" not in server.log_text(), server.log_tail()
    assert not world.ledger or not world.ledger.bad_requests, (
        f"the user service got requests that it can't accept: {world.ledger.bad_requests[:5]}"
    )
    alive = [server for server in world.servers if server.is_running]
    if alive and not world.was_audited and world.cluster.is_running:
        world.wait_all_over()
        world.audit(alive[0].client())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A failure shows the ends of the logs of the servers that took part."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[_HAS_FAILED] = True
        for world in item.stash.get(_WORLDS, []):
            report.sections.append(("server logs", world.log_tails()))
            keep = os.environ.get("DEVICERPC_KEEP_LOGS")
            if keep:
                _keep(world, keep, item.name)
    return report


def _keep(world: World, folder: str, name: str) -> None:
    """Copies the whole logs to where somebody can read them after the test."""
    target = pathlib.Path(folder) / re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    target.mkdir(parents=True, exist_ok=True)
    for server in world.servers:
        if server.log.exists():
            shutil.copy(server.log, target / f"{server.name}.log")


# Files whose tests take longest, or that one worker runs as a whole: they come first, so that no worker is left with one of
# them at the end. By how long they took when this was written; one that is missing here costs time, nothing else.
_LONGEST_FIRST = [
    "test_chaos.py", "test_interop.py", "test_sites.py", "test_crash_matrix.py", "test_redroid.py", "test_clients.py",
    "test_operators.py",
    "test_simulator.py", "test_cli_arguments.py", "test_sleep.py", "test_two_versions.py", "test_graceful_stop.py",
    "test_clocks_of_others.py", "test_replicas.py", "test_lost_replies.py", "test_deadline_poison.py", "test_rolling_stops.py",
    "test_database_ways.py", "test_limits.py", "test_abuse.py", "test_privileges.py", "test_journal_faults.py",
    "test_error_scope.py", "test_user_service.py", "test_quarantine.py", "test_hostile_servers.py", "test_log_lines.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="module")
def place(cluster: Cluster, template: str) -> Iterator[World]:
    """A world that the tests of a file share: none of them leaves anything to audit."""
    world = World(cluster, template, user_service=False)
    try:
        yield world
    finally:
        world.close()
