"""Part A4: what a response looks like on the wire."""

from __future__ import annotations

import pytest

from interop.server import InteropServer
from support.interop_messages import SERVICE, echo_status, simple_request, streaming_request
from support.raw_calls import MAX_HEADER_LIST_SIZE, RawClient, header_list_bytes, unpadded
from support.rawhttp2 import INITIAL_WINDOW_SIZE, NO_ERROR, message

EMPTY = SERVICE + "EmptyCall"
UNARY = SERVICE + "UnaryCall"
OUTPUT = SERVICE + "StreamingOutputCall"
INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"


def test_a_response_is_headers_data_trailers(connection: RawClient) -> None:
    response = connection.unary(UNARY, message(simple_request(100)))
    assert response.frames == ["HEADERS", "DATA", "HEADERS*"]
    assert response.headers == [(":status", "200"), ("content-type", "application/grpc")]
    assert response.trailers == [("grpc-status", "0")]
    assert len(response.messages) == 1


def test_a_stream_without_messages(connection: RawClient) -> None:
    """conformance: server_empty."""
    response = connection.unary(OUTPUT, message(streaming_request()))
    assert response.status == 0 and response.messages == []
    assert response.frames[-1] == "HEADERS*" and "DATA*" not in response.frames


def test_trailers_only_has_everything_in_one_block(connection: RawClient) -> None:
    response = connection.unary(UNARY, message(simple_request(status=echo_status(5, "nobody"))))
    assert response.frames == ["HEADERS*"]
    assert response.headers == [
        (":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "nobody"),
    ]


def test_a_status_behind_messages(connection: RawClient) -> None:
    response = connection.unary(OUTPUT, message(streaming_request(3, 4, status=echo_status(9, "enough"))))
    assert response.http_status == "200"
    assert len(response.messages) == 2
    assert response.trailers == [("grpc-status", "9"), ("grpc-message", "enough")]
    assert "DATA*" not in response.frames


@pytest.mark.parametrize("code", range(1, 17))
def test_every_code_is_a_plain_number_under_200(connection: RawClient, code: int) -> None:
    """conformance: errors. The HTTP status never follows from the gRPC status."""
    for path, request in ((UNARY, simple_request), (OUTPUT, streaming_request)):
        response = connection.unary(path, message(request(status=echo_status(code, "x"))))
        assert response.http_status == "200"
        assert dict(response.headers)["grpc-status"] == str(code)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
         "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A"),
        ("100%", "100%25"), (" ~", " ~"), ("\x7f\0", "%7F%00"),
    ],
)
def test_messages_are_percent_encoded(connection: RawClient, text: str, encoded: str) -> None:
    response = connection.unary(UNARY, message(simple_request(status=echo_status(2, text))))
    assert response.grpc_message == encoded


@pytest.mark.parametrize("value", [b"", b"\xab", b"\xab\xab", b"\xab\xab\xab", bytes(range(256))])
@pytest.mark.parametrize("padding", [False, True])
def test_binary_metadata_is_read_with_or_without_padding(
    connection: RawClient, value: bytes, padding: bool
) -> None:
    text = unpadded(value)
    sent = text + "=" * (-len(text) % 4) if padding else text
    response = connection.unary(UNARY, message(simple_request(1)), [(TRAILING, sent)])
    assert response.status == 0
    assert response.all(TRAILING) == [text]


def test_duplicate_metadata_keeps_its_order(connection: RawClient) -> None:
    """conformance: duplicate_metadata."""
    extra = [(INITIAL, "b"), (TRAILING, unpadded(b"2")), (INITIAL, "a"), (TRAILING, unpadded(b"1")), (INITIAL, "b")]
    for path, request in ((UNARY, simple_request(1)), (OUTPUT, streaming_request(1))):
        response = connection.unary(path, message(request), extra)
        assert [value for key, value in response.headers if key == INITIAL] == ["b", "a", "b"]
        assert [value for key, value in response.trailers if key == TRAILING] == [unpadded(b"2"), unpadded(b"1")]


def test_binary_metadata_joined_with_commas(connection: RawClient) -> None:
    response = connection.unary(UNARY, message(simple_request(1)), [(TRAILING, "AQ==,Ag, Aw==")])
    assert response.all(TRAILING) == ["AQ", "Ag", "Aw"]


