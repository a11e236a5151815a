"""4. Replies that get lost, effects that come late, look-ups that lag; a database that goes away and comes back.

Whatever is in doubt is adopted or undone, never repeated, and nothing appears after COMPENSATED.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest

from support import ledger as ledgers
from support.client import (
    DeviceClient,
    RPCFailure,
    create_request,
    device_status,
    event_name,
    status_name,
    unique,
)
from support.postgres import Cluster
from support.waiting import wait_until
from support.world import World

# The provider


_NO_KEYS = {"unique_keys": "false"}

_ADOPTED: list[dict[str, str]] = [
    {"lose_reply": "create"},
    {"lose_reply": "create", "lookup_lag_ms": "1500"},
    {"lose_reply": "create", "late_ms": "1500"},
    {"lose_reply": "create", "late_ms": "1000", "lookup_lag_ms": "2000"},
    {"lose_reply": "create", **_NO_KEYS},
    {"lose_reply": "create", "lookup_lag_ms": "1500", **_NO_KEYS},
    {"lose_reply": "create", "late_ms": "1500", **_NO_KEYS},
    {"lose_reply": "create", "late_ms": "1000", "lookup_lag_ms": "2000", **_NO_KEYS},
    {"lose_reply": "start"},
    {"lose_reply": "start", "late_ms": "1000"},
    {"lose_reply": "create,start", **_NO_KEYS},
]
_UNDONE: list[dict[str, str]] = [
    {"fail": "start:refused", "lose_reply": "destroy"},
    {"fail": "start:refused", "lose_reply": "destroy", "late_ms": "1500"},
    {"fail": "start:refused", "lose_reply": "create", "late_ms": "1500"},
    {"fail": "start:refused", "lose_reply": "create", "lookup_lag_ms": "1500", **_NO_KEYS},
    {"fail": "start:refused", "lose_reply": "create,destroy", "late_ms": "1000", "lookup_lag_ms": "1500"},
    {"fail": "start:refused", "lose_reply": "create,destroy", "late_ms": "1000", "lookup_lag_ms": "1500", **_NO_KEYS},
]


def test_lost_replies_are_adopted_or_undone(world: World) -> None:
    """A provider that knows its keys is asked again; of one that doesn't, "not there" is believed only in the end.

    Each on a replica of its own, so that none of them has to wait for another one's breaker, and all at once.
    """
    cases = _ADOPTED + _UNDONE
    servers = world.replicas(len(cases))
    calls = [
        server.client().start(create_request(options=options), 60) for server, options in zip(servers, cases, strict=True)
    ]
    outcomes = [call.outcome() for call in calls]
    for options, outcome in zip(_ADOPTED, outcomes[: len(_ADOPTED)], strict=True):
        assert not isinstance(outcome, RPCFailure), f"{options}: {outcome}"
        assert device_status(outcome.device) == "RUNNING", options
        # Never repeated: the provider has made one device, ever.
        made = world.database.records("SELECT * FROM simulated_device WHERE saga_id = %s", outcome.saga_id)
        assert len(made) == 1, (options, made)
    for options, outcome in zip(_UNDONE, outcomes[len(_ADOPTED) :], strict=True):
        assert isinstance(outcome, RPCFailure) and outcome.reason == "BOOT_FAILED", f"{options}: {outcome}"
    client = servers[0].client()
    world.audit(client)
    time.sleep(4)  # longer than anything above may come late
    findings = world.audit(client)
    assert (findings.count("COMPLETED"), findings.count("COMPENSATED")) == (len(_ADOPTED), len(_UNDONE))


@pytest.mark.parametrize("keys", [{}, _NO_KEYS], ids=["keys", "no keys"])
def test_every_reply_is_lost(world: World, keys: dict[str, str]) -> None:
    """The create's answer never comes; what it made is found by asking, or undone, and in no case made twice."""
    client = world.server().client()
    outcome = client.start(create_request(options={"lose_reply": "create", "lose_times": "99", **keys})).outcome()
    if isinstance(outcome, RPCFailure):
        assert outcome.reason == "PROVIDER_UNAVAILABLE", outcome
    assert len(world.database.records("SELECT * FROM simulated_device")) == 1
    world.audit(client)


def test_a_hanging_call_is_given_up(world: World) -> None:
    """No answer and no effect: after the call's limit the provider is asked, and the step tried again."""
    client = world.server().client()
    accepted = client.create(when="ACCEPTED", options={"fail": "create:hang", "fail_times": "1"}, saga_timeout=90)
    saga = client.wait_finished(accepted.saga_id, timeout=90)
    assert status_name(saga) == "COMPLETED", saga
    world.audit(client)


