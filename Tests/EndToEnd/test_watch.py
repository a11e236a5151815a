"""7. Every watcher sees every event once and in order, wherever it watches and however often it is cut off."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any

import grpc
import pytest

from support.client import CHANNEL_OPTIONS, DeviceClient, RPCFailure, create_request, event_name, unique
from support.events import check_against_saga, replay, sequences
from support.server import Server
from support.stubs import service_grpcio, service_pb2
from support.world import World

# Slow enough to be watched, with retries and an undo: about 20 events over 4 s.
_LIVELY = {"latency_ms": "300", "boot_ms": "300", "fail": "create:unavailable,start:refused", "fail_times": "1"}


class _RestlessWatcher(threading.Thread):
    """Watches, goes away at random, and comes back after the last event that it saw."""

    def __init__(self, servers: list[Server], saga_id: str, seed: int) -> None:
        super().__init__(name=f"watcher-{seed}", daemon=True)
        self._servers = servers
        self._saga_id = saga_id
        self._random = random.Random(seed)
        self.seed = seed
        self.events: list[Any] = []
        self.visits = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._visit():
                pass
        except BaseException as error:
            self.error = error

    def _visit(self) -> bool:
        """One stream; true once it has ended by itself."""
        self.visits += 1
        server = self._random.choice(self._servers)
        last = self.events[-1].sequence if self.events else 0
        patience = self._random.choice([0.005, 0.05, 0.3, 1.0])
        channel = grpc.insecure_channel(server.address, options=CHANNEL_OPTIONS)
        stub = service_grpcio.DeviceServiceStub(channel)
        call = stub.WatchSaga(service_pb2.WatchSagaRequest(saga_id=self._saga_id, after_sequence=last), timeout=60)
        timer = threading.Timer(patience, call.cancel if self._random.random() < 0.5 else channel.close)
        timer.start()
        try:
            for event in call:
                self.events.append(event)
            return True
        except grpc.RpcError as error:
            code = error.code()  # type: ignore[attr-defined]
            if code is not grpc.StatusCode.CANCELLED:
                raise
            return False
        except ValueError:
            return False  # the channel was closed before the call began
        finally:
            timer.cancel()
            channel.close()


def test_random_disconnects(world: World) -> None:
    servers = [world.server(), world.server()]
    client = servers[0].client()
    outcome = client.start(create_request("watched", options=_LIVELY))
    saga_id = ""
    while not saga_id:
        for saga in client.list_sagas(page_size=1).sagas:
            saga_id = saga.saga_id
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    watchers = [_RestlessWatcher(servers, saga_id, seed + number) for number in range(24)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(180)
        assert not watcher.is_alive(), f"watcher {watcher.seed} never came to an end"
    assert isinstance(outcome.outcome(), RPCFailure)
    saga = client.saga(saga_id)
    events = list(client.watch(saga_id))
    assert len(events) >= 15
    check_against_saga(events, saga)
    for watcher in watchers:
        assert watcher.error is None, f"watcher {watcher.seed}: {watcher.error!r}"
        assert sequences(watcher.events) == sequences(events), f"watcher {watcher.seed}"
        assert watcher.events == events, f"watcher {watcher.seed}"
    assert sum(watcher.visits for watcher in watchers) > 2 * len(watchers), "hardly anybody was cut off"
    world.audit(client)


def test_watchers_on_a_server_that_dies(world: World) -> None:
    """The stream breaks with the server; watched again after the last sequence, nothing is missing and nothing twice."""
    mayfly, other = world.server(name="mayfly"), world.server()
    accepted = mayfly.client().create(when="ACCEPTED", options={"latency_ms": "1500", "boot_ms": "500"})
    seen: list[Any] = []
    with pytest.raises(RPCFailure) as caught:
        for event in mayfly.client().watch(accepted.saga_id):
            seen.append(event)
            if event_name(event) == "STEP_STARTED" and event.step == "CREATE_PROVIDER_DEVICE":
                mayfly.kill()
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    mayfly.start()
    seen += other.client().watch(accepted.saga_id, after=seen[-1].sequence)
    assert replay(seen).status == "COMPLETED"
    assert any(event_name(event) == "SAGA_ADOPTED" for event in seen)
    world.audit(other.client())


def test_two_thousand_watchers_on_the_other_replica(world: World) -> None:
    here, there = world.server(), world.server()
    client = here.client()
    accepted = client.create(
        when="ACCEPTED", options={"latency_ms": "12000", "boot_ms": "1500"}, saga_timeout=180
    )
    results = asyncio.run(_watch_many(there.address, accepted.saga_id, watchers=2000, channels=40))
    saga = client.wait_finished(accepted.saga_id)
    events = list(client.watch(accepted.saga_id))
    check_against_saga(events, saga)
    started = [event for event in events if event_name(event) == "STEP_STARTED" and event.step == "REPORT_QUOTA_USAGE"]
    assert started, events
    wrong = [one for one in results if one["error"] or one["events"] != events]
    assert not wrong, f"{len(wrong)} of 2000 saw something else: {wrong[0]['error']} {sequences(wrong[0]['events'])}"
    # They were there in time: what they saw was live, not replayed afterwards.
    finished = saga.completed_at.ToNanoseconds() / 1e9
    late = [one for one in results if one["opened"] > finished - 1]
    assert len(late) < 100, f"{len(late)} watchers came only after the saga's end: nothing was shown"
    world.audit(client)


async def _watch_many(address: str, saga_id: str, watchers: int, channels: int) -> list[dict[str, Any]]:
    pool = [grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for _ in range(channels)]
    stubs = [service_grpcio.DeviceServiceStub(channel) for channel in pool]

    async def watch(number: int) -> dict[str, Any]:
        result: dict[str, Any] = {"events": [], "error": None, "opened": float("inf")}
        call = stubs[number % channels].WatchSaga(service_pb2.WatchSagaRequest(saga_id=saga_id), timeout=180)
        try:
            await call.initial_metadata()  # headers are sent at once
            result["opened"] = time.time()
            async for event in call:
                result["events"].append(event)
        except grpc.RpcError as error:
            result["error"] = f"{error.code()} {error.details()}"  # type: ignore[attr-defined]
        return result

    try:
        return list(await asyncio.gather(*(watch(number) for number in range(watchers))))
    finally:
        for channel in pool:
            await channel.close()


@pytest.mark.parametrize("polls_only", [False, True], ids=["notified", "polling only"])
def test_events_reach_the_other_replica_in_time(world: World, polls_only: bool) -> None:
    """A notification brings them within milliseconds; without any, a poll every half second does."""
    environment = {"DEVICERPC_TRANSACTION_POOLER": str(polls_only).lower()}
    here, there = world.server(environment=environment), world.server(environment=environment)
    time.sleep(2.5)  # a replica learns of others when it renews its lease
    # Of all polls a fifth would be as quick as a notification, by chance.
    bound, share = (1.5, 0.9) if polls_only else (0.1, 0.6)
    shares: list[float] = []
    # A machine that is busy with something else changes its mind.
    while len(shares) < 5 and not (shares and shares[-1] > share):
        lags = [lag for _ in range(3) for lag in _lags(here.client(), there.client())]
        print(f"{sorted(f'{lag:.3f}' for lag in lags)} s late")
        shares.append(sum(lag < bound for lag in lags) / len(lags))
    assert shares[-1] > share, shares


def _lags(here: DeviceClient, there: DeviceClient) -> list[float]:
    """How much later than they happen the events of a saga reach somebody who watches it elsewhere."""
    accepted = here.create(when="ACCEPTED", options={"latency_ms": "600", "boot_ms": "600"})
    lags = []
    events = []
    started = time.time()
    for event in there.watch(accepted.saga_id):
        happened = event.time.ToNanoseconds() / 1e9
        if happened > started + 0.1:  # the others were there before the watcher
            lags.append(time.time() - happened)
        events.append(event)
    assert replay(events).status == "COMPLETED"
    return lags


def test_headers_come_before_any_event(world: World) -> None:
    """A watcher of a quiet saga knows at once that it is heard."""
    server = world.server()
    accepted = server.client().create(when="ACCEPTED", options={"latency_ms": "5000"})
    last = server.client().saga(accepted.saga_id).last_sequence
    with DeviceClient(server.address) as client:
        call = client.stub.WatchSaga(
            service_pb2.WatchSagaRequest(saga_id=accepted.saga_id, after_sequence=last), timeout=90
        )
        start = time.monotonic()
        call.initial_metadata()
        assert time.monotonic() - start < 3
        assert event_name(list(call)[-1]) == "SAGA_COMPLETED"


def test_a_slow_watcher_loses_nothing(world: World) -> None:
    server = world.server()
    client = server.client()
    accepted = client.create(when="ACCEPTED", request_id=unique("slow"), options={"latency_ms": "50"})
    seen = []
    for event in client.watch(accepted.saga_id):
        time.sleep(0.2)
        seen.append(event)
    check_against_saga(seen, client.saga(accepted.saga_id))
