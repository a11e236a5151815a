"""Calls frame by frame: what a client sends, cut and ordered as a test likes, and what comes back on each stream."""

from __future__ import annotations

import base64
import dataclasses
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from .rawhttp2 import (
    ACK, CANCEL, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, RawConnection, Received, frame, message, reset, settings, window_update,
)

MAX_HEADER_LIST_SIZE = 6

Fields = Sequence[tuple[str | bytes, str | bytes]]


def messages(data: bytes) -> list[tuple[int, bytes]]:
    """(flag, body) of each message in a response's data."""
    found = []
    while data:
        flag, length = struct.unpack(">BI", data[:5])
        assert len(data) >= 5 + length, f"a message of {length} bytes is cut short: {data!r:.100}"
        found.append((flag, data[5 : 5 + length]))
        data = data[5 + length :]
    return found


def unpadded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def header_list_bytes(fields: Sequence[tuple[str, str]]) -> int:
    """As RFC 9113 counts, section 6.5.2."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


@dataclasses.dataclass
class Response:
    """What came on one stream."""

    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    data: bytes = b""
    trailers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    reset: int | None = None
    has_ended: bool = False
    # HEADERS, DATA, RST_STREAM(code) in their order; `*` is END_STREAM.
    frames: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_trailers_only(self) -> bool:
        return bool(self.frames) and self.frames[0] == "HEADERS*"

    def _last(self, name: str) -> str | None:
        return dict(self.trailers or self.headers).get(name)

    @property
    def http_status(self) -> str | None:
        return dict(self.headers).get(":status")

    @property
    def status(self) -> int | None:
        """grpc-status; None if there was none."""
        value = self._last("grpc-status")
        return None if value is None else int(value)

    @property
    def grpc_message(self) -> str:
        return self._last("grpc-message") or ""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers + self.trailers if key == name]

    @property
    def messages(self) -> list[bytes]:
        return [body for _, body in messages(self.data)]


class RawClient(RawConnection):
    """Acknowledges SETTINGS and PING unless `answers` is false; does nothing else by itself."""

    def __init__(
        self, port: int, initial: Mapping[int, int] | None = None, *, preface: bool = True, answers: bool = True,
        is_slow: bool = False,
    ) -> None:
        """is_slow: the server's kernel takes little of what the client has not read yet."""
        self.answers = answers
        # Sending reads on the way: an answer must not go in the middle of what is being sent.
        self._is_sending = False
        self._waiting: list[bytes] = []
        self.responses: dict[int, Response] = {}
        self.send_window = {0: 65535}
        # Of the server; None until they have come.
        self.peer_settings: dict[int, int] | None = None
        super().__init__(
            port, handshake=False, receive_buffer=8192 if is_slow else None, segment=536 if is_slow else None)
        if preface:
            self.send(PREFACE + settings(initial or {}))

    # Sending

    def flood(self, pieces: Iterable[bytes], timeout: float = 90) -> bool:
        self._is_sending = True
        is_sent = super().flood(pieces, timeout)
        while self._waiting and is_sent:
            waiting, self._waiting = self._waiting, []
            is_sent = super().flood(waiting, timeout)
        self._is_sending = False
        return is_sent

    def _answer(self, data: bytes) -> None:
        if self._is_sending:
            self._waiting.append(data)
        else:
            self.send(data)

    def headers(self, stream: int, fields: Fields, *, end: bool = False) -> bytes:
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self.encoder.encode(list(fields)))

    def data(self, stream: int, data: bytes = b"", *, end: bool = False) -> bytes:
        return frame(DATA, END_STREAM if end else 0, stream, data)

    def begin(self, path: str, extra: Fields = (), *, without: Sequence[str] = (), end: bool = False) -> int:
        """Sends the HEADERS of a call. Fields of `extra` take the place of the usual ones of their names."""
        usual = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
            ("te", "trailers"), ("content-type", "application/grpc"),
        ]
        replaced = {name for name, _ in extra} | set(without)
        fields: list[tuple[str | bytes, str | bytes]] = [field for field in usual if field[0] not in replaced]
        fields += extra
        fields.sort(key=lambda field: not str(field[0]).startswith(":"))  # pseudo headers come first
        stream = self.next_stream()
        self.send(self.headers(stream, fields, end=end))
        return stream

    def unary(
        self, path: str, body: bytes = message(), extra: Fields = (), *, without: Sequence[str] = ()
    ) -> Response:
        """A whole call, its request in one DATA frame."""
        stream = self.begin(path, extra, without=without)
        self.send(self.data(stream, body, end=True))
        return self.response(stream)

    def send_all(self, stream: int, data: bytes) -> None:
        """Sends DATA up to END_STREAM as the windows allow, or until the call has ended."""
        self.read_until(lambda: self.peer_settings is not None, "the server's SETTINGS")
        self.send_window.setdefault(stream, (self.peer_settings or {}).get(INITIAL_WINDOW_SIZE, 65535))
        while data:
            self.read_until(
                lambda: min(self.send_window[0], self.send_window[stream]) > 0 or self.has_ended(stream), "a window")
            if self.has_ended(stream):
                return
            count = min(16384, len(data), self.send_window[0], self.send_window[stream])
            self.send_window[0] -= count
            self.send_window[stream] -= count
            self.send(self.data(stream, data[:count], end=count == len(data)))
            data = data[count:]

    def reset(self, stream: int, code: int = CANCEL) -> None:
        self.send(reset(stream, code))

    def give_window(self, stream: int, count: int) -> None:
        self.send(window_update(stream, count))

    def acknowledge_ping(self) -> None:
        """The server's last one."""
        self.send(frame(PING, ACK, payload=self.pings[-1]))

    def ping(self, data: bytes = b"roundtri") -> None:
        """A PING and its answer: the server has dealt with all that was sent before, which may be much."""
        count = len(self.acknowledged_pings)
        self.send(frame(PING, payload=data))
        self.read_until(lambda: len(self.acknowledged_pings) > count, "an answer to a PING", timeout=60)

    # Receiving

    def _read(self) -> None:
        seen = len(self.received)
        super()._read()
        for one in self.received[seen:]:
            self._note(one)

    def _note(self, one: Received) -> None:
        if one.kind == SETTINGS and not one.flags & ACK:
            pairs = struct.iter_unpack(">HI", one.payload)
            self.peer_settings = {**(self.peer_settings or {}), **dict(pairs)}
            if self.answers:
                self._answer(frame(SETTINGS, ACK))
        elif one.kind == PING and not one.flags & ACK and self.answers:
            self._answer(frame(PING, ACK, payload=one.payload))
        elif one.kind == WINDOW_UPDATE:
            initial = (self.peer_settings or {}).get(INITIAL_WINDOW_SIZE, 65535)
            self.send_window.setdefault(one.stream, initial)
            self.send_window[one.stream] += int.from_bytes(one.payload, "big")
        elif one.kind in (HEADERS, DATA, RST_STREAM):
            response = self.responses.setdefault(one.stream, Response())
            response.has_ended = response.has_ended or one.ends_stream
            end = "*" if one.ends_stream else ""
            if one.kind == RST_STREAM:
                response.reset = one.error_code
                response.frames.append(f"RST_STREAM({one.error_code})")
            elif one.kind == DATA:
                response.data += one.payload
                response.frames.append("DATA" + end)
            else:
                if response.headers:
                    response.trailers = list(one.fields)
                else:
                    response.headers = list(one.fields)
                response.frames.append("HEADERS" + end)

    def has_begun(self, stream: int) -> bool:
        return stream in self.responses

    def has_ended(self, stream: int) -> bool:
        return stream in self.responses and (
            self.responses[stream].has_ended or self.responses[stream].reset is not None)

    def read_until(self, condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert not self.is_closed, f"closed while waiting for {what}: {self.received[-5:]}"
            assert time.monotonic() < deadline, f"no {what}: {self.received[-5:]}"
            self.pump(0.1)

    def response(self, stream: int) -> Response:
        """Waits for the end of a call."""
        self.read_until(lambda: self.has_ended(stream), f"an end of stream {stream}")
        return self.responses[stream]

    def wait_reset(self, stream: int) -> Response:
        self.read_until(lambda: self.has_begun(stream) and self.responses[stream].reset is not None, "a reset")
        return self.responses[stream]

    def wait_goaway(self, count: int = 1) -> None:
        self.read_until(lambda: len(self.goaways) >= count, f"{count} GOAWAY")

    @property
    def acknowledged_pings(self) -> list[bytes]:
        return [one.payload for one in self.received if one.kind == PING and one.flags & ACK]

    @property
    def pings(self) -> list[bytes]:
        return [one.payload for one in self.received if one.kind == PING and not one.flags & ACK]

    @property
    def goaways(self) -> list[tuple[int, int, str]]:
        """(last stream, error code, debug data) of each GOAWAY."""
        return [
            (int.from_bytes(one.payload[:4], "big"), one.error_code, one.debug_data)
            for one in self.received if one.kind == GOAWAY
        ]
