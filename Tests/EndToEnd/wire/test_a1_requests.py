"""Part A1: which requests are accepted, and how the others are turned away."""

from __future__ import annotations

import socket
import time

import pytest

from interop.server import InteropServer
from support.interop_messages import SERVICE
from support.raw_calls import MAX_HEADER_LIST_SIZE, Fields, RawClient, header_list_bytes
from support.rawhttp2 import (
    ACK, ENHANCE_YOUR_CALM, HEADERS, MAX_CONCURRENT_STREAMS, NO_ERROR, PROTOCOL_ERROR, SETTINGS, frame, message,
)

EMPTY = SERVICE + "EmptyCall"


def test_cleartext_with_prior_knowledge(connection: RawClient) -> None:
    connection.read_until(
        lambda: any(one.kind == SETTINGS and one.flags & ACK for one in connection.received), "an ACK of our SETTINGS")
    assert connection.received[0].kind == SETTINGS and not connection.received[0].flags & ACK
    assert connection.peer_settings
    assert connection.peer_settings[MAX_CONCURRENT_STREAMS] == 1000
    assert connection.peer_settings[MAX_HEADER_LIST_SIZE] == 16384


def test_end_of_file_before_the_preface_is_quiet(interop: InteropServer, connection: RawClient) -> None:
    """Load balancers look whether the port is open."""
    before = interop.process.log_text()
    for probe in (b"", b"PRI * HTTP"):
        with socket.create_connection(("127.0.0.1", interop.port), timeout=10) as client:
            client.sendall(probe)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    assert connection.unary(EMPTY).status == 0
    assert interop.process.log_text() == before


def test_http_1_is_hung_up_on(interop: InteropServer) -> None:
    with RawClient(interop.port, preface=False) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.wait_closed()


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "post"])
def test_the_method_is_post(connection: RawClient, method: str) -> None:
    stream = connection.begin(EMPTY, [(":method", method)], end=True)
    response = connection.response(stream)
    assert (response.http_status, response.status) == ("405", 13)
    assert response.is_trailers_only
    assert dict(response.headers)["allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    [
        EMPTY + "/", "/" + EMPTY, EMPTY.lower(), SERVICE + "emptyCall", EMPTY + "?x=1", EMPTY + "#x",
        SERVICE + "EmptyCal%6C", SERVICE + "../grpc.testing.TestService/EmptyCall", SERVICE, "/", "/x",
        "/grpc.testing.TestService", "//", EMPTY + "\\",
    ],
)
def test_paths_are_equal_byte_by_byte_or_unknown(connection: RawClient, path: str) -> None:
    """CVE-2026-33186: what routing takes for a method must be what authorization saw."""
    response = connection.unary(path)
    assert (response.http_status, response.status) == ("200", 12)
    assert response.is_trailers_only


@pytest.mark.parametrize("path", ["grpc.testing.TestService/EmptyCall", "", "*"])
def test_paths_begin_with_a_slash(connection: RawClient, path: str) -> None:
    response = connection.response(connection.begin(path, end=True))
    assert response.reset == PROTOCOL_ERROR and not response.headers


def test_unknown_service_and_method_are_named(connection: RawClient) -> None:
    assert connection.unary("/a.B/C").grpc_message == "unknown service a.B"
    assert connection.unary(SERVICE + "Nope").grpc_message == "unknown method Nope for service grpc.testing.TestService"
    # The method is what comes behind the last slash; bytes that are no UTF-8 come back as U+FFFD.
    assert connection.unary("/a.B/x/C").grpc_message == "unknown service a.B/x"
    assert connection.unary("/x", extra=[(":path", b"/a\xff/C")]).grpc_message == "unknown service a%EF%BF%BD"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("application/grpc", "application/grpc"), ("application/grpc+proto", "application/grpc+proto"),
        ("application/grpc;charset=utf-8", "application/grpc"),
        ("application/grpc+proto;charset=utf-8", "application/grpc+proto"),
    ],
)
def test_content_types_of_grpc(connection: RawClient, sent: str, answered: str) -> None:
    response = connection.unary(EMPTY, extra=[("content-type", sent)])
    assert response.status == 0
    assert dict(response.headers)["content-type"] == answered
    for path, extra in ((SERVICE + "Nope", []), (EMPTY, [("grpc-timeout", "0n")]), (EMPTY, [("grpc-encoding", "br")])):
        response = connection.unary(path, extra=[("content-type", sent), *extra])
        assert response.status not in (None, 0)
        assert dict(response.headers)["content-type"] == answered


@pytest.mark.parametrize(
    "sent",
    [
        "application/grpc+json", "application/grpc-web", "application/grpc-web+proto", "application/grpcx",
        "application/json", "application/proto", "text/plain", "APPLICATION/", "", None,
    ],
)
def test_other_content_types_are_415_with_a_text(connection: RawClient, sent: str | None) -> None:
    extra = [] if sent is None else [("content-type", sent)]
    response = connection.unary(EMPTY, extra=extra, without=["content-type"])
    assert (response.http_status, response.status) == ("415", 3)
    assert dict(response.headers)["content-type"].startswith("text/plain")
    assert "application/grpc" in response.data.decode() and len(response.data) < 200
    assert response.frames[:2] == ["HEADERS", "DATA*"]


