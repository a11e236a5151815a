"""What docs/abuse.md promises: each attack costs its own connection or call, is counted under its name, takes no memory,
and a well-behaved client beside it notices nothing."""

from __future__ import annotations

import contextlib
import gzip
import struct
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from support.bounds import connections, refusals, resident_bytes
from support.certificates import Authority
from support.client import CHANNEL_OPTIONS
from support.postgres import Cluster
from support.rawhttp2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    HEALTH_CHECK,
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFLECTION,
    RST_STREAM,
    SETTINGS,
    RawConnection,
    frame,
    message,
    reset,
    settings,
    window_update,
)
from support.server import Server
from support.stubs import health_grpcio, health_pb2
from support.waiting import wait_until
from support.world import World

# One worker runs the whole file: its tests share a server.
pytestmark = pytest.mark.xdist_group("abuse")

# Short, so that tests are; all budgets are the defaults.
TIMEOUTS = {
    "DEVICERPC_HANDSHAKE_TIMEOUT": "2s",
    "DEVICERPC_REQUEST_TIMEOUT": "1s",
    "DEVICERPC_WRITE_TIMEOUT": "1s",
    "DEVICERPC_STALLED_STREAM_TIMEOUT": "2s",
}
MEMORY = 48 << 20
SYMBOL = b"cloudphone.device.v1.DeviceService"
BATCH_GET = "/cloudphone.device.v1.DeviceService/BatchGetSagas"
CREATE = "/cloudphone.device.v1.DeviceService/CreateDevice"


@pytest.fixture(scope="module")
def place(cluster: Cluster, template: str) -> Iterator[World]:
    world = World(cluster, template, user_service=False)
    try:
        world.server(environment=TIMEOUTS)
        yield world
    finally:
        world.close()


class Neighbour:
    """A well-behaved client that calls all the time, and whose every call must succeed on its one connection."""

    def __init__(self, server: Server) -> None:
        self._channel = grpc.insecure_channel(server.address, options=CHANNEL_OPTIONS)
        self._stub = health_grpcio.HealthStub(self._channel)
        self._stub.Check(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)
        self._ends = threading.Event()
        self.calls = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                self._stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
                self.calls += 1
            except grpc.RpcError as error:
                self.failures.append(str(error))

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        self._channel.close()


@pytest.fixture
def server(place: World) -> Iterator[Server]:
    """The server, with a neighbour who must not notice, and the memory of before."""
    server = place.servers[0]
    neighbour = Neighbour(server)
    before, calls = resident_bytes(server), neighbour.calls
    try:
        yield server
        wait_until(lambda: neighbour.calls > calls + 3, 60, "the neighbour to be served")
    finally:
        neighbour.close()
    assert not neighbour.failures, neighbour.failures[:3]
    grown = resident_bytes(server) - before
    assert grown < MEMORY, f"the server took {grown >> 20} MiB"


@pytest.fixture
def raw(server: Server) -> Iterator[RawConnection]:
    with RawConnection(server.port) as connection:
        yield connection


def batches(piece: Callable[[int], bytes], count: int, size: int = 100) -> Iterator[bytes]:
    """`count` pieces, `size` of them in a write."""
    for start in range(0, count, size):
        yield b"".join(piece(number) for number in range(start, min(count, start + size)))


# Attacks that end their connection: GOAWAY(ENHANCE_YOUR_CALM) with the rule's name.


def _rapid_reset(raw: RawConnection) -> None:
    raw.call()
    block = raw.request_headers()  # By now all of it is indexed, and the block can be repeated.

    def one(_: int) -> bytes:
        stream = raw.next_stream()
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, block) + reset(stream)

    raw.flood(batches(one, 30_000))


def _resets_of_nothing(raw: RawConnection) -> None:
    stream = raw.call()
    raw.trailers(stream)
    raw.flood(batches(lambda _: reset(stream), 200_000, 1000))


def _made_you_reset(raw: RawConnection) -> None:
    raw.call()
    block = raw.request_headers()

    def one(_: int) -> bytes:
        stream = raw.next_stream()
        # A window beyond 2^31 - 1 makes the server reset the stream (RFC 9113, section 6.9.1).
        return frame(HEADERS, END_HEADERS, stream, block) + window_update(stream, 0x7FFFFFFF)

    raw.flood(batches(one, 20_000))


