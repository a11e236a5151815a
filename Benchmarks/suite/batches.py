"""Batches: 10,000 creations over one CreateDevices stream, one WatchSagas stream over them, and what their deletion costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import time

from . import processes
from .figures import Figure, at_least, at_most, shown, table
from .service import BINARY, Service, clean_environment, service
from .watch import PeakMemory

SAGAS = int(os.environ.get("BENCH_BATCH", "10000"))
ROUNDS = int(os.environ.get("BENCH_TURNS", "5"))
IN_FLIGHT = 512
# Of one stream the server has so many under way.
ON_STREAM = 1024
# Few at a time: an event's way is measured, not the queue before a busy core.
WATCHED_IN_FLIGHT = 4
DELETED = 5000


def rates(running: Service) -> list[tuple[float, float]]:
    """Sagas/s over one stream, and by calls of their own, by turns."""
    rounds = []
    for number in range(ROUNDS):
        rate = {}
        for method, in_flight in (("batch", ON_STREAM), ("create", IN_FLIGHT))[:: 1 if number % 2 == 0 else -1]:
            result = running.load(
                method, "--in-flight", str(in_flight), "--count", str(SAGAS), "--return-when", "finished")
            rate[method] = result["calls_per_second"]
        rounds.append((rate["batch"], rate["create"]))
    return rounds


def watched(running: Service) -> tuple[dict, float]:
    """One stream over all of a batch; its events' times, and the server's memory above that without the stream, in bytes."""
    few = ("--in-flight", str(WATCHED_IN_FLIGHT), "--return-when", "finished")
    running.load("batch", *few, "--count", str(SAGAS))
    time.sleep(1)
    idle = processes.resident_bytes(running.pid)
    peak = PeakMemory(running.pid)
    peak.start()
    result = running.load("watch-batch", *few, "--count", str(SAGAS))
    return result, peak.finish() - idle


def deletions(running: Service) -> tuple[float, float]:
    """The server's CPU seconds for a creation and for a deletion, as many at a time of each."""
    batch = f"deleted-{time.time_ns()}"
    before = running.usage()
    running.load(
        "create", "--in-flight", "64", "--count", str(DELETED), "--return-when", "finished", "--set", f"batchId={batch}")
    created = running.usage().since(before).server
    before = running.usage()
    done = subprocess.run(
        [BINARY, "delete", "--batch", batch, "--yes", "--rate", "1000", "--server", running.address],
        env=clean_environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"delete failed ({done.returncode}): {done.stderr or done.stdout}")
    deleted = running.usage().since(before).server
    with running.database() as database:
        left = database.execute("SELECT count(*) FROM devices WHERE batch_id = %s", (batch,)).fetchone()[0]
    if left:
        raise SystemExit(f"{left} devices of the batch are left")
    return created / DELETED, deleted / DELETED


def run() -> list[Figure]:
    with service() as running:
        running.load("create", "--in-flight", str(IN_FLIGHT), "--count", "3000", "--return-when", "finished")
        rounds = rates(running)
        result, memory = watched(running)
        created, deleted = deletions(running)
    stream, unary = (statistics.median(rate) for rate in zip(*rounds, strict=True))
    latency = result["latency_ms"]
    print(table([f"a batch of {SAGAS:,}", ""], [
        [f"sagas/s over one CreateDevices stream, median of {ROUNDS}", shown(stream)],
        [f"sagas/s by {IN_FLIGHT} calls at a time", shown(unary)],
        ["one WatchSagas stream: events", f"{result['calls']:,}"],
        ["from event to arrival: p50, p99, last", f"{latency['p50']:.1f}, {latency['p99']:.1f}, {latency['max']:.0f} ms"],
        ["server CPU: a creation, a deletion", f"{created * 1e6:.0f}, {deleted * 1e6:.0f} µs"],
    ]))
    return [
        at_least(
            "10,000 over one CreateDevices stream, of 512 calls' rate",
            statistics.median(one / other for one, other in rounds), 1, "×"),
        at_most("one WatchSagas stream over 10,000, event to client, p99", latency["p99"], 30, "ms"),
        at_most("… memory of the server above that without it", memory / 1e6, 20, "MB"),
        at_most("server CPU a deletion, of a creation's", deleted / created, 1, "×"),
    ]
