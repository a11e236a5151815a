"""9. One request_id is one saga, however often, wherever and at whatever moment it is asked for."""

from __future__ import annotations

import itertools
from typing import Any

import grpc
import pytest

from support import ledger as ledgers
from support.client import DeviceClient, RPCFailure, create_request, status_name, unique
from support.stubs import device_pb2
from support.waiting import wait_until
from support.world import World

TIMES = 100


def _at_once(world: World, requests: list[Any]) -> list[Any]:
    """Sends all requests at once, by turns to each replica over several connections; answers and failures."""
    clients = [server.client() for server in world.servers for _ in range(4)]
    calls = [client.start(request) for client, request in zip(itertools.cycle(clients), requests, strict=False)]
    return [call.outcome() for call in calls]


@pytest.mark.parametrize("when", ["ACCEPTED", "FINISHED"])
def test_a_hundred_times_at_once(world: World, when: str) -> None:
    first, second = world.server(), world.server()
    request_id = unique("storm")
    requests = [create_request("one phone", when=when, request_id=request_id) for _ in range(TIMES)]
    outcomes = _at_once(world, requests)
    failures = [one for one in outcomes if isinstance(one, RPCFailure)]
    assert not failures, f"{len(failures)} of {TIMES} failed, e.g. {failures[0]}"
    assert len({answer.saga_id for answer in outcomes}) == 1
    assert len({answer.device.device_id for answer in outcomes}) == 1
    saga_id = outcomes[0].saga_id
    assert status_name(second.client().wait_finished(saga_id)) == "COMPLETED"
    assert world.database.value("SELECT count(*) FROM saga_state") == 1
    assert world.ledger and world.ledger.net() == {outcomes[0].device.device_id: 1}
    world.audit(first.client())


def test_many_ids_many_times_at_once(world: World) -> None:
    """Duplicates share batches with each other and with strangers."""
    client = world.server().client()
    world.server()
    ids = [unique("storm") for _ in range(20)]
    requests = [create_request("a phone", when="ACCEPTED", request_id=ids[number % 20]) for number in range(200)]
    outcomes = _at_once(world, requests)
    failures = [one for one in outcomes if isinstance(one, RPCFailure)]
    assert not failures, f"{len(failures)} failed, e.g. {failures[0]}"
    by_id: dict[str, set[str]] = {}
    for number, answer in enumerate(outcomes):
        by_id.setdefault(ids[number % 20], set()).add(answer.saga_id)
    assert all(len(sagas) == 1 for sagas in by_id.values()), by_id
    world.wait_all_over()
    findings = world.audit(client)
    assert findings.count("COMPLETED") == 20


def test_a_failure_is_the_same_failure(world: World) -> None:
    assert world.ledger
    client = world.server().client()
    world.server()
    world.ledger.rule(ledgers.refuse(), operation="increment")
    request_id = unique("refused")
    outcomes = _at_once(world, [create_request("a phone", request_id=request_id) for _ in range(TIMES)])
    assert {(one.code, one.reason) for one in outcomes} == {(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_REFUSED")}
    assert len({one.saga_id for one in outcomes}) == 1
    # Also later, and although the user service has changed its mind.
    world.ledger.clear_rules()
    with pytest.raises(RPCFailure) as caught:
        client.create("a phone", request_id=request_id)
    assert caught.value.reason == "QUOTA_REFUSED" and caught.value.saga_id == outcomes[0].saga_id
    assert world.database.value("SELECT count(*) FROM saga_state") == 1
    world.audit(client)


def test_compared_after_defaults(world: World) -> None:
    client = world.server().client()
    request_id = unique("defaults")
    first = client.create("phone", request_id=request_id)
    spelled_out = device_pb2.DeviceSpec(
        cpu_cores=2, memory_mb=4096, storage_mb=10240, width_px=1920, height_px=1080, dpi=240, android_version="11"
    )
    same: list[dict[str, Any]] = [
        {"name": " phone "},
        {"when": "ACCEPTED"},
        {"spec": spelled_out},
        {"type": device_pb2.DEVICE_TYPE_PHONE, "provider": device_pb2.PROVIDER_SIMULATED},
        {"saga_timeout": 600},
    ]
    for fields in same:
        answer = client.create(**{"name": "phone", "request_id": request_id, **fields})
        assert answer.saga_id == first.saga_id, fields
    others: list[dict[str, Any]] = [
        {"name": "Phone"},
        {"description": "another"},
        {"spec": device_pb2.DeviceSpec(cpu_cores=3)},
        {"tags": ["x"]},
        {"metadata": {"a": "b"}},
        {"options": {"latency_ms": "1"}},
        {"saga_timeout": 601},
        {"batch_id": "b"},
        {"type": device_pb2.DEVICE_TYPE_TABLET},
    ]
    for fields in others:
        with pytest.raises(RPCFailure) as caught:
            client.create(**{"name": "phone", "request_id": request_id, **fields})
        assert caught.value.reason == "REQUEST_ID_REUSED", fields
    # An id belongs to its user.
    other = client.create("phone", request_id=request_id, user="another")
    assert other.saga_id != first.saga_id
    assert world.database.value("SELECT count(*) FROM saga_state") == 2
    world.audit(client)


def test_order_of_maps_does_not_matter(world: World) -> None:
    client = world.server().client()
    request_id = unique("maps")
    pairs = [(f"key {number}", f"value {number}") for number in range(16)]
    first = client.create("phone", request_id=request_id, metadata=dict(pairs))
    second = client.create("phone", request_id=request_id, metadata=dict(reversed(pairs)))
    assert first.saga_id == second.saga_id


def test_without_an_id_every_call_makes_a_device(world: World) -> None:
    client = world.server().client()
    made = {client.create("twin").saga_id for _ in range(3)}
    assert len(made) == 3
    world.audit(client)


def test_repeated_after_a_crash(world: World) -> None:
    """The answer was lost with the server; the same id leads to the same saga, on any replica."""
    first = world.server(name="mayfly")
    other = world.server().client()
    request_id = unique("crash")
    fields: dict[str, Any] = {"request_id": request_id, "options": {"latency_ms": "1500"}}
    pending = first.client().start(create_request("a phone", **fields))
    wait_until(lambda: world.database.value("SELECT count(*) FROM saga_request") == 1, 60, "the saga to be accepted")
    first.kill()
    outcome = pending.outcome()
    assert isinstance(outcome, RPCFailure) and outcome.code is grpc.StatusCode.UNAVAILABLE
    answer = other.create("a phone", when="ACCEPTED", **fields)
    first.start()
    finished = other.wait_finished(answer.saga_id)
    assert status_name(finished) == "COMPLETED"
    with DeviceClient(first.address) as again:
        assert again.create("a phone", **fields).saga_id == answer.saga_id
    world.audit(other)
