"""What connections and streams that do nothing take: 10,000 connections, and 100 connections of 1,000 streams."""

from __future__ import annotations

import resource
import socket
import time

from . import processes
from .attack import DATA, END_STREAM, HEADERS, call, opening
from .figures import Figure, at_most, table
from .service import Service, service

CONNECTIONS, CONNECTIONS_WITH_STREAMS, STREAMS = 10_000, 100, 1000
WATCH = "/grpc.health.v1.Health/Watch"


def frames(data: bytes) -> list[tuple[int, int, int]]:
    """Type, flags and stream of each whole frame."""
    found, at = [], 0
    while at + 9 <= len(data):
        length = int.from_bytes(data[at:at + 3], "big")
        if at + 9 + length > len(data):
            break
        found.append((data[at + 3], data[at + 4], int.from_bytes(data[at + 5:at + 9], "big")))
        at += 9 + length
    return found


def connect(port: int, first: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(opening() + first)
    return connection


def await_frames(connection: socket.socket, kind: int, flags: int, count: int) -> None:
    """Reads until so many frames of a kind have come."""
    data = b""
    while sum(one == kind and bits & flags == flags for one, bits, _ in frames(data)) < count:
        part = connection.recv(1 << 16)
        if not part:
            raise SystemExit("the server closed a connection")
        data += part


def resident(running: Service) -> int:
    """Once it has come to rest."""
    last = 0
    while True:
        now = processes.resident_bytes(running.pid)
        if abs(now - last) < 256 * 1024:
            return now
        last = now
        time.sleep(0.5)


def run() -> list[Figure]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    with service() as running:
        port = int(running.address.rpartition(":")[2])
        with connect(port, call(1)) as one:
            await_frames(one, HEADERS, END_STREAM, 1)
        empty = resident(running)
        connections = []
        for _ in range(CONNECTIONS):
            # Each has made a call, as real ones have.
            connections.append(connect(port, call(1)))
            await_frames(connections[-1], HEADERS, END_STREAM, 1)
        per_connection = (resident(running) - empty) / CONNECTIONS
        for one in connections:
            one.close()
        time.sleep(2)
    with service() as running:
        port = int(running.address.rpartition(":")[2])
        with connect(port, call(1)) as one:
            await_frames(one, HEADERS, END_STREAM, 1)
        empty = resident(running)
        connections = []
        for _ in range(CONNECTIONS_WITH_STREAMS):
            watches = b"".join(call(1 + 2 * number, WATCH) for number in range(STREAMS))
            connections.append(connect(port, watches))
            await_frames(connections[-1], DATA, 0, STREAMS)
        count = CONNECTIONS_WITH_STREAMS * STREAMS
        per_stream = (resident(running) - empty - CONNECTIONS_WITH_STREAMS * per_connection) / count
        for one in connections:
            one.close()
    rows = [
        [f"{CONNECTIONS:,} connections, one call each", f"{per_connection / 1024:.1f}"],
        [f"{CONNECTIONS_WITH_STREAMS} × {STREAMS:,} Health/Watch streams", f"{per_stream / 1024:.1f}"],
    ]
    print(table(["", "KiB each"], rows))
    return [
        at_most("memory of a connection", per_connection / 1024, 20, "KiB"),
        at_most("memory of an open stream, its handler included", per_stream / 1024, 8, "KiB"),
    ]
