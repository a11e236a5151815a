"""Who calls: creators and users of devices that repeat what was not answered, operators who meddle, and watchers that go on
where they were cut off."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import random
import threading
import time
from typing import Any

import grpc

from support.client import DeviceClient, RPCFailure, event_name
from support.stubs import service_pb2

from .stage import Stage

CREATORS = 6
USERS = 4
WATCHERS = 24
# What is done with devices, and how often.
_OPERATIONS = {"DeleteDevice": 5, "StopDevice": 4, "StartDevice": 4, "RestartDevice": 3}
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
    """One call of somebody who wants a device, or something of it, over all its repetitions."""

    number: int
    request_id: str
    user: str
    when: str
    options: dict[str, str]
    timeout: float
    began_at: float
    method: str = "CreateDevice"
    # What it is about; of a creation once somebody was told.
    device_id: str = ""
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
        # Sagas that operators resumed: they may end after those who waited were told that they don't.
        self.resumed: set[str] = set()
        self._threads = [threading.Thread(target=self._create, name=f"creator-{n}") for n in range(CREATORS)]
        self._threads += [threading.Thread(target=self._use, name=f"user-{n}") for n in range(USERS)]
        self._threads.append(threading.Thread(target=self._meddle, name="operator"))
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
                made = self._call(client, request, draw.choice([2, 5, 20]))
                request.device_id = request.device_id or made.device.device_id
                self._learn(request, made.saga_id, "OK")
            except RPCFailure as failure:
                is_over = failure.code.name in _GOOD_AS_DONE and failure.reason != "OVERLOADED"
                # A device is gone for good; a saga that is not there was never begun.
                is_over = is_over or failure.code is grpc.StatusCode.NOT_FOUND and request.method != "CreateDevice"
                self._learn(request, failure.saga_id, failure.reason if is_over else "")
                if failure.code is grpc.StatusCode.ALREADY_EXISTS or failure.code is grpc.StatusCode.INTERNAL:
                    self._stage.history.find(f"{request.request_id}: {failure}")
                    request.outcome = failure.code.name
                time.sleep(draw.uniform(0.05, 0.5))

    def _call(self, client: DeviceClient, request: Request, timeout: float) -> Any:
        common = {
            "when": request.when, "saga_timeout": request.timeout, "request_id": request.request_id, "timeout": timeout,
        }
        if request.method == "CreateDevice":
            return client.create(f"phone {request.number}", user=request.user, options=request.options, **common)
        if request.method == "DeleteDevice":
            return client.delete(request.device_id, **common)
        return client.operate(request.method, request.device_id, **common)

    # Using

    def _use(self) -> None:
        """Does something with devices, those that others do something with as well, and those that are being made or gone."""
        clients = [DeviceClient(replica.server.address) for replica in self._stage.replicas]
        while not self._stopped.is_set():
            if use := self._next_use():
                self._repeat(*use, clients)
            time.sleep(0.2)
        for client in clients:
            client.close()

    def _next_use(self) -> tuple[Request, random.Random] | None:
        with self._lock:
            number = len(self.requests)
            draw = random.Random(f"request {self._stage.plan.seed} {number}")
            made = [one.device_id for one in self.requests if one.method == "CreateDevice" and one.device_id]
            if not made:
                return None
            request = Request(
                number, f"chaos-{self._stage.plan.seed}-{number}", "", draw.choice(["ACCEPTED", "FINISHED"]), {},
                draw.uniform(12, 60), self._stage.history.now,
                draw.choices(list(_OPERATIONS), list(_OPERATIONS.values()))[0], draw.choice(made[-12:]),
            )
            self.requests.append(request)
        return request, draw

    def _meddle(self) -> None:
        """An operator who takes sagas back, and resumes those that are parked."""
        clients = [DeviceClient(replica.server.address) for replica in self._stage.replicas]
        draw = random.Random(f"operator {self._stage.plan.seed}")
        while not self._stopped.wait(draw.uniform(0.5, 2)):
            with self._lock:
                known = [saga for request in self.requests[-15:] for saga in request.saga_ids]
            parked = list(self._stage.parked_at)
            client = draw.choice(clients)
            with contextlib.suppress(RPCFailure):
                if parked and draw.random() < 0.5:
                    saga_id = draw.choice(parked)
                    self.resumed.add(saga_id)
                    client.call("ResumeSaga", service_pb2.ResumeSagaRequest(saga_id=saga_id, reason="chaos"), 5, client.admin)
                elif known:
                    request = service_pb2.CompensateSagaRequest(saga_id=draw.choice(known), reason="chaos")
                    client.call("CompensateSaga", request, 5, client.admin)
        for client in clients:
            client.close()

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
