"""Part A7: PINGs, and how connections end."""

from __future__ import annotations

import signal
import time

import pytest

from interop.server import InteropServer
from support.interop_messages import SERVICE, simple_request, streaming_request
from support.raw_calls import RawClient
from support.rawhttp2 import ACK, ENHANCE_YOUR_CALM, GOAWAY, INITIAL_WINDOW_SIZE, NO_ERROR, PING, SETTINGS, frame, message

EMPTY = SERVICE + "EmptyCall"
LAST = (1 << 31) - 1


def test_pings_are_acknowledged_at_once(connection: RawClient) -> None:
    connection.ping(b"12345678")
    assert connection.acknowledged_pings == [b"12345678"]


def test_too_many_pings(interop: InteropServer) -> None:
    """Two strikes are put up with; the first PING is none."""
    with RawClient(interop.port) as client:
        for _ in range(3):
            client.ping()
        assert client.goaways == []
        client.send(frame(PING, payload=b"one more"))
        client.wait_closed()
        assert [goaway[1:] for goaway in client.goaways] == [(ENHANCE_YOUR_CALM, "too_many_pings")]
    with RawClient(interop.port) as client:
        client.send(frame(PING, payload=b"at once!") * 20)
        client.wait_closed()
        assert [goaway[1:] for goaway in client.goaways] == [(ENHANCE_YOUR_CALM, "too_many_pings")]


def test_frames_that_are_sent_forgive_pings(connection: RawClient) -> None:
    """Go, Python and Java measure the bandwidth with PINGs; every HEADERS or DATA frame on the wire counts."""
    # The second answer is HEADERS only.
    for path, status in ((EMPTY, 0), ("/a.B/C", 12)) * 10:
        assert connection.unary(path).status == status
        connection.ping()
        connection.ping()
    stream = connection.begin(SERVICE + "StreamingOutputCall")
    request = streaming_request(*[10] * 40, interval_us=10_000)
    connection.send(connection.data(stream, message(request), end=True))
    pings = 0
    while not connection.has_ended(stream):
        # Like a client that measures the bandwidth: a PING for new data, one at a time.
        seen = len(connection.received)
        connection.read_until(lambda n=seen: len(connection.received) > n, "a message")
        connection.ping()
        pings += 1
    assert pings > 3
    assert connection.response(stream).status == 0
    assert connection.goaways == []


def test_each_frame_of_a_message_forgives_pings(interop: InteropServer) -> None:
    """grpc-swift-2#5: what counts is not what a handler writes, but each frame that it takes on the wire."""
    with RawClient(interop.port) as client:
        client.give_window(0, 1 << 20)
        stream = client.begin(SERVICE + "UnaryCall")
        client.send(client.data(stream, message(simple_request(200_000)), end=True))
        client.read_until(
            lambda: client.has_begun(stream) and len(client.responses[stream].data) == 65535, "a window full")
        pings = 0
        while not client.has_ended(stream):
            client.ping()
            client.ping()
            pings += 2
            seen = len(client.responses[stream].data)
            client.give_window(stream, 16_384)
            client.read_until(
                lambda n=seen: client.has_ended(stream) or len(client.responses[stream].data) > n, "the next frame")
        assert pings > 10 and client.response(stream).status == 0
        assert client.goaways == []


def test_pings_without_calls_where_they_are_forbidden() -> None:
    with InteropServer("--forbid-pings-without-calls", "--minimum-ping-interval", "1") as server:
        with RawClient(server.port) as client:
            stream = client.begin(SERVICE + "FullDuplexCall")
            for _ in range(8):
                time.sleep(0.002)  # no strike: as often as allowed while there is a call
                client.ping()
            client.reset(stream)
            for _ in range(3):
                time.sleep(0.002)
                client.send(frame(PING, payload=b"no calls"))
            client.wait_closed()
            assert [goaway[1:] for goaway in client.goaways] == [(ENHANCE_YOUR_CALM, "too_many_pings")]
            assert len(client.acknowledged_pings) >= 10