def _more_than_content_length(raw: RawConnection) -> None:
    def one(_: int) -> bytes:
        stream = raw.next_stream()
        block = raw.request_headers(extra=[("content-length", "1")])
        return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, 0, stream, message(b"too much"))

    raw.flood(batches(one, 20_000))


def _malformed_requests(raw: RawConnection) -> None:
    def one(_: int) -> bytes:
        block = raw.request_headers(extra=[("connection", "close")])
        return frame(HEADERS, END_HEADERS | END_STREAM, raw.next_stream(), block)

    raw.flood(batches(one, 20_000))


def _continuation_flood(raw: RawConnection) -> None:
    stream = raw.next_stream()
    raw.send(frame(HEADERS, 0, stream, raw.request_headers()))
    raw.flood(batches(lambda _: frame(CONTINUATION, 0, stream), 10_000))


def _hpack_bomb(raw: RawConnection) -> None:
    raw.call(extra=[("x-bomb", "b" * 3900)])
    # The newest entry of the dynamic table is index 62: each byte is a field of 4 kB.
    bomb = raw.request_headers() + b"\xbe" * 16_000
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, raw.next_stream(), bomb))


def _hpack_bomb_on_closed_streams(raw: RawConnection) -> None:
    stream = raw.call(extra=[("x-bomb", "b" * 3900)])
    raw.trailers(stream)
    bomb = b"\xbe" * 16_000
    raw.flood(batches(lambda _: frame(HEADERS, END_HEADERS | END_STREAM, stream, bomb), 1000, 10))


def _huge_headers(raw: RawConnection) -> None:
    block = raw.request_headers(extra=[(f"x-{number}", "h" * 1000) for number in range(120)])
    stream = raw.next_stream()
    parts = [block[start:start + 16_000] for start in range(0, len(block), 16_000)]
    raw.send(frame(HEADERS, 0, stream, parts[0]))
    for part in parts[1:-1]:
        raw.send(frame(CONTINUATION, 0, stream, part))
    raw.send(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))


def _padded_data(raw: RawConnection) -> None:
    stream = raw.open()
    raw.flood(batches(lambda _: frame(DATA, PADDED, stream, b"\x00"), 200_000, 1000))


def _windows_of_one_byte(raw: RawConnection) -> None:
    raw.send(settings({INITIAL_WINDOW_SIZE: 0}))
    for _ in range(900):
        # Answers of 4 kB: each window is used.
        raw.call(REFLECTION, b"\x22" + bytes([len(SYMBOL)]) + SYMBOL)
    for _ in range(20):
        raw.flood(batches(lambda number: window_update(1 + 2 * number, 1), 900, 50))


def _settings(raw: RawConnection) -> None:
    for number in range(5000):
        # The first two acknowledgements are those of the handshake and of this.
        if not raw.send(settings({})):
            return
        while not raw.is_closed and sum(one.kind == SETTINGS for one in raw.received) < number + 3:
            raw.pump(1)


ATTACKS: dict[str, tuple[Callable[[RawConnection], object], str]] = {
    "rapid reset": (_rapid_reset, "too_many_unanswered_resets"),
    "resets of nothing": (_resets_of_nothing, "too_many_resets"),
    "MadeYouReset by windows": (_made_you_reset, "too_many_errors"),
    "MadeYouReset by content-length": (_more_than_content_length, "too_many_errors"),
    "MadeYouReset by malformed requests": (_malformed_requests, "too_many_errors"),
    "CONTINUATION flood": (_continuation_flood, "too_many_continuations"),
    "HPACK bomb": (_hpack_bomb, "header_block_too_large"),
    "HPACK bomb on closed streams": (_hpack_bomb_on_closed_streams, "too_many_control_frames"),
    "huge headers": (_huge_headers, "header_block_too_large"),
    "PING": (lambda raw: raw.flood(batches(lambda _: frame(PING, 0, 0, bytes(8)), 10, 1)), "too_many_pings"),
    "PING acknowledgements": (
        lambda raw: raw.flood(batches(lambda _: frame(PING, ACK, 0, bytes(8)), 200_000, 1000)), "too_many_control_frames"),
    # One at a time: many in one read end as too_many_queued_frames, since the acknowledgements queue up.
    "SETTINGS": (_settings, "too_many_errors"),
    "SETTINGS in one go": (lambda raw: raw.send(settings({}) * 5000), "too_many_queued_frames"),
    "empty DATA": (
        lambda raw: [raw.flood(batches(lambda _: frame(DATA, 0, stream), 200_000, 1000)) for stream in [raw.open()]],
        "too_many_control_frames"),
    "padded DATA": (_padded_data, "too_many_control_frames"),
    "PRIORITY": (
        lambda raw: raw.flood(
            batches(lambda number: frame(PRIORITY, 0, 1 + 2 * number, struct.pack("!IB", 0, 1)), 200_000, 1000)),
        "too_many_control_frames"),
    "unknown frames": (
        lambda raw: raw.flood(batches(lambda _: frame(0xBE, 0, 0, b"?"), 200_000, 1000)), "too_many_control_frames"),
    "WINDOW_UPDATE": (
        lambda raw: raw.flood(batches(lambda _: window_update(0, 1), 200_000, 1000)), "too_many_control_frames"),
    "windows of one byte": (_windows_of_one_byte, "too_many_control_frames"),
}