def test_the_415_resets_what_is_still_being_sent(connection: RawClient) -> None:
    stream = connection.begin(EMPTY, [("content-type", "application/json")])
    connection.wait_reset(stream)
    assert connection.responses[stream].frames == ["HEADERS", "DATA*", f"RST_STREAM({NO_ERROR})"]


def test_te_is_not_required(connection: RawClient) -> None:
    assert connection.unary(EMPTY, without=["te"]).status == 0


def test_another_te_is_malformed(connection: RawClient) -> None:
    assert connection.response(connection.begin(EMPTY, [("te", "gzip")], end=True)).reset == PROTOCOL_ERROR


def test_host_stands_in_for_authority(connection: RawClient) -> None:
    assert connection.unary(EMPTY, extra=[("host", "x")], without=[":authority"]).status == 0
    assert connection.unary(EMPTY, extra=[("host", "other")]).status == 0
    # As clients name a Unix socket.
    assert connection.unary(EMPTY, extra=[(":authority", "%2Frun%2Fx.sock")]).status == 0


@pytest.mark.parametrize(
    "extra",
    [
        [("host", "a"), ("host", "b")], [(":authority", "a"), (":authority", "b")], [(":authority", "a b")],
        [("connection", "close")], [("keep-alive", "1")], [("proxy-connection", "x")],
        [("transfer-encoding", "chunked")], [("upgrade", "h2c")], [("X-Upper", "1")], [(":unknown", "1")],
        [(":method", "POST"), (":method", "POST")], [(":path", EMPTY), (":path", EMPTY)],
        [(":scheme", "http"), (":scheme", "http")], [(":status", "200")], [("content-length", "5, 5")], [("x y", "1")],
        [("x-a", b"a\0b")],
    ],
)
def test_malformed_headers_reset_the_stream(connection: RawClient, extra: Fields) -> None:
    response = connection.response(connection.begin(EMPTY, extra, end=True))
    assert response.reset == PROTOCOL_ERROR and not response.headers


@pytest.mark.parametrize("name", [":authority", ":method", ":path", ":scheme"])
def test_what_no_request_can_be_without(connection: RawClient, name: str) -> None:
    stream = connection.begin(EMPTY, without=[name], end=True)
    assert connection.response(stream).reset == PROTOCOL_ERROR


@pytest.mark.parametrize("trailers", [[(":path", EMPTY)], [("connection", "close")], [("X-Upper", "1")]])
def test_malformed_request_trailers_reset_the_stream(connection: RawClient, trailers: Fields) -> None:
    stream = connection.begin(SERVICE + "StreamingInputCall")
    connection.send(connection.headers(stream, trailers, end=True))
    response = connection.response(stream)
    assert response.reset == PROTOCOL_ERROR and not response.headers


@pytest.mark.parametrize("value", [" a", "a ", "\ta\t", "a\tb", "", "a,b", "~!\"'", b"\x80\xff"])
def test_odd_values_are_no_error(connection: RawClient, value: str | bytes) -> None:
    assert connection.unary(EMPTY, extra=[("x-odd", value)]).status == 0


def test_header_lists_are_limited(connection: RawClient) -> None:
    """Counted with 32 bytes for each field: exactly at the limit is fine, and so is the next call."""
    usual = [
        (":method", "POST"), (":scheme", "http"), (":path", EMPTY), (":authority", "localhost"), ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    room = 16384 - header_list_bytes(usual) - len("x-a") - 32
    assert connection.unary(EMPTY, extra=[("x-a", "a" * room)]).status == 0
    response = connection.unary(EMPTY, extra=[("x-a", "a" * (room + 1))])
    assert response.status == 8 and response.is_trailers_only
    assert "16384 bytes" in response.grpc_message


def test_many_fields_are_limited(connection: RawClient) -> None:
    extra = [(f"x-{number}", "") for number in range(123)]
    assert connection.unary(EMPTY, extra=extra).status == 8
    assert connection.unary(EMPTY, extra=extra[:122]).status == 0


def test_hopeless_header_lists_end_the_connection(interop: InteropServer) -> None:
    """An entry of the dynamic table, named again and again: small on the wire, large in memory."""
    with RawClient(interop.port) as client:
        client.begin(EMPTY, [("x-a", "a" * 3000)] * 30, end=True)
        client.wait_closed()
        assert [goaway[1] for goaway in client.goaways] == [ENHANCE_YOUR_CALM]


def test_requests_pipelined_before_the_servers_settings(interop: InteropServer) -> None:
    with RawClient(interop.port) as client:
        streams = [client.begin(EMPTY) for _ in range(20)]
        for stream in streams:
            client.send(client.data(stream, message(), end=True))
        assert [client.response(stream).status for stream in streams] == [0] * 20


def test_a_stalled_header_block_holds_up_nobody_else(interop: InteropServer, connection: RawClient) -> None:
    with RawClient(interop.port) as stalled:
        stalled.send(frame(HEADERS, 0, 1, stalled.encoder.encode([(":method", "POST")])))
        start = time.monotonic()
        assert connection.unary(EMPTY).status == 0
        assert time.monotonic() - start < 3
