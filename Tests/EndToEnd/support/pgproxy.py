"""A TCP proxy between the server under test and PostgreSQL that cuts or holds a connection at a chosen moment.

It reads along in the PostgreSQL protocol, version 3 (see "Frontend/Backend Protocol", "Message Formats"): after the
start-up packet each message is a type byte, a length and a body. It never changes a byte.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
from collections.abc import Callable, Iterator


class _Verdict(enum.Enum):
    PASS = enum.auto()
    CUT = enum.auto()
    HOLD = enum.auto()


class PostgresProxy:
    """Forwards 127.0.0.1:`port` to `target_port`. TLS must be off."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._refusing = False
        self._on_commit_sent: Callable[[], _Verdict] | None = None
        self._on_commit_done: Callable[[], _Verdict] | None = None
        self._release = threading.Event()
        self._flows = threading.Event()
        self._flows.set()
        self.commits_seen = 0
        self._closed = False
        threading.Thread(target=self._accept, name="pgproxy-accept", daemon=True).start()

    # What a test asks for

    def cut_after_commit(self, transactions: int = 1, *, and_refuse: bool = False) -> threading.Event:
        """The next `transactions` times that PostgreSQL says COMMIT, the connection is cut before the word gets through.

        The transaction has happened, and its client can't know. The event is set once all are cut. `and_refuse`: from
        then on nothing gets through, until `accept_again`.
        """
        verdict, done = self._countdown(transactions, _Verdict.CUT, and_refuse)
        with self._lock:
            self._on_commit_done = verdict
        return done

    def cut_before_commit(self, transactions: int = 1, *, and_refuse: bool = False) -> threading.Event:
        """The next `transactions` times that a client sends COMMIT, the connection is cut before it reaches PostgreSQL."""
        verdict, done = self._countdown(transactions, _Verdict.CUT, and_refuse)
        with self._lock:
            self._on_commit_sent = verdict
        return done

    def hold_before_commit(self) -> threading.Event:
        """The next transaction gets everything through but its COMMIT, which waits for `release`. Set once it waits."""
        verdict, done = self._countdown(1, _Verdict.HOLD)
        with self._lock:
            self._release.clear()
            self._on_commit_sent = verdict
        return done

    def release(self) -> None:
        self._release.set()

    def cut_all(self) -> int:
        """Closes every connection now, without a goodbye. Returns how many there were."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()
        return len(links)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """While it lasts, nothing gets through: connections are closed, and new ones too."""
        self._refusing = True
        self.cut_all()
        try:
            yield
        finally:
            self._refusing = False

    @contextlib.contextmanager
    def stalling(self) -> Iterator[None]:
        """While it lasts, connections stay, and no byte gets through in either direction."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def accept_again(self) -> None:
        self._refusing = False

    def close(self) -> None:
        self._closed = True
        self._release.set()
        self._flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    # How it works

    def _countdown(
        self, times: int, verdict: _Verdict, and_refuse: bool = False
    ) -> tuple[Callable[[], _Verdict], threading.Event]:
        done = threading.Event()
        left = times

        def decide() -> _Verdict:
            nonlocal left
            if left == 0:
                return _Verdict.PASS
            left -= 1
            if left == 0:
                self._refusing = self._refusing or and_refuse
                done.set()
            return verdict

        return decide, done

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=30)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            link.start()

    def forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)

    def commit_sent(self) -> _Verdict:
        with self._lock:
            return self._on_commit_sent() if self._on_commit_sent else _Verdict.PASS

    def commit_done(self) -> _Verdict:
        with self._lock:
            self.commits_seen += 1
            return self._on_commit_done() if self._on_commit_done else _Verdict.PASS

    def wait_for_release(self) -> None:
        self._release.wait()

    def wait_for_flow(self) -> None:
        self._flows.wait()


class _Link:
    """One connection through the proxy: two threads, one per direction."""

    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._commit_statements: set[bytes] = set()

    def start(self) -> None:
        threading.Thread(target=self._run, args=(self._pump_to_server,), name="pgproxy-up", daemon=True).start()
        threading.Thread(target=self._run, args=(self._pump_to_client,), name="pgproxy-down", daemon=True).start()

    def close(self) -> None:
        for end in (self._client, self._server):
            # A reset rather than an orderly end: what a lost machine looks like.
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                end.close()
        self._proxy.forget(self)

    def _run(self, pump: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            pump()
        self.close()

    def _pump_to_server(self) -> None:
        buffer = bytearray()
        started = False
        while data := self._client.recv(1 << 16):
            self._proxy.wait_for_flow()
            buffer += data
            if not started:
                # The start-up packet has a length and no type.
                size = int.from_bytes(buffer[:4], "big") if len(buffer) >= 4 else 4
                if len(buffer) < size or len(buffer) < 4:
                    continue
                self._server.sendall(bytes(buffer[:size]))
                del buffer[:size]
                started = True
            sent = position = 0
            for start, size in _messages(buffer):
                position = start + size
                if not self._is_commit(bytes(buffer[start:position])):
                    continue
                verdict = self._proxy.commit_sent()
                if verdict is _Verdict.CUT:
                    return
                if verdict is _Verdict.HOLD:
                    self._server.sendall(bytes(buffer[sent:start]))
                    sent = start
                    self._proxy.wait_for_release()
            self._server.sendall(bytes(buffer[sent:position]))
            del buffer[:position]

    def _is_commit(self, message: bytes) -> bool:
        """Whether a message of the client executes COMMIT: as a query, or bound by the name it was prepared under."""
        kind, body = message[:1], message[5:]
        if kind == b"Q":
            return body.rstrip(b"\0; \n").upper() == b"COMMIT"
        if kind == b"P":  # Parse: name, query, …
            name, query = body.split(b"\0", 2)[:2]
            if query.strip(b"; \n").upper() == b"COMMIT":
                self._commit_statements.add(name)
            else:
                self._commit_statements.discard(name)
            return False
        if kind == b"B":  # Bind: portal, statement, …
            return body.split(b"\0", 2)[1] in self._commit_statements
        return False

    def _pump_to_client(self) -> None:
        buffer = bytearray()
        while data := self._server.recv(1 << 16):
            self._proxy.wait_for_flow()
            buffer += data
            sent = 0
            for start, size in _messages(buffer):
                # CommandComplete, with the command's tag.
                is_commit = buffer[start] == ord("C") and buffer[start + 5:start + size] == b"COMMIT\0"
                if is_commit and self._proxy.commit_done() is _Verdict.CUT:
                    self._client.sendall(bytes(buffer[:start]))
                    return
                sent = start + size
            self._client.sendall(bytes(buffer[:sent]))
            del buffer[:sent]


def _messages(buffer: bytearray) -> Iterator[tuple[int, int]]:
    """Start and size of every whole message."""
    position = 0
    while len(buffer) - position >= 5:
        size = 1 + int.from_bytes(buffer[position + 1:position + 5], "big")
        if len(buffer) - position < size:
            return
        yield position, size
        position += size