def test_killed_while_a_reply_is_lost(world: World) -> None:
    """The process dies before the late effect comes; its successor waits for it just the same."""
    server = world.server()
    options = {"lose_reply": "create", "late_ms": "3000", **_NO_KEYS}
    accepted = [server.client().create(when="ACCEPTED", options=options) for _ in range(5)]
    doomed = [
        server.client().create(when="ACCEPTED", options={**options, "fail": "start:refused"}) for _ in range(5)
    ]
    time.sleep(0.4)
    server.kill()
    server.start()
    client = server.client()
    world.wait_all_over(timeout=60)
    assert {status_name(client.saga(one.saga_id)) for one in accepted} == {"COMPLETED"}
    assert {status_name(client.saga(one.saga_id)) for one in doomed} == {"COMPENSATED"}
    assert len(world.database.records("SELECT * FROM simulated_device")) == 10
    world.audit(client)


def test_effect_after_the_deadline(world: World) -> None:
    """The reply is lost, the deadline passes, and only then the device appears (late, or late and unseen): it must not stay."""
    client = world.server().client()
    calls = [
        client.start(create_request(options={"lose_reply": "create", **options, **_NO_KEYS}, saga_timeout=1), 90)
        for options in ({"late_ms": "4000"}, {"late_ms": "2500", "lookup_lag_ms": "4000"})
    ]
    for call in calls:
        outcome = call.outcome()
        assert isinstance(outcome, RPCFailure) and outcome.reason == "TIMED_OUT", outcome
    # COMPENSATED was said only after the effect can't come any more.
    world.audit(client)
    time.sleep(6)
    findings = world.audit(client)
    assert findings.devices == 0


def test_ports_are_held_while_in_doubt(world: World) -> None:
    """A device that may still appear keeps its ports from being given to others."""
    client = world.server().client()
    accepted = client.create(
        when="ACCEPTED", options={"lose_reply": "create", "late_ms": "3000", **_NO_KEYS}, saga_timeout=1
    )
    wait_until(lambda: world.saga_row(accepted.saga_id)["status"] == "COMPENSATING", 60, "its deadline")
    assert world.database.value("SELECT count(*) FROM port WHERE saga_id = %s", accepted.saga_id) == 1
    client.wait_finished(accepted.saga_id, timeout=60)
    world.audit(client)


def test_many_lost_replies_at_once(world: World) -> None:
    client = world.server().client()
    calls = []
    for number in range(40):
        options = [
            {"lose_reply": "create"},
            {"lose_reply": "create", "late_ms": "500"},
            {"lose_reply": "create", "lookup_lag_ms": "500", "fail": "start:refused"},
            {"lose_reply": "create", "late_ms": "700", "lookup_lag_ms": "900"},
        ][number % 4]
        calls.append((number, client.start(create_request(options=options))))
    for number, call in calls:
        outcome = call.outcome()
        reason = outcome.reason if isinstance(outcome, RPCFailure) else ""
        assert reason == ("BOOT_FAILED" if number % 4 == 2 else ""), outcome
    time.sleep(2)
    findings = world.audit(client)
    assert findings.devices == 30


# The user service


def test_report_in_doubt_is_repeated_under_its_key(world: World) -> None:
    """Reply lost, dropped, late, bad gateway; each on a replica of its own, as above."""
    assert world.ledger
    actions = [ledgers.lose_reply(), ledgers.drop(), ledgers.late(1), ledgers.fail(502)]
    servers = world.replicas(len(actions))
    calls = []
    for number, (server, action) in enumerate(zip(servers, actions, strict=True)):
        world.ledger.rule(action, operation="increment", user=f"user {number}", times=2)
        calls.append(server.client().start(create_request(user=f"user {number}")))
    for action, call in zip(actions, calls, strict=True):
        answer = call.result()
        reports = world.ledger.calls_for(answer.device.device_id)
        assert [report.operation for report in reports] == ["increment"] * 3, action
        assert len({report.key for report in reports}) == 1, action
    time.sleep(1.5)
    world.audit(servers[0].client())


def test_report_that_arrives_after_its_undo(world: World) -> None:
    """The increment hangs, the deadline passes, the decrement overtakes it: the ledger ends at nothing."""
    assert world.ledger
    client = world.server().client()
    world.ledger.rule(ledgers.hang(5), operation="increment")
    with pytest.raises(RPCFailure) as caught:
        client.create(saga_timeout=1, timeout=60)
    assert caught.value.reason == "TIMED_OUT"
    saga = client.saga(caught.value.saga_id)
    time.sleep(6)
    assert world.ledger.net().get(saga.device_id, 0) == 0
    world.audit(client)


