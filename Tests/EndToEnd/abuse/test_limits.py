"""Limits of docs/abuse.md that take a server with small ones to reach, and clients that must not run into them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support.bounds import connections, refusals
from support.postgres import Cluster
from support.rawhttp2 import (
    ACK, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, HEALTH_WATCH, INITIAL_WINDOW_SIZE,
    PREFACE, PROTOCOL_ERROR, REFLECTION, REFUSED_STREAM, RST_STREAM, SETTINGS, RawConnection, frame, message, reset,
    settings,
)
from support.server import Server
from support.waiting import wait_until
from support.world import World

pytestmark = pytest.mark.xdist_group("limits")

SYMBOL = b"cloudphone.device.v1.DeviceService"
SMALL = {
    "DEVICERPC_MAX_CONNECTIONS": "3",
    "DEVICERPC_MAX_STREAMS": "25",
    "DEVICERPC_MAX_RUNNING_HANDLERS": "20",
    "DEVICERPC_MAX_UNREAD_BYTES": "65536",
    "DEVICERPC_RESET_BURST": "100",
    "DEVICERPC_RESETS_PER_SECOND": "1",
    "DEVICERPC_UNANSWERED_RESET_BURST": "10",
    "DEVICERPC_UNANSWERED_RESETS_PER_SECOND": "1",
    "DEVICERPC_WRITE_TIMEOUT": "1s",
}
# Far beyond the bounds of both budgets of resets.
ROUNDS, CALLS = 10, 20


@pytest.fixture(scope="module")
def place(cluster: Cluster, template: str) -> Iterator[World]:
    world = World(cluster, template, user_service=False)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture(scope="module")
def small(place: World) -> Server:
    return place.server("small", environment=SMALL)


@pytest.fixture
def server(small: Server) -> Server:
    """With nobody connected."""
    wait_until(lambda: connections(small) == 0, 10, "earlier connections to be gone")
    return small


def test_deadline_storm(server: Server) -> None:
    """Calls that wait in vain and are reset at their deadlines don't cost their client its connection."""
    before = refusals(server)
    with RawConnection(server.port) as raw:
        for _ in range(ROUNDS):
            streams = [raw.open() for _ in range(CALLS)]
            raw.trailers(raw.call())
            # All of them have begun; now their time passes.
            time.sleep(0.12)
            raw.send(b"".join(reset(stream) for stream in streams))
        raw.trailers(raw.call())
        assert refusals(server) == before
        # Nobody waits for these.
        raw.flood([frame(HEADERS, END_HEADERS, stream, raw.request_headers()) + reset(stream)
                   for stream in [raw.next_stream() for _ in range(60)]])
        goaway = raw.wait_closed()
    assert goaway is not None
    assert (goaway.error_code, goaway.debug_data) == (ENHANCE_YOUR_CALM, "too_many_unanswered_resets")


def test_calls_that_both_sides_find_late(server: Server) -> None:
    """The server answers a call that is late at the moment in which its client resets it."""
    before = refusals(server)
    with RawConnection(server.port) as raw:
        for _ in range(ROUNDS):
            streams = [raw.open(extra=[("grpc-timeout", "10m")]) for _ in range(CALLS)]
            for stream in streams:
                assert raw.trailers(stream).field("grpc-status") == "4"
            raw.send(b"".join(reset(stream) for stream in streams))
        raw.trailers(raw.call())
    assert refusals(server) == before


def test_too_many_handlers(server: Server) -> None:
    """A call beyond the handlers that may run is not begun, and its client may try it elsewhere."""
    before = refusals(server)["too_many_handlers"]
    with RawConnection(server.port) as raw:
        watches = [raw.call(HEALTH_WATCH) for _ in range(20)]
        for watch in watches:
            raw.wait_for(lambda one, watch=watch: one.kind == DATA and one.stream == watch)
        refused = raw.call()
        assert raw.wait_for(lambda one: one.kind == RST_STREAM and one.stream == refused).error_code == REFUSED_STREAM
        assert refusals(server)["too_many_handlers"] == before + 1
        raw.send(reset(watches[0]))
        deadline = time.monotonic() + 10
        # The cancelled handler counts until it has returned.
        while True:
            stream = raw.call()
            end = raw.wait_for(
                lambda one: one.stream == stream and (one.kind == RST_STREAM or one.ends_stream))
            if end.kind == HEADERS:
                break
            assert end.error_code == REFUSED_STREAM and time.monotonic() < deadline


def test_too_many_connections(server: Server) -> None:
    before = refusals(server)["too_many_connections"]
    taken = [RawConnection(server.port) for _ in range(3)]
    try:
        with RawConnection(server.port, handshake=False) as fourth:
            assert fourth.wait_closed(5) is None
        assert refusals(server)["too_many_connections"] == before + 1
        for connection in taken:
            connection.trailers(connection.call())
    finally:
        for connection in taken:
            connection.close()


def test_too_much_unread(server: Server) -> None:
    """Streams that run already, of a client that closed its windows, fill up to eight times the bound together."""
    before = refusals(server)["too_much_unread"]
    ask = message(b"\x22" + bytes([len(SYMBOL)]) + SYMBOL)
    with RawConnection(server.port, initial={INITIAL_WINDOW_SIZE: 0}) as raw:
        for _ in range(15):
            raw.send(frame(DATA, 0, raw.open(REFLECTION), ask * 100))
        goaway = raw.wait_closed()
    assert goaway is not None
    assert (goaway.error_code, goaway.debug_data) == (ENHANCE_YOUR_CALM, "too_much_unread")
    assert refusals(server)["too_much_unread"] == before + 1


def test_streams_beyond_the_limit(server: Server) -> None:
    """Before its client has acknowledged the limit they are refused unprocessed, afterwards they break HTTP/2."""
    with RawConnection(server.port, handshake=False) as raw:
        raw.send(PREFACE + settings({}))
        streams = [raw.open() for _ in range(26)]
        refused = raw.wait_for(lambda one: one.kind == RST_STREAM)
        assert (refused.stream, refused.error_code) == (streams[-1], REFUSED_STREAM)
        raw.send(frame(DATA, END_STREAM, streams[0], message()))
        assert raw.trailers(streams[0]).field("grpc-status") == "0"
        assert [one.stream for one in raw.received if one.kind == RST_STREAM] == [streams[-1]]
        raw.wait_for(lambda one: one.kind == SETTINGS and not one.flags & ACK)
        raw.send(frame(SETTINGS, ACK))
        raw.open()
        raw.open()
        goaway = raw.wait_closed()
    assert goaway is not None and goaway.error_code == PROTOCOL_ERROR
