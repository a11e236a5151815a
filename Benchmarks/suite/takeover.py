"""A replica with 5,000 sagas in flight is killed: how long until the last of them has its next event.

Two replicas on one database; the one that lives had nothing to do. The sagas are at all steps, those in the middle of a call
too. Afterwards all must have ended with a device each, and nothing may be left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import psycopg

from .figures import Figure, at_most, table
from .service import BINARY, WORK, Service, clean_environment, clusters, service

SAGAS = int(os.environ.get("BENCH_TAKEOVER_SAGAS", "5000"))
ROUNDS = 2  # The lease may just have been renewed, or be about to be.
GOAL = 10
LIMITS = {"DEVICERPC_MAX_SAGAS": "20000", "DEVICERPC_MAX_SAGAS_PER_USER": "20000"}
# Together some seconds a saga, in every step that calls somebody.
OPTIONS = ("--option", "latency_ms=1500", "--option", "boot_ms=1500")

_IN_FLIGHT = "FROM saga_state WHERE owner = %s AND status IN ('RUNNING', 'COMPENSATING')"


@contextlib.contextmanager
def load(victim: Service) -> Iterator[subprocess.Popen]:
    """CreateDevice on and on, a few more in flight than are needed."""
    with (WORK / "takeover-load.log").open("w") as log:
        client = subprocess.Popen(
            [
                BINARY, "bench", "create", "--server", victim.address, "--in-flight", str(SAGAS + SAGAS // 5),
                "--connections", "20", "--duration", "10m", "--timeout", "60s", "--return-when", "finished", *OPTIONS,
            ],
            env=clean_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield client
    finally:
        client.kill()
        client.wait()


def count(database: psycopg.Connection, query: str, *parameters: object) -> int:
    return int(database.execute(query, parameters).fetchone()[0])


def wait_until(condition, patience: float, what: str) -> None:
    ends = time.monotonic() + patience
    while not condition():
        if time.monotonic() > ends:
            raise SystemExit(f"waited {patience:.0f} s for {what}")
        time.sleep(0.05)


def kill(victim: Service, database: psycopg.Connection, instance: int) -> tuple[int, list[float]]:
    """How many sagas it had, and after how many seconds each had its next event."""
    with load(victim):
        wait_until(lambda: count(database, f"SELECT count(*) {_IN_FLIGHT}", instance) >= SAGAS, 90, f"{SAGAS} sagas in flight")
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.monotonic()
    # What it had sent before is over soon.
    wait_until(
        lambda: count(
            database, "SELECT count(*) FROM pg_stat_activity a JOIN saga_instance i ON a.pid = ANY (i.backend_pids) "
            "WHERE i.instance_id = %s AND a.backend_start = ANY (i.backend_starts)", instance) == 0, 4, "its backends to end")
    database.execute(
        f"CREATE TEMP TABLE left_alone AS SELECT saga_id, last_sequence {_IN_FLIGHT}", (instance,))
    database.execute("ALTER TABLE left_alone ADD PRIMARY KEY (saga_id)")
    database.execute("ANALYZE left_alone")
    have = count(database, "SELECT count(*) FROM left_alone")
    after: list[float] = []
    while len(after) < have:
        if time.monotonic() - killed > 120:
            raise SystemExit(f"{have - len(after)} of {have} sagas had no event within two minutes of the kill")
        moved = database.execute(
            "DELETE FROM left_alone b USING saga_state s WHERE s.saga_id = b.saga_id AND s.last_sequence > b.last_sequence").rowcount
        after += [time.monotonic() - killed] * moved
        time.sleep(0.1)
    database.execute("DROP TABLE left_alone")
    return have, after


def check(database: psycopg.Connection, survivor: Service) -> int:
    """Everything ends as if nobody had been killed."""
    wait_until(
        lambda: count(database, "SELECT count(*) FROM saga_state WHERE status NOT IN ('COMPLETED', 'COMPENSATED')") == 0,
        180, "all sagas to end")
    completed = count(database, "SELECT count(*) FROM saga_state WHERE status = 'COMPLETED'")
    found = {
        "sagas that ended otherwise": count(database, "SELECT count(*) FROM saga_state WHERE status <> 'COMPLETED'"),
        "devices beyond the sagas": count(database, "SELECT count(*) FROM devices WHERE status = 'RUNNING'") - completed,
        "the provider's devices beyond the sagas": count(
            database, "SELECT count(*) FROM simulated_device WHERE destroyed_at IS NULL") - completed,
        "pairs of ports beyond the sagas": count(database, "SELECT count(*) FROM port WHERE saga_id IS NOT NULL") - completed,
        "increments beyond the sagas": survivor.ledger.totals()["applied"] - completed,
    }
    if wrong := {name: number for name, number in found.items() if number != 0}:
        raise SystemExit(f"after the takeover of {completed} sagas there are {wrong}")
    return completed


def run() -> list[Figure]:
    rows, last = [], 0.0
    names = ["takeover", *(f"takeover-{number}" for number in range(ROUNDS))]
    with clusters(*names), service(name="takeover", **LIMITS) as survivor, survivor.database() as database:
        for number in range(ROUNDS):
            with service(name=f"takeover-{number}", beside=survivor, DEVICERPC_INSTANCE=f"victim-{number}", **LIMITS) as victim:
                instance = count(database, "SELECT max(instance_id) FROM saga_instance WHERE name = %s", f"victim-{number}")
                have, after = kill(victim, database, instance)
            last = max(last, after[-1])
            completed = check(database, survivor)
            rows.append([
                f"{have:,} in flight", *(f"{after[int((len(after) - 1) * part)]:.1f} s" for part in (0, 0.5, 0.99, 1)),
                f"{completed:,}",
            ])
    print(table(["seconds from the kill to the next event", "first", "half", "99 %", "last", "all COMPLETED so far"], rows))
    return [at_most(f"takeover of {SAGAS:,} in flight: the last one's next event", last, GOAL, "s")]
