"""SIGTERM ends a server within `drain-timeout` and little more, whatever it waits for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from support import ledger
from support.client import RPCFailure, create_request
from support.server import Server
from support.waiting import wait_until
from support.world import World

DRAIN_SECONDS = 3
# The last answers, calls under way, the last flush; and a busy machine.
MORE_SECONDS = 9
# When the process ends whatever it waits for, and a little for the end itself.
AT_LAST_SECONDS = 10 + 5


def _stop(server: Server) -> float:
    begin = time.monotonic()
    server.terminate()
    code = server.wait_ended(90)
    took = time.monotonic() - begin
    assert code == 0, f"{code}\n{server.log_tail()}"
    return took


def _server(world: World, **options) -> Server:
    return world.server(environment={"DEVICERPC_DRAIN_TIMEOUT": f"{DRAIN_SECONDS}s"}, **options)


def _in_time(took: float, more: float = MORE_SECONDS) -> None:
    assert took < DRAIN_SECONDS + more, f"{took:.1f} s for a stop with a drain-timeout of {DRAIN_SECONDS} s"


def test_nothing_to_do(world: World) -> None:
    server = world.server(environment={"DEVICERPC_DRAIN_TIMEOUT": "40s"})
    server.client().create()
    assert _stop(server) < 20


def test_a_provider_that_hangs(make_world: Callable[..., World]) -> None:
    """With callers that wait, and without. The two worlds wait for the calls' limit together."""
    worlds: list[World] = []
    for when in ("ACCEPTED", "FINISHED"):
        world = make_world()
        server = _server(world)
        client = server.client()
        options = {"fail": "create:hang", "fail_times": "1"}
        calls = [client.start(create_request(options=options, when=when, saga_timeout=120)) for _ in range(10)]
        wait_until(lambda world=world: world.moving() == 10, 60, "sagas to be under way")
        time.sleep(1)
        _in_time(_stop(server))
        for call in calls:
            call.outcome()
        server.start()
        worlds.append(world)
    for world in worlds:
        world.wait_all_over(90)


def test_a_user_service_that_hangs(world: World) -> None:
    assert world.ledger
    world.ledger.rule(ledger.hang(60), times=5)
    server = _server(world, start=False)
    server.environment["DEVICERPC_USER_SERVICE_TIMEOUT"] = "50s"
    server.start()
    client = server.client()
    calls = [client.start(create_request()) for _ in range(5)]
    wait_until(lambda: world.ledger and len(world.ledger.calls) == 5, 60, "the user service to be asked")
    _in_time(_stop(server))
    for call in calls:
        call.outcome()
    world.ledger.clear_rules()
    server.start()
    world.wait_all_over(90)


def test_open_watchers(world: World) -> None:
    server = _server(world)
    client = server.client()
    made = client.create(when="ACCEPTED", options={"latency_ms": "2000"})
    ends: list[str] = []

    def watch() -> None:
        try:
            for _ in client.watch(made.saga_id):
                pass
            ends.append("OK")
        except RPCFailure as failure:
            ends.append(failure.code.name)

    threads = [threading.Thread(target=watch, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    _in_time(_stop(server))
    for thread in threads:
        thread.join(60)
    assert set(ends) <= {"OK", "UNAVAILABLE"} and len(ends) == 20
    server.start()


@contextlib.contextmanager
def _read_only(world: World) -> Iterator[None]:
    """The journal gets nothing through."""
    world.database.execute(f'ALTER DATABASE "{world.database.name}" SET default_transaction_read_only = on')
    world.database.terminate_backends()
    try:
        yield
    finally:
        with world.database.cluster.connect("postgres") as connection:
            connection.execute(f'ALTER DATABASE "{world.database.name}" RESET default_transaction_read_only')
        world.database.terminate_backends()


@pytest.mark.parametrize("fault", ["refusing", "stalling", "read-only"])
@pytest.mark.parametrize("is_busy", [False, True])
def test_a_database_that_is_away(world: World, fault: str, is_busy: bool) -> None:
    proxy = world.proxy()
    server = _server(world, proxy=proxy)
    client = server.client()
    client.create()
    faults: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        "refusing": proxy.refusing, "stalling": proxy.stalling, "read-only": lambda: _read_only(world),
    }
    calls = []
    if is_busy:
        calls = [client.start(create_request(options={"latency_ms": "1500"}, saga_timeout=60)) for _ in range(10)]
        wait_until(lambda: world.moving() == 10, 60, "sagas to be under way")
    with faults[fault]():
        time.sleep(2)
        _in_time(_stop(server), AT_LAST_SECONDS if fault == "stalling" else MORE_SECONDS)
    for call in calls:
        call.outcome()
    server.start(timeout=60)
    world.wait_all_over(90)


@pytest.mark.parametrize("fault", ["refusing", "stalling"])
def test_during_the_start(world: World, fault: str) -> None:
    proxy = world.proxy()
    server = _server(world, proxy=proxy, start=False)
    with proxy.refusing() if fault == "refusing" else proxy.stalling():
        server.launch()
        time.sleep(2)
        begin = time.monotonic()
        server.terminate()
        server.wait_ended(90)
        took = time.monotonic() - begin
    assert took < MORE_SECONDS, f"{took:.1f} s"
    server.start()
