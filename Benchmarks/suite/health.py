"""What a call costs the server: Health/Check here, a unary echo in the peers, all with an empty message.

Server on core 0, h2load on core 1 with 8 connections of 32 streams. h2load counts HTTP statuses only, so a real client
checks each server's grpc-status first.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator

import grpc

from . import processes
from .figures import Figure, at_least, at_most, shown, table
from .service import PEERS, WORK, service

ROUNDS = 3
SERVER_CORE, CLIENT_CORE = "0", "1"


@contextlib.contextmanager
def ours() -> Iterator[tuple[int, int]]:
    with service(prefix=("taskset", "-c", SERVER_CORE)) as running:
        yield running.pid, int(running.address.rpartition(":")[2])


def peer(name: str, *command: str) -> Callable[[], contextlib.AbstractContextManager[tuple[int, int]]]:
    @contextlib.contextmanager
    def run() -> Iterator[tuple[int, int]]:
        port = processes.free_port()
        arguments = ["taskset", "-c", SERVER_CORE, *command, str(port)]
        with processes.running(arguments, WORK / f"{name}.log") as program:
            processes.wait_for_port(port, program)
            yield program.pid, port

    return run


HEALTH, ECHO = "/grpc.health.v1.Health/Check", "/bench.Bench/Get"

# Name, how to start it, the method, the right reply, calls of one round.
SERVERS = [
    ("devicerpc", ours, HEALTH, b"\x08\x01", 300_000),
    ("gRPC C++", peer("grpc-cpp", str(WORK / "grpc-cpp" / "server")), ECHO, b"", 100_000),
    ("grpc-swift 2", peer("grpc-swift", str(WORK / "grpc-swift" / "peer")), ECHO, b"", 30_000),
    ("grpcio", peer("grpc-python", sys.executable, str(PEERS / "grpc-python" / "server.py")), ECHO, b"", 10_000),
]


def check(port: int, method: str, reply: bytes) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        got = channel.unary_unary(method)(b"", timeout=20, wait_for_ready=True)  # Raises unless the status is OK.
    if got != reply:
        raise SystemExit(f"{method} answered {got!r} instead of {reply!r}")


def h2load(port: int, method: str, calls: int) -> float:
    """Calls a second."""
    message = WORK / "empty.grpc"
    message.write_bytes(bytes(5))
    done = subprocess.run(
        [
            "taskset", "-c", CLIENT_CORE, "h2load", "-n", str(calls), "-c", "8", "-m", "32", "-t", "1", "-d", str(message),
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{method}",
        ],
        capture_output=True, text=True, check=True)
    succeeded = re.search(r"(\d+) succeeded", done.stdout)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", done.stdout)
    if not succeeded or int(succeeded[1]) != calls or not rate:
        raise SystemExit(f"h2load on {method}:\n{done.stdout}")
    return float(rate[1])


def measure(start: Callable, method: str, reply: bytes, calls: int) -> tuple[float, float]:
    """Microseconds of server CPU a call, and calls a second."""
    with start() as (pid, port):
        check(port, method, reply)
        h2load(port, method, calls // 5)
        before = processes.cpu_seconds(pid)
        rate = h2load(port, method, calls)
        return (processes.cpu_seconds(pid) - before) * 1e6 / calls, rate


def run() -> list[Figure]:
    results: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in SERVERS}
    for _ in range(ROUNDS):  # In turns, so that a busy minute of the machine hits all of them.
        for name, *how in SERVERS:
            results[name].append(measure(*how))
    cost = {name: statistics.median(cost for cost, _ in rounds) for name, rounds in results.items()}
    rows = [
        [
            name, f"{cost[name]:.2f} µs", f"{min(rounds)[0]:.2f} to {max(rounds)[0]:.2f}",
            shown(statistics.median(rate for _, rate in rounds)), f"{cost[name] / cost['devicerpc']:.1f}×",
        ]
        for name, rounds in results.items()
    ]
    print(table(["server", "CPU a call", "of 3 rounds", "calls/s", "against ours"], rows))
    return [
        at_most("Health/Check, server CPU a call", cost["devicerpc"], 10, "µs"),
        at_least("… fewer than gRPC C++", cost["gRPC C++"] / cost["devicerpc"], 3, "×"),
        at_least("… fewer than grpc-swift 2", cost["grpc-swift 2"] / cost["devicerpc"], 15, "×"),
    ]
