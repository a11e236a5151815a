"""Who calls: creators that repeat what was not answered, and watchers that go on where they were cut off."""

from __future__ import annotations

import dataclasses
import queue
import random
import threading
import time
from typing import Any

import grpc

from support.client import DeviceClient, RPCFailure, event_name

from .stage import Stage

CREATORS = 6
WATCHERS = 24
# What the provider does to a saga: one of these in four.
_PROVIDER_LIES: tuple[dict[str, str], ...] = (
    {"fail": "create:unavailable", "fail_times": "1"},
    {"fail": "create:unknown", "fail_times": "1"},
    {"fail": "create:conflict", "fail_times": "1"},
    {"fail": "create:refused"},
    {"fail": "create:hang", "fail_times": "1"},
    {"fail": "start:refused"},
    {"fail": "start:refused,destroy:unavailable", "fail_times": "2"},
    {"fail": "find:unavailable", "fail_times": "2", "lose_reply": "create"},
    {"lose_reply": "create"},
    {"lose_reply": "create", "late_ms": "700"},
    {"lose_reply": "create", "late_ms": "900", "unique_keys": "false"},
    {"lose_reply": "create", "lookup_lag_ms": "900", "unique_keys": "false"},
    {"lose_reply": "create,start,destroy", "fail": "start:refused"},
    {"lose_reply": "start"},
    {"latency_ms": "1500"},
    {"boot_ms": "3000"},
)
_GOOD_AS_DONE = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "ABORTED", "FAILED_PRECONDITION"}


@dataclasses.dataclass
class Request:
    """One device that somebody wants, over all its repetitions."""

    number: int
    request_id: str
    user: str
    when: str
    options: dict[str, str]
    timeout: float
    began_at: float
    # What callers were told.
    saga_ids: set[str] = dataclasses.field(default_factory=set)
    calls: int = 0
    outcome: str = ""


class Load:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._draw = random.Random(f"load {stage.plan.seed}")
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._wanted: queue.Queue[str | None] = queue.Queue()
        self.requests: list[Request] = []
        # What watchers were told: saga → events.
        self.watched: dict[str, list[Any]] = {}
        self._threads = [threading.Thread(target=self._create, name=f"creator-{n}") for n in range(CREATORS)]
        self._watchers = [threading.Thread(target=self._watch_all, name=f"watcher-{n}") for n in range(WATCHERS)]

    def start(self) -> None:
        for thread in self._threads + self._watchers:
            thread.start()

    def stop_creating(self) -> None:
        """Nothing new; what is under way is repeated until it is answered."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def stop_watching(self, seconds: float) -> None:
        """Gives the watchers so long to hear the last events."""
        for _ in self._watchers:
            self._wanted.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._watchers:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._stage.history.find(f"{thread.name} still waits for events {seconds:g} s after all sagas were over")

    # Creating

    def _next(self) -> tuple[Request, random.Random]:
        with self._lock:
            number = len(self.requests)
            draw = random.Random(f"request {self._stage.plan.seed} {number}")
            request = Request(
                number, f"chaos-{self._stage.plan.seed}-{number}", f"user-{number}",
                draw.choice(["ACCEPTED", "PROVISIONED", "FINISHED", "FINISHED"]),
                dict(draw.choice(_PROVIDER_LIES)) if draw.random() < 0.25 else {}, draw.uniform(12, 60),
                self._stage.history.now,
            )
            self.requests.append(request)
        return request, draw

    def _create(self) -> None:
        clients = [DeviceClient(replica.server.address) for replica in self._stage.replicas]
        while not self._stopped.is_set():
            request, draw = self._next()
            self._repeat(request, draw, clients)
            time.sleep(draw.uniform(0.1, 0.6))
        for client in clients:
            client.close()

    def _repeat(self, request: Request, draw: random.Random, clients: list[DeviceClient]) -> None:
        """Calls one replica after the other until one of them answers for certain."""
        deadline = time.monotonic() + 240
        while not request.outcome:
            if time.monotonic() > deadline:
                self._stage.history.find(f"{request.request_id} was not answered for 240 s, in {request.calls} calls")
                return
            client = draw.choice(clients)
            request.calls += 1
            try:
                made = client.create(
                    f"phone {request.number}", user=request.user, when=request.when, options=request.options,
                    saga_timeout=request.timeout, request_id=request.request_id, timeout=draw.choice([2, 5, 20]),
                )
                self._learn(request, made.saga_id, "OK")
            except RPCFailure as failure:
                is_over = failure.code.name in _GOOD_AS_DONE and failure.reason != "OVERLOADED"
                self._learn(request, failure.saga_id, failure.reason if is_over else "")
                if failure.code is grpc.StatusCode.ALREADY_EXISTS or failure.code is grpc.StatusCode.INTERNAL:
                    self._stage.history.find(f"{request.request_id}: {failure}")
                    request.outcome = failure.code.name
                time.sleep(draw.uniform(0.05, 0.5))

    def _learn(self, request: Request, saga_id: str, outcome: str) -> None:
        if saga_id and saga_id not in request.saga_ids:
            request.saga_ids.add(saga_id)
            if len(request.saga_ids) > 1:
                self._stage.history.find(f"{request.request_id} has started {sorted(request.saga_ids)}")
            if request.number % 2 == 0:
                self._wanted.put(saga_id)
        request.outcome = outcome

    # Watching

    def _watch_all(self) -> None:
        clients = [DeviceClient(replica.server.address) for replica in self._stage.replicas]
        while saga_id := self._wanted.get():
            self._watch(saga_id, clients)
        for client in clients:
            client.close()

    def _watch(self, saga_id: str, clients: list[DeviceClient]) -> None:
        """Until the saga is over, by whichever replica."""
        heard = self.watched.setdefault(saga_id, [])
        draw = random.Random(saga_id)
        deadline = time.monotonic() + self._stage.plan.seconds + 300
        while time.monotonic() < deadline:
            try:
                for event in draw.choice(clients).watch(saga_id, after=len(heard), timeout=draw.choice([3, 10, 30])):
                    heard.append(event)
                return
            except RPCFailure as failure:
                if failure.code.name in ("NOT_FOUND", "OUT_OF_RANGE", "INTERNAL"):
                    self._stage.history.find(
                        f"watching {saga_id} after {len(heard)} ({[event_name(one) for one in heard[-2:]]}): {failure}")
                    return
                time.sleep(0.1)

    def request_of(self, saga_id: str) -> Request | None:
        return next((request for request in self.requests if saga_id in request.saga_ids), None)