def test_undo_of_a_report_is_repeated(world: World) -> None:
    assert world.ledger
    client = world.server().client()
    for action in (ledgers.lose_reply(), ledgers.fail(500), ledgers.drop()):
        world.ledger.rule(action, operation="decrement", times=1)
    with pytest.raises(RPCFailure) as caught:
        client.create(options={"fail": "start:refused"}, timeout=60)
    assert caught.value.reason == "BOOT_FAILED"
    saga = client.saga(caught.value.saga_id)
    undo = world.ledger.calls_for(saga.device_id, "decrement")
    assert len(undo) == 4 and len({call.key for call in undo}) == 1
    increments = world.ledger.calls_for(saga.device_id, "increment")
    assert ledgers.compensated_key(undo[0]) == increments[0].key
    world.audit(client)


def test_nothing_is_undone_that_was_refused(world: World) -> None:
    assert world.ledger
    client = world.server().client()
    world.ledger.rule(ledgers.refuse(), operation="increment")
    with pytest.raises(RPCFailure) as caught:
        client.create()
    saga = client.saga(caught.value.saga_id)
    assert world.ledger.calls_for(saga.device_id, "decrement") == []
    world.audit(client)


# The database

_MEANWHILE = {"latency_ms": "1500", "boot_ms": "1500"}


def _database_is_away(client: DeviceClient, seconds: float) -> None:
    """What callers see meanwhile: a refusal within a second, and a health that says so."""
    wait_until(lambda: client.health() == "NOT_SERVING", 10, "health to say NOT_SERVING")
    until = time.monotonic() + seconds
    refused = 0
    while time.monotonic() < until:
        started = time.monotonic()
        with pytest.raises(RPCFailure) as caught:
            client.create("refused", timeout=30)
        took = time.monotonic() - started
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"), (
            caught.value
        )
        assert "saga_id" not in caught.value.metadata
        assert took < 10, f"refused after {took:.2f} s"
        refused += 1
        started = time.monotonic()
        with pytest.raises(RPCFailure) as caught:
            client.saga("saga_1730188800000_aaaaaaaaaa")
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert time.monotonic() - started < 10
        assert client.health("cloudphone.device.v1.DeviceService") == "NOT_SERVING"
    assert refused > 0


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_database_stops_and_starts(make_world: Any, own_cluster: Cluster, how: str) -> None:
    world: World = make_world(cluster_=own_cluster)
    server = world.server()
    client, other = server.client(), server.client()
    healthy = client.watch_health()
    assert next(healthy).status == 1
    calls = [client.start(create_request("under way", options=_MEANWHILE, request_id=unique("away")), 60)
             for _ in range(20)]
    failing = client.start(create_request(options={**_MEANWHILE, "fail": "start:refused"}), 60)
    wait_until(lambda: world.count("RUNNING") == 21, 60, "the sagas to be in flight")
    saga_id = world.database.value("SELECT min(saga_id) FROM saga_state")
    seen: list[Any] = []
    watcher = threading.Thread(target=lambda: seen.extend(other.watch(saga_id)), daemon=True)
    watcher.start()
    wait_until(lambda: len(seen) > 0, 60, "the watcher's first event")
    own_cluster.stop(how)
    _database_is_away(other, seconds=4)
    assert next(healthy).status == 2
    assert server.http("/readyz")[0] == 503
    assert server.http("/healthz")[0] == 200
    assert not any(call.is_done for call in calls), "a call under way was ended"
    assert watcher.is_alive(), "a watcher was ended"
    own_cluster.start()
    started = time.monotonic()
    assert next(healthy).status == 1
    print(f"SERVING again {time.monotonic() - started:.2f} s after the database")
    for call in calls:
        assert device_status(call.result().device) == "RUNNING"
    outcome = failing.outcome()
    assert isinstance(outcome, RPCFailure) and outcome.reason == "BOOT_FAILED"
    watcher.join(60)
    assert not watcher.is_alive() and event_name(seen[-1]) == "SAGA_COMPLETED"
    assert server.http("/readyz")[0] == 200
    assert client.create().saga_id
    findings = world.audit(client)
    assert findings.count("COMPLETED") == 21
    assert "refused" not in {row[0] for row in world.database.rows("SELECT name FROM devices")}


def test_two_replicas_after_an_outage(make_world: Any, own_cluster: Cluster) -> None:
    """After an outage longer than a lease everybody looks dead; nobody may take that for the truth at once."""
    world: World = make_world(cluster_=own_cluster)
    servers = [world.server(), world.server()]
    time.sleep(7)
    calls = [
        server.client().start(create_request(options={"latency_ms": "2000", "boot_ms": "1000"}), 90)
        for server in servers for _ in range(10)
    ]
    wait_until(lambda: world.count("RUNNING") == 20, 60, "the sagas to be in flight")
    own_cluster.stop("immediate")
    time.sleep(9)
    own_cluster.start()
    for call in calls:
        assert device_status(call.result().device) == "RUNNING"
    for server in servers:
        client = server.client()
        wait_until(lambda: client.health() == "SERVING", 60, "health to say SERVING again")  # noqa: B023
    findings = world.audit(servers[0].client())
    assert findings.count("COMPLETED") == 20