@pytest.mark.parametrize("name", list(ATTACKS))
def test_attack_ends_its_connection(server: Server, raw: RawConnection, name: str) -> None:
    attack, rule = ATTACKS[name]
    before = refusals(server)[rule]
    attack(raw)
    goaway = raw.wait_closed()
    assert goaway is not None, f"closed without GOAWAY; {raw.received[-5:]}"
    assert (goaway.error_code, goaway.debug_data) == (ENHANCE_YOUR_CALM, rule)
    assert refusals(server)[rule] == before + 1


def test_what_was_reset_is_not_looked_at(server: Server, raw: RawConnection) -> None:
    """Messages of calls that were reset before they were read: nothing in them is found fault with."""
    raw.trailers(raw.call())
    before = refusals(server)
    calls = b""
    for _ in range(100):
        stream = raw.next_stream()
        calls += frame(HEADERS, END_HEADERS, stream, raw.request_headers())
        calls += frame(DATA, 0, stream, message(b"\x0a\x00") * 2) + reset(stream)
    raw.send(calls)
    assert raw.trailers(raw.call()).field("grpc-status") == "0"
    assert refusals(server) == before


# Connections that are too slow.


def _nothing(connection: RawConnection) -> None:
    pass


def _no_settings(connection: RawConnection) -> None:
    connection.send(PREFACE)


def _no_acknowledgement(connection: RawConnection) -> None:
    connection.send(PREFACE + settings({}))


@pytest.mark.parametrize("start", [_nothing, _no_settings, _no_acknowledgement])
def test_slow_handshake(server: Server, start: Callable[[RawConnection], None]) -> None:
    before = refusals(server)["slow_handshake"]
    with RawConnection(server.port, handshake=False) as connection:
        start(connection)
        connection.wait_closed(60)
    assert refusals(server)["slow_handshake"] == before + 1


def test_not_http2(server: Server) -> None:
    before = refusals(server)["not_http2"]
    with RawConnection(server.port, handshake=False) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.wait_closed(60)
    assert refusals(server)["not_http2"] == before + 1


@pytest.mark.parametrize("bad", [frame(DATA, 0, 0, b"?"), frame(HEADERS, END_HEADERS, 2), frame(RST_STREAM, 0, 9, b"1234")])
def test_protocol_errors(server: Server, raw: RawConnection, bad: bytes) -> None:
    """Any other breach of HTTP/2: GOAWAY with its own error."""
    before = refusals(server)["protocol_error"]
    raw.send(bad)
    goaway = raw.wait_closed(60)
    assert goaway is not None and goaway.error_code == PROTOCOL_ERROR
    assert refusals(server)["protocol_error"] == before + 1


def test_slow_headers(server: Server, raw: RawConnection) -> None:
    """A header block that never ends, however busy its connection is otherwise (it can't be: nothing may come between)."""
    before = refusals(server)["slow_headers"]
    raw.send(frame(HEADERS, 0, 1, raw.request_headers()))
    goaway = raw.wait_closed(60)
    assert goaway is not None and goaway.debug_data == "slow_headers"
    assert refusals(server)["slow_headers"] == before + 1


