"""Servers that take turns at making devices, so that a busy minute of the machine hits all of them.

Only ratios between turns of one round say something: a machine's disk and cores differ from minute to minute.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
from collections.abc import Callable, Iterator

from .figures import shown, table
from .service import BINARY, Service, clusters, make_days, service

IN_FLIGHT = 512
SAGAS = int(os.environ.get("BENCH_TURN_SAGAS", "4000"))
ROUNDS = int(os.environ.get("BENCH_TURNS", "8"))
WARM_UP = min(3000, SAGAS)
# The program as it was, to be measured beside this one.
BEFORE = os.environ.get("DEVICERPC_BEFORE", "")


@dataclasses.dataclass
class Turn:
    rate: float  # sagas a second
    server: float  # microseconds of CPU a saga
    postgres: float


@contextlib.contextmanager
def side(name: str, binary: str = BINARY, days: int = 0) -> Iterator[Service]:
    """A server with so many days of partitions (0: those that it makes itself), on a cluster of its own."""
    with clusters(name):
        if days:
            with service(name=name, binary=binary) as running, running.database() as database:
                make_days(database, days)
        # A server knows all days that were there when it started.
        with service(name=name, binary=binary) as running:
            create(running, WARM_UP)
            yield running


def create(running: Service, count: int) -> dict:
    return running.load("create", "--in-flight", str(IN_FLIGHT), "--count", str(count), "--return-when", "finished")


def turn(running: Service) -> Turn:
    before = running.usage()
    result = create(running, SAGAS)
    spent = running.usage().since(before)
    return Turn(result["calls_per_second"], spent.server / SAGAS * 1e6, spent.postgres / SAGAS * 1e6)


def measure(sides: dict[str, Service]) -> dict[str, list[Turn]]:
    """Each side's turns, by round; every other round goes the other way round."""
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            turns[name].append(turn(sides[name]))
    for name, running in sides.items():
        with running.database() as database:
            ended = dict(database.execute("SELECT status::text, count(*) FROM saga_state GROUP BY 1").fetchall())
        if ended != {"COMPLETED": WARM_UP + ROUNDS * SAGAS}:
            raise SystemExit(f"{name}: {WARM_UP + ROUNDS * SAGAS} sagas were answered COMPLETED, but there are {ended}")
    rows = [
        [name, *(spread([value(one) for one in of_side]) for value in (RATE, SERVER, POSTGRES))]
        for name, of_side in turns.items()
    ]
    print(table(
        [f"{ROUNDS} turns of {SAGAS:,} sagas: median (from, to)", "sagas/s", "server, µs a saga", "PostgreSQL, µs a saga"],
        rows), flush=True)
    return turns


RATE: Callable[[Turn], float] = lambda turn: turn.rate
SERVER: Callable[[Turn], float] = lambda turn: turn.server
POSTGRES: Callable[[Turn], float] = lambda turn: turn.postgres


def spread(values: list[float]) -> str:
    return f"{shown(statistics.median(values))} ({shown(min(values))}, {shown(max(values))})"


def ratio(turns: list[Turn], others: list[Turn], value: Callable[[Turn], float]) -> float:
    """The median of what the rounds say."""
    return statistics.median(value(one) / value(other) for one, other in zip(turns, others, strict=True))
