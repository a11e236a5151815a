"""Limits of docs/abuse.md that take a server with small ones to reach, and clients that must not run into them."""

from __future__ import annotations

import time

import pytest

from support.bounds import connections, refusals, resident_bytes
from support.raw_calls import RawClient
from support.rawhttp2 import (
    ACK, CANCEL, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, HEALTH_CHECK, HEALTH_WATCH,
    INITIAL_WINDOW_SIZE, NO_ERROR, PREFACE, PROTOCOL_ERROR, REFLECTION, REFUSED_STREAM, RST_STREAM, SETTINGS,
    RawConnection, frame, message, reset, settings,
)
from support.server import Server
from support.waiting import wait_until
from support.world import World

pytestmark = pytest.mark.xdist_group("limits")

SYMBOL = b"cloudphone.device.v1.DeviceService"
CREATE = "/cloudphone.device.v1.DeviceService/CreateDevice"
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
def small(place: World) -> Server:
    return place.server("small", environment=SMALL)


@pytest.fixture
def server(small: Server) -> Server:
    """With nobody connected."""
    wait_until(lambda: connections(small) == 0, 60, "earlier connections to be gone")
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
        # A handler counts until it has returned; a reset of whatever code cancels it.
        codes = (CANCEL, NO_ERROR, PROTOCOL_ERROR, 999)
        raw.send(b"".join(reset(watch, code) for watch, code in zip(watches, codes, strict=False)))
        deadline, begun = time.monotonic() + 60, 0
        while begun < len(codes):
            stream = raw.call(HEALTH_WATCH)
            first = raw.wait_for(lambda one, stream=stream: one.stream == stream and one.kind in (RST_STREAM, HEADERS))
            if first.kind == HEADERS:
                begun += 1
            else:
                assert first.error_code == REFUSED_STREAM and time.monotonic() < deadline
        refused = raw.call()
        assert raw.wait_for(lambda one: one.kind == RST_STREAM and one.stream == refused).error_code == REFUSED_STREAM


def test_too_many_connections(server: Server) -> None:
    before = refusals(server)["too_many_connections"]
    taken = [RawConnection(server.port) for _ in range(3)]
    try:
        with RawConnection(server.port, handshake=False) as fourth:
            assert fourth.wait_closed(60) is None
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


def test_what_was_reset_is_not_unread(server: Server) -> None:
    """As much as ends a connection, but for a client that lets go of it each time: it owes nothing."""
    before = refusals(server)
    ask = message(b"\x22" + bytes([len(SYMBOL)]) + SYMBOL)
    with RawConnection(server.port, initial={INITIAL_WINDOW_SIZE: 0}) as raw:
        for _ in range(15):
            stream = raw.open(REFLECTION)
            raw.send(frame(DATA, 0, stream, ask * 100))
            raw.wait_for(lambda one, stream=stream: one.stream == stream and one.kind == HEADERS)
            raw.send(reset(stream))
        # Held back if anything counted as unread still.
        raw.send(settings({INITIAL_WINDOW_SIZE: 65535}))
        assert raw.trailers(raw.call()).field("grpc-status") == "0"
    assert refusals(server) == before


def _fill(raw: RawConnection, calls: int) -> None:
    """Has the server keep some 60 KiB a call: answers for which the client has no window."""
    ask = message(b"\x22" + bytes([len(SYMBOL)]) + SYMBOL)
    for _ in range(calls):
        raw.send(frame(DATA, 0, raw.open(REFLECTION), ask * 100))


