"""What an error of the database is about: one saga, or all of them.

Databases that turn read-only or take rights away on live sessions, rows that strangers lock, creations that are still queued.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import psycopg
import pytest

from support.client import DeviceClient, RPCFailure, create_request, device_status, status_name, unique
from support.postgres import Cluster, Database
from support.server import Server
from support.waiting import wait_until
from support.world import World

# One after the other. ./dev outages: 30 s.
_SECONDS = [float(os.environ["OUTAGE_SECONDS"])] if "OUTAGE_SECONDS" in os.environ else [1.0, 5.0]
_ROLE = "e2e_program"

# Outages on live sessions


def _world_of_a_role(make_world: Any, cluster: Cluster) -> tuple[World, dict[str, str]]:
    """A database whose tables belong to a role without special rights, and what makes a server use that role."""
    world: World = make_world(cluster_=cluster, migrated=False)
    world.database.execute(f"CREATE ROLE {_ROLE} LOGIN")
    world.database.execute(f'ALTER DATABASE "{world.database.name}" OWNER TO {_ROLE}')
    world.database.execute(f"GRANT ALL ON SCHEMA public TO {_ROLE}")
    return world, {"DATABASE_URL": world.database.url.replace("//postgres@", f"//{_ROLE}@")}


def _as_operator(database: Database, *statements: str) -> None:
    """Also while everything is read-only."""
    url = database.url + "&options=-c%20default_transaction_read_only%3Doff"
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


_Fault = tuple[Callable[[Database], None], Callable[[Database], None]]
_FAULTS: dict[str, _Fault] = {
    "25006": (
        lambda database: _as_operator(
            database, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
        ),
        lambda database: _as_operator(
            database, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"
        ),
    ),
    "42501": (
        lambda database: _as_operator(database, f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {_ROLE}"),
        lambda database: _as_operator(database, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {_ROLE}"),
    ),
    # Only what an undo and the end of a creation need.
    "42501 on devices": (
        lambda database: _as_operator(database, f"REVOKE ALL ON devices FROM {_ROLE}"),
        lambda database: _as_operator(database, f"GRANT ALL ON devices TO {_ROLE}"),
    ),
    "42P01": (
        lambda database: _as_operator(database, "ALTER TABLE saga_secret RENAME TO saga_secret_away"),
        lambda database: _as_operator(database, "ALTER TABLE saga_secret_away RENAME TO saga_secret"),
    ),
}


class _Load:
    """Creations one after the other, all the time; what became of each, by its request_id."""

    def __init__(self, client: DeviceClient) -> None:
        self._client = client
        self._calls: dict[str, Any] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            request_id = unique("load")
            options = {"latency_ms": "100", "boot_ms": "100"}
            if len(self._calls) % 5 == 4:
                options["fail"] = "start:refused"
            self._calls[request_id] = self._client.start(create_request(request_id=request_id, options=options), 120)
            time.sleep(0.08)

    def end(self) -> dict[str, Any]:
        self._is_over.set()
        self._thread.join()
        return {request_id: call.outcome() for request_id, call in self._calls.items()}


def _check(world: World, outcomes: dict[str, Any]) -> None:
    """Whoever was told that nothing happened was told the truth; whoever got a device has one."""
    started = dict(world.database.rows("SELECT request_id, saga_id FROM saga_request"))
    for request_id, outcome in outcomes.items():
        if not isinstance(outcome, RPCFailure):
            assert outcome.saga_id == started[request_id]
        elif outcome.reason == "DATABASE_UNAVAILABLE":
            if outcome.saga_id:
                assert outcome.saga_id == started[request_id]
            elif "may have been" not in outcome.message:
                assert request_id not in started, f"told that nothing happened: {outcome}"
        else:
            assert outcome.reason in ("BOOT_FAILED", "PROVIDER_UNAVAILABLE"), outcome


@pytest.mark.parametrize(("fault", "idempotent"), [
    ("25006", "true"), ("25006", "false"), ("42501", "true"), ("42501", "false"), ("42501 on devices", "false"),
    ("42P01", "true"),
])
def test_an_outage_on_live_sessions(make_world: Any, own_cluster: Cluster, fault: str, idempotent: str) -> None:
    """Under load: health says so within a second, and all goes on when it ends; nobody is parked or put into quarantine."""
    world, role = _world_of_a_role(make_world, own_cluster)
    server = world.server(environment={**role, "USER_SERVICE_IDEMPOTENT": idempotent})
    for seconds in _SECONDS:
        _outage(world, server, fault, seconds)


def _outage(world: World, server: Server, fault: str, seconds: float) -> None:
    client = server.client()
    begin, end = _FAULTS[fault]
    before = world.count("COMPLETED")
    load = _Load(client)
    try:
        wait_until(lambda: world.count("COMPLETED") >= before + 5, 60, "the load to run")
        began = time.monotonic()
        begin(world.database)
        wait_until(lambda: client.health() == "NOT_SERVING", max(10.0, seconds), "health to say so", interval=0.005)
        noticed = time.monotonic() - began
        assert server.http("/readyz")[0] == 503
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        assert client.health() == "NOT_SERVING"
        end(world.database)
        ended = time.monotonic()
        wait_until(lambda: client.health() == "SERVING", 60, "health to come back", interval=0.005)
        back = time.monotonic() - ended
        time.sleep(1)
    finally:
        outcomes = load.end()
    print(f"{fault} for {seconds:g} s: noticed after {noticed:.2f} s, back after {back:.2f} s, {len(outcomes)} calls")
    world.wait_all_over(timeout=60)
    _check(world, outcomes)
    assert world.count("PARKED") == 0
    assert world.database.value("SELECT count(*) FROM saga_quarantine") == 0
    assert "refuses a record" not in server.log_text()
    assert device_status(client.create().device) == "RUNNING"
    findings = world.audit(client, events_of=1000)
    # What was in flight when it began has come through.
    assert findings.count("COMPLETED") >= before + 5


def test_an_outage_while_nothing_is_written(make_world: Any, own_cluster: Cluster) -> None:
    """Nobody has to run into it before health says so."""
    world, role = _world_of_a_role(make_world, own_cluster)
    client = world.server(environment=role).client()
    client.create()
    for begin, end in _FAULTS["25006"], _FAULTS["42501"]:
        begin(world.database)
        wait_until(lambda: client.health() == "NOT_SERVING", 10, "health to say so")
        end(world.database)
        wait_until(lambda: client.health() == "SERVING", 60, "health to come back")
        assert device_status(client.create().device) == "RUNNING"


# Locks of strangers


@contextlib.contextmanager
def _locked(world: World, statement: str, *parameters: Any) -> Iterator[None]:
    """A stranger runs it, and goes away for as long as the block takes."""
    with world.database.cluster.connect(world.database.name) as stranger:
        with stranger.transaction(force_rollback=True):
            assert stranger.execute(statement, parameters).rowcount > 0, "the stranger met nothing"
            yield


_LOCKS = {
    "its row": "SELECT 1 FROM saga_state WHERE saga_id = %s FOR UPDATE",
    "its device": "SELECT 1 FROM devices WHERE saga_id = %s FOR UPDATE",
    "its ports": "SELECT 1 FROM port WHERE saga_id = %s FOR UPDATE",
    "its secrets": "SELECT 1 FROM saga_secret WHERE saga_id = %s FOR UPDATE",
}


@pytest.mark.parametrize("lock", _LOCKS)
def test_a_row_that_a_stranger_locks(world: World, lock: str) -> None:
    """Only that saga waits: the 28 that shared its flushes end as if nothing were."""
    server = world.server()
    client = server.client()
    options = {"latency_ms": "300", "boot_ms": "3000"}
    # Ports are touched again by an undo only.
    if lock == "its ports":
        options["fail"] = "start:refused"
    requests = [create_request(options=options, saga_timeout=60) for _ in range(29)]
    calls = [client.start(request) for request in requests]
    wait_until(
        lambda: world.database.value("SELECT count(*) FROM devices") == 29, 60, "all to have their devices' records"
    )
    locked = world.database.value("SELECT max(saga_id) FROM saga_state")
    with _locked(world, _LOCKS[lock], locked):
        try:
            wait_until(lambda: world.moving() == 1, 60, "the others to end")
        finally:
            print(world.database.rows("SELECT status, count(*) FROM saga_state GROUP BY 1"))
        assert status_name(client.saga(locked)) in ("RUNNING", "COMPENSATING")
        assert client.health() == "SERVING"
        # New ones come and go, as quickly as ever.
        for _ in range(10):
            assert device_status(client.create().device) == "RUNNING"
    over = client.wait_finished(locked, timeout=60)
    assert status_name(over) == ("COMPENSATED" if lock == "its ports" else "COMPLETED")
    for call in calls:
        call.outcome()
    assert world.count("PARKED") == 0
    world.audit(client)


def test_a_request_id_that_a_stranger_holds(world: World) -> None:
    """A creation waits for the row of its request_id, alone; the stranger gives it up, and it happens."""
    client = world.server().client()
    held = create_request(request_id=unique("held"))
    with _locked(
        world, "INSERT INTO saga_request (user_id, request_id, method, saga_id, digest) VALUES (%s, %s, 1, 'x', 'x')",
        held.user_id, held.request_id,
    ):
        waiting = client.start(held)
        others = [client.start(create_request(request_id=unique("other"))) for _ in range(28)]
        for call in others:
            assert device_status(call.result().device) == "RUNNING"
        assert not waiting.is_done and client.health() == "SERVING"
    assert device_status(waiting.result().device) == "RUNNING"
    assert world.count("COMPLETED") == 29


def test_a_locked_saga_past_its_deadline(world: World) -> None:
    """It is decided anew once the lock is gone: undone, since its time is over. Nobody waits for it meanwhile."""
    client = world.server().client()
    late = client.start(create_request(options={"boot_ms": "1500"}, saga_timeout=3), 60)
    wait_until(lambda: world.database.value("SELECT count(*) FROM devices") == 1, 60, "it to be under way")
    saga_id = world.database.value("SELECT saga_id FROM saga_state")
    with _locked(world, _LOCKS["its row"], saga_id):
        time.sleep(4)
        for _ in range(5):
            assert device_status(client.create().device) == "RUNNING"
    outcome = late.outcome()
    assert isinstance(outcome, RPCFailure) and outcome.reason == "TIMED_OUT", outcome
    world.audit(client)


def test_a_table_that_a_stranger_locks(world: World) -> None:
    """Nothing can be written: that is an outage like others, and over with the lock."""
    client = world.server().client()
    calls = [client.start(create_request(options={"latency_ms": "800", "boot_ms": "800"})) for _ in range(20)]
    wait_until(lambda: world.moving() == 20, 60, "the sagas to be in flight")
    with world.database.transaction() as stranger:
        stranger.execute("LOCK TABLE saga_event IN ACCESS EXCLUSIVE MODE")
        wait_until(lambda: client.health() == "NOT_SERVING", 10, "health to say so")
        time.sleep(1)
    wait_until(lambda: client.health() == "SERVING", 60, "health to come back")
    for call in calls:
        assert device_status(call.result().device) == "RUNNING"
    assert world.count("COMPLETED") == 20
    world.audit(client)


# Creations that are withdrawn


def _refuse_events(world: World, sqlstate: str) -> None:
    world.database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN RAISE EXCEPTION 'the test' USING ERRCODE = '{sqlstate}'; END$$"
    )
    world.database.execute("CREATE TRIGGER refuse BEFORE INSERT ON saga_event FOR EACH ROW EXECUTE FUNCTION refuse()")


@pytest.mark.parametrize("sqlstate", ["53100", "40001"])
def test_creations_that_are_told_unavailable_never_happen(world: World, sqlstate: str) -> None:
    server = world.server()
    client = server.client()
    _refuse_events(world, sqlstate)
    calls = [client.start(create_request(request_id=unique("withdrawn"))) for _ in range(100)]
    messages = []
    for call in calls:
        outcome = call.outcome()
        assert isinstance(outcome, RPCFailure)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"), outcome
        messages.append(outcome.message)
    # Of what has left for the database nobody knows for a moment; most were queued.
    assert sum("nothing was changed" in message for message in messages) >= 30, messages
    world.database.execute("DROP TRIGGER refuse ON saga_event")
    wait_until(lambda: client.health() == "SERVING", 60, "it to serve again")
    done = client.create()
    time.sleep(1)
    assert [row[0] for row in world.database.rows("SELECT saga_id FROM saga_state")] == [done.saga_id]
    assert world.database.value("SELECT count(*) FROM saga_request") == 0


def _repeat(client: DeviceClient, request: Any) -> Any:
    """Until it is not told UNAVAILABLE any more, as callers do."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.call("CreateDevice", request, 30)
        except RPCFailure as failure:
            assert failure.code is grpc.StatusCode.UNAVAILABLE and time.monotonic() < deadline, failure
            time.sleep(0.1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_creation_whose_flush_had_left_may_have_happened(world: World, when: str) -> None:
    """The message says so. Written or not, the same request_id finds or starts it."""
    proxy = world.proxy()
    server = world.server(proxy=proxy)
    client = server.client()
    client.create()
    request = create_request(request_id=unique("doubtful"), options={"latency_ms": "100"})
    cut = proxy.cut_after_commit(and_refuse=True) if when == "after" else proxy.cut_before_commit(and_refuse=True)
    call = client.start(request)
    outcome = call.outcome()
    assert cut.is_set()
    assert isinstance(outcome, RPCFailure)
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"), outcome
    assert "may have been created" in outcome.message, outcome
    proxy.accept_again()
    wait_until(lambda: client.health() == "SERVING", 60, "it to serve again")
    world.wait_all_over(timeout=60)
    known = world.database.rows("SELECT saga_id FROM saga_request WHERE request_id = %s", request.request_id)
    assert len(known) == (1 if when == "after" else 0)
    again = _repeat(client, request)
    assert device_status(again.device) == "RUNNING"
    if known:
        assert again.saga_id == known[0][0]
    assert world.count("COMPLETED") == 2


def test_a_creation_whose_caller_has_gone_before_it_was_written(world: World) -> None:
    """Nobody can have learnt of it, and nothing of it has left: it never happens. Later than that, it goes on."""
    client = world.server().client()
    with world.database.transaction() as stranger:
        stranger.execute("LOCK TABLE saga_event IN ACCESS EXCLUSIVE MODE")
        gone = [client.start(create_request(request_id=unique("gone"), options={"latency_ms": "100"}), 0.2) for _ in range(60)]
        for call in gone:
            outcome = call.outcome()
            assert isinstance(outcome, RPCFailure)
        # By then also what had left for the database has come back from it, unwritten.
        time.sleep(2.5)
    wait_until(lambda: client.health() == "SERVING", 60, "it to serve again")
    done = _repeat(client, create_request())
    time.sleep(0.5)
    assert [row[0] for row in world.database.rows("SELECT saga_id FROM saga_state")] == [done.saga_id]


def _log_lines(server: Server, word: str) -> int:
    return sum(word in line for line in server.log_text().splitlines() if " DEBUG " not in line)


def test_an_outage_says_little(world: World) -> None:
    """One line a minute and cause, however many flushes fail."""
    server = world.server()
    client = server.client()
    _refuse_events(world, "53100")
    for _ in range(20):
        with pytest.raises(RPCFailure):
            client.create(timeout=10)
        time.sleep(0.1)
    assert 1 <= _log_lines(server, "the journal can't write") <= 2
    world.database.execute("DROP TRIGGER refuse ON saga_event")
    wait_until(lambda: client.health() == "SERVING", 60, "it to serve again")
    client.create()