def test_server_keepalive() -> None:
    """Who answers stays, whoever says anything at all stays; who says nothing goes."""
    with InteropServer("--keepalive-interval", "150", "--keepalive-timeout", "2000") as server:
        start = time.monotonic()
        with RawClient(server.port) as well, RawClient(server.port, answers=False) as dead:
            # It has shaken hands: else the time for that would end it too.
            dead.send(frame(SETTINGS, ACK))
            stream = dead.begin(SERVICE + "FullDuplexCall")
            well.read_until(lambda: len(well.pings) >= 3, "three PINGs")
            dead.wait_closed()
            assert 2 <= time.monotonic() - start < 30
            assert len(dead.pings) == 1
            assert stream not in dead.responses or not dead.responses[stream].has_ended
            assert well.unary(EMPTY).status == 0
        with RawClient(server.port, answers=False) as talking:
            end = time.monotonic() + 3.5
            while time.monotonic() < end:
                talking.give_window(0, 1)
                time.sleep(0.4)
                talking.pump(0)
            assert len(talking.pings) >= 2
            assert talking.unary(EMPTY).status == 0


def test_idle_connections_are_ended() -> None:
    with InteropServer("--maximum-connection-idle", "300") as server, RawClient(server.port) as client:
        stream = client.begin(SERVICE + "FullDuplexCall")
        for _ in range(8):
            client.pump(0.1)
        assert client.goaways == []
        start = time.monotonic()
        client.send(client.data(stream, end=True))
        assert client.response(stream).status == 0
        client.wait_closed()
        assert 0.29 < time.monotonic() - start < 20
        assert client.goaways == [(LAST, NO_ERROR, ""), (stream, NO_ERROR, "max_idle")]


def test_a_call_between_the_two_goaways_is_served() -> None:
    """The client had not seen the first one yet."""
    with InteropServer("--maximum-connection-idle", "200") as server:
        with RawClient(server.port, answers=False) as client:
            client.wait_goaway()
            assert client.unary(EMPTY).status == 0
            client.acknowledge_ping()
            client.wait_closed()
            assert client.goaways == [(LAST, NO_ERROR, ""), (1, NO_ERROR, "max_idle")]


def test_old_connections_end_with_their_last_call() -> None:
    with InteropServer("--maximum-connection-age", "400") as server:
        start = time.monotonic()
        with RawClient(server.port) as client:
            stream = client.begin(SERVICE + "FullDuplexCall")
            client.wait_goaway(2)
            assert 0.35 < time.monotonic() - start < 20
            assert client.goaways[1] == (stream, NO_ERROR, "max_age")
            # The call goes on for as long as it likes.
            client.send(client.data(stream, message(streaming_request(10)), end=True))
            assert client.response(stream).status == 0
            client.wait_closed()


def test_ages_differ() -> None:
    """By a tenth either way, so that connections made together are not made anew together."""
    with InteropServer("--maximum-connection-age", "2000") as server:
        clients = [RawClient(server.port) for _ in range(12)]
        start = time.monotonic()
        ends = []
        while len(ends) < len(clients) and time.monotonic() < start + 60:
            for client in clients:
                if client.goaways:
                    continue
                client.pump(0.002)
                if client.goaways:
                    ends.append(time.monotonic() - start)
        for client in clients:
            client.socket.close()
        assert len(ends) == len(clients)
        assert 1.7 < min(ends) and max(ends) - min(ends) > 0.03


def test_grace_ends_what_outlasts_it() -> None:
    with InteropServer("--maximum-connection-age", "200", "--maximum-connection-age-grace", "300") as server:
        start = time.monotonic()
        with RawClient(server.port) as client:
            stream = client.begin(SERVICE + "FullDuplexCall")
            client.wait_closed()
            assert 0.45 < time.monotonic() - start < 20
            assert not (stream in client.responses and client.responses[stream].has_ended)


