"""A well-behaved client that knows to the microsecond when its answer arrived, whenever it gets to read it.

The kernel notes the arrival (SO_TIMESTAMPNS, socket(7)): on a core that is shared with an attacker, reading it may take
the client longer than the server took to answer.
"""

from __future__ import annotations

import socket
import struct
import time

from .attack import DATA, END_STREAM, HEADERS, PING, call, frame, opening

SO_TIMESTAMPNS = 35
# HealthCheckResponse, SERVING.
ANSWER = b"\0\0\0\0\x02\x08\x01"


class Neighbour:
    """One connection, one Health/Check at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.sendall(opening())
        self._stream = -1
        self._bytes = b""
        # The kernel begins to note times soon after somebody has asked it to.
        for _ in range(100):
            if self._exchange()[1] is not None:
                return
            time.sleep(0.01)
        raise SystemExit("the kernel does not say when data came")

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def check(self) -> float:
        """Seconds from the request to the answer's arrival. Raises unless the answer is right."""
        begin, arrived = self._exchange()
        if arrived is None:
            raise SystemExit("the kernel does not say when data came")
        return (arrived - begin) / 1e9

    def _exchange(self) -> tuple[int, int | None]:
        self._stream += 2
        answer = b""
        request = call(self._stream)
        begin = time.time_ns()
        self._socket.sendall(request)
        while True:
            arrived = self._receive()
            while (one := self._next_frame()) is not None:
                kind, flags, stream, payload = one
                if kind == PING and not flags:
                    self._socket.sendall(frame(PING, 1, 0, payload))
                elif kind == DATA and stream == self._stream:
                    answer += payload
                elif kind == HEADERS and stream == self._stream and flags & END_STREAM:
                    if answer != ANSWER:
                        raise SystemExit(f"the server answered {answer!r}")
                    return begin, arrived
                elif stream == self._stream and kind not in (HEADERS, DATA):
                    raise SystemExit(f"the server sent a frame of type {kind}: {payload!r}")

    def _receive(self) -> int | None:
        """When what is read now came; CLOCK_REALTIME, in nanoseconds."""
        data, notes, _, _ = self._socket.recvmsg(1 << 16, socket.CMSG_SPACE(16))
        if not data:
            raise SystemExit("the server closed its well-behaved client's connection")
        self._bytes += data
        for level, kind, value in notes:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("qq", value)
                return int(seconds) * 1_000_000_000 + int(nanoseconds)
        return None

    def _next_frame(self) -> tuple[int, int, int, bytes] | None:
        if len(self._bytes) < 9:
            return None
        end = 9 + int.from_bytes(self._bytes[:3], "big")
        if len(self._bytes) < end:
            return None
        kind, flags, stream = struct.unpack("!BBI", self._bytes[3:9])
        payload, self._bytes = self._bytes[9:end], self._bytes[end:]
        return kind, flags, stream, payload