def test_many_that_keep_much(place: World) -> None:
    """Two clients that together have the server keep more than all may: who has more than its share goes, who has less
    stays, and what was kept for those that are gone is forgotten."""
    server = place.server("keeps little", environment={"DEVICERPC_MAX_KEPT_BYTES": str(1 << 20)})

    def kept() -> int:
        return refusals(server)["too_much_kept"]

    for repetition in range(1, 3):
        with (
            RawClient(server.port) as polite,
            RawConnection(server.port, initial={INITIAL_WINDOW_SIZE: 0}) as first,
            RawConnection(server.port, initial={INITIAL_WINDOW_SIZE: 0}) as second,
        ):
            # Less than half, so that it isn't the one to go, whenever it is looked at.
            _fill(first, 5)
            first.pump(1)
            assert not first.is_closed and kept() == repetition - 1
            _fill(second, 16)
            goaway = second.wait_closed()
            assert goaway is not None
            assert (goaway.error_code, goaway.debug_data) == (ENHANCE_YOUR_CALM, "too_much_kept")
            assert kept() == repetition
            assert polite.unary(HEALTH_CHECK).status == 0
            assert not first.is_closed
        wait_until(lambda: connections(server) == 0, 60, "them to be gone")


@pytest.mark.parametrize("body", [b"", b"\x08\x01"], ids=["empty", "two bytes"])
def test_tiny_messages_that_wait(place: World, body: bytes) -> None:
    """Windows full of the smallest messages, for handlers that wait until their clients read: they take about what they
    took on the wire."""
    server = place.server(f"tiny messages of {len(body)}", environment={})
    before = resident_bytes(server)
    window = (message(body) * 65535)[:65535]
    with RawClient(server.port, initial={INITIAL_WINDOW_SIZE: 0}) as client:
        client.read_until(lambda: client.peer_settings is not None, "the server's SETTINGS")
        streams = [client.begin(REFLECTION) for _ in range(STREAMS // 4)]
        assert client.flood(
            client.data(stream, window[start : start + 16384])
            for stream in streams for start in range(0, len(window), 16384))
        client.ping()
        grown = resident_bytes(server) - before
        sent = len(streams) * len(window)
        assert grown < 5 * sent, f"{sent >> 20} MiB were sent, and {grown >> 20} MiB are taken"


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


STREAMS = 200
# As large as CreateDevice takes them: a description that is far too long.
LARGE = message(b"\x1a\xfc\xff\x0f" + b"d" * 0x3FFFC)


def _send_what_fits(client: RawClient, rest: dict[int, bytes], keeping: int) -> bool:
    """Sends on each stream all that its window has room for, but for the last bytes; false if that was nothing."""
    moved = False
    for stream in rest:
        while True:
            body = rest[stream]
            room = min(client.send_window[0], client.send_window.setdefault(stream, 65535))
            count = min(16384, len(body) - keeping, room)
            if count <= 0:
                break
            client.send_window[0] -= count
            client.send_window[stream] -= count
            client.send(client.data(stream, body[:count], end=count == len(body)))
            rest[stream] = body[count:]
            moved = True
    return moved


def test_requests_that_are_never_whole(place: World) -> None:
    """All but the last byte of as many requests as there may be: the server keeps what its windows had room for, and of
    only one of them more. Once the client goes on, all of them come through."""
    server = place.server(
        "unbuffered", environment={
            "DEVICERPC_MAX_STREAMS": str(STREAMS + 1), "DEVICERPC_MAX_BUFFERED_REQUEST_BYTES": str(1 << 20)})
    before = resident_bytes(server)
    with RawClient(server.port) as client:
        rest = {client.begin(CREATE): LARGE for _ in range(STREAMS)}
        # A call that is answered is a round trip: by then the windows are as wide as they will be.
        while _send_what_fits(client, rest, keeping=1) or client.send_window[0] <= 0:
            assert client.unary(HEALTH_CHECK).status == 0
        kept = sum(len(LARGE) - len(body) for body in rest.values())
        assert kept < (1 << 20) + len(LARGE) + STREAMS * 65535
        grown = resident_bytes(server) - before
        assert grown < 2 * kept, f"{kept >> 20} MiB were sent, and {grown >> 20} MiB are taken"
        held_back = refusals(server)["too_much_buffered"]
        assert held_back > STREAMS // 2
        while not all(client.has_ended(stream) for stream in rest):
            if not _send_what_fits(client, rest, keeping=0):
                client.pump(0.1)
            assert not client.is_closed
        assert {client.responses[stream].status for stream in rest} == {3}
