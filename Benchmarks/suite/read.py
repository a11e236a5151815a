"""GetSaga of random ids among 100,000 finished sagas, read from PostgreSQL."""

from __future__ import annotations

from .figures import Figure, at_least, shown, table
from .service import FINISHED, fill, service

IN_FLIGHT = 256


def rows_read(database) -> int:
    database.execute("SELECT pg_stat_clear_snapshot()")
    return database.execute("SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_tables WHERE relname ~ '^saga_event'").fetchone()[0]


def run() -> list[Figure]:
    with service() as running:
        fill(running)
    with service() as running:  # A fresh server: nothing is in its memory.
        with running.database() as database:
            database.execute("VACUUM ANALYZE")
            arguments = ("--in-flight", str(IN_FLIGHT), "--ids", str(FINISHED))
            before = running.usage()
            result = running.load("get", *arguments, "--duration", "10s")
            spent = running.usage().since(before)
        calls = result["calls"]
        print(table([f"random ids of {FINISHED:,}, {IN_FLIGHT} in flight", ""], [
            ["GetSaga/s", shown(result["calls_per_second"])],
            ["p50, p99", f"{result['latency_ms']['p50']:.1f} ms, {result['latency_ms']['p99']:.1f} ms"],
            ["CPU a call: server (with listing the ids)", f"{spent.server / calls * 1e6:.0f} µs"],
            ["CPU a call: PostgreSQL (same)", f"{spent.postgres / calls * 1e6:.0f} µs"],
            ["CPU a call: client", f"{result['client_cpu'] / calls * 1e6:.0f} µs"],
        ]))
    return [at_least("GetSaga of random ids among 100,000", result["calls_per_second"], 15_000, "calls/s")]
