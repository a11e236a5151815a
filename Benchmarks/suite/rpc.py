"""The transport beside grpc-swift 2, gRPC C++ and grpcio: calls small, streamed, large and over TLS.

Server on core 0, the load client on core 1; it checks every reply. All servers pass messages on as they come. Rounds go
round the servers, so that a busy minute hits all of them; CPU and rates are medians.

For each row a server is loaded as far as it goes (CPU, calls/s, p50, p99), then ours and the one with the most calls/s
among its peers at half of that rate (p99 of calls that are due at fixed times). Instructions are counted by callgrind,
where valgrind is installed, and system calls by perf, or else by strace.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

from . import processes
from .figures import Figure, at_least, at_most, shown, table
from .service import PEERS, WORK

ROUNDS = 2
HALF_LOAD_ROUNDS = 7  # one hiccup of the machine among 7,800 calls is a p99
SECONDS = 0.8
SERVER_CORE, CLIENT_CORE = "0", "1"
LOAD = str(WORK / "load")
CERTIFICATE = [str(WORK / "tls" / "certificate.pem"), str(WORK / "tls" / "key.pem")]

OURS, CPP, SWIFT, PYTHON = "devicerpc", "gRPC C++", "grpc-swift 2", "grpcio"
SERVERS = {
    OURS: [str(WORK / "bench-server")],
    CPP: [str(WORK / "grpc-cpp" / "server")],
    SWIFT: [str(WORK / "grpc-swift" / "peer")],
    PYTHON: [sys.executable, str(PEERS / "grpc-python" / "server.py")],
}


@dataclasses.dataclass
class Row:
    name: str
    method: str
    message: bytes
    connections: int
    streams: int
    messages: int = 1  # of each reply; CPU is counted by message
    reply_bytes: int = 0
    tls: bool = False
    callgrind_calls: int = 1500

    def load(self, port: int, **options: float) -> dict:
        body = WORK / "body"
        body.write_bytes(self.message)
        options |= {"connections": self.connections, "streams": self.streams, "messages": self.messages}
        options |= {"bytes": self.reply_bytes or len(self.message), "tls": int(self.tls)}
        done = subprocess.run(
            ["taskset", "-c", CLIENT_CORE, LOAD, str(port), f"/bench.Bench/{self.method}", str(body)]
            + [f"{name}={value}" for name, value in options.items()],
            capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{self.name}: {done.stderr or done.stdout}")
        return json.loads(done.stdout)


def payload(size: int) -> bytes:
    """A message of `size` bytes or so: field 1, bytes."""
    length, rest = b"", size
    while rest > 0x7F:
        length, rest = length + bytes([rest & 0x7F | 0x80]), rest >> 7
    return b"\x0a" + length + bytes([rest]) + bytes(size)


STREAMED, STREAMED_SIZE = 500, 32
SMALL = payload(32)
UNARY_1 = Row("unary, 1 in flight", "Echo", SMALL, 1, 1)
UNARY = Row("unary, 256 in flight", "Echo", SMALL, 8, 32)
STREAM = Row(
    "small messages streamed", "Stream", struct.pack("<BIBI", 0x0D, STREAMED, 0x15, STREAMED_SIZE), 8, 4, STREAMED,
    STREAMED * STREAMED_SIZE, callgrind_calls=10)
LARGE = Row("unary of 1 MiB, 8 in flight", "Echo", payload(1 << 20), 4, 2, callgrind_calls=20)
TLS = Row("unary over TLS, 256 in flight", "Echo", SMALL, 8, 32, tls=True, callgrind_calls=3000)
ROWS = [UNARY_1, UNARY, STREAM, LARGE, TLS]


@dataclasses.dataclass
class Sample:
    cpu: float  # microseconds a message
    rate: float  # calls a second
    p50: float  # microseconds
    p99: float


@contextlib.contextmanager
def server(name: str, tls: bool, *prefix: str) -> Iterator[tuple[int, int]]:
    port = processes.free_port()
    arguments = [*prefix, *SERVERS[name], str(port), *(CERTIFICATE if tls else [])]
    with processes.running(["taskset", "-c", SERVER_CORE, *arguments], WORK / f"rpc-{name.split()[0]}.log") as program:
        processes.wait_for_port(port, program, patience=60)
        yield program.pid, port


def sample(row: Row, pid: int, port: int, **options: float) -> Sample:
    before = processes.cpu_seconds(pid)
    result = row.load(port, **{"seconds": SECONDS, **options})
    spent = processes.cpu_seconds(pid) - before
    return Sample(spent * 1e6 / result["messages"], result["calls_per_second"], result["p50_us"], result["p99_us"])


def median(samples: list[Sample]) -> Sample:
    return Sample(*(statistics.median(column) for column in zip(*map(dataclasses.astuple, samples))))


def system_calls(row: Row, pid: int, port: int) -> float | None:
    """System calls a message."""
    # Counting by perf costs the server next to nothing; strace stops it at each call, which changes what it batches.
    if shutil.which("perf"):
        counting = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", str(pid)]
        pattern = r"^(\d+),"
    elif shutil.which("strace"):
        counting, pattern = ["strace", "-c", "-f", "-p", str(pid)], r"(\d+)(?:\s+\d+)?\s+total"
    else:
        return None
    counter = subprocess.Popen(counting, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(0.3)  # until it is attached; it tells nobody
    result = row.load(port, seconds=SECONDS / 2)
    counter.send_signal(signal.SIGINT)
    found = re.search(pattern, counter.communicate()[1], re.MULTILINE)
    return int(found[1]) / result["messages"] if found else None


def instructions(name: str, tls: bool) -> dict[str, float]:
    """Instructions a message, by callgrind. Few calls: they take fifty times as long."""
    if not shutil.which("valgrind") or not shutil.which("callgrind_control"):
        return {}
    counted = {}
    parts = WORK / "callgrind"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    # callgrind takes each byte of a `rep movsb` for an instruction: without them, memcpy takes some that mean something.
    tunables = ":".join(f"glibc.cpu.x86_rep_{kind}_threshold={1 << 40}" for kind in ("movsb", "stosb"))
    counting = ["env", f"GLIBC_TUNABLES={tunables}", "valgrind", "--tool=callgrind", f"--callgrind-out-file={parts}/out"]
    with server(name, tls, *counting) as (pid, port):

        def dump() -> int:
            """Instructions since the last dump."""
            subprocess.run(
                ["callgrind_control", "--dump", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            newest = max(parts.glob("out.*"), key=lambda part: int(part.suffix[1:]))
            return int(re.search(r"^(?:totals|summary): (\d+)", newest.read_text(), re.MULTILINE)[1])

        for row in (row for row in ROWS if row.tls == tls):
            row.load(port, calls=max(row.connections * row.streams, row.callgrind_calls // 4))
            dump()
            result = row.load(port, calls=row.callgrind_calls)
            counted[row.name] = dump() / result["messages"]
    return counted


def measure(rows: list[Row]) -> dict[str, dict[str, Sample]]:
    """By row and server."""
    taken: dict[str, dict[str, list[Sample]]] = {row.name: {name: [] for name in SERVERS} for row in rows}
    for _ in range(ROUNDS):
        for tls in (False, True):
            chosen = [row for row in rows if row.tls == tls]
            for name in SERVERS:
                if not chosen:
                    continue
                with server(name, tls) as (pid, port):
                    for row in chosen:
                        row.load(port, seconds=SECONDS / 3)
                        taken[row.name][name].append(sample(row, pid, port))
    return {row: {name: median(samples) for name, samples in servers.items()} for row, servers in taken.items()}


def best_peer(samples: dict[str, Sample]) -> str:
    return max((name for name in samples if name != OURS), key=lambda name: samples[name].rate)


def at_half_load(row: Row, samples: dict[str, Sample]) -> tuple[str, float, float]:
    """The best peer, and p99 in microseconds at half of its rate: ours and its own."""
    peer = best_peer(samples)
    rate = samples[peer].rate / 2
    p99: dict[str, list[float]] = {OURS: [], peer: []}
    for _ in range(HALF_LOAD_ROUNDS):
        for name in p99:
            with server(name, row.tls) as (pid, port):
                row.load(port, seconds=SECONDS / 3)
                p99[name].append(sample(row, pid, port, rate=rate).p99)
    return peer, statistics.median(p99[OURS]), statistics.median(p99[peer])


def run() -> list[Figure]:
    measured = measure(ROWS)
    half = {row.name: at_half_load(row, measured[row.name]) for row in ROWS}
    calls, counted = {}, {}
    for name in SERVERS:
        for tls in (False, True):
            with server(name, tls) as (pid, port):
                for row in ROWS:
                    if row.tls == tls:
                        calls[row.name, name] = system_calls(row, pid, port)
            counted |= {(row, name): count for row, count in instructions(name, tls).items()}

    figures = []
    for row in ROWS:
        samples = measured[row.name]
        ours = samples[OURS]
        unit = "message" if row.messages > 1 else "call"
        peer, our_p99, peer_p99 = half[row.name]
        lines = []
        for name, got in samples.items():
            number = calls[row.name, name]
            instruction = counted.get((row.name, name))
            lines.append([
                name, f"{got.cpu:.2f} µs", f"{got.cpu / ours.cpu:.2f}×", shown(got.rate * row.messages),
                f"{shown(got.p50)} µs", f"{shown(got.p99)} µs", "–" if number is None else f"{number:.3f}",
                "–" if instruction is None else shown(instruction),
                f"{shown({OURS: our_p99, peer: peer_p99}[name])} µs" if name in (OURS, peer) else "–",
            ])
        head = [row.name, f"CPU a {unit}", "of ours", f"{unit}s/s", "p50", "p99", "system calls", "instructions"]
        print(table([*head, f"p99 at {shown(samples[peer].rate / 2)} calls/s"], lines) + "\n", flush=True)
        if row in (UNARY, STREAM):
            figures += [
                at_most(f"{row.name}: CPU a {unit}", ours.cpu, 8, "µs"),
                at_least("… fewer than gRPC C++", samples[CPP].cpu / ours.cpu, 4, "×"),
                at_least("… fewer than grpc-swift 2", samples[SWIFT].cpu / ours.cpu, 20, "×"),
            ]
        else:
            least = min(got.cpu for name, got in samples.items() if name != OURS)
            figures.append(at_most(f"{row.name}: CPU a {unit}, best peer's is the goal", ours.cpu, least, "µs"))
        figures.append(at_most(f"… p99 at half the rate of {peer}, its own is the goal", our_p99, peer_p99, "µs"))
    return figures