def test_graceful_shutdown_says_goodbye_twice() -> None:
    with InteropServer() as server, RawClient(server.port, answers=False) as client:
        running = client.begin(SERVICE + "FullDuplexCall")
        client.ping()
        server.process.send(signal.SIGTERM)
        client.wait_goaway()
        late = client.begin(EMPTY)
        client.send(client.data(late, message(), end=True))
        assert client.response(late).status == 0
        client.acknowledge_ping()
        client.wait_goaway(2)
        assert client.goaways == [(LAST, NO_ERROR, ""), (late, NO_ERROR, "draining")]
        # Above the last one: not looked at, and not the connection's end either.
        ignored = client.begin(EMPTY)
        client.send(client.data(running, message(streaming_request(5)), end=True))
        assert client.response(running).status == 0
        client.wait_closed()
        assert ignored not in client.responses or not client.responses[ignored].headers
        assert server.process.wait(60) == 0


def test_a_shutdown_does_not_wait_for_a_ping_that_nobody_answers() -> None:
    """The final GOAWAY comes after 5 s all the same, and the calls that run end in peace."""
    with InteropServer() as server, RawClient(server.port, answers=False) as client:
        running = client.begin(SERVICE + "FullDuplexCall")
        client.ping()
        server.process.send(signal.SIGTERM)
        client.wait_goaway()
        client.wait_goaway(2)
        assert client.goaways == [(LAST, NO_ERROR, ""), (running, NO_ERROR, "draining")]
        client.send(client.data(running, message(streaming_request(5)), end=True))
        assert client.response(running).status == 0
        client.wait_closed()
        assert server.process.wait(60) == 0


def test_calls_that_outlast_the_drain_are_cut_off() -> None:
    with InteropServer("--drain-timeout", "700") as server, RawClient(server.port) as client:
        stream = client.begin(SERVICE + "FullDuplexCall")
        client.send(client.data(stream, message(streaming_request(5))))
        client.read_until(lambda: client.has_begun(stream), "a response")
        start = time.monotonic()
        server.process.send(signal.SIGTERM)
        client.wait_closed()
        assert client.goaways[0] == (LAST, NO_ERROR, "")
        assert 0.69 < time.monotonic() - start
        assert not client.has_ended(stream)
        assert server.process.wait(60) == 0


@pytest.mark.parametrize("size", [150_000, 1_000_000])
def test_a_slow_reader_gets_its_answer_from_a_server_that_goes(size: int) -> None:
    with InteropServer() as server, RawClient(server.port, {INITIAL_WINDOW_SIZE: 1 << 30}, is_slow=True) as client:
        client.give_window(0, 1 << 30)
        client.ping()
        stream = client.begin(SERVICE + "UnaryCall")
        server.process.send(signal.SIGTERM)
        client.wait_goaway(2)
        client.send(client.data(stream, message(simple_request(size)), end=True))
        # Nothing is read until well after the server has nothing more to do.
        time.sleep(1.5)
        response = client.response(stream)
        assert response.status == 0 and len(response.messages[0]) > size
        client.wait_closed()
        assert server.process.wait(60) == 0


def test_a_clients_goaway_lets_its_calls_finish(interop: InteropServer) -> None:
    with RawClient(interop.port) as client:
        stream = client.begin(SERVICE + "FullDuplexCall")
        client.send(frame(GOAWAY, payload=bytes(8)))
        client.send(client.data(stream, message(streaming_request(5)), end=True))
        assert client.response(stream).status == 0
        # Part E1.4: nothing is left to read or to write.
        client.wait_closed()
        assert client.goaways == []


def test_frames_that_are_no_http_2_end_the_connection(interop: InteropServer, connection: RawClient) -> None:
    """Part E1.4: GOAWAY, and then the connection is closed, with nothing left open."""
    for garbage in (b"\xff" * 100, b"\0\0\4\0\1\0\0\0\0abcd", b"\0\0\5\6\0\0\0\0\0abcde"):
        with RawClient(interop.port) as client:
            client.send(garbage)
            client.wait_closed()
            assert len(client.goaways) == 1 and client.goaways[0][1] != NO_ERROR
    assert connection.unary(EMPTY).status == 0
