"""A server that says on each of its connections what a test wants it to say, frame by frame: for clients that must bear
with servers that break the rules."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import hpack

from support.rawhttp2 import (
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, SETTINGS, frame, message, settings,
)

RESPONSE = ((":status", "200"), ("content-type", "application/grpc"))
OK = (("grpc-status", "0"),)


class Peer:
    """One connection of a client. Everything raises OSError once the client has hung up."""

    def __init__(self, server: RawServer, connection: socket.socket, number: int) -> None:
        self.server, self.socket, self.number = server, connection, number
        self.encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._input = bytearray()

    # Reading

    def _fill(self, count: int) -> None:
        while len(self._input) < count:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the client has hung up")
            self._input += data

    def handshake(self, values: Mapping[int, int] | None = None) -> None:
        """Reads the preface and sends SETTINGS."""
        self._fill(len(PREFACE))
        assert self._input[:len(PREFACE)] == PREFACE
        del self._input[:len(PREFACE)]
        self.send(settings(values or {}))

    def next(self, kind: int) -> tuple[int, int, bytes]:
        """Flags, stream and payload of the next frame of that kind. Others are skipped, SETTINGS acknowledged."""
        while True:
            self._fill(9)
            length = int.from_bytes(self._input[:3], "big")
            self._fill(9 + length)
            seen, flags, stream = struct.unpack("!BBI", self._input[3:9])
            payload = bytes(self._input[9:9 + length])
            del self._input[:9 + length]
            if seen == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK))
            if seen == kind:
                return flags, stream, payload

    def request(self) -> int:
        """The stream of the next request, whose path is noted down."""
        _, stream, payload = self.next(HEADERS)
        fields = dict(self._decoder.decode(payload))
        self.server.requests.append((self.number, str(fields[":path"]).rpartition("/")[2]))
        return stream

    def wait(self) -> None:
        """Reads until the client hangs up."""
        while self.socket.recv(1 << 16):
            pass

    # Writing

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def flood(self, data: bytes, least: int = 0) -> None:
        """The same again and again, until the client hangs up, or `least` bytes are through."""
        pieces = data * max(1, 65536 // len(data))
        sent = 0
        while not least or sent < least:
            self.send(pieces)
            sent += len(pieces)

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        return self.encoder.encode(list(fields))

    def headers(self, stream: int, fields: Sequence[tuple[str, str]] = RESPONSE, ends: bool = False) -> None:
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, self.block(fields)))

    def data(self, stream: int, payload: bytes, ends: bool = False) -> None:
        self.send(frame(DATA, END_STREAM if ends else 0, stream, payload))

    def answer(self, stream: int, payload: bytes = b"", trailers: Sequence[tuple[str, str]] = OK) -> None:
        self.headers(stream)
        self.data(stream, message(payload))
        self.headers(stream, trailers, ends=True)

    def go_away(self, last: int, code: int = 0, debug: bytes = b"") -> None:
        self.send(frame(GOAWAY, payload=struct.pack("!II", last, code) + debug))

    def abort(self) -> None:
        """Ends the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class RawServer:
    """Runs `script` on each connection, and closes it when that returns."""

    def __init__(self, script: Callable[[Peer], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        # Of each request: on which connection, and its method.
        self.requests: list[tuple[int, str]] = []
        self.connections = 0
        # What scripts met that is no client's doing.
        self.errors: list[BaseException] = []
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(60)
            self.connections += 1
            self._sockets.append(connection)
            thread = threading.Thread(target=self._serve, args=(Peer(self, connection, self.connections),), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            self._script(peer)
        except OSError:
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            peer.socket.close()
