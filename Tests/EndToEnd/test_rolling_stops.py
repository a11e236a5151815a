"""A server that is told to stop leaves no doubt: what it has not sent, others send; nothing parks, nothing waits to settle."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from support import ledger as ledgers
from support.client import DeviceClient, RPCFailure, create_request, event_name, unique
from support.server import Server
from support.world import World

ROUNDS = 5


class _Load(threading.Thread):
    """Starts sagas on whichever replica takes them, until it is told to stop; knows those that were acknowledged."""

    def __init__(self, servers: list[Server]) -> None:
        super().__init__(daemon=True)
        self.saga_ids: list[str] = []
        self._servers = servers
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        number = 0
        while not self._over.is_set():
            server = self._servers[number % len(self._servers)]
            number += 1
            options = {"latency_ms": "80", "boot_ms": "150"}
            request = create_request(when="ACCEPTED", options=options, request_id=unique("rolling"))
            try:
                self.saga_ids.append(server.client().call("CreateDevice", request, timeout=5).saga_id)
            except RPCFailure:
                time.sleep(0.02)
            time.sleep(0.01)

    def end(self) -> list[str]:
        self._over.set()
        self.join()
        return self.saga_ids


def _history(client: DeviceClient, saga_id: str) -> list[str]:
    """For people, where a test fails."""
    return [f"{event_name(event)} {event.step} {event.message} {event.reason}" for event in client.watch(saga_id)]


@pytest.mark.parametrize("idempotent", ["true", "false"])
def test_rolling_stops_under_load(world: World, idempotent: str) -> None:
    assert world.ledger
    # Reports take a while, so that there are always some under way when a stop comes.
    world.ledger.rule(ledgers.hang(0.05), operation="increment")
    settings = {"USER_SERVICE_IDEMPOTENT": idempotent}
    servers = [world.server(name=name, environment=settings) for name in ("left", "right")]
    load = _Load(servers)
    for round in range(ROUNDS):
        for server in servers:
            time.sleep(0.5)
            server.terminate()
            assert server.wait_ended(60) == 0, server.log_tail()
            server.start()
    saga_ids = load.end()
    world.wait_all_over(timeout=60)
    assert len(saga_ids) > 30
    client = servers[0].client()
    findings = world.audit(client)
    other = {saga_id: findings.sagas[saga_id] for saga_id in saga_ids if findings.sagas[saga_id] != "COMPLETED"}
    assert not other, [(saga_id, status, _history(client, saga_id)) for saga_id, status in other.items()]
    moved = world.database.rows("SELECT saga_id FROM saga_event GROUP BY saga_id HAVING count(*) > 4")
    print(f"{len(saga_ids)} sagas, {len(moved)} of them moved to another process")
    assert moved, "no saga was under way at any stop: nothing was shown"
    for saga_id in {row[0] for row in moved}:
        events = list(client.watch(saga_id))
        assert not [event for event in events if event_name(event) == "STEP_RETRYING"], saga_id


def test_whoever_takes_over_ends_at_once(world: World) -> None:
    """It had claimed them, and called nobody: the next one knows that still."""
    settings = {"USER_SERVICE_IDEMPOTENT": "false"}
    first = world.server(name="first", environment=settings)
    options = {"latency_ms": "1500"}
    ids = [
        first.client().create(when="ACCEPTED", options=options, request_id=unique("claimed")).saga_id for _ in range(10)
    ]
    first.terminate()
    assert first.wait_ended(60) == 0, first.log_tail()
    second = world.server(name="second", environment=settings, start=False)
    second.launch({"DEVICERPC_FAULT": "claim.after"})
    assert second.wait_ended(60) == -signal.SIGKILL
    third = world.server(name="third", environment=settings)
    world.wait_all_over(timeout=60)
    findings = world.audit(third.client())
    assert {findings.sagas[saga_id] for saga_id in ids} == {"COMPLETED"}
    for saga_id in ids:
        events = [event_name(event) for event in third.client().watch(saga_id)]
        assert "STEP_RETRYING" not in events, events


def test_stop_in_the_undo(world: World) -> None:
    """The same on the way back: a decrement that was never sent is no decrement without an answer."""
    settings = {"USER_SERVICE_IDEMPOTENT": "false"}
    servers = [world.server(name=name, environment=settings) for name in ("left", "right")]
    request = {"latency_ms": "100", "fail": "start:refused"}
    ids = []
    for _ in range(3):
        for server in servers:
            ids += [
                server.client().create(when="ACCEPTED", options=request, request_id=unique("undo")).saga_id
                for _ in range(20)
            ]
            time.sleep(0.2)
            server.terminate()
            assert server.wait_ended(60) == 0, server.log_tail()
            server.start()
    world.wait_all_over(timeout=60)
    findings = world.audit(servers[0].client())
    assert {findings.sagas[saga_id] for saga_id in ids} == {"COMPENSATED"}


def test_stop_during_a_back_off(world: World) -> None:
    """The increment was refused for a while, definitely: whoever takes the saga up in its back-off goes on with it."""
    assert world.ledger
    world.ledger.rule(ledgers.throttle("2"), operation="increment", times=20)
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": "false"})
    ids = [server.client().create(when="ACCEPTED", request_id=unique("pause")).saga_id for _ in range(20)]
    time.sleep(0.5)
    # Killed, not told to stop: even so nobody can have sent anything since.
    server.kill()
    time.sleep(3)
    server.start()
    world.wait_all_over(timeout=60)
    findings = world.audit(server.client())
    assert {findings.sagas[saga_id] for saga_id in ids} == {"COMPLETED"}