def test_backends_are_terminated(world: World) -> None:
    server = world.server()
    client = server.client()
    calls = []
    # Ten times, and on a machine that takes long to connect again until enough have started.
    for number in range(60):
        if number >= 10 and world.database.value("SELECT count(*) FROM saga_state") > 40:
            break
        calls += [client.start(create_request(options={"latency_ms": "150", "boot_ms": "150"})) for _ in range(8)]
        calls.append(client.start(create_request(options={"fail": "start:refused", "latency_ms": "100"})))
        time.sleep(0.15)
        assert world.database.terminate_backends() > 0
    outcomes = [call.outcome() for call in calls]
    started = [one for one in outcomes if not isinstance(one, RPCFailure) or one.saga_id]
    # New calls may be refused while there is no connection; those that started come to their only right end.
    refused = [one for one in outcomes if isinstance(one, RPCFailure) and not one.saga_id]
    assert {one.reason for one in refused} <= {"DATABASE_UNAVAILABLE"}, refused
    assert len(started) > 30, f"only {len(started)} of {len(outcomes)} started, e.g. {refused[:1]}"
    wait_until(lambda: client.health() == "SERVING", 60, "health to say SERVING again")
    world.wait_all_over()
    findings = world.audit(client)
    devices = [one for one in outcomes if not isinstance(one, RPCFailure)]
    assert findings.count("COMPLETED") >= len(devices)


@pytest.mark.parametrize("when", ["after", "before"])
def test_connection_is_cut_at_commit(world: World, when: str) -> None:
    """Cut between COMMIT and its answer (it has happened), or before COMMIT (it hasn't): nobody may guess."""
    proxy = world.proxy()
    server = world.server(proxy=proxy)
    client = server.client()
    for round_number in range(6):
        requests = [
            create_request(f"phone {round_number}", request_id=unique("cut"), options={"latency_ms": "200"})
            for _ in range(5)
        ] + [create_request(request_id=unique("cut"), options={"latency_ms": "200", "fail": "start:refused"})]
        if round_number % 2 == 0:
            cut = proxy.cut_after_commit(2) if when == "after" else proxy.cut_before_commit(2)
            calls = [client.start(request) for request in requests]
        else:
            # In the midst: not the flush that starts the sagas, but one of the later ones.
            calls = [client.start(request) for request in requests]
            time.sleep(0.05 + 0.05 * round_number)
            cut = proxy.cut_after_commit(1) if when == "after" else proxy.cut_before_commit(1)
        outcomes = [call.outcome() for call in calls]
        assert cut.wait(60), "nothing was cut: nothing was shown"
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, RPCFailure) and not outcome.saga_id:
                # A new call may be refused while nobody knows. Repeated with the same id it comes to its only end.
                assert outcome.reason == "DATABASE_UNAVAILABLE", outcome
                wait_until(lambda: client.health() == "SERVING", 60, "health to say SERVING again")
                outcome = client.start(request).outcome()
            expected = "BOOT_FAILED" if request.provider_options.get("fail") else ""
            assert (outcome.reason if isinstance(outcome, RPCFailure) else "") == expected, outcome
    world.wait_all_over()
    findings = world.audit(client)
    assert findings.count("COMPLETED") == 30 and findings.count("COMPENSATED") == 6


def test_network_to_the_database_fails(world: World) -> None:
    """The database lives and can't be reached for a while."""
    proxy = world.proxy()
    server = world.server(proxy=proxy)
    client = server.client()
    calls = [client.start(create_request(options=_MEANWHILE), 60) for _ in range(10)]
    wait_until(lambda: world.count("RUNNING") == 10, 60, "the sagas to be in flight")
    with proxy.refusing():
        _database_is_away(client, seconds=3)
    assert [device_status(call.result().device) for call in calls] == ["RUNNING"] * 10
    wait_until(lambda: client.health() == "SERVING", 60, "health to say SERVING again")
    world.audit(client)


def test_reads_of_finished_sagas_after_a_reconnect(world: World) -> None:
    server = world.server()
    client = server.client()
    made = client.create()
    for _ in range(5):
        world.database.terminate_backends()
        wait_until(lambda: client.health() == "SERVING", 60, "health to say SERVING")

        def readable() -> bool:
            try:
                return status_name(client.saga(made.saga_id)) == "COMPLETED"
            except RPCFailure as failure:
                assert failure.code is grpc.StatusCode.UNAVAILABLE
                return False

        wait_until(readable, 60, "the saga to be readable")
