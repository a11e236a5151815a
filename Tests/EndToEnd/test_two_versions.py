"""Two programs over one database, rolled up and down under load: nothing is lost, nothing is made twice.

`./dev test` rolls the program against itself, as one that knows the cluster's features and as one that knows of none.
`./dev roll PATH` rolls it against another binary, the release before (DEVICERPC_BEFORE).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
import time

import grpc
import pytest

from support.client import DeviceClient, RPCFailure, create_request, status_name, unique
from support.server import Server, binary
from support.waiting import wait_until
from support.world import World

_BEFORE = os.environ.get("DEVICERPC_BEFORE", "")
ROUNDS = int(os.environ.get("DEVICERPC_ROLL_ROUNDS", "2"))
CALLERS = 6
# What a caller waits for over all its attempts, restarts of all replicas included.
PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class Program:
    """A binary, and what it is started with."""

    name: str
    path: pathlib.Path
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


class Load:
    """Callers that create devices and don't give up: each request under its id, until it has an answer."""

    def __init__(self, servers: list[Server]) -> None:
        self.sagas: dict[str, str] = {}  # by request id
        self.problems: list[str] = []
        self._addresses = [server.address for server in servers]
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(PATIENCE + 30)
            assert not thread.is_alive(), "a caller doesn't end"

    def _call(self, number: int) -> None:
        clients = [DeviceClient(address) for address in self._addresses]
        turn = number
        try:
            while not self._ends.is_set():
                request_id = unique("roll")
                # Some are undone, some take several attempts.
                options = {"latency_ms": "40", "boot_ms": "120"}
                if turn % 5 == 1:
                    options |= {"fail": "start:refused"}
                elif turn % 5 == 3:
                    options |= {"fail": "create:unavailable", "fail_times": "1"}
                request = create_request(
                    user=f"user-{number}", when="ACCEPTED", options=options, request_id=request_id)
                deadline = time.monotonic() + PATIENCE
                while True:
                    turn += 1
                    try:
                        answer = clients[turn % len(clients)].call("CreateDevice", request, timeout=20)
                        with self._lock:
                            self.sagas[request_id] = answer.saga_id
                        break
                    except RPCFailure as failure:
                        again = (
                            grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
                            grpc.StatusCode.RESOURCE_EXHAUSTED)
                        if failure.code in again and time.monotonic() < deadline:
                            time.sleep(0.05)
                            continue
                        with self._lock:
                            self.problems.append(f"{request_id}: {failure}")
                        break
                time.sleep(0.02)
        finally:
            for client in clients:
                client.close()


def _start(server: Server, program: Program) -> None:
    server.program = program.path
    server.start(program.environment, timeout=60)


def _replace(server: Server, program: Program) -> None:
    server.terminate()
    assert server.wait_ended(90) == 0, server.log_tail()
    _start(server, program)


def _feature_is_on(server: Server) -> bool:
    _, text = server.http("/metrics")
    return any(line.startswith('saga_feature_on{feature="features"} 1') for line in text.splitlines())


def _roll(world: World, old: Program, new: Program, *, replicas: int, rounds: int) -> None:
    servers = [world.server(name=f"replica-{number}", start=False) for number in range(replicas)]
    # The older program is there first, as in life; the newer one migrates over its head.
    for server in servers:
        _start(server, old)
    load = Load(servers)
    try:
        for _ in range(rounds):
            # Up in one order, down in the other: each is the last old and the last new one in turn.
            for server in servers:
                _replace(server, new)
                if server is not servers[-1]:
                    assert not _feature_is_on(server), "on, though not all know it"
            for server in servers:
                wait_until(lambda: _feature_is_on(server), 60, f"{server.name} to see that all know the feature")
            for server in reversed(servers[1:]):
                _replace(server, old)
            wait_until(lambda: not _feature_is_on(servers[0]), 60, "the newer one to see that not all know the feature")
            if replicas > 2:
                _replace(servers[0], old)
    finally:
        load.end()
    assert not load.problems, load.problems[:10]
    assert len(load.sagas) > 50, f"only {len(load.sagas)} sagas: nothing was shown"
    assert len(set(load.sagas.values())) == len(load.sagas), "two requests led to one saga"
    world.wait_all_over(timeout=90)
    if replicas > 2:
        _replace(servers[0], new)
    client = servers[0].client()
    findings = world.audit(client)
    known = {
        row[0]: row[1] for row in world.database.rows("SELECT request_id, saga_id FROM saga_request")
    }
    lost = {request: saga for request, saga in load.sagas.items() if known.get(request) != saga}
    assert not lost, f"acknowledged, and not there: {lost}"
    assert set(findings.sagas.values()) <= {"COMPLETED", "COMPENSATED"}, findings.sagas
    for saga_id in list(load.sagas.values())[:200]:
        assert status_name(client.saga(saga_id)) == findings.sagas[saga_id]
    print(f"{len(load.sagas)} sagas, {findings.count('COMPLETED')} devices")


@pytest.mark.skipif(bool(_BEFORE), reason="rolls against another binary")
@pytest.mark.timeout(600)
def test_program_rolls_over_itself(world: World) -> None:
    """One of the two knows none of the cluster's features, as an older program does."""
    old = Program("as an older one", binary(), {"DEVICERPC_FAULT": "features.none"})
    _roll(world, old, Program("new", binary()), replicas=2, rounds=1)


@pytest.mark.skipif(not _BEFORE, reason="by name: ./dev roll PATH")
@pytest.mark.timeout(1800)
def test_release_before_rolls_to_this_one(make_world) -> None:
    before = pathlib.Path(_BEFORE)
    assert before.exists(), f"DEVICERPC_BEFORE: {before} is not there"
    world: World = make_world(migrated=False)
    # The program before parks sagas between two steps when it is stopped, unless keys are honoured.
    settings = {"USER_SERVICE_IDEMPOTENT": "true"}
    _roll(world, Program("before", before, settings), Program("new", binary(), settings), replicas=3, rounds=ROUNDS)
