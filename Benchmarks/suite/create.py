"""CreateDevice to COMPLETED: client, server, user service and PostgreSQL with fsync on the same cores; then DBOS.

Outcomes are counted in the database, and against the user service's own count. With DEVICERPC_BEFORE, a binary of the
program before takes turns with this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import psycopg

from . import turns
from .figures import Figure, at_least, at_most, shown, table
from .service import PEERS, Service, service

IN_FLIGHT = 512
SAGAS = int(os.environ.get("BENCH_SAGAS", "20000"))
WARM_UP = 3000
UNLOADED = 200
DBOS_WORKFLOWS, DBOS_IN_FLIGHT = 400, 50

_COUNTS = {
    "COMPLETED": "SELECT count(*) FROM saga_state WHERE status = 'COMPLETED'",
    "other sagas": "SELECT count(*) FROM saga_state WHERE status <> 'COMPLETED'",
    "running devices": "SELECT count(*) FROM devices WHERE status = 'RUNNING'",
    "ports held": "SELECT count(*) FROM port WHERE saga_id IS NOT NULL",
    "provider's devices": "SELECT count(*) FROM simulated_device WHERE started_at IS NOT NULL AND destroyed_at IS NULL",
    "event rows": "SELECT count(*) FROM saga_event",
    "events": "SELECT coalesce(sum(last_sequence), 0) FROM saga_state",
}


def counts(database: psycopg.Connection) -> dict[str, int]:
    return {name: int(database.execute(query).fetchone()[0]) for name, query in _COUNTS.items()}


def commits(database: psycopg.Connection) -> int:
    time.sleep(1.2)  # Backends hand their counts in once a second.
    database.execute("SELECT pg_stat_clear_snapshot()")
    return database.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").fetchone()[0]


def loaded(service: Service) -> tuple[float, dict]:
    with service.database() as database:
        fsync = database.execute("SHOW fsync").fetchone()[0], database.execute("SHOW synchronous_commit").fetchone()[0]
        if fsync != ("on", "on"):
            raise SystemExit(f"fsync and synchronous_commit are {fsync}")
        service.load("create", "--in-flight", str(IN_FLIGHT), "--count", str(WARM_UP), "--return-when", "finished")
        before, committed, booked = counts(database), commits(database), service.ledger.totals()["applied"]
        flushes, usage = service.metric("saga_flush_records_count"), service.usage()
        result = service.load(
            "create", "--in-flight", str(IN_FLIGHT), "--count", str(SAGAS), "--return-when", "finished")
        spent = service.usage().since(usage)
        flushes = service.metric("saga_flush_records_count") - flushes
        committed = commits(database) - committed
        made = {name: count - before[name] for name, count in counts(database).items()}
        made["booked by the user service"] = service.ledger.totals()["applied"] - booked
    expected = {
        name: SAGAS for name in made if name not in ("other sagas", "event rows", "events")
    } | {"other sagas": 0}
    wrong = {name: made[name] for name, count in expected.items() if made[name] != count}
    if wrong:
        raise SystemExit(f"{SAGAS} sagas were answered COMPLETED, but: {wrong}")

    rate, seconds = result["calls_per_second"], result["seconds"]
    print(table(["5 steps, 512 in flight", ""], [
        ["sagas COMPLETED, counted in every table and at the user service", f"{SAGAS:,}"],
        ["sagas/s", shown(rate)],
        ["p50, p99", f"{result['latency_ms']['p50']:.0f} ms, {result['latency_ms']['p99']:.0f} ms"],
        ["journal flushes (commits) a saga", f"{flushes / SAGAS:.3f}"],
        ["commits a saga, the simulated provider's too", f"{committed / SAGAS:.3f}"],
        ["events a saga, in rows", f"{made['events'] / SAGAS:.1f}, {made['event rows'] / SAGAS:.1f}"],
        ["CPU a saga: server", f"{spent.server / SAGAS * 1e6:.0f} µs"],
        ["CPU a saga: PostgreSQL", f"{spent.postgres / SAGAS * 1e6:.0f} µs"],
        ["CPU a saga: client", f"{result['client_cpu'] / SAGAS * 1e6:.0f} µs"],
        ["CPU a saga: user service", f"{spent.ledger / SAGAS * 1e6:.0f} µs"],
        ["cores busy", f"{(spent.server + spent.postgres + spent.ledger + result['client_cpu']) / seconds:.2f}"],
    ]))
    return rate, result


def unloaded(service: Service, until: str) -> float:
    """p50 in ms of single calls, each after the saga before it has ended."""
    result = service.load(
        "create", "--in-flight", "1", "--connections", "1", "--count", str(UNLOADED), "--pause", "50ms",
        "--return-when", until)
    latency = result["latency_ms"]
    print(f"  one at a time, {until}: p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms")
    return latency["p50"]


def dbos(service: Service) -> float:
    """Workflows a second, on the same PostgreSQL while the service is idle."""
    with psycopg.connect(service.conninfo.replace("dbname=devicerpc", "dbname=postgres"), autocommit=True) as database:
        database.execute("DROP DATABASE IF EXISTS dbos_bench WITH (FORCE)")
        database.execute("CREATE DATABASE dbos_bench")
    host, port = (part.partition("=")[2] for part in service.conninfo.split()[:2])
    url = f"postgresql://devicerpc@/dbos_bench?host={host}&port={port}"
    done = subprocess.run(
        [sys.executable, str(PEERS / "dbos" / "five_steps.py"), str(DBOS_WORKFLOWS), str(DBOS_IN_FLIGHT)],
        env={**os.environ, "DBOS_URL": url}, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the DBOS peer failed:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    print(
        f"  DBOS, 5 steps, {DBOS_IN_FLIGHT} in flight: {result['workflows_per_second']:.1f} workflows/s, "
        f"p50 {result['p50_ms']:.0f} ms")
    return result["workflows_per_second"]


def beside_before() -> list[Figure]:
    with turns.side("now") as now, turns.side("before", turns.BEFORE) as before:
        measured = turns.measure({"this program": now, "the one before": before})
    ours, theirs = measured.values()
    return [
        at_least("sagas/s, of the program before's", turns.ratio(ours, theirs, turns.RATE), 1, "×"),
        at_most("… server CPU a saga, of the program before's", turns.ratio(ours, theirs, turns.SERVER), 1, "×"),
    ]


def run() -> list[Figure]:
    with service() as running:
        rate, _ = loaded(running)
        accepted, finished = unloaded(running, "accepted"), unloaded(running, "finished")
        peer = dbos(running)
    return [
        at_least("CreateDevice to COMPLETED, 512 in flight", rate, 1000, "sagas/s"),
        at_least("… more than DBOS", rate / peer, 40, "×"),
        at_most("ACCEPTED, unloaded, p50", accepted, 3, "ms"),
        at_most("FINISHED, unloaded, p50", finished, 15, "ms"),
        *(beside_before() if turns.BEFORE else []),
    ]
