"""Many creations on one CreateDevices stream, and many sagas on one WatchSagas stream."""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import grpclib.client
import pytest

from support import ledger as ledgers
from support.client import (
    DeviceClient, RPCFailure, create_request, device_status, failure_from, is_over, status_name, unique,
)
from support.stubs import saga_pb2, service_grpclib, service_pb2
from support.waiting import wait_until
from support.world import World

LIMIT = 60.0


class Stream:
    """A CreateDevices stream whose requests come one by one."""

    def __init__(self, client: DeviceClient, requests: Sequence[Any] = (), timeout: float = LIMIT) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self.call = client.stub.CreateDevices(iter(self._requests.get, None), timeout=timeout, metadata=client.metadata)
        for request in requests:
            self.send(request)

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def half_close(self) -> None:
        self._requests.put(None)

    def results(self) -> Iterator[Any]:
        """Up to the stream's end; any other than OK is an RPCFailure."""
        try:
            yield from self.call
        except grpc.RpcError:
            call = self.call
            raise failure_from(call.code(), call.details(), dict(call.trailing_metadata() or ())) from None


def create_all(client: DeviceClient, requests: Sequence[Any], timeout: float = LIMIT) -> dict[int, Any]:
    """All results, by index."""
    stream = Stream(client, requests, timeout)
    stream.half_close()
    results = list(stream.results())
    found = {result.index: result for result in results}
    assert len(found) == len(results), "a request has two results"
    return found


def failure_of(result: Any) -> RPCFailure:
    """The error as the unary call would have it."""
    code = next(code for code in grpc.StatusCode if code.value[0] == result.error.code)
    return failure_from(code, result.error.message, {"grpc-status-details-bin": result.error.SerializeToString()})


def mixed(count: int, batch: str, **fields: Any) -> list[Any]:
    """Every third one is wrong, in one of three ways."""
    requests = []
    for number in range(1, count + 1):
        request = create_request(f"{batch} {number}", request_id=f"{batch}-{number}", batch_id=batch, **fields)
        if number % 9 == 3:
            request.name = ""
        elif number % 9 == 6:
            request.request_id = ""
        elif number % 9 == 0:
            request.provider_options["fail"] = "create:refused"
        requests.append(request)
    return requests


def check_mixed(requests: Sequence[Any], results: dict[int, Any]) -> None:
    assert sorted(results) == list(range(1, len(requests) + 1))
    for index, request in enumerate(requests, 1):
        result = results[index]
        assert (result.request_id, result.name) == (request.request_id, request.name)
        if index % 3:
            assert not result.HasField("error"), result
            assert result.saga_id and device_status(result.device) == "RUNNING" and result.device.name == request.name
            continue
        assert not result.HasField("device")
        failure = failure_of(result)
        if index % 9 == 0:
            assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REFUSED")
            assert failure.saga_id == result.saga_id != ""
        else:
            assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
            assert failure.fields == {"name" if index % 9 == 3 else "request_id"} and not result.saga_id


def test_a_third_of_them_wrong_then_all_again(world: World) -> None:
    server = world.server()
    client = server.client()
    requests = mixed(99, unique("batch"))
    first = create_all(client, requests)
    check_mixed(requests, first)
    again = create_all(client, requests)
    check_mixed(requests, again)
    assert [again[index].saga_id for index in again if again[index].request_id] == [
        first[index].saga_id for index in again if again[index].request_id]
    # The unary call says the same of a wrong one.
    for index in (3, 9):
        with pytest.raises(RPCFailure) as unary:
            client.call("CreateDevice", requests[index - 1])
        assert failure_of(first[index]).message == unary.value.message
        assert failure_of(first[index]).details == unary.value.details
    other = create_request("other", request_id=requests[0].request_id)
    assert failure_of(create_all(client, [other])[1]).reason == "REQUEST_ID_REUSED"

    def told() -> int:
        lines = [line for line in server.log_text().splitlines() if "[AUDIT]" in line and "/CreateDevices" in line]
        return sum("outcome=OK" in line for line in lines)

    wait_until(lambda: told() == 2 * 66, 30, "a line for each that was made, or found again")
    world.wait_all_over()
    world.audit(client)