def test_slow_socket(server: Server) -> None:
    """A client that asks for much with open windows and reads none of it."""
    before = refusals(server)["slow_reader"]
    with RawConnection(server.port, receive_buffer=4096, initial={INITIAL_WINDOW_SIZE: 0x7FFFFFFF}) as connection:
        connection.send(window_update(0, 0x7FFFFFFF - 65535))
        connection.open(REFLECTION)
        block = connection.request_headers(REFLECTION)
        ask = message(b"\x22" + bytes([len(SYMBOL)]) + SYMBOL)
        deadline, unsent = time.monotonic() + 60, b""
        while refusals(server)["slow_reader"] == before:
            assert time.monotonic() < deadline, "a client that reads nothing is kept"
            if not unsent:
                stream = connection.next_stream()
                unsent = frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, ask * 40)
            try:
                unsent = unsent[connection.socket.send(unsent):]
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:
                break
    wait_until(lambda: refusals(server)["slow_reader"] == before + 1, 60, "the metric")


# Calls that are too slow, or too much.


def test_slow_requests(server: Server, raw: RawConnection) -> None:
    """A message that doesn't come, or comes by single bytes, costs its call."""
    before = refusals(server)["slow_request"]
    silent, trickling = raw.open(), raw.open()
    raw.send(frame(DATA, 0, trickling, b"\0"))
    streaming = raw.open(REFLECTION)
    raw.send(frame(DATA, 0, streaming, message(b"\x3a\x00")[:3]))
    for stream in (silent, trickling, streaming):
        assert raw.trailers(stream, 60).field("grpc-status") == "4"
    assert refusals(server)["slow_request"] == before + 3
    raw.trailers(raw.call())


def test_unread_answers(server: Server, raw: RawConnection) -> None:
    """With windows closed, answers wait: not for ever, and streams longer than unary calls."""
    before = refusals(server)["slow_response"]
    raw.send(settings({INITIAL_WINDOW_SIZE: 0}))
    unary, streaming = raw.call(), raw.open(REFLECTION)
    raw.send(frame(DATA, 0, streaming, message(b"\x3a\x00")))
    for stream in (unary, streaming):
        code = raw.wait_for(lambda one: one.kind == RST_STREAM and one.stream == stream, 60).error_code
        assert code == ENHANCE_YOUR_CALM
    resets = [one.stream for one in raw.received if one.kind == RST_STREAM]
    assert resets == [unary, streaming]
    assert refusals(server)["slow_response"] == before + 2


def test_large_headers_cost_the_call(server: Server, raw: RawConnection) -> None:
    before = refusals(server)["headers_too_large"]
    stream = raw.call(extra=[("x-large", "h" * 15_000), ("x-larger", "h" * 1500)])
    assert raw.trailers(stream).field("grpc-status") == "8"
    stream = raw.call(extra=[(f"x-{number}", "") for number in range(150)])
    assert raw.trailers(stream).field("grpc-status") == "8"
    assert refusals(server)["headers_too_large"] == before + 2
    assert raw.trailers(raw.call()).field("grpc-status") == "0"


def test_large_message_is_refused_by_its_prefix(server: Server, raw: RawConnection) -> None:
    before = refusals(server)["message_too_large"]
    stream = raw.open()
    raw.send(frame(DATA, 0, stream, struct.pack("!BI", 0, 0xFFFFFFFF)))
    assert raw.trailers(stream).field("grpc-status") == "8"
    raw.wait_for(lambda one: one.kind == RST_STREAM and one.stream == stream and one.error_code == NO_ERROR)
    assert refusals(server)["message_too_large"] == before + 1


def test_compressed_bomb(server: Server, raw: RawConnection) -> None:
    """50 MB of zeros in 50 kB: inflated no further than a message may be long."""
    before = refusals(server)["message_inflates"]
    body = message(gzip.compress(bytes(50_000_000), 9), flag=1)
    stream = raw.open(BATCH_GET, extra=[("grpc-encoding", "gzip")])
    raw.upload(stream, body)
    assert raw.trailers(stream).field("grpc-status") == "8"
    assert refusals(server)["message_inflates"] == before + 1


