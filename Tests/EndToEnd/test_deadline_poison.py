"""8. A deadline that passes while a step hangs; a saga that crashes its server."""

from __future__ import annotations

import signal
import time
import grpc
import pytest

from support import ledger as ledgers
from support.client import (
    RPCFailure,
    cause_name,
    create_request,
    event_name,
    status_name,
    unique,
)
from support.server import Server
from support.waiting import wait_until
from support.world import World


# What hangs: its step, and the options that have it hang.
_HANGING: dict[str, tuple[str, dict[str, str]]] = {
    "create": ("CREATE_PROVIDER_DEVICE", {"fail": "create:hang"}),
    "start": ("START_DEVICE", {"boot_ms": "60000"}),
    "report": ("REPORT_QUOTA_USAGE", {}),
}


def test_deadline_while_a_step_hangs(world: World) -> None:
    assert world.ledger
    client = world.server().client()
    world.ledger.rule(ledgers.hang(8), operation="increment", user="report")
    started = time.monotonic()
    accepted = {
        name: client.create(when="ACCEPTED", user=name, options=options, saga_timeout=2)
        for name, (_, options) in _HANGING.items()
    }
    for name, (step, _) in _HANGING.items():
        saga = client.wait_finished(accepted[name].saga_id, timeout=60)
        print(f"{name}: over after {time.monotonic() - started:.1f} s")
        assert status_name(saga) == "COMPENSATED", saga
        assert cause_name(saga) == "TIMED_OUT" and saga.failure.reason == "TIMED_OUT", saga
        assert saga.failure.step == step
        events = list(client.watch(saga.saga_id))
        turned = next(event for event in events if event_name(event) == "SAGA_COMPENSATING")
        late = (turned.time.ToNanoseconds() - saga.deadline.ToNanoseconds()) / 1e9
        assert 0 <= late < 5, f"{name}: forward work was given up {late:.2f} s after the deadline"
    # What comes too late is undone as well.
    time.sleep(max(0.0, started + 11 - time.monotonic()))
    world.audit(client)


def test_answer_at_the_deadline(world: World) -> None:
    client = world.server().client()
    with pytest.raises(RPCFailure) as caught:
        client.create(options={"fail": "create:hang"}, saga_timeout=1, timeout=90)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.ABORTED, "TIMED_OUT")
    assert caught.value.trailers["grpc-retry-pushback-ms"] == "-1"
    world.audit(client)


def test_deadline_passes_while_nobody_runs(world: World) -> None:
    """The deadline is a row, not a timer."""
    server = world.server()
    accepted = server.client().create(when="ACCEPTED", options={"latency_ms": "1000", "boot_ms": "10000"}, saga_timeout=3)
    time.sleep(1.5)
    server.kill()
    time.sleep(2.5)
    server.start()
    saga = server.client().wait_finished(accepted.saga_id, timeout=60)
    assert status_name(saga) == "COMPENSATED" and cause_name(saga) == "TIMED_OUT"
    world.audit(server.client())


def test_retries_end_with_the_deadline(world: World) -> None:
    client = world.server().client()
    started = time.monotonic()
    with pytest.raises(RPCFailure) as caught:
        client.create(options={"fail": "create:unavailable"}, saga_timeout=1, timeout=60)
    assert caught.value.reason in ("TIMED_OUT", "PROVIDER_UNAVAILABLE")
    assert time.monotonic() - started < 10
    world.audit(client)


def test_done_before_the_deadline_stays_done(world: World) -> None:
    client = world.server().client()
    answer = client.create(saga_timeout=4)
    time.sleep(4.5)
    assert status_name(client.saga(answer.saga_id)) == "COMPLETED"
    world.audit(client)


# Calls to the provider that kill the process (an option of test builds): on the way forward, and in the undo.
_POISONS: dict[str, dict[str, str]] = {
    "on the way forward": {"crash": "create"},
    "at the last step": {"crash": "start"},
    "in the undo": {"fail": "start:refused", "crash": "destroy"},
}


def _supervise(world: World, timeout: float) -> int:
    """What systemd does: starts servers again that died of SIGKILL, until a saga is parked. Returns how often one died."""
    deadline = time.monotonic() + timeout
    deaths = 0
    while world.count("PARKED") == 0:
        assert time.monotonic() < deadline, f"not parked after {timeout:g} s and {deaths} deaths"
        for server in world.servers:
            if not server.is_running:
                assert server.returncode == -signal.SIGKILL, f"it ended with {server.returncode}\n{server.log_tail()}"
                deaths += 1
                server.launch()
        time.sleep(0.05)
    return deaths


@pytest.mark.parametrize("options", list(_POISONS.values()), ids=list(_POISONS))
def test_poison(world: World, options: dict[str, str]) -> None:
    """A saga that kills its server parks as POISON; its neighbours get through, and so do later ones."""
    server = world.server()
    client = server.client()
    neighbours = [create_request(request_id=unique("neighbour"), options={"latency_ms": "1000"}) for _ in range(12)]
    calls = [client.start(request) for request in neighbours]
    wait_until(lambda: world.moving() == 12, 60, "the neighbours to be in flight")
    poison = create_request("poison", request_id=unique("poison"), options=options)
    calls.append(client.start(poison))
    wait_until(lambda: not server.is_running, 60, "the server to die of it")
    deaths = _supervise(world, timeout=180)
    print(f"it died {deaths} times")
    for call in calls:
        call.outcome()
    assert 2 <= deaths <= 10, "too few to have hurt, or too many to be contained"
    server.wait_ready()
    client = server.client()
    for request in neighbours:
        assert client.call("CreateDevice", request).device.device_id
    with pytest.raises(RPCFailure) as caught:
        client.call("CreateDevice", poison)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PARKED")
    saga = client.saga(caught.value.saga_id)
    assert status_name(saga) == "PARKED"
    parked = [event for event in client.watch(saga.saga_id) if event_name(event) == "SAGA_PARKED"]
    assert [event.reason for event in parked] == ["POISON"], parked
    # The server goes on with this process, and after another restart too.
    assert client.create().saga_id
    server.kill()
    server.start()
    assert server.client().create().saga_id
    assert status_name(server.client().saga(saga.saga_id)) == "PARKED"
    world.audit(server.client())