def test_another_implementation(world: World) -> None:
    server = world.server()
    requests = mixed(30, unique("grpclib"))

    async def run() -> dict[int, Any]:
        host, _, port = server.address.rpartition(":")
        channel = grpclib.client.Channel(host, int(port))
        try:
            results: dict[int, Any] = {}
            async with service_grpclib.DeviceServiceStub(channel).CreateDevices.open(timeout=LIMIT) as stream:
                for request in requests[:-1]:
                    await stream.send_message(request)
                await stream.send_message(requests[-1], end=True)
                async for result in stream:
                    results[result.index] = result
            return results
        finally:
            channel.close()

    check_mixed(requests, asyncio.run(run()))


def test_client_dies_and_repeats(world: World) -> None:
    """With the same request ids: one device a name, whatever was on its way."""
    client = world.server().client()
    batch = unique("dies")
    requests = [
        create_request(f"{batch} {number}", request_id=f"{batch}-{number}", options={"latency_ms": "20"})
        for number in range(60)
    ]
    for part in (20, 45):
        stream = Stream(client, requests[:part])
        results = stream.results()
        for _ in range(part // 2):
            next(results)
        stream.call.cancel()
    done = create_all(client, requests)
    assert all(not result.HasField("error") for result in done.values())
    world.wait_all_over()
    names = [device.name for device in client.list_devices(page_size=1000).devices]
    assert sorted(names) == sorted(request.name for request in requests)


def test_overloaded_is_no_result(world: World) -> None:
    """It waits until there is room; a unary call is refused meanwhile."""
    client = world.server(environment={"DEVICERPC_MAX_SAGAS": "4"}).client()
    batch = unique("full")
    requests = [
        create_request(f"{batch} {number}", request_id=f"{batch}-{number}", options={"latency_ms": "100"})
        for number in range(16)
    ]
    done = create_all(client, requests)
    assert all(not result.HasField("error") for result in done.values()) and len(done) == 16


def test_client_that_does_not_read(world: World) -> None:
    client = world.server().client()
    # Each has a result of some 3 KiB: every field that is wrong.
    wrong = create_request("x" * 400, tags=["x" * 51] * 60)
    wrong.spec.cpu_cores = 10_000

    def requests() -> Iterator[Any]:
        for number in range(20_000):
            yield wrong

    call = client.stub.CreateDevices(requests(), timeout=LIMIT)
    wait_until(lambda: _is_refused(world), 50, "the stream's end")
    try:
        count = sum(1 for _ in call)
    except grpc.RpcError:
        failure = failure_from(call.code(), call.details(), dict(call.trailing_metadata() or ()))
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT_TOO_SLOW"), failure
    else:
        raise AssertionError(f"the stream ended with OK after {count} results")


def _is_refused(world: World) -> bool:
    text = world.servers[0].http("/metrics")[1]
    return any(
        "CreateDevices" in line and "RESOURCE_EXHAUSTED" in line and not line.endswith(" 0")
        for line in text.splitlines() if line.startswith("rpc_server_calls_total")
    )


def test_drain(world: World) -> None:
    """What was read is answered, then the stream ends."""
    server = world.server(environment={"DEVICERPC_DRAIN_TIMEOUT": "30s"})
    client = server.client()
    batch = unique("drain")
    requests = [
        create_request(f"{batch} {number}", request_id=f"{batch}-{number}", options={"latency_ms": "400"})
        for number in range(10)
    ]
    stream, idle = Stream(client, requests), Stream(client)
    wait_until(lambda: world.moving() == 10, 30, "all to be read")
    server.terminate()
    results = []
    with pytest.raises(RPCFailure) as end:
        for result in stream.results():
            results.append(result)
    assert (end.value.code, end.value.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert len(results) == 10 and all(device_status(result.device) == "RUNNING" for result in results)
    with pytest.raises(RPCFailure) as end:
        list(idle.results())
    assert (end.value.code, end.value.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    stream.half_close()
    idle.half_close()
    assert server.wait_ended(60) == 0


# WatchSagas


class Watched:
    """What a client knows that watches, loses the stream and watches again. Fails on any gap or repeat."""

    def __init__(self) -> None:
        self.sequences: dict[str, int] = {}
        self.over: dict[str, str] = {}
        self.is_synced = False
        # Of this stream.
        self._taken_up: set[str] = set()

    def begin(self) -> None:
        self.is_synced = False
        self._taken_up = set()

    def take(self, update: Any) -> None:
        if update.HasField("saga"):
            saga = update.saga
            assert saga.saga_id not in self._taken_up, "taken up twice"
            self._taken_up.add(saga.saga_id)
            assert saga.last_sequence >= self.sequences.get(saga.saga_id, 0), "time goes back"
            self.sequences[saga.saga_id] = saga.last_sequence
            if is_over(saga):
                self.over[saga.saga_id] = status_name(saga)
        elif update.HasField("event"):
            event = update.event
            assert event.saga_id in self._taken_up, "an event of a saga that was not sent"
            assert event.sequence == self.sequences[event.saga_id] + 1, "a gap, or a repeat"
            self.sequences[event.saga_id] = event.sequence
            status = str(saga_pb2.SagaStatus.Name(event.saga_status)).removeprefix("SAGA_STATUS_")
            if status in ("COMPLETED", "COMPENSATED", "PARKED"):
                self.over[event.saga_id] = status
        else:
            assert update.HasField("synced") and not self.is_synced
            self.is_synced = True


# ./dev batches: 10000. A hundredth of that in `./dev test`.
BATCH_SAGAS = int(os.environ.get("BATCH_SAGAS", "100"))
LONG = LIMIT + BATCH_SAGAS / 10


def test_watching_a_batch_cut_at_random(world: World) -> None:
    """One stream over a batch that still grows, through either replica, sees every saga's end."""
    servers = world.replicas(2)
    clients = [server.client() for server in servers]
    batch, chance = unique("watched"), random.Random(4711)
    requests = [
        create_request(
            f"{batch} {number}", request_id=f"{batch}-{number}", batch_id=batch, when="ACCEPTED",
            options={"latency_ms": "150", **({"fail": "start:refused"} if number % 3 == 0 else {})})
        for number in range(BATCH_SAGAS)
    ]
    half = BATCH_SAGAS // 2
    made = create_all(clients[0], requests[:half], LONG)
    other = clients[0].create("another's", request_id=unique("other"), batch_id=unique("other"))
    later = Stream(clients[1], requests[half:], LONG)
    later.half_close()
    watched = Watched()
    for cut in [chance.randrange(5, 2 * BATCH_SAGAS) for _ in range(3)]:
        watched.begin()
        call = clients[chance.randrange(2)].stub.WatchSagas(
            service_pb2.WatchSagasRequest(batch_id=batch), timeout=LONG)
        for update in itertools.islice(call, cut):
            watched.take(update)
        call.cancel()
    made.update({half + result.index: result for result in later.results()})
    watched.begin()
    for update in clients[0].stub.WatchSagas(
        service_pb2.WatchSagasRequest(batch_id=batch, end_when_done=True), timeout=LONG
    ):
        watched.take(update)
    assert watched.is_synced
    ids = {result.saga_id for result in made.values()}
    assert len(ids) == BATCH_SAGAS and set(watched.over) == ids and other.saga_id not in watched.sequences
    asked = [sorted(ids)[first : first + 1000] for first in range(0, len(ids), 1000)]
    sagas = [saga for some in asked for saga in clients[0].sagas(some).sagas]
    assert watched.over == {saga.saga_id: status_name(saga) for saga in sagas}


def test_watching_what_begins_later(world: World) -> None:
    client = world.server().client()
    batch = unique("later")
    call = client.stub.WatchSagas(service_pb2.WatchSagasRequest(batch_id=batch, end_when_done=True), timeout=LIMIT)
    first = next(call)
    assert first.HasField("synced"), first
    made = client.create("late", batch_id=batch)
    watched = Watched()
    for update in call:
        watched.take(update)
    assert watched.over == {made.saga_id: "COMPLETED"}
    # By ids, with one that is nobody's.
    watched = Watched()
    for update in client.stub.WatchSagas(
        service_pb2.WatchSagasRequest(saga_ids=[made.saga_id, "saga_1730188800000_7k2m9x4q1c"], end_when_done=True),
        timeout=LIMIT,
    ):
        watched.take(update)
    assert watched.over == {made.saga_id: "COMPLETED"} and watched.is_synced


# What a batch has made

def listed(client: DeviceClient, **filters: Any) -> list[Any]:
    """All pages."""
    devices: list[Any] = []
    token = ""
    while True:
        page = client.call("ListDevices", service_pb2.ListDevicesRequest(page_size=7, page_token=token, **filters))
        devices += page.devices
        token = page.next_page_token
        if not token:
            return devices


def test_devices_are_found_by_batch_tag_and_name(world: World) -> None:
    client = world.server().client()
    batch, tag = unique("batch"), unique("tag")
    requests = [
        create_request(f"{tag}-{number:02}", request_id=f"{batch}/{number}", batch_id=batch, tags=[tag, "x"][: 1 + number % 2])
        for number in range(20)
    ]
    results = create_all(client, requests)
    ids = {results[index].device.device_id for index in results}
    assert all(results[index].device.batch_id == batch for index in results)
    client.create(batch_id=unique("other"))
    for filters in ({"batch_id": batch}, {"tag": tag}, {"batch_id": batch, "tag": tag, "name_prefix": tag}):
        found = listed(client, **filters)
        assert {device.device_id for device in found} == ids and len(found) == 20
        assert {device.batch_id for device in found} == {batch}
        created = [device.created_at.ToNanoseconds() for device in found]
        assert created == sorted(created, reverse=True)
    assert [device.name for device in listed(client, name_prefix=tag)] == [request.name for request in requests]
    assert [device.name for device in listed(client, name_prefix=f"{tag}-1")] == [f"{tag}-1{digit}" for digit in range(10)]
    assert not listed(client, batch_id=batch, tag="y") and not listed(client, name_prefix=tag.upper())
    sagas = client.call("ListSagas", service_pb2.ListSagasRequest(request_id=f"{batch}/3")).sagas
    assert [saga.saga_id for saga in sagas] == [results[4].saga_id]
    client.delete(results[1].device.device_id)
    assert len(listed(client, batch_id=batch)) == 19


def test_many_devices_at_once(world: World) -> None:
    client = world.server().client()
    ids = [client.create().device.device_id for _ in range(3)]
    # No record of it is there yet.
    pending = client.create(when="ACCEPTED", options={"latency_ms": "20000"}).device.device_id
    gone = client.create().device.device_id
    client.delete(gone)
    unknown = "01a23138-27ea-76f9-96db-6f6f2caaed7c"
    asked = [ids[2], unknown, pending, ids[0].upper(), gone, ids[0], ids[1]]
    answer = client.call("BatchGetDevices", service_pb2.BatchGetDevicesRequest(device_ids=asked))
    assert [device.device_id for device in answer.devices] == [ids[2], pending, ids[0], ids[1]]
    assert answer.missing_device_ids == [unknown, gone]
    for device in answer.devices:
        assert device == client.call("GetDevice", service_pb2.GetDeviceRequest(device_id=device.device_id))


def test_what_is_only_validated_starts_nothing(world: World) -> None:
    server = world.server()
    client = server.client()
    batch = unique("batch")
    requests = mixed(9, batch, validate_only=True)
    results = create_all(client, requests)
    for index, request in enumerate(requests, 1):
        result = results[index]
        assert not result.saga_id and not result.HasField("device")
        if index in (3, 6):
            assert failure_of(result).fields == {"name" if index == 3 else "request_id"}
        else:
            # That its provider will refuse the ninth isn't known before.
            assert not result.HasField("error")
        unary = client.call("CreateDevice", request) if index not in (3, 6) else None
        assert unary is None or not unary.saga_id
    with pytest.raises(RPCFailure) as failure:
        client.create("x" * 101, options={"nonsense": "1"}, validate_only=True)
    assert failure.value.fields == {"name", "provider_options.nonsense"}
    assert not client.call("ListSagas", service_pb2.ListSagasRequest(batch_id=batch)).sagas
    # The same request ids are free.
    requests[0].validate_only = False
    assert create_all(client, requests[:1])[1].saga_id
    audit = [line for line in server.log_text().splitlines() if "[AUDIT]" in line and "outcome=OK" in line]
    assert len(audit) <= 1, audit


def test_watching_through_an_outage(world: World) -> None:
    """It begins in the midst of a look at what is parked; what an operator resumes afterwards is told all the same."""
    proxy = world.proxy()
    environment = {"USER_SERVICE_IDEMPOTENT": "true", "DATABASE_URL": world.database.url_through(proxy.port)}
    client = world.server(environment=environment).client()
    batch, user = unique("outage"), unique("user")
    assert world.ledger
    world.ledger.rule(ledgers.refuse(409, "nothing to take back"), operation="decrement", user=user, times=1)
    with pytest.raises(RPCFailure) as parked:
        client.create(user=user, batch_id=batch, options={"fail": "start:refused"})
    watched = Watched()
    call = client.stub.WatchSagas(service_pb2.WatchSagasRequest(batch_id=batch), timeout=LIMIT)
    watched.take(next(call))
    watched.take(next(call))
    assert watched.is_synced and set(watched.over.values()) == {"PARKED"}
    with world.database.transaction() as stranger:
        stranger.execute("LOCK TABLE saga_event IN ACCESS EXCLUSIVE MODE")
        wait_until(
            lambda: world.database.value(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"),
            30, "a look that waits")
        with proxy.refusing():
            time.sleep(4)
    wait_until(lambda: _resumes(client, parked.value.saga_id), 30, "the database to be back", interval=0.5)
    for update in call:
        watched.take(update)
        if set(watched.over.values()) == {"COMPENSATED"}:
            break
    call.cancel()


def _resumes(client: DeviceClient, saga_id: str) -> bool:
    try:
        client.call("ResumeSaga", service_pb2.ResumeSagaRequest(saga_id=saga_id, reason="test"), 20, client.admin)
    except RPCFailure as failure:
        return failure.reason == "SAGA_NOT_PARKED"
    return True


def test_watching_ends_with_a_drain(world: World) -> None:
    """At once, whether anything moves or not; another replica tells the rest."""
    first, second = (world.server(environment={"DEVICERPC_DRAIN_TIMEOUT": "20s"}) for _ in range(2))
    batch = unique("drain")
    made = first.client().create(batch_id=batch, when="ACCEPTED", options={"boot_ms": "2000"})
    watched, idle = Watched(), Watched()
    calls = [
        (one, first.client().stub.WatchSagas(service_pb2.WatchSagasRequest(batch_id=name), timeout=LIMIT))
        for one, name in ((watched, batch), (idle, unique("none")))
    ]
    for one, call in calls:
        while not one.is_synced:
            one.take(next(call))
    first.terminate()
    for one, call in calls:
        with pytest.raises(grpc.RpcError) as end:
            for update in call:
                one.take(update)
        failure = failure_from(end.value.code(), end.value.details(), dict(end.value.trailing_metadata() or ()))
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"), failure
    watched.begin()
    request = service_pb2.WatchSagasRequest(batch_id=batch, end_when_done=True)
    for update in second.client().stub.WatchSagas(request, timeout=LIMIT):
        watched.take(update)
    assert watched.over == {made.saga_id: "COMPLETED"}
    assert first.wait_ended(60) == 0
