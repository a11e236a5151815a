"""Part A5: resets, and what comes too late."""

from __future__ import annotations

import pytest

from interop.server import InteropServer
from support.interop_messages import SERVICE, streaming_request
from support.raw_calls import RawClient
from support.rawhttp2 import CANCEL, message, reset

OUTPUT = SERVICE + "StreamingOutputCall"


@pytest.mark.parametrize("code", [0, 1, 2, CANCEL, 11, 999])
def test_a_reset_of_any_code_ends_the_call(connection: RawClient, code: int) -> None:
    stream = connection.begin(OUTPUT)
    request = streaming_request(*[1000] * 500, interval_us=2000)
    connection.send(connection.data(stream, message(request), end=True))
    connection.read_until(lambda: stream in connection.responses, "a response")
    connection.reset(stream, code)
    connection.ping()
    seen = len(connection.responses[stream].frames)
    for _ in range(20):
        connection.ping(b"nothing!")
        assert connection.unary(SERVICE + "EmptyCall").status == 0
    assert len(connection.responses[stream].frames) == seen


def test_queued_output_is_dropped(interop: InteropServer) -> None:
    with RawClient(interop.port) as client:
        stream = client.begin(OUTPUT)
        client.send(client.data(stream, message(streaming_request(200_000)), end=True))
        client.read_until(
            lambda: stream in client.responses and len(client.responses[stream].data) == 65535, "a full window")
        client.reset(stream)
        client.give_window(0, 1 << 20)
        client.ping()
        assert len(client.responses[stream].data) == 65535
        assert client.unary(SERVICE + "EmptyCall").status == 0


def test_a_reset_before_the_request_is_whole(connection: RawClient) -> None:
    for method in ("UnaryCall", "StreamingInputCall", "FullDuplexCall"):
        stream = connection.begin(SERVICE + method)
        connection.send(connection.data(stream, b"\0\0\0"))
        connection.reset(stream)
        connection.ping()


def test_headers_and_reset_at_once(connection: RawClient) -> None:
    """No handler for what was reset before anybody looked (CVE-2023-44487)."""
    frames = b""
    for _ in range(50):
        stream = connection.next_stream()
        fields = [
            (":method", "POST"), (":scheme", "http"), (":path", SERVICE + "EmptyCall"), (":authority", "x"),
            ("content-type", "application/grpc"),
        ]
        frames += connection.headers(stream, fields)
        frames += connection.data(stream, message(), end=True)
        frames += reset(stream)
    connection.send(frames)
    connection.ping()
    # Where the server's reads end, one call may still have been begun.
    assert sum(1 for response in connection.responses.values() if response.headers) <= 5


def test_late_frames_on_closed_streams_are_ignored(connection: RawClient) -> None:
    """grpc-swift#2202. The stream is gone for the server and not yet for the client."""
    for _ in range(60):
        stream = connection.begin("/a.B/C")
        connection.wait_reset(stream)
        connection.give_window(stream, 100)
        connection.send(connection.data(stream, message(b"late")))
        connection.reset(stream)
    connection.ping()


@pytest.mark.parametrize("path", ["/a.B/C", SERVICE + "FullDuplexCall"], ids=["answered", "reset"])
def test_late_data_is_paid_back(connection: RawClient, path: str) -> None:
    """What comes for streams that are gone takes nothing of the connection's window: more than there is of it."""
    connection.read_until(lambda: connection.send_window[0] > 1 << 19, "the connection's window")
    for _ in range(40):
        stream = connection.begin(path)
        if path == "/a.B/C":
            connection.wait_reset(stream)
        else:
            connection.reset(stream)
        for _ in range(3):
            connection.read_until(lambda: connection.send_window[0] >= 16000, "the connection's window")
            connection.send_window[0] -= 16000
            connection.send(connection.data(stream, bytes(16000)))


def test_a_lost_connection_is_nothing_special(interop: InteropServer, connection: RawClient) -> None:
    for _ in range(5):
        with RawClient(interop.port) as client:
            stream = client.begin(OUTPUT)
            request = streaming_request(*[50_000] * 100, interval_us=1000)
            client.send(client.data(stream, message(request), end=True))
            client.read_until(lambda: stream in client.responses, "a response")
    assert connection.unary(SERVICE + "EmptyCall").status == 0
