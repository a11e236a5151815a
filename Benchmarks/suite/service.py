"""The service as it is shipped, its embedded PostgreSQL with default durability, and a user service beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import psycopg

from . import processes
from .processes import Program

ROOT = pathlib.Path(__file__).resolve().parents[2]
PEERS = ROOT / "Benchmarks" / "peers"
WORK = pathlib.Path(os.environ["BENCH_WORK"])
DATA = pathlib.Path(os.environ["BENCH_DATA"])
BINARY = os.environ["DEVICERPC_BINARY"]

SECRET = "benchmarks-only-0123456789abcdefghij"


class Ledger:
    """The user service: one thread of C, so that it takes little of the cores."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.port = int(program.wait_for_text("").strip() or 0)
        self.url = f"http://127.0.0.1:{self.port}"

    def totals(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/totals", timeout=5) as answer:
            return json.load(answer)


@dataclasses.dataclass
class Usage:
    """CPU seconds so far."""

    server: float
    postgres: float
    ledger: float

    def since(self, before: Usage) -> Usage:
        return Usage(self.server - before.server, self.postgres - before.postgres, self.ledger - before.ledger)


class Service:
    def __init__(self, program: Program, ledger: Ledger, cluster: pathlib.Path) -> None:
        self.program = program
        self.ledger = ledger
        self.cluster = cluster
        line = program.wait_for_text(" is ready: ")
        addresses = re.search(r"gRPC on (\S+), operators on http://([^\s/,]+)", line)
        assert addresses, line
        self.address, self.operators = addresses[1], addresses[2]
        pid_file = (cluster / "postmaster.pid").read_text().splitlines()
        self.postmaster = int(pid_file[0])
        self.conninfo = f"host={pid_file[4]} port={pid_file[3]} user=devicerpc dbname=devicerpc"
        self.url = f"postgresql://devicerpc@/devicerpc?host={pid_file[4]}&port={pid_file[3]}"

    @property
    def pid(self) -> int:
        return self.program.pid

    def database(self) -> psycopg.Connection:
        return psycopg.connect(self.conninfo, autocommit=True)

    def usage(self) -> Usage:
        return Usage(
            processes.cpu_seconds(self.pid), processes.family_cpu_seconds(self.postmaster),
            processes.cpu_seconds(self.ledger.program.pid))

    def load(self, method: str, *arguments: str) -> dict:
        """One run of `devicerpc bench`, with the client's CPU seconds in it."""
        before = os.times()
        done = subprocess.run(
            [BINARY, "bench", method, "--server", self.address, "--output", "json", *arguments],
            env=clean_environment(), capture_output=True, text=True)
        after = os.times()
        if done.returncode != 0:
            raise SystemExit(f"bench {method} failed ({done.returncode}): {done.stderr or done.stdout}")
        result = json.loads(done.stdout)
        if result["errors"]:
            raise SystemExit(f"bench {method}: calls failed: {result['errors']}")
        result["client_cpu"] = (
            after.children_user + after.children_system - before.children_user - before.children_system)
        return result

    def metric(self, name: str) -> float:
        """The sum of a metric's series, 0 where it has none."""
        with urllib.request.urlopen(f"http://{self.operators}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[{{ ]", line))


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DEVICERPC_")}


@contextlib.contextmanager
def service(
    prefix: tuple[str, ...] = (), *, name: str = "", binary: str = BINARY, beside: Service | None = None, **settings: str
) -> Iterator[Service]:
    """The server on the data directory that all measurements of a run share.

    `prefix`: e.g. taskset. `name`: on a data directory of its own, with its own PostgreSQL. `beside`: one more replica on
    that server's database and user service. `settings`: further environment.
    """
    with contextlib.ExitStack() as stack:
        suffix = f"-{name}" if name else ""
        data = DATA / name if name else DATA
        data.mkdir(parents=True, exist_ok=True)
        if beside:
            ledger = beside.ledger
        else:
            log = WORK / f"ledger{suffix}.log"
            ledger = Ledger(stack.enter_context(processes.running([str(WORK / "ledger"), "0"], log)))
        environment = {
            **clean_environment(),
            "DEVICERPC_LISTEN": "127.0.0.1:0",
            "DEVICERPC_OPS_LISTEN": "127.0.0.1:0",
            "DEVICERPC_DATA_DIR": str(data),
            "DEVICERPC_SIMULATED_LATENCY": "0ms",
            "DEVICERPC_SIMULATED_BOOT": "0ms",
            "USER_SERVICE_URL": ledger.url,
            "USER_SERVICE_IDEMPOTENT": "true",
            "JWT_SECRET": SECRET,
            **settings,
        }
        environment.pop("DATABASE_URL", None)
        if beside:
            environment |= {"DATABASE_URL": beside.url, "DEVICERPC_SIMULATED": "true"}
        program = stack.enter_context(
            processes.running([*prefix, binary, "serve"], WORK / f"server{suffix}.log", environment))
        yield Service(program, ledger, beside.cluster if beside else data / "postgres")


@contextlib.contextmanager
def clusters(*names: str) -> Iterator[None]:
    """Data directories of one measurement's own: new ones, and gone afterwards."""

    def remove() -> None:
        for name in names:
            shutil.rmtree(DATA / name, ignore_errors=True)

    remove()
    try:
        yield
    finally:
        remove()


_LEAF_OPTIONS = {
    "saga_state": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02",
    "saga_event": "autovacuum_vacuum_insert_scale_factor = 0.05",
}
DAY_MS = 86_400_000


def make_day(database: psycopg.Connection, day: int) -> None:
    """A day's partitions (days since 1970), as every version of the program makes them."""
    name = datetime.datetime.fromtimestamp(day * DAY_MS / 1000, datetime.UTC).strftime("%Y%m%d")
    lower, upper = (f"saga_{bound * DAY_MS:013}" for bound in (day, day + 1))
    for table, options in _LEAF_OPTIONS.items():
        database.execute(
            f"CREATE TABLE IF NOT EXISTS {table}_{name} PARTITION OF {table} "
            f"FOR VALUES FROM ('{lower}') TO ('{upper}') WITH ({options})")


def make_days(database: psycopg.Connection, count: int) -> None:
    """So many days altogether: those that are missing lie before those that are there, which reach from yesterday to next week."""
    have = database.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'saga_state'::regclass").fetchone()[0]
    yesterday = time.time_ns() // 1_000_000 // DAY_MS - 1
    for number in range(count - have):
        make_day(database, yesterday - 1 - number)


FINISHED = 100_000


def finished_sagas(service: Service) -> int:
    with service.database() as database:
        return database.execute("SELECT count(*) FROM saga_state WHERE status = 'COMPLETED'").fetchone()[0]


def fill(service: Service) -> None:
    """Creates devices until 100,000 sagas are finished."""
    missing = FINISHED - finished_sagas(service)
    if missing > 0:
        print(f"creating {missing:,} devices for the measurements that need {FINISHED:,} …", flush=True)
        result = service.load("create", "--in-flight", "512", "--count", str(missing), "--return-when", "finished")
        print(f"  {result['calls_per_second']:,.0f} sagas/s", flush=True)
