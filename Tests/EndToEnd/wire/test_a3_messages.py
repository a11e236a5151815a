"""Part A3: messages and frames, compression, limits, and how many messages there may be."""

from __future__ import annotations

import gzip
import struct
import zlib

import pytest

from interop.server import InteropServer
from support.interop_messages import SERVICE, echo_status, field, input_request, simple_request, streaming_request
from support.raw_calls import RawClient, messages
from support.rawhttp2 import DATA, END_STREAM, PADDED, frame, message

EMPTY = SERVICE + "EmptyCall"
UNARY = SERVICE + "UnaryCall"
INPUT = SERVICE + "StreamingInputCall"
OUTPUT = SERVICE + "StreamingOutputCall"


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 7])
def test_frames_and_messages_are_unrelated(connection: RawClient, size: int) -> None:
    """Cut anywhere, with empty DATA frames in between, and END_STREAM on one of them."""
    body = message(simple_request(10, 30))
    stream = connection.begin(UNARY)
    for start in range(0, len(body), size):
        connection.send(connection.data(stream, body[start : start + size]))
    connection.send(connection.data(stream))
    connection.send(connection.data(stream, end=True))
    response = connection.response(stream)
    assert response.status == 0
    assert len(response.messages[0]) > 10


def test_many_messages_in_one_frame(connection: RawClient) -> None:
    response = connection.unary(INPUT, b"".join(message(input_request(size)) for size in (3, 0, 40)))
    assert response.status == 0
    assert response.messages == [field(1, 43)]


@pytest.mark.parametrize("method", ["StreamingInputCall", "FullDuplexCall", "HalfDuplexCall"])
def test_end_of_stream_on_headers(connection: RawClient, method: str) -> None:
    assert connection.response(connection.begin(SERVICE + method, end=True)).status == 0


def test_end_of_stream_on_request_trailers(connection: RawClient) -> None:
    stream = connection.begin(UNARY)
    connection.send(connection.data(stream, message(simple_request(1))))
    connection.send(connection.headers(stream, [("x-trailer", "1")], end=True))
    assert connection.response(stream).status == 0


def test_padding_is_no_payload(connection: RawClient) -> None:
    stream = connection.begin(UNARY)
    padded = bytes([200]) + message(simple_request(1)) + bytes(200)
    connection.send(frame(DATA, PADDED | END_STREAM, stream, padded))
    assert connection.response(stream).status == 0


@pytest.mark.parametrize("path", [UNARY, INPUT])
@pytest.mark.parametrize(
    ("flag", "extra"),
    [(1, []), (1, [("grpc-encoding", "identity")]), (2, []), (255, [("grpc-encoding", "gzip")])],
)
def test_flags_that_nobody_announced(
    connection: RawClient, path: str, flag: int, extra: list[tuple[str, str]]
) -> None:
    response = connection.unary(path, message(gzip.compress(b""), flag), extra)
    assert (response.http_status, response.status) == ("200", 13)


@pytest.mark.parametrize("path", [UNARY, INPUT])
@pytest.mark.parametrize("encoding", ["br", "snappy", "GZIP", "gzip, gzip", ""])
def test_unknown_encodings_are_told_the_known_ones(connection: RawClient, path: str, encoding: str) -> None:
    response = connection.unary(path, message(), [("grpc-encoding", encoding)])
    assert response.status == 12 and response.is_trailers_only
    known = [entry.strip() for entry in dict(response.headers)["grpc-accept-encoding"].split(",")]
    assert known == ["identity", "deflate", "gzip"]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests(connection: RawClient, encoding: str, compress: object) -> None:
    """Compressed or not, message by message."""
    assert callable(compress)
    extra = [("grpc-encoding", encoding)]
    response = connection.unary(UNARY, message(compress(simple_request(7, 5000)), 1), extra)
    assert response.status == 0 and len(response.messages[0]) >= 7
    assert response.all("grpc-accept-encoding") == ["identity, deflate, gzip"]
    assert connection.unary(UNARY, message(simple_request(7)), extra).status == 0
    body = message(compress(input_request(1000)), 1) + message(input_request(1))
    body += message(compress(input_request(2)), 1)
    assert connection.unary(INPUT, body, extra).messages == [field(1, 1003)]


@pytest.mark.parametrize("path", [UNARY, INPUT])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"no gzip", gzip.compress(b"")[:-1], gzip.compress(b"") + b"x", gzip.compress(b"") * 2,
        gzip.compress(b"")[:-8] + bytes([1]) * 8, zlib.compress(b""),
    ],
    # Names of our own: gzip writes the time, and workers that name a test differently run none.
    ids=["empty", "no gzip", "cut short", "more behind", "two members", "wrong checksum", "zlib"],
)
def test_broken_compression(connection: RawClient, path: str, body: bytes) -> None:
    response = connection.unary(path, message(body, 1), [("grpc-encoding", "gzip")])
    assert (response.http_status, response.status) == ("200", 13)


@pytest.mark.parametrize("body", [zlib.compress(b"")[2:-4], gzip.compress(b"")], ids=["raw deflate", "gzip"])
def test_deflate_is_zlibs_format(connection: RawClient, body: bytes) -> None:
    assert connection.unary(UNARY, message(body, 1), [("grpc-encoding", "deflate")]).status == 13


@pytest.mark.parametrize("path", [UNARY, INPUT])
def test_bombs(connection: RawClient, path: str) -> None:
    stream = connection.begin(path, [("grpc-encoding", "gzip")])
    connection.send_all(stream, message(gzip.compress(bytes(32 << 20)), 1))
    response = connection.response(stream)
    assert response.status == 8
    assert "4194304" in response.grpc_message


