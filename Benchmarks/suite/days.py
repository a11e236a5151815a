"""CreateDevice with 400 days of partitions beside 9, in turns; PostgreSQL's CPU a saga too.

With DEVICERPC_BEFORE the program before is shown beside it.
"""

from __future__ import annotations

import contextlib

from . import turns
from .figures import Figure, at_least, at_most

FEW, MANY = 9, 400


def run() -> list[Figure]:
    with contextlib.ExitStack() as stack:
        sides = {
            f"{days} days": stack.enter_context(turns.side(f"days-{days}", days=days)) for days in (FEW, MANY)
        }
        if turns.BEFORE:
            sides |= {
                f"{days} days, before": stack.enter_context(turns.side(f"before-days-{days}", turns.BEFORE, days))
                for days in (FEW, MANY)
            }
        measured = turns.measure(sides)
    few, many = measured[f"{FEW} days"], measured[f"{MANY} days"]
    figures = [
        at_least(f"sagas/s with {MANY} days of partitions, of that with {FEW}", turns.ratio(many, few, turns.RATE), 0.95, "×"),
        at_most(f"… PostgreSQL's CPU a saga, of that with {FEW}", turns.ratio(many, few, turns.POSTGRES), 1.05, "×"),
    ]
    if turns.BEFORE:
        few, many = measured[f"{FEW} days, before"], measured[f"{MANY} days, before"]
        print(
            f"  before: {turns.ratio(many, few, turns.RATE):.2f} times the sagas/s, "
            f"{turns.ratio(many, few, turns.POSTGRES):.2f} times PostgreSQL's CPU")
    return figures
