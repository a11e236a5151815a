"""What a hostile client costs its neighbour: p99 beside an attack, against p99 beside a benign client of the same CPU.

The server has core 0 and one event loop; the attacker, the benign client (h2load at a fixed rate) and the neighbour, who
makes 500 calls a second, share core 1. The two others get that core only when the neighbour doesn't want it
(SCHED_IDLE), and an answer counts from when the kernel had it: what is measured is the server. The benign client's rate
is what takes the server the CPU that the attack took. Attack and benign client take turns, so that whatever else the
machine does meets both.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterator

from . import attack, processes
from .figures import Figure, at_most, table
from .health import CLIENT_CORE, HEALTH, SERVER_CORE
from .neighbour import Neighbour
from .service import WORK, Service, service

# Of one turn; a row has ROUNDS of attacker and benign client each.
SECONDS = float(os.environ.get("BENCH_ABUSE_SECONDS", "1.5"))
ROUNDS = int(os.environ.get("BENCH_ABUSE_ROUNDS", "3"))
# For the neighbour, in calls a second.
RATE = 500
LEAST_CPU = 0.02
# What an attacker does first (connect a thousand times, send all that it will ever send) is over by then.
SETTLING = 0.8
# The other client is ended with the turn.
LONGER_THAN_A_TURN = 30 + round(SETTLING + SECONDS)


class Beside:
    """What the neighbour saw while something else went on."""

    def __init__(self, running: Service, seconds: float) -> None:
        with Neighbour(int(running.address.rpartition(":")[2])) as neighbour:
            cpu = processes.cpu_seconds(running.pid)
            begin = time.monotonic()
            latencies: list[float] = []
            while (due := begin + len(latencies) / RATE) < begin + seconds:
                time.sleep(max(0, due - time.monotonic()))
                # Not from when it was due: a late neighbour isn't the server's fault.
                latencies.append(neighbour.check())
            self.cpu = (processes.cpu_seconds(running.pid) - cpu) / (time.monotonic() - begin)
            self.p99 = statistics.quantiles(latencies, n=100)[98] * 1e3
            self.p50 = statistics.median(latencies) * 1e3


class Turns:
    """Several turns of one kind: their medians."""

    def __init__(self) -> None:
        self.turns: list[Beside] = []

    def add(self, turn: Beside) -> None:
        self.turns.append(turn)

    def _median(self, name: str) -> float:
        return statistics.median(getattr(turn, name) for turn in self.turns)

    cpu = property(lambda self: self._median("cpu"))
    p50 = property(lambda self: self._median("p50"))
    p99 = property(lambda self: self._median("p99"))


@contextlib.contextmanager
def beside(*command: str) -> Iterator[None]:
    arguments = ["taskset", "-c", CLIENT_CORE, "chrt", "--idle", "0", *command]
    with processes.running(arguments, WORK / "beside.log") as other:
        time.sleep(SETTLING)
        yield
        if not other.is_running:
            raise SystemExit(f"{command[0]} ended early: {other.log.read_text('utf-8', 'replace')[-3000:]}")


def attacked(running: Service, name: str) -> Beside:
    port = running.address.rpartition(":")[2]
    with beside(sys.executable, attack.__file__, name, port, str(LONGER_THAN_A_TURN)):
        return Beside(running, SECONDS)


def benign(running: Service, rate: float) -> Beside:
    """Eight connections that together make `rate` calls a second."""
    message = WORK / "empty.grpc"
    message.write_bytes(bytes(5))
    each = max(1, round(rate / 8))
    command = [
        "h2load", "-D", str(LONGER_THAN_A_TURN), "-c", "8", "-m", "32", "-t", "1", "--rps", str(each), "-d",
        str(message), "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{running.address}{HEALTH}",
    ]
    with beside(*command):
        return Beside(running, SECONDS)


def run() -> list[Figure]:
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    rows, ratios = [], []
    settings = {"DEVICERPC_EVENT_LOOPS": "1"}
    with service(prefix=("taskset", "-c", SERVER_CORE), **settings) as running:
        Beside(running, 2)
        idle = Beside(running, SECONDS)
        # What a call takes the server: from a rate that leaves it half idle.
        probe = 20_000.0
        per_call = max(1e-6, (benign(running, probe).cpu - idle.cpu) / probe)
        rows.append(["nothing", f"{idle.p50:.2f}", f"{idle.p99:.2f}", f"{idle.cpu:.0%}", "", "", ""])
        for name in attack.ATTACKS:
            hostile, other, cost = Turns(), Turns(), per_call
            for _ in range(ROUNDS):
                hostile.add(attacked(running, name))
                rate = max(LEAST_CPU, hostile.cpu - idle.cpu) / cost
                turn = benign(running, rate)
                other.add(turn)
                # Calls are cheaper where they come in larger batches: the next turn goes by what they took in this one.
                cost = min(4 * cost, max(cost / 4, (turn.cpu - idle.cpu) / rate))
            ratio = hostile.p99 / other.p99
            ratios.append(ratio)
            rows.append(
                [
                    name, f"{hostile.p50:.2f}", f"{hostile.p99:.2f}", f"{hostile.cpu:.0%}", f"{other.p99:.2f}",
                    f"{other.cpu:.0%}", f"{ratio:.2f}",
                ])
        refused = running.metric("rpc_server_refusals_total")
    print(table(["beside", "p50 ms", "p99 ms", "server CPU", "benign p99", "CPU", "ratio"], rows))
    print(f"  {refused:,.0f} refusals")
    return [at_most("p99 beside an attack, against a benign client of the same CPU, worst", max(ratios), 2, "×")]
