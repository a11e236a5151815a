"""One run: stage, load, faults; then peace, and the audit."""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time

from support.waiting import wait_until

from .audit import Audit
from .load import Load
from .schedule import schedule
from .stage import Stage

# How long sagas have to end once all is well. Back-offs of undos grow to a minute, and a clock that was ahead has them
# wait for longer still.
_PEACE_SECONDS = 240
# Until nothing can appear any more: what was given up has its settle time.
_SETTLE_SECONDS = 6


@dataclasses.dataclass
class Outcome:
    seed: int
    summary: str
    findings: list[str]
    lines: list[str]

    def report(self) -> str:
        """Everything, for whoever looks for the cause."""
        return "\n".join([
            self.summary, "", "What happened (seconds since the begin):", *self.lines, "",
            f"{len(self.findings)} findings:", *self.findings, "", f"Again: ./dev chaos SECONDS {self.seed}",
        ])


def run(seconds: float, seed: int, keep_logs: bool = False) -> Outcome:
    plan = schedule(seed, seconds)
    stage = Stage(plan)
    history = stage.history
    try:
        stage.start()
        load = Load(stage)
        load.start()
        stage.run_faults()
        stage.heal()
        load.stop_creating()
        peace = time.monotonic()
        _wait_all_over(stage)
        took = time.monotonic() - peace
        load.stop_watching(60)
        time.sleep(_SETTLE_SECONDS)
        audit = Audit(stage, load)
        audit.run()
        totals = ", ".join(f"{number} {status}" for status, number in sorted(audit.totals().items()))
        summary = (
            f"chaos {seconds:g} s, seed {seed}, USER_SERVICE_IDEMPOTENT={str(plan.is_idempotent).lower()},"
            f" {len(plan.sites) or 1} sites:"
            f" {len(load.requests)} requests, {totals}; {len(plan.faults)} faults; over {took:.1f} s after the last;"
            f" {len(history.findings)} findings"
        )
        history.note(f"devices by site: {dict(audit.held)}")
        for line in audit.parked():
            history.note(f"parked: {line}")
        return Outcome(seed, summary, history.findings, history.lines)
    except BaseException:
        print("\n".join(history.lines[-60:]), file=sys.stderr)
        print(f"chaos broke off; seed {seed}; logs in {stage.home}", file=sys.stderr)
        keep_logs = True
        raise
    finally:
        stage.close(keep_logs or bool(history.findings))
        if history.findings:
            history.note(f"logs: {stage.home}")


def _wait_all_over(stage: Stage) -> None:
    moving = "SELECT saga_id, status::text, current_step, owner FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING')"
    try:
        wait_until(lambda: not stage.database.rows(moving), _PEACE_SECONDS, "all sagas to be over", interval=0.2)
    except AssertionError:
        for row in stage.database.rows(moving):
            stage.history.find(f"{row} {_PEACE_SECONDS} s after the last fault: it stands still")


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60, help="how long faults happen [60]")
    parser.add_argument("seed", nargs="?", type=int, help="repeats the faults of another run [a random one]")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    print(f"chaos: {arguments.seconds:g} s, seed {seed}", flush=True)
    outcome = run(arguments.seconds, seed)
    print(outcome.report() if outcome.findings else outcome.summary)
    return 1 if outcome.findings else 0
