"""The basic cases of connectrpc/conformance; docs/wire.md tells where its other suites are said again."""

from __future__ import annotations

import pytest

from support.interop_messages import SERVICE, field, input_request, simple_request, streaming_request
from support.raw_calls import RawClient, unpadded
from support.rawhttp2 import message

INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


@pytest.mark.parametrize(
    ("method", "body", "count"),
    [
        ("EmptyCall", message(), 1),
        ("UnaryCall", message(simple_request(31, 27)), 1),
        ("StreamingInputCall", b"".join(message(input_request(size)) for size in (27182, 8, 182)), 1),
        ("StreamingInputCall", b"", 1),
        ("StreamingOutputCall", message(streaming_request(3141, 9, 265)), 3),
        ("StreamingOutputCall", message(streaming_request()), 0),
        ("FullDuplexCall", message(streaming_request(3)) + message(streaming_request(1, 4)), 3),
        ("FullDuplexCall", b"", 0),
        ("HalfDuplexCall", message(streaming_request(3)) + message(streaming_request(1, 4)), 3),
    ],
)
def test_basic(connection: RawClient, method: str, body: bytes, count: int) -> None:
    """Headers, every message, trailers, in each kind of call."""
    extra = [(INITIAL, "value"), (TRAILING, unpadded(b"\xab\xab\xab"))]
    stream = connection.begin(SERVICE + method, extra)
    connection.send_all(stream, body) if body else connection.send(connection.data(stream, end=True))
    response = connection.response(stream)
    assert (response.http_status, response.status) == ("200", 0)
    assert len(response.messages) == count
    assert (INITIAL, "value") in response.headers
    assert (TRAILING, unpadded(b"\xab\xab\xab")) in (response.trailers or response.headers)


def test_full_duplex_answers_as_it_is_asked(connection: RawClient) -> None:
    stream = connection.begin(SERVICE + "FullDuplexCall")
    for number in range(1, 6):
        connection.send(connection.data(stream, message(streaming_request(number))))
        connection.read_until(
            lambda n=number: stream in connection.responses and len(connection.responses[stream].messages) == n,
            "an answer",
        )
    connection.send(connection.data(stream, end=True))
    response = connection.response(stream)
    assert response.status == 0
    assert response.messages == [field(1, field(2, bytes(number))) for number in range(1, 6)]
