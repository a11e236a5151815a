"""A connection that speaks HTTP/2 frame by frame, as no client library would: for clients that break the rules."""

from __future__ import annotations

import dataclasses
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 32
# RFC 9113, section 7.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
ENHANCE_YOUR_CALM = 11
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def message(payload: bytes = b"", flag: int = 0) -> bytes:
    """A Length-Prefixed-Message."""
    return struct.pack("!BI", flag, len(payload)) + payload


def settings(values: Mapping[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack("!HI", *item) for item in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, stream=stream, payload=struct.pack("!I", increment))


def reset(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, stream=stream, payload=struct.pack("!I", code))


@dataclasses.dataclass
class Received:
    kind: int
    flags: int
    stream: int
    payload: bytes
    # Of HEADERS frames.
    fields: Sequence[tuple[str, str]] = ()

    @property
    def ends_stream(self) -> bool:
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def error_code(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        return int(struct.unpack("!I", self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8])[0])

    @property
    def debug_data(self) -> str:
        return self.payload[8:].decode()

    def field(self, name: str) -> str | None:
        return dict(self.fields).get(name)


class RawConnection:
    """Connects, and shakes hands unless told not to. Frames of the server are kept in `received`."""

    def __init__(
        self, port: int, *, handshake: bool = True, initial: Mapping[int, int] | None = None, source: str | None = None,
        receive_buffer: int | None = None, segment: int | None = None,
    ) -> None:
        self.socket = socket.socket()
        if segment:
            # Small segments, as to far away, have the other side's kernel keep little of what it sends.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._input = bytearray()
        self.received: list[Received] = []
        self.is_closed = False
        self._next_stream = 1
        if handshake:
            self.send(PREFACE + settings(initial or {}))
            self.wait_for(lambda one: one.kind == SETTINGS and not one.flags & ACK)
            self.send(frame(SETTINGS, ACK))

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    # Sending

    def request_headers(
        self, path: str = HEALTH_CHECK, extra: Sequence[tuple[str, str]] = (), content_type: str = "application/grpc"
    ) -> bytes:
        """The next header block of a request; the order of blocks matters to HPACK."""
        return self.encoder.encode(
            [
                (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "raw"), ("te", "trailers"),
                ("content-type", content_type), *extra,
            ]
        )

    def next_stream(self) -> int:
        self._next_stream += 2
        return self._next_stream - 2

    def open(self, path: str = HEALTH_CHECK, extra: Sequence[tuple[str, str]] = (), ends: bool = False) -> int:
        """HEADERS of a new stream."""
        stream = self.next_stream()
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, self.request_headers(path, extra)))
        return stream

    def call(self, path: str = HEALTH_CHECK, payload: bytes = b"", extra: Sequence[tuple[str, str]] = ()) -> int:
        """A whole unary request."""
        stream = self.open(path, extra)
        self.send(frame(DATA, END_STREAM, stream, message(payload)))
        return stream

    def upload(self, stream: int, body: bytes, timeout: float = 60) -> None:
        """DATA up to END_STREAM, as fast as the server's windows let it come; until the server has answered."""
        deadline, sent = time.monotonic() + timeout, 0
        while sent < len(body) and not any(one.stream == stream and one.ends_stream for one in self.received):
            window = 65535 - sent + sum(
                int.from_bytes(one.payload, "big")
                for one in self.received if one.kind == WINDOW_UPDATE and one.stream == stream)
            part = body[sent:sent + min(window, 16_000)]
            if part:
                sent += len(part)
                self.send(frame(DATA, END_STREAM if sent == len(body) else 0, stream, part))
            else:
                assert time.monotonic() < deadline and not self.is_closed, f"only {sent} bytes were taken"
                self.pump(0.1)

    def send(self, data: bytes) -> bool:
        return self.flood([data])

    def flood(self, pieces: Iterable[bytes], timeout: float = 90) -> bool:
        """Sends all of it, reading on the way; false if the server closed the connection or takes no more."""
        deadline = time.monotonic() + timeout
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                if self.is_closed or time.monotonic() > deadline:
                    return False
                readable, writable, _ = select.select([self.socket], [self.socket], [], 0.2)
                if readable:
                    self._read()
                if writable and not self.is_closed:
                    try:
                        rest = rest[self.socket.send(rest):]
                    except BlockingIOError:
                        pass
                    except OSError:
                        self._drain()
                        return False
        return True

    # Receiving

    def _drain(self) -> None:
        while not self.is_closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self.is_closed = True
            return
        if not data:
            self.is_closed = True
            return
        self._input += data
        while len(self._input) >= 9:
            length = int.from_bytes(self._input[:3], "big")
            if len(self._input) < 9 + length:
                return
            kind, flags, stream = struct.unpack("!BBI", self._input[3:9])
            one = Received(kind, flags, stream & 0x7FFFFFFF, bytes(self._input[9:9 + length]))
            if kind == HEADERS:
                one.fields = [(str(name), str(value)) for name, value in self._decoder.decode(one.payload)]
            del self._input[:9 + length]
            self.received.append(one)

    def pump(self, seconds: float) -> None:
        """Reads for at most so long, or until something came."""
        if select.select([self.socket], [], [], seconds)[0]:
            self._read()

    def wait_for(self, check: Callable[[Received], bool], timeout: float = 60) -> Received:
        """The first frame that passes, of those that came or are still to come."""
        deadline, seen = time.monotonic() + timeout, 0
        while True:
            for one in self.received[seen:]:
                if check(one):
                    return one
            seen = len(self.received)
            assert not self.is_closed, f"closed; {self.received[-5:]}"
            assert time.monotonic() < deadline, f"nothing like it in {timeout:g} s; {self.received[-5:]}"
            self.pump(0.1)

    def wait_closed(self, timeout: float = 60) -> Received | None:
        """Waits for the server to close; its last GOAWAY, if there was one."""
        deadline = time.monotonic() + timeout
        while not self.is_closed:
            assert time.monotonic() < deadline, f"still open after {timeout:g} s; {self.received[-5:]}"
            self.pump(0.1)
        return next((one for one in reversed(self.received) if one.kind == GOAWAY), None)

    def trailers(self, stream: int, timeout: float = 60) -> Received:
        """The last HEADERS of a stream."""
        return self.wait_for(lambda one: one.stream == stream and one.kind == HEADERS and one.ends_stream, timeout)
