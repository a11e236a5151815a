"""Replicas, PostgreSQL and what is between them; and what each fault does to them."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable

import psycopg

from support.clocks import SteppedClock
from support.pgproxy import PostgresProxy
from support.postgres import Cluster, Database
from support.server import Server, run_command
from support.sites import ALONE

from .schedule import REPLICAS, Fault, Schedule
from .user_service import UserService

# What a graceful stop may take: drain-timeout, the last answers, the operators' port, and a busy machine.
DRAIN_SECONDS = 10
STOP_SECONDS = DRAIN_SECONDS + 30


class History:
    """What happened when, for whoever looks for the cause."""

    def __init__(self) -> None:
        self.begin()
        self._lock = threading.Lock()
        self.lines: list[str] = []
        # Of faults that a saga may rightly feel: name, begin, end, in seconds since the begin.
        self.faults: list[tuple[str, float, float]] = []
        # What must not be, whatever the faults.
        self.findings: list[str] = []

    def begin(self) -> None:
        self._start = time.monotonic()

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    def at(self, unix_seconds: float) -> float:
        """An instant of the true wall clock, as seconds since the begin."""
        return self.now - (time.time() - unix_seconds)

    def note(self, text: str) -> None:
        with self._lock:
            self.lines.append(f"{self.now:8.2f} {text}")

    def find(self, text: str) -> None:
        self.note(f"FINDING {text}")
        with self._lock:
            self.findings.append(text)

    @contextlib.contextmanager
    def fault(self, name: str):
        begin = self.now
        self.note(name)
        try:
            yield
        finally:
            with self._lock:
                self.faults.append((name, begin, self.now))
            self.note(f"{name}: over")


class Replica:
    """A server, its way to PostgreSQL and its clock. One fault at a time stops it or lets it go on."""

    def __init__(self, server: Server, proxy: PostgresProxy, clock: SteppedClock) -> None:
        self.server = server
        self.proxy = proxy
        self.clock = clock
        self.lock = threading.Lock()
        # Nobody has told it to end.
        self.should_run = False
        self._launched = 0.0

    def start(self) -> None:
        self._launched = time.monotonic()
        self.server.launch(self.clock.environment)
        self.should_run = True

    @property
    def age(self) -> float:
        """Seconds since its process was started."""
        return time.monotonic() - self._launched


class Stage:
    def __init__(self, plan: Schedule) -> None:
        self.plan = plan
        self.history = History()
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-chaos-"))
        self.database_clock = SteppedClock()
        self.cluster = Cluster()
        self.cluster.start(self.database_clock.environment)
        self._cluster_lock = threading.Lock()
        self.database: Database = self.cluster.create_database()
        done = run_command(["migrate"], {"DATABASE_URL": self.database.url, "DEVICERPC_SIMULATED": "true"})
        assert done.returncode == 0, done.stderr
        self.user_service = UserService(plan.seed, plan.is_idempotent)
        self.replicas = [self._replica(number) for number in range(REPLICAS)]
        self._closed = threading.Event()
        # When sagas were first seen parked, in seconds since the begin.
        self.parked_at: dict[str, float] = {}
        self._watchers = [
            threading.Thread(target=self._watch_servers, name="watch-servers", daemon=True),
            threading.Thread(target=self._watch_parked, name="watch-parked", daemon=True),
        ]

    def _replica(self, number: int) -> Replica:
        proxy = PostgresProxy(self.cluster.port)
        name = f"replica-{number + 1}"
        environment = {
            "DATABASE_URL": self.database.url_through(proxy.port),
            "USER_SERVICE_URL": self.user_service.url,
            "USER_SERVICE_IDEMPOTENT": str(self.plan.is_idempotent).lower(),
            "DEVICERPC_DRAIN_TIMEOUT": f"{DRAIN_SECONDS}s",
            **self._provider(number),
        }
        return Replica(Server(name, self.home / name, environment), proxy, SteppedClock())

    def _provider(self, number: int) -> dict[str, str]:
        """The simulated provider as a replica knows it: its one site, or those that it serves."""
        pace = {"latency": "30ms", "boot": "50ms"}
        if not self.plan.sites:
            return {f"DEVICERPC_SIMULATED_{key.upper()}": value for key, value in pace.items()}
        served = [
            {"name": name, "provider": "simulated", **pace, **site.keys}
            for name, site in self.plan.sites.items() if number in site.replicas
        ]
        path = self.home / f"sites-{number + 1}.json"
        path.write_text(json.dumps({"sites": served}))
        return {**ALONE, "DEVICERPC_SITES": str(path)}

    def start(self) -> None:
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            replica.server.wait_ready(60)
        self.history.begin()
        for thread in self._watchers:
            thread.start()

    # Faults

    def run_faults(self) -> None:
        """All of them, each at its time and in a thread of its own; returns when the last is over."""
        threads = []
        begin = self.history.now
        for fault in self.plan.faults:
            time.sleep(max(0.0, begin + fault.at - self.history.now))
            thread = threading.Thread(target=self._run_fault, args=(fault,), name=str(fault))
            thread.start()
            threads.append(thread)
        time.sleep(max(0.0, begin + self.plan.seconds - self.history.now))
        for thread in threads:
            thread.join()

    def _run_fault(self, fault: Fault) -> None:
        replica = self.replicas[fault.replica]
        actions: dict[str, Callable[[Replica, Fault], None]] = {
            "kill": self._kill, "freeze": self._freeze, "stop": self._stop, "roll": self._roll, "cut": self._cut,
            "cut after commit": self._cut_commits, "cut before commit": self._cut_commits, "stall": self._stall,
            "refuse": self._refuse, "crash": self._crash, "read-only": self._read_only, "row lock": self._lock_row,
            "provider lock": self._lock_provider,
            "database clock": self._step_database, "replica clock": self._step_replica,
            "user service away": self._user_service_away, "outage": self._outage,
        }
        try:
            actions[fault.kind](replica, fault)
        except (psycopg.Error, OSError) as error:
            # Faults meet: a database that another one has stopped can't be locked.
            self.history.note(f"{fault} did not happen: {type(error).__name__}")
        except AssertionError as error:
            self.history.find(f"{fault}: {error}")

    @contextlib.contextmanager
    def _alone(self, replica: Replica, fault: Fault):
        """False if something else has the replica in its hands."""
        if not replica.lock.acquire(blocking=False):
            self.history.note(f"{fault} did not happen: the replica is not up")
            yield False
            return
        try:
            yield True
        finally:
            replica.lock.release()

    def _kill(self, replica: Replica, fault: Fault) -> None:
        with self._alone(replica, fault) as is_mine:
            if is_mine:
                with self.history.fault(f"kill {replica.server.name}"):
                    replica.should_run = False
                    replica.server.kill()
                    time.sleep(fault.lasts)
                    replica.start()

    def _freeze(self, replica: Replica, fault: Fault) -> None:
        with self._alone(replica, fault) as is_mine:
            if is_mine and replica.server.is_running:
                with self.history.fault(f"freeze {replica.server.name}"):
                    replica.server.pause()
                    time.sleep(fault.lasts)
                    replica.server.resume()

    def _stop(self, replica: Replica, fault: Fault) -> None:
        with self._alone(replica, fault) as is_mine:
            if is_mine:
                self._stop_gracefully(replica, fault.lasts)

    def _stop_gracefully(self, replica: Replica, pause: float) -> None:
        name = replica.server.name
        self.history.note(f"stop {name}")
        replica.should_run = False
        begin = time.monotonic()
        age = replica.age
        replica.server.terminate()
        code = replica.server.wait_ended(120)
        took = time.monotonic() - begin
        self.history.note(f"stop {name}: ended with {code} after {took:.1f} s")
        # A process that is still being loaded takes no signals yet.
        if code != 0 and not (code == -signal.SIGTERM and age < 1):
            self.history.find(f"{name} ended a graceful stop with {code}\n{replica.server.log_tail(20)}")
        if took > STOP_SECONDS:
            self.history.find(f"{name} took {took:.1f} s for a graceful stop (drain-timeout {DRAIN_SECONDS} s)")
        time.sleep(pause)
        replica.start()

    def _roll(self, _: Replica, fault: Fault) -> None:
        for replica in self.replicas:
            with self._alone(replica, fault) as is_mine:
                if is_mine:
                    self._stop_gracefully(replica, fault.lasts)
                    with contextlib.suppress(AssertionError):
                        replica.server.wait_ready(60)

    def _cut(self, replica: Replica, fault: Fault) -> None:
        with self.history.fault(f"cut {replica.server.name}"):
            replica.proxy.cut_all()

    def _cut_commits(self, replica: Replica, fault: Fault) -> None:
        with self.history.fault(f"{fault.kind} {replica.server.name}, {abs(fault.amount)} times"):
            cut = replica.proxy.cut_after_commit if "after" in fault.kind else replica.proxy.cut_before_commit
            cut(abs(fault.amount)).wait(30)

    def _stall(self, replica: Replica, fault: Fault) -> None:
        with self.history.fault(f"stall {replica.server.name}"), replica.proxy.stalling():
            time.sleep(fault.lasts)

    def _refuse(self, replica: Replica, fault: Fault) -> None:
        with self.history.fault(f"refuse {replica.server.name}"), replica.proxy.refusing():
            time.sleep(fault.lasts)

    def _crash(self, _: Replica, fault: Fault) -> None:
        with self._cluster_lock, self.history.fault("crash PostgreSQL"):
            self.cluster.stop("immediate")
            time.sleep(fault.lasts)
            self.cluster.start(self.database_clock.environment)

    def _read_only(self, _: Replica, fault: Fault) -> None:
        with self._cluster_lock, self.history.fault("read-only"):
            self._set_read_only("on")
            time.sleep(fault.lasts)
            self._set_read_only("off")

    def _set_read_only(self, value: str) -> None:
        with self.cluster.connect("postgres") as connection:
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            connection.execute("SELECT pg_reload_conf()")

    def _lock_row(self, _: Replica, fault: Fault) -> None:
        with self.database.transaction() as connection:
            row = connection.execute(
                "SELECT saga_id FROM saga_state WHERE status IN ('RUNNING', 'COMPENSATING') ORDER BY saga_id DESC"
                " LIMIT 1 FOR UPDATE SKIP LOCKED"
            ).fetchone()
            if row:
                with self.history.fault(f"lock {row[0]}"):
                    time.sleep(fault.lasts)

    def _lock_provider(self, _: Replica, fault: Fault) -> None:
        with self.database.transaction() as connection:
            connection.execute("LOCK TABLE simulated_device IN EXCLUSIVE MODE")
            with self.history.fault("lock the provider's table"):
                time.sleep(fault.lasts)

    def _step_database(self, _: Replica, fault: Fault) -> None:
        with self.history.fault(f"database clock off by {fault.amount} s"):
            self.database_clock.step_to(fault.amount)

    def _step_replica(self, replica: Replica, fault: Fault) -> None:
        with self.history.fault(f"clock of {replica.server.name} off by {fault.amount} s"):
            replica.clock.step_to(fault.amount)

    def _user_service_away(self, _: Replica, fault: Fault) -> None:
        with self.history.fault("user service away"):
            self.user_service.is_away = True
            time.sleep(fault.lasts)
            self.user_service.is_away = False

    def _outage(self, _: Replica, fault: Fault) -> None:
        sites = list(self.plan.sites) or ["simulated"]
        site = sites[abs(fault.amount) % len(sites)]
        with self.history.fault(f"outage of {site}"):
            self.database.execute("INSERT INTO simulated_outage (site) VALUES (%s) ON CONFLICT DO NOTHING", site)
            time.sleep(fault.lasts)
            self._end_outages(site)

    def _end_outages(self, *sites: str) -> None:
        """Also while the database has an outage of its own."""
        while not self._closed.is_set():
            with contextlib.suppress(psycopg.Error):
                self.database.execute("DELETE FROM simulated_outage WHERE site = ANY(%s)", list(sites))
                return
            time.sleep(0.2)

    # After the faults

    def heal(self) -> None:
        """Everything is well from now on."""
        self.history.note("all is well from now on")
        self._end_outages("simulated", *self.plan.sites)
        self.user_service.is_away = False
        self.user_service.is_honest = True
        self.database_clock.step_to(0)
        for replica in self.replicas:
            replica.clock.step_to(0)
        for replica in self.replicas:
            try:
                replica.server.wait_ready(60)
            except AssertionError as error:
                self.history.find(f"a minute after the last fault: {error}")

    def _watch_servers(self) -> None:
        """Servers that end by themselves."""
        reported: set[int] = set()
        while not self._closed.wait(0.2):
            for replica in self.replicas:
                server = replica.server
                if not replica.should_run or server.is_running or not replica.lock.acquire(blocking=False):
                    continue
                try:
                    if replica.should_run and not server.is_running and server.pid not in reported:
                        reported.add(server.pid)
                        self.history.find(f"{server.name} ended by itself with {server.returncode}\n{server.log_tail(30)}")
                        replica.start()
                finally:
                    replica.lock.release()

    def _watch_parked(self) -> None:
        while not self._closed.wait(0.5):
            with contextlib.suppress(psycopg.Error):
                for (saga_id,) in self.database.rows("SELECT saga_id FROM saga_state WHERE status = 'PARKED'"):
                    self.parked_at.setdefault(saga_id, self.history.now)

    def close(self, keep_logs: bool) -> None:
        self._closed.set()
        for replica in self.replicas:
            replica.should_run = False
            replica.server.close()
            replica.proxy.close()
        self.user_service.close()
        self.cluster.remove()
        if not keep_logs:
            shutil.rmtree(self.home, ignore_errors=True)
