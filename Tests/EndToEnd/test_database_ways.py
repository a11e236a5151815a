"""Slow and many ways to the database, and sessions that somebody else has set up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from support.client import DeviceClient, RPCFailure, create_request, device_status, status_name, unique
from support.gatekeeper import Gatekeeper
from support.pooler import Pooler
from support.waiting import free_port, wait_until
from support.world import LEASE_SECONDS, World


@pytest.fixture
def gate(world: World) -> Iterator[Gatekeeper]:
    gate = Gatekeeper(world.cluster.port)
    try:
        yield gate
    finally:
        gate.close()


def test_a_database_that_is_slow_to_let_one_in(world: World) -> None:
    """At the start, and for every connection that is made anew: the lease's, the journal's, the pools'."""
    with contextlib.ExitStack() as stack:
        gates = [stack.enter_context(contextlib.closing(Gatekeeper(world.cluster.port))) for _ in range(2)]
        gates[0].delay, gates[1].delay = 1.2, 2.5
        servers = [
            world.server(environment={"DATABASE_URL": gate.url(world.database.name)}, start=False) for gate in gates
        ]
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready(60)
        clients = [server.client() for server in servers]
        for client in clients:
            assert device_status(client.create().device) == "RUNNING"
        for gate in gates:
            gate.cut_all()
        for client in clients:
            # Until it has noticed, and until it is back, callers are told to come again: with the same request.
            request = create_request(when="ACCEPTED", request_id=unique("slow"))

            def accepted(client: DeviceClient = client, request: Any = request) -> str:
                try:
                    return client.call("CreateDevice", request, timeout=30).saga_id
                except RPCFailure as failure:
                    assert failure.code == grpc.StatusCode.UNAVAILABLE, failure
                    return ""

            saga_id = wait_until(accepted, 60, "it to serve again")
            assert status_name(client.wait_finished(saga_id, timeout=60)) == "COMPLETED"
        world.audit(clients[0])


def test_how_long_a_connection_may_take_is_a_setting(world: World, gate: Gatekeeper) -> None:
    gate.delay = 1.5
    server = world.server(
        environment={"DATABASE_URL": gate.url(world.database.name), "DEVICERPC_DATABASE_CONNECT_TIMEOUT": "500ms"},
        start=False,
    )
    server.launch()
    wait_until(lambda: "did not answer in time" in server.log_text(), 60, "it to give attempts up")
    time.sleep(3)
    assert server.is_running
    gate.delay = 0
    server.wait_ready(60)


def test_many_hosts(world: World) -> None:
    """Of two hosts the first is of no use: the second serves, for the lease as for everything else."""
    with contextlib.ExitStack() as stack:
        others = []
        for first in ("silent", "refused", "read-only"):
            gate, other = (
                stack.enter_context(contextlib.closing(Gatekeeper(world.cluster.port))) for _ in range(2)
            )
            if first == "read-only":
                # What a standby says of itself: the role's own default, which the other host's URL can't have. So both lead
                # to the same server, and the first one's sessions are read-only.
                gate.refusal = ("25006", "this is a standby")
            gate.is_silent = first == "silent"
            port = free_port() if first == "refused" else gate.port
            url = (
                f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:{other.port}/{world.database.name}"
                "?sslmode=disable&gssencmode=disable&target_session_attrs=read-write"
            )
            world.server(first, environment={"DATABASE_URL": url}, start=False).launch()
            others.append(other)
        for server in world.servers:
            server.wait_ready(60)
        clients = [server.client() for server in world.servers]
        for client in clients:
            assert device_status(client.create().device) == "RUNNING"
        # Every connection is made anew; the leases must not be lost over it.
        living = "SELECT name, instance_id FROM saga_instance WHERE NOT fenced ORDER BY name"
        instances = world.database.rows(living)
        assert [name for name, _ in instances] == ["read-only", "refused", "silent"]
        for other in others:
            other.cut_all()
        for client in clients:
            wait_until(lambda client=client: client.health() == "SERVING", 60, "it to serve again")
            assert device_status(client.create(timeout=30).device) == "RUNNING"
        time.sleep(LEASE_SECONDS)
        assert world.database.rows(living) == instances
        world.audit(clients[0])


def test_a_primary_that_stops_answering(world: World, gate: Gatekeeper) -> None:
    """A failover without a word: what was the primary accepts and says nothing, and the second host takes its place."""
    other = Gatekeeper(world.cluster.port)
    try:
        url = (
            f"postgresql://postgres@127.0.0.1:{gate.port},127.0.0.1:{other.port}/{world.database.name}"
            "?sslmode=disable&gssencmode=disable"
        )
        server = world.server(environment={"DATABASE_URL": url})
        client = server.client()
        assert device_status(client.create().device) == "RUNNING"
        assert other.accepted == 0, "the second is asked only if the first says nothing"
        gate.is_silent = True
        gate.cut_all()
        wait_until(lambda: client.health() == "SERVING", 60, "it to serve again")
        assert device_status(client.create(timeout=30).device) == "RUNNING"
        assert other.accepted > 0
        world.audit(client)
    finally:
        other.close()


# What somebody may have set for a database, a role or a server, and what would break or slow down an engine that minds.
HOSTILE = {
    "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on", "statement_timeout": "2s",
    "lock_timeout": "1ms", "idle_in_transaction_session_timeout": "1ms", "idle_session_timeout": "100ms",
    "search_path": "nowhere", "DateStyle": "German, DMY", "IntervalStyle": "sql_standard",
    "TimeZone": "Pacific/Kiritimati", "bytea_output": "escape", "extra_float_digits": "-15",
    "standard_conforming_strings": "off", "client_encoding": "LATIN1", "plan_cache_mode": "force_custom_plan",
    "synchronous_commit": "off", "jit_above_cost": "0", "enable_indexscan": "off", "enable_nestloop": "off",
    "enable_bitmapscan": "off", "enable_indexonlyscan": "off", "enable_partition_pruning": "off", "exit_on_error": "on",
    "transform_null_equals": "on", "client_min_messages": "debug5", "array_nulls": "off",
}


@pytest.mark.parametrize("way", ["direct", "session", "transaction"])
def test_settings_of_others(world: World, way: str) -> None:
    """Two replicas with everything set against them: nothing fails, and nothing is done twice."""
    database = world.database.name
    with world.cluster.connect("postgres") as connection:
        for name, value in HOSTILE.items():
            connection.execute(f"ALTER DATABASE \"{database}\" SET {name} = '{value}'")
    pooler = None if way == "direct" else Pooler(world.cluster.port, way)
    try:
        environment = {"DATABASE_URL": world.database.url_through(pooler.port)} if pooler else {}
        if way == "transaction":
            environment["DEVICERPC_TRANSACTION_POOLER"] = "true"
        servers = [world.server(environment=environment) for _ in range(2)]
        clients = [server.client() for server in servers]
        calls = [
            clients[number % 2].start(create_request(request_id=unique("set")), timeout=60) for number in range(300)
        ]
        for call in calls:
            assert device_status(call.result().device) == "RUNNING"
        for server in servers:
            assert "40001" not in server.log_text()
    finally:
        # What the test itself connects with is not the engine.
        with world.cluster.connect("postgres") as connection:
            connection.execute(f'ALTER DATABASE "{database}" RESET ALL')
    try:
        assert world.count("COMPLETED") == len(calls)
        world.audit(clients[0])
        assert world.database.value("SELECT count(*) FROM pg_class WHERE relname = 'saga_migration'") == 1
    finally:
        for server in servers:
            server.close()
        if pooler:
            pooler.close()
