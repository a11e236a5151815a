"""10,000 open WatchSaga streams: what they take of the server's memory, and how fast an event reaches all of them."""

from __future__ import annotations

import threading
import time

from . import processes
from .figures import Figure, at_most, table
from .service import Service, service

STREAMS = 10_000
BOOT_MS = 15_000  # Long enough to open all streams before the device has booted.


class PeakMemory(threading.Thread):
    """The most memory that a process has while this runs."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self.bytes = 0

    def run(self) -> None:
        while not self._done.wait(0.1):
            self.bytes = max(self.bytes, processes.resident_bytes(self._pid))

    def finish(self) -> int:
        self._done.set()
        self.join()
        return self.bytes


def watch(running: Service) -> tuple[dict, int]:
    peak = PeakMemory(running.pid)
    peak.start()
    result = running.load(
        "watch", "--in-flight", str(STREAMS), "--connections", "20", "--option", f"boot_ms={BOOT_MS}")
    return result, peak.finish()


def run() -> list[Figure]:
    with service() as running:
        # Idle, but with everything loaded that a first call loads.
        running.load("create", "--in-flight", "4", "--count", "20", "--return-when", "finished")
        time.sleep(1)
        idle = processes.resident_bytes(running.pid)
        result, peak = watch(running)
    latency, events = result["latency_ms"], result["calls"]
    if events < STREAMS or events % STREAMS:
        raise SystemExit(f"{events} events arrived at {STREAMS} streams")
    more = (peak - idle) / 1e6
    print(table([f"{STREAMS:,} WatchSaga streams on one saga, 20 connections", ""], [
        ["memory of the server, idle", f"{idle / 1e6:.0f} MB"],
        ["memory of the server, peak", f"{peak / 1e6:.0f} MB"],
        ["a stream", f"{(peak - idle) / STREAMS / 1e3:.1f} kB"],
        ["events that reached every stream", f"{events // STREAMS}"],
        ["from event to arrival: p50, p99, last", f"{latency['p50']:.0f}, {latency['p99']:.0f}, {latency['max']:.0f} ms"],
    ]))
    return [
        at_most("10,000 WatchSaga streams, memory above idle", more, 150, "MB"),
        at_most("an event reaches all 10,000", latency["max"], 250, "ms"),
    ]