def test_poison_with_two_replicas(world: World) -> None:
    """It goes from one replica to the other and kills both; in the end both serve and it is parked."""
    servers = [world.server() for _ in range(2)]
    poison = create_request("poison", request_id=unique("poison"), options={"crash": "create"})
    pending = servers[0].client().start(poison)
    deaths = _supervise(world, timeout=180)
    print(f"{deaths} deaths")
    pending.outcome()
    assert 2 <= deaths <= 10
    for server in servers:
        if not server.is_running:
            server.launch()
        server.wait_ready()
        assert server.client().create().saga_id
    with pytest.raises(RPCFailure) as caught:
        servers[1].client().call("CreateDevice", poison)
    assert caught.value.reason == "PARKED"
    world.audit(servers[0].client())


def _take_up_and_die(server: Server) -> None:
    """A start that is killed once it has claimed what its predecessor left, before it has read any of it."""
    server.launch({"DEVICERPC_FAULT": "claim.after"})
    wait_until(lambda: not server.is_running, 60, "the server to die of what it claimed")
    assert server.returncode == -signal.SIGKILL, server.log_tail()


def test_a_saga_that_kills_whoever_reads_it(world: World) -> None:
    """An adoption counts from its claim on: six that end before the first record are crashes like any other."""
    server = world.server()
    client = server.client()
    saga_id = client.create(when="ACCEPTED", options={"boot_ms": "60000"}, saga_timeout=120).saga_id
    server.kill()
    for count in range(1, 7):
        _take_up_and_die(server)
        assert world.database.value("SELECT adoptions FROM saga_state WHERE saga_id = %s", saga_id) == count
    server.start()
    wait_until(lambda: world.count("PARKED") == 1, 60, "it to park")
    parked = [event for event in server.client().watch(saga_id) if event_name(event) == "SAGA_PARKED"]
    assert [event.reason for event in parked] == ["POISON"]
    world.audit(server.client())


def test_a_saga_that_kills_whoever_parks_it(world: World) -> None:
    """What can't even be parked is held without being read; the server works, and tells."""
    server = world.server()
    saga_id = server.client().create(when="ACCEPTED", options={"boot_ms": "3000"}).saga_id
    server.kill()
    world.database.execute("UPDATE saga_state SET adoptions = 6 WHERE saga_id = %s", saga_id)
    for _ in range(2):
        _take_up_and_die(server)
    server.start()
    wait_until(lambda: "quarantined unread" in server.log_text(), 60, "it to be set aside")
    assert server.client().create().saga_id
    assert status_name(server.client().saga(saga_id)) == "RUNNING"
    # An operator who has found the cause lets it go on.
    server.kill()
    world.database.execute("UPDATE saga_state SET adoptions = 0 WHERE saga_id = %s", saga_id)
    server.start()
    assert status_name(server.client().wait_finished(saga_id, timeout=60)) == "COMPLETED"
    world.audit(server.client())


def test_what_a_living_server_takes_up_again_is_no_crash(world: World) -> None:
    """A row that its living owner doesn't hold (yet): taking it up, or being about to, has killed nobody. It has its last
    chance, and is not parked."""
    creator, owner = world.server(name="creator"), world.server(name="owner")
    saga_id = creator.client().create(when="ACCEPTED", options={"boot_ms": "3000"}).saga_id
    creator.kill()
    world.database.execute(
        """
        UPDATE saga_state SET owner = i.instance_id, adoptions = 6, updated_at = updated_at - interval '1 minute'
        FROM saga_instance i WHERE saga_id = %s AND i.name = 'owner' AND NOT i.fenced
        """,
        saga_id,
    )
    assert status_name(owner.client().wait_finished(saga_id, timeout=60)) == "COMPLETED"
    assert "running alone for the last time after 6 adoptions" in owner.log_text()
    world.audit(owner.client())


def test_hand_overs_are_no_crashes(world: World) -> None:
    """An undo that waits for its provider outlives any number of graceful restarts: given back is not crashed."""
    server = world.server()
    options = {"fail": "start:refused,destroy:unavailable"}
    saga_id = server.client().create(when="ACCEPTED", options=options).saga_id
    wait_until(lambda: world.count("COMPENSATING") == 1, 60, "the undo to begin")
    for _ in range(6):
        server.terminate()
        assert server.wait_ended(60) == 0
        # Given back, or asleep.
        row = "SELECT owner <= 0, adoptions FROM saga_state WHERE saga_id = %s"
        assert world.database.rows(row, saga_id) == [(True, 0)]
        server.start()
        taken = "SELECT owner <> 0 AND adoptions = 0 FROM saga_state WHERE saga_id = %s"
        wait_until(lambda query=taken: bool(world.database.value(query, saga_id)), 60, "it to be taken up")
    assert status_name(server.client().saga(saga_id)) == "COMPENSATING"
    server.kill()