def test_encodings_are_listed_for_who_speaks_of_them(connection: RawClient) -> None:
    extra = [("grpc-accept-encoding", "identity, deflate, gzip")]
    assert connection.unary(EMPTY, extra=extra).all("grpc-accept-encoding") == ["identity, deflate, gzip"]
    assert connection.unary(EMPTY).all("grpc-accept-encoding") == []


@pytest.mark.parametrize("accepted", [None, "identity", "br", "gzip", "identity,deflate"])
def test_the_answers_encoding_comes_before_the_answer(connection: RawClient, accepted: str | None) -> None:
    """A stream may compress any of its messages later, if the client understands it."""
    extra = [("grpc-accept-encoding", accepted)] if accepted else []
    response = connection.unary(OUTPUT, message(streaming_request(3)), extra)
    expected = {"gzip": ["gzip"], "identity,deflate": ["deflate"]}.get(accepted or "", [])
    assert response.all("grpc-encoding") == expected
    assert response.status == 0


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, None), ("identity", None), ("br", None), ("GZIP", None), ("gzip", "gzip"), ("\tgzip ", "gzip"),
        ("identity, deflate, gzip", "gzip"), ("identity,deflate", "deflate"),
    ],
)
@pytest.mark.parametrize("path", [UNARY, OUTPUT])
def test_answers_are_compressed_for_who_understands_it(
    connection: RawClient, path: str, accepted: str | None, encoding: str | None
) -> None:
    """The handler wants them compressed. A stream's handler leaves out every other one."""
    extra = [("grpc-accept-encoding", accepted)] if accepted else []
    wanted, unwanted = field(1, 1), b""
    if path == UNARY:
        body, flags = simple_request(500) + field(6, wanted), [1]
    else:
        flags = [1, 0, 1]
        body = b"".join(field(2, field(1, 500) + field(3, wanted if flag else unwanted)) for flag in flags)
    response = connection.unary(path, message(body), extra)
    assert response.status == 0
    assert response.all("grpc-encoding") == ([encoding] if encoding else [])
    inflate = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(encoding or "", bytes)
    answers = messages(response.data)
    assert [flag for flag, _ in answers] == [flag if encoding else 0 for flag in flags]
    for flag, answer in answers:
        assert field(2, bytes(500)) in (inflate(answer) if flag else answer)


@pytest.mark.parametrize("path", [UNARY, INPUT])
def test_the_limit_is_checked_on_the_prefix(path: str) -> None:
    with InteropServer("--maximum-message-bytes", "1000") as server, RawClient(server.port) as connection:
        exact = field(3 if path == UNARY else 1, field(2, bytes(1000 - 6)))
        assert len(exact) == 1000
        assert connection.unary(path, message(exact)).status == 0
        stream = connection.begin(path)
        connection.send(connection.data(stream, struct.pack(">BI", 0, 1001)))
        response = connection.response(stream)
        assert response.status == 8
        assert "1001" in response.grpc_message and "1000" in response.grpc_message
        # The largest length that there is.
        stream = connection.begin(path)
        connection.send(connection.data(stream, b"\0\xff\xff\xff\xff"))
        assert connection.response(stream).status == 8
        assert connection.unary(EMPTY).status == 0


def test_four_mebibytes_and_one_byte_more(connection: RawClient) -> None:
    """conformance: server_message_size."""
    body = simple_request(1, (4 << 20) - 14)
    body += bytes([0x10, 0]) * ((4194304 - len(body)) // 2)  # response_size again, to the byte
    body = body if len(body) == 4194304 else body + b"\x20"  # never taken: lengths are even
    assert len(body) == 4194304
    stream = connection.begin(UNARY)
    connection.send_all(stream, message(body))
    assert connection.response(stream).status == 0
    stream = connection.begin(UNARY)
    connection.send_all(stream, message(body + b"\0"))
    assert connection.response(stream).status == 8


@pytest.mark.parametrize("path", [EMPTY, UNARY, OUTPUT])
def test_an_empty_message_is_a_message(connection: RawClient, path: str) -> None:
    assert connection.unary(path, message()).status == 0


@pytest.mark.parametrize("path", [EMPTY, UNARY, OUTPUT])
@pytest.mark.parametrize("body", [b"", message() * 2, message() + b"\0"])
def test_exactly_one_message(connection: RawClient, path: str, body: bytes) -> None:
    """Cardinality; conformance: grpc_server_unexpected."""
    assert connection.unary(path, body).status == 12


@pytest.mark.parametrize("path", [EMPTY, OUTPUT])
def test_no_message_and_end_of_stream_on_headers(connection: RawClient, path: str) -> None:
    assert connection.response(connection.begin(path, end=True)).status == 12


@pytest.mark.parametrize("path", [UNARY, OUTPUT, INPUT, SERVICE + "FullDuplexCall"])
@pytest.mark.parametrize("body", [b"\0", b"\0\0\0\0", b"\0\0\0\0\1", b"\0\0\0\0\7abc"])
def test_truncated_messages(connection: RawClient, path: str, body: bytes) -> None:
    assert connection.unary(path, body).status == 13


@pytest.mark.parametrize("path", [UNARY, OUTPUT, INPUT, SERVICE + "FullDuplexCall"])
def test_messages_that_are_no_protobuf(connection: RawClient, path: str) -> None:
    assert connection.unary(path, message(b"\x1a\xff")).status == 13


def test_the_first_error_counts(connection: RawClient) -> None:
    """What comes behind it changes nothing."""
    stream = connection.begin(INPUT)
    connection.send(connection.data(stream, message(b"", 9) + message(input_request(1)), end=False))
    connection.send(connection.data(stream, message(echo_status(1)), end=True))
    response = connection.response(stream)
    assert response.status == 13 and response.frames.count("HEADERS*") == 1
