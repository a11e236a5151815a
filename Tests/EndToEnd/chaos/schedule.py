"""A seed made into faults."""

from __future__ import annotations

import dataclasses
import random

REPLICAS = 3

# How often each comes, and how long it lasts at least and at most, in seconds. A lease is 6 s.
_KINDS: dict[str, tuple[int, float, float]] = {
    "kill": (10, 0, 6),                 # SIGKILL; started again after so long
    "freeze": (8, 0.5, 14),             # SIGSTOP, SIGCONT: within the lease and far beyond it
    "stop": (6, 0, 3),                  # SIGTERM; started again after so long
    "roll": (2, 0, 1),                  # all replicas, one after the other
    "cut": (8, 0, 0),                   # connections to PostgreSQL end without a word
    "cut after commit": (8, 0, 0),      # and the client can't know that its transactions have happened
    "cut before commit": (5, 0, 0),
    "stall": (6, 0.5, 9),               # connections to PostgreSQL stay, and nothing gets through
    "refuse": (5, 0.5, 8),              # one replica can't reach PostgreSQL
    "crash": (3, 0, 4),                 # PostgreSQL, at once; started again after so long
    "read-only": (3, 0.5, 6),
    "row lock": (4, 1, 12),             # a stranger holds a saga's row
    "provider lock": (2, 0.5, 4),       # a stranger holds the simulated provider's table
    "database clock": (3, 0, 0),        # steps
    "replica clock": (3, 0, 0),
    "user service away": (4, 0.5, 8),
    "outage": (5, 0.5, 10),             # every call to one of the provider's sites fails
}


@dataclasses.dataclass(frozen=True)
class Fault:
    at: float          # seconds since the begin
    kind: str
    replica: int       # of the kinds that are about one
    lasts: float
    amount: int        # of the kinds that count something: transactions, seconds

    def __str__(self) -> str:
        return f"{self.kind} (replica {self.replica + 1}, {self.lasts:.1f} s, {self.amount})"


@dataclasses.dataclass(frozen=True)
class Schedule:
    seed: int
    seconds: float
    is_idempotent: bool          # what the replicas are told of the user service, and what it does: in even seeds
    # Each site's keys in the file of sites, and which replicas serve it; empty: the provider has one site. In half of the seeds.
    sites: dict[str, Site]
    faults: tuple[Fault, ...]


@dataclasses.dataclass(frozen=True)
class Site:
    keys: dict[str, int]
    replicas: tuple[int, ...]


def _sites(seed: int, seconds: float) -> dict[str, Site]:
    """Two, of which the first replica serves both and the others one each. One of them is full some day."""
    if seed % 4 not in (1, 2):
        return {}
    draw = random.Random(f"sites {seed}")
    return {
        "north": Site({"concurrency": draw.choice([2, 4, 9]), "devices": int(seconds * draw.uniform(0.5, 2))}, (0, 1)),
        "south": Site({"calls-per-second": draw.choice([8, 15, 30]), "devices": 100_000}, (0, 2)),
    }


def schedule(seed: int, seconds: float) -> Schedule:
    draw = random.Random(f"faults {seed}")
    kinds = list(_KINDS)
    weights = [_KINDS[kind][0] for kind in kinds]
    faults: list[Fault] = []
    at = 3.0
    while at < seconds - 2:
        kind = draw.choices(kinds, weights)[0]
        low, high = _KINDS[kind][1:]
        amount = draw.choice([1, 2, 5]) if "commit" in kind else draw.choice([-30, -7, -2, 2, 7, 30, 120])
        faults.append(Fault(at, kind, draw.randrange(REPLICAS), draw.uniform(low, high), amount))
        # Some come together.
        at += draw.choice([0.05, 0.5, 1.5, 3, 5])
    return Schedule(seed, seconds, seed % 2 == 0, _sites(seed, seconds), tuple(faults))