@pytest.mark.parametrize("payload", [b"\x98\x3f\x01" * 60_000, b"\x0a\x00" * 100_000], ids=["unknown", "repeated"])
def test_protobuf_amplification(server: Server, raw: RawConnection, payload: bytes) -> None:
    """A message of small fields would take many times its size when decoded."""
    before = refusals(server)["message_too_complex"]
    stream = raw.open(CREATE)
    raw.upload(stream, message(payload))
    assert raw.trailers(stream).field("grpc-status") == "13"
    assert refusals(server)["message_too_complex"] == before + 1


# What must go on working.


def test_cancelled_calls_are_no_attack(server: Server) -> None:
    """A thousand calls cancelled at once, five times: gRPC clients do that."""
    before = sum(refusals(server).values())
    channel = grpc.insecure_channel(server.address, options=CHANNEL_OPTIONS)
    states: list[grpc.ChannelConnectivity] = []
    channel.subscribe(states.append)
    stub = health_grpcio.HealthStub(channel)
    stub.Check(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)
    for _ in range(5):
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(500)]
        checks = [stub.Check.future(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(500)]
        for call in [*watches, *checks]:
            call.cancel()
        stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
    channel.close()
    assert states.count(grpc.ChannelConnectivity.READY) == 1, states
    assert sum(refusals(server).values()) == before


def test_reset_streams_that_were_answered(server: Server, raw: RawConnection) -> None:
    """5,000 calls, each reset once its answer is there, as clients do that stop reading early."""
    for _ in range(50):
        streams = [raw.call() for _ in range(100)]
        for stream in streams:
            raw.trailers(stream)
        raw.send(b"".join(reset(stream) for stream in streams))
    raw.trailers(raw.call())


def test_connections_of_one_address(place: World) -> None:
    """One address cannot take all connections: another one is served all the same."""
    server = place.server("few", environment={**TIMEOUTS, "DEVICERPC_MAX_CONNECTIONS_PER_ADDRESS": "5"})
    wait_until(lambda: connections(server) == 0, 60, "the client that waited for readiness to be gone")
    taken = [RawConnection(server.port) for _ in range(5)]
    try:
        with RawConnection(server.port, handshake=False) as sixth:
            assert sixth.wait_closed(60) is None
        assert refusals(server)["too_many_connections_of_address"] == 1
        with RawConnection(server.port, source="127.0.0.2") as other:
            other.trailers(other.call())
    finally:
        for connection in taken:
            connection.close()


@contextlib.contextmanager
def silent_handshakes(server: Server, count: int) -> Iterator[list[RawConnection]]:
    connections = [RawConnection(server.port, handshake=False) for _ in range(count)]
    try:
        for connection in connections:
            connection.send(b"\x16\x03\x01\x02\x00\x01")
        yield connections
    finally:
        for connection in connections:
            connection.close()


def test_tls_handshakes(place: World) -> None:
    """Handshakes of TLS that don't go on, or are no TLS: few at a time, and not for long."""
    authority = Authority()
    certificate, key = authority.issue_for_server().write(place.home / "tls", "server")
    tls = {**TIMEOUTS, "DEVICERPC_TLS_CERT": str(certificate), "DEVICERPC_TLS_KEY": str(key)}
    # A client's first bytes of TLS, and then nothing. Event loops take them in whatever order, and turn one away; none ends by
    # itself meanwhile, however slow this machine is.
    patient = place.server("tls-patient", credentials=authority.credentials(None), environment={
        **tls, "DEVICERPC_MAX_HANDSHAKES": "5", "DEVICERPC_HANDSHAKE_TIMEOUT": "300s"})
    with silent_handshakes(patient, 6):
        wait_until(lambda: refusals(patient)["too_many_handshakes"] == 1, 60, "one of them to be turned away")
        assert refusals(patient)["slow_handshake"] == 0
    server = place.server("tls", credentials=authority.credentials(None), environment={
        **tls, "DEVICERPC_HANDSHAKE_TIMEOUT": "3s"})
    before = refusals(server)["slow_handshake"]
    with silent_handshakes(server, 5) as silent:
        for connection in silent:
            connection.wait_closed(60)
        assert refusals(server)["slow_handshake"] - before == 5
    with RawConnection(server.port, handshake=False) as cleartext:
        cleartext.send(PREFACE + settings({}))
        cleartext.wait_closed(60)
    assert server.client().health(timeout=60) == "SERVING"
