"""Part A2: grpc-timeout, and the end of calls whose time is over."""

from __future__ import annotations

import time

import pytest

from interop.server import InteropServer
from support.interop_messages import SERVICE, streaming_request
from support.raw_calls import RawClient
from support.rawhttp2 import CANCEL, INITIAL_WINDOW_SIZE, message

EMPTY = SERVICE + "EmptyCall"


@pytest.mark.parametrize("value", ["", "n", "1", "1s", "1h", "-1n", "+1n", "1.5S", "1 n", "123456789n", "1nn", "٣S"])
def test_malformed_timeouts(connection: RawClient, value: str) -> None:
    response = connection.unary(EMPTY, extra=[("grpc-timeout", value.encode())])
    assert (response.http_status, response.status) == ("400", 13)
    assert response.is_trailers_only


@pytest.mark.parametrize(
    "value", ["1H", "99999999H", "00000001H", "99999999M", "20S", "99999m", "99999999u", "99999999n"]
)
def test_timeouts_of_every_unit(connection: RawClient, value: str) -> None:
    if value == "99999999n":  # a tenth of a second
        assert connection.unary(EMPTY, extra=[("grpc-timeout", value)]).status in (0, 4)
    else:
        assert connection.unary(EMPTY, extra=[("grpc-timeout", value)]).status == 0


@pytest.mark.parametrize("value", ["0n", "0S", "00000000H"])
def test_expired_on_arrival(connection: RawClient, value: str) -> None:
    """Nothing is begun, although the request may be whole."""
    extra = [("grpc-timeout", value)]
    for response in (connection.response(connection.begin(EMPTY, extra)), connection.unary(EMPTY, extra=extra)):
        assert (response.http_status, response.status) == ("200", 4)
        assert response.is_trailers_only


@pytest.mark.parametrize("method", ["EmptyCall", "StreamingInputCall", "FullDuplexCall", "HalfDuplexCall"])
def test_expiry_while_the_request_is_coming(connection: RawClient, method: str) -> None:
    start = time.monotonic()
    response = connection.response(connection.begin(SERVICE + method, [("grpc-timeout", "100m")]))
    assert response.status == 4
    assert 0.1 <= time.monotonic() - start < 20


def test_expiry_between_two_messages(connection: RawClient) -> None:
    """Trailers, and not only a reset: between messages they can still be sent."""
    request = streaming_request(5, interval_us=0) + streaming_request(5, interval_us=30_000_000)
    response = connection.unary(SERVICE + "StreamingOutputCall", message(request), [("grpc-timeout", "1500m")])
    assert response.status == 4
    assert len(response.messages) == 1
    assert response.frames[-1] == "HEADERS*"


def test_expiry_within_a_message(connection: RawClient) -> None:
    """No trailers can follow half of a message: RST_STREAM(CANCEL), as the specification has it."""
    stream = connection.begin(SERVICE + "StreamingOutputCall", [("grpc-timeout", "1500m")])
    connection.send(connection.data(stream, message(streaming_request(200_000)), end=True))
    response = connection.response(stream)
    assert response.reset == CANCEL and response.status is None
    assert len(response.data) == 65535
    connection.give_window(0, 1 << 20)


def test_expiry_while_messages_wait_for_a_window(interop: InteropServer) -> None:
    """Nothing of them has left: they are dropped, and the trailers need no window."""
    with RawClient(interop.port, {INITIAL_WINDOW_SIZE: 0}) as connection:
        request = streaming_request(5, 5) + streaming_request(5, interval_us=30_000_000)
        response = connection.unary(SERVICE + "StreamingOutputCall", message(request), [("grpc-timeout", "1500m")])
        assert (response.status, response.data, response.reset) == (4, b"", None)


def test_the_servers_own_maximum() -> None:
    with InteropServer("--maximum-unary-timeout", "1000") as server, RawClient(server.port) as connection:
        for extra in ([], [("grpc-timeout", "1H")]):
            assert connection.response(connection.begin(EMPTY, extra)).status == 4
        assert connection.unary(EMPTY).status == 0
    # The client's own counts if it is shorter.
    with InteropServer("--maximum-unary-timeout", "60000") as server, RawClient(server.port) as connection:
        assert connection.response(connection.begin(EMPTY, [("grpc-timeout", "100m")])).status == 4
