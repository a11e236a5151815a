"""Stands before PostgreSQL and decides who is let in: it refuses, says nothing, or lets in late."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

# "SSL encryption request" and "GSSAPI encryption request" of the protocol.
_ENCRYPTION_REQUESTS = (80877103, 80877104)


class Gatekeeper:
    """Listens on 127.0.0.1:`port`. What it does with new connections may be changed at any time.

    `refusal`: an SQLSTATE and a message that every connection is refused with. `is_silent`: it accepts, and says nothing.
    `delay`: the seconds for which it holds back what PostgreSQL says first. Otherwise it forwards.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.refusal: tuple[str, str] | None = None
        self.is_silent = False
        self.delay = 0.0
        self.accepted = 0
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="gatekeeper", daemon=True).start()

    def url(self, database: str, user: str = "postgres", rest: str = "") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?sslmode=disable&gssencmode=disable{rest}"

    def cut_all(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._keep(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _keep(self, end: socket.socket) -> None:
        with self._lock:
            self._ends.append(end)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.is_silent:
                return
            if self.refusal:
                _refuse(client, *self.refusal)
                return
            server = socket.create_connection(("127.0.0.1", self._target_port), timeout=30)
            server.settimeout(None)
            self._keep(server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(server, client, self.delay), daemon=True).start()
            _pump(client, server, 0)


def _pump(source: socket.socket, target: socket.socket, delay: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if delay:
                time.sleep(delay)
                delay = 0
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _refuse(client: socket.socket, sqlstate: str, message: str) -> None:
    while True:
        size, code = struct.unpack("!II", _exactly(client, 8))
        _exactly(client, size - 8)
        if code not in _ENCRYPTION_REQUESTS:
            break
        client.sendall(b"N")
    fields = b"".join(
        kind + value.encode() + b"\0"
        for kind, value in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", sqlstate), (b"M", message))
    ) + b"\0"
    client.sendall(b"E" + struct.pack("!I", len(fields) + 4) + fields)
    client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        client.recv(1)
    client.close()


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = client.recv(count - len(data))
        if not part:
            raise OSError("the connection ended")
        data += part
    return data