@pytest.mark.parametrize("value", ["&", "A", "AQ=", "AQ==AQ==", "A Q", "-_", "AQ,A"])
def test_metadata_that_is_no_base64(connection: RawClient, value: str) -> None:
    response = connection.unary(UNARY, message(simple_request(1)), [("x-any-bin", value)])
    assert (response.http_status, response.status) == ("400", 13)


def test_early_trailers_are_followed_by_a_reset(connection: RawClient) -> None:
    """grpc-node#1532: strictly behind the trailers, or clients see a reset with code 0 and no status."""
    stream = connection.begin("/a.B/C")
    connection.wait_reset(stream)
    assert connection.responses[stream].frames == ["HEADERS*", f"RST_STREAM({NO_ERROR})"]
    # Both had not seen the other's end: what was on its way is ignored.
    connection.send(connection.data(stream, message(b"late"), end=True))
    connection.ping()
    assert connection.responses[stream].frames == ["HEADERS*", f"RST_STREAM({NO_ERROR})"]


def test_early_trailers_behind_messages(connection: RawClient) -> None:
    request = message(streaming_request(3)) + message(streaming_request(status=echo_status(10)))
    stream = connection.begin(SERVICE + "FullDuplexCall")
    connection.send(connection.data(stream, request))
    connection.wait_reset(stream)
    response = connection.responses[stream]
    assert response.status == 10
    assert response.frames == ["HEADERS", "DATA", "HEADERS*", f"RST_STREAM({NO_ERROR})"]


def test_no_reset_where_both_have_ended(connection: RawClient) -> None:
    # The second ends with its HEADERS: it is refused on them, maybe before any DATA would have come.
    for response in (connection.unary(EMPTY), connection.response(connection.begin("/a.B/C", end=True))):
        connection.ping()
        assert response.reset is None


@pytest.mark.parametrize("limit", [300, 1000, 2000])
def test_the_peers_limit_on_headers_is_honoured(interop: InteropServer, limit: int) -> None:
    """The status comes first, then as much of its message as there is room for."""
    with RawClient(interop.port, {MAX_HEADER_LIST_SIZE: limit}) as client:
        request = simple_request(status=echo_status(5, "☺" * 1000))
        extra = [(TRAILING, unpadded(bytes(900))), (TRAILING, "AQ"), (INITIAL, "i" * 900), (INITIAL, "i")]
        response = client.unary(UNARY, message(request), extra)
        assert response.status == 5
        assert header_list_bytes(response.headers) <= limit
        if limit >= 1000:
            assert response.grpc_message.startswith("%E2%98%BA")
        response = client.unary(UNARY, message(simple_request(1)), extra)
        assert response.status == 0
        assert header_list_bytes(response.trailers) <= limit and header_list_bytes(response.headers) <= limit
        if limit >= 1000:
            assert response.all(INITIAL)[-1] == "i" and response.all(TRAILING)[-1] == "AQ"


def test_a_long_message_fits_the_usual_limits(connection: RawClient) -> None:
    response = connection.unary(UNARY, message(simple_request(status=echo_status(5, "☺" * 5000))))
    assert response.status == 5
    assert header_list_bytes(response.headers) < 8192


def test_trailers_need_no_window(interop: InteropServer) -> None:
    """Part E1.6: the library asks for no DATA while a window is closed, and trailers need none."""
    with RawClient(interop.port, {INITIAL_WINDOW_SIZE: 0}) as client:
        assert client.unary(UNARY, message(simple_request(status=echo_status(7)))).status == 7
        assert client.unary(OUTPUT, message(streaming_request())).status == 0


def test_trailers_never_overtake_payload(interop: InteropServer) -> None:
    with RawClient(interop.port, {INITIAL_WINDOW_SIZE: 0}) as client:
        stream = client.begin(UNARY)
        client.send(client.data(stream, message(simple_request(100)), end=True))
        client.ping()
        assert client.responses[stream].frames == ["HEADERS"]
        for _ in range(len(message(bytes(110)))):
            client.give_window(stream, 1)
        response = client.response(stream)
        assert response.status == 0 and len(response.messages) == 1
        assert response.frames[0] == "HEADERS" and response.frames[-1] == "HEADERS*"
