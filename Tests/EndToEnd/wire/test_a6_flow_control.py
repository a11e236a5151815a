"""Part A6: windows, and who may hold up whom."""

from __future__ import annotations

from interop.server import InteropServer
from support.interop_messages import SERVICE, field, input_request, payload, simple_request, streaming_request
from support.raw_calls import RawClient
from support.rawhttp2 import INITIAL_WINDOW_SIZE, message

# A payload of FullDuplexCall: some 16000 bytes, nothing to answer.
FILLER = message(field(3, payload(15985)))


def test_a_slow_stream_leaves_the_connections_window_alone(interop: InteropServer) -> None:
    """Its handler reads no more, since nobody takes its answers. The connection's credit comes back all the same."""
    with RawClient(interop.port, {INITIAL_WINDOW_SIZE: 0}) as client:
        blocked = []
        for _ in range(40):
            stream = client.begin(SERVICE + "FullDuplexCall")
            # An answer that fills the outbound limit: the handler waits in its write.
            client.send(client.data(stream, message(streaming_request(200_000))))
            blocked.append(stream)
        client.ping()
        sent = 0
        for stream in blocked:
            # More than the connection's whole window, over all streams.
            client.send_window.setdefault(stream, 65535)
            client.send_window[stream] -= 200
            for _ in range(3):
                client.read_until(lambda: client.send_window[0] >= len(FILLER), "the connection's window")
                client.send_window[0] -= len(FILLER)
                client.send(client.data(stream, FILLER))
                sent += len(FILLER)
        assert sent > 1 << 20
        client.ping()
        client.give_window(0, 1 << 20)
        stream = client.begin(SERVICE + "EmptyCall")
        client.give_window(stream, 100)
        client.send(client.data(stream, message(), end=True))
        assert client.response(stream).status == 0


def test_a_streams_credit_comes_back_as_its_handler_reads(interop: InteropServer) -> None:
    """Else a client could have the server keep whatever it sends to a handler that is busy."""
    with RawClient(interop.port, {INITIAL_WINDOW_SIZE: 0}) as client:
        stream = client.begin(SERVICE + "FullDuplexCall")
        # The handler waits in its write.
        client.send(client.data(stream, message(streaming_request(200_000))))
        for _ in range(4):
            client.send(client.data(stream, FILLER))
        client.ping()
        assert stream not in client.send_window
        client.give_window(0, 1 << 20)
        client.give_window(stream, 1 << 20)
        client.read_until(lambda: stream in client.send_window, "credit of the stream")
        client.send(client.data(stream, end=True))
        response = client.response(stream)
        assert response.status == 0 and len(response.messages) == 1


def test_messages_larger_than_the_window(connection: RawClient) -> None:
    """Credit comes back while the message is being put together (interop large_unary: 271,828 bytes)."""
    stream = connection.begin(SERVICE + "UnaryCall")
    connection.send_all(stream, message(simple_request(1, 271_828)))
    assert connection.response(stream).status == 0
    stream = connection.begin(SERVICE + "StreamingInputCall")
    connection.send_all(stream, message(input_request(271_828)) + message(input_request(1_000_000)))
    assert connection.response(stream).messages == [field(1, 1_271_828)]


def test_windows_of_single_bytes(interop: InteropServer) -> None:
    with RawClient(interop.port, {INITIAL_WINDOW_SIZE: 1}) as client:
        stream = client.begin(SERVICE + "UnaryCall")
        client.send(client.data(stream, message(simple_request(200)), end=True))
        for _ in range(250):
            client.give_window(stream, 1)
        response = client.response(stream)
        assert response.status == 0 and len(response.messages) == 1


def test_the_connections_window_counts_for_answers_too(interop: InteropServer) -> None:
    with RawClient(interop.port, {INITIAL_WINDOW_SIZE: 1 << 20}) as client:
        stream = client.begin(SERVICE + "UnaryCall")
        client.send(client.data(stream, message(simple_request(300_000)), end=True))
        client.read_until(
            lambda: stream in client.responses and len(client.responses[stream].data) == 65535, "a full window")
        client.ping()
        assert len(client.responses[stream].data) == 65535
        client.give_window(0, 1 << 20)
        assert client.response(stream).status == 0
