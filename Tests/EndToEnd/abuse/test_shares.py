"""What all clients share can't be used up by one of them: not by one connection, nor by many of one address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from support.bounds import connections, refusals, resident_bytes
from support.postgres import Cluster
from support.rawhttp2 import (
    DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, HEALTH_WATCH, INITIAL_WINDOW_SIZE, REFLECTION, RawConnection,
    frame, message, window_update,
)
from support.server import Server
from support.waiting import wait_until
from support.world import World

pytestmark = pytest.mark.xdist_group("shares")

MIB = 1 << 20
SYMBOL = b"cloudphone.device.v1.DeviceService"
ASK = message(b"\x22" + bytes([len(SYMBOL)]) + SYMBOL)
OTHER = "127.0.0.2"


@pytest.fixture(scope="module")
def place(cluster: Cluster, template: str) -> Iterator[World]:
    world = World(cluster, template, user_service=False)
    try:
        yield world
    finally:
        world.close()


def _server(place: World, name: str, **limits: int) -> Server:
    server = place.server(name, environment={f"DEVICERPC_{key}": str(value) for key, value in limits.items()})
    wait_until(lambda: connections(server) == 0, 10, "the client that waited for readiness to be gone")
    return server


def _keep(raw: RawConnection, streams: int) -> None:
    """Has the server keep some 70 KiB a stream: answers for which the client has no window."""
    for _ in range(streams):
        raw.send(frame(DATA, 0, raw.open(REFLECTION), ASK * 100))


def test_handshakes_of_one_address(place: World) -> None:
    """Who opens connections and says nothing keeps nobody else out."""
    server = _server(place, "handshakes", MAX_HANDSHAKES=20)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(RawConnection(server.port, handshake=False))
        wait_until(lambda: refusals(server)["too_many_handshakes"] == 10, 10, "the bound")
        for _ in range(10):
            with RawConnection(server.port, source=OTHER) as other:
                other.trailers(other.call())
        assert refusals(server)["too_many_handshakes"] == 10


def test_headers_of_calls_that_run(place: World) -> None:
    """A field of 3.9 kB is one byte on the wire once it is in HPACK's table: calls that go on are counted with their
    headers."""
    server = _server(place, "headers", MAX_KEPT_BYTES=4 * MIB)
    before = resident_bytes(server)
    with RawConnection(server.port) as raw, RawConnection(server.port, source=OTHER) as other:
        _keep(other, 1)
        for _ in range(900):
            if raw.is_closed:
                break
            raw.call(HEALTH_WATCH, extra=[("x-much", "m" * 3900)] * 4)
        goaway = raw.wait_closed()
        assert goaway is not None and (goaway.error_code, goaway.debug_data) == (ENHANCE_YOUR_CALM, "too_much_kept")
        assert resident_bytes(server) - before < 24 * MIB
        other.pump(0.1)
        assert not other.is_closed
    assert refusals(server)["too_much_kept"] == 1


def test_many_calls_that_do_nothing(place: World) -> None:
    """Calls take memory while they run, whatever they are about."""
    server = _server(place, "calls", MAX_KEPT_BYTES=4 * MIB)
    with RawConnection(server.port) as raw:
        for _ in range(900):
            if raw.is_closed:
                break
            raw.call(HEALTH_WATCH)
        goaway = raw.wait_closed()
    assert goaway is not None and goaway.debug_data == "too_much_kept"


def test_many_connections_that_keep_little(place: World) -> None:
    """Forty connections that each keep little are more than may be kept; who keeps more on one stays, from elsewhere."""
    server = _server(place, "little", MAX_KEPT_BYTES=4 * MIB)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(RawConnection(server.port, source=OTHER, initial={INITIAL_WINDOW_SIZE: 0}))
        _keep(other, 5)
        attackers = [
            stack.enter_context(RawConnection(server.port, initial={INITIAL_WINDOW_SIZE: 0})) for _ in range(40)]
        for attacker in attackers:
            _keep(attacker, 2)
        wait_until(lambda: refusals(server)["too_much_kept"] > 0, 20, "some to be closed")
        for attacker in attackers:
            attacker.pump(0.5)
        other.pump(0.1)
        assert not other.is_closed
        assert sum(one.is_closed for one in attackers) < len(attackers), "more than necessary were closed"


def test_answers_that_sockets_do_not_take(place: World) -> None:
    """What was handed to a socket that takes nothing is kept as well."""
    server = _server(place, "sockets", MAX_KEPT_BYTES=4 * MIB)
    with contextlib.ExitStack() as stack:
        raws = [
            stack.enter_context(RawConnection(
                server.port, receive_buffer=4096, segment=536, initial={INITIAL_WINDOW_SIZE: 0x7FFFFFFF}))
            for _ in range(30)]
        for raw in raws:
            raw.send(window_update(0, 0x7FFFFFFF - 65535))
        for raw in raws:
            for _ in range(3):
                stream = raw.next_stream()
                with contextlib.suppress(OSError):
                    raw.socket.send(
                        frame(HEADERS, END_HEADERS, stream, raw.request_headers(REFLECTION))
                        + frame(DATA, 0, stream, ASK * 100))
        wait_until(lambda: refusals(server)["too_much_kept"] > 0, 20, "one of them to be closed")
