"""Servers are drained one after the other while clients call at full load: no call fails."""

from __future__ import annotations

import threading
import time

import grpc

from support.server import Server
from support.stubs import health_grpcio, health_pb2, saga_pb2, service_grpcio, service_pb2
from support.world import World

ROUNDS = 10
THREADS = 6


class Load:
    """Threads that call without pause, over two servers in turn. Retries are gRPC's transparent ones only: of calls that
    a server says it has not begun."""

    def __init__(self, servers: list[Server], saga_id: str) -> None:
        addresses = ",".join(server.address for server in servers)
        self._channel = grpc.insecure_channel(
            f"ipv4:{addresses}",
            options=(
                ("grpc.lb_policy_name", "round_robin"), ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)))
        self._health = health_grpcio.HealthStub(self._channel)
        self._devices = service_grpcio.DeviceServiceStub(self._channel)
        self._saga_id = saga_id
        self._ends = threading.Event()
        self.calls = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                self._health.Check(health_pb2.HealthCheckRequest(), timeout=120, wait_for_ready=True)
                request = service_pb2.GetSagaRequest(saga_id=self._saga_id)
                saga = self._devices.GetSaga(request, timeout=120, wait_for_ready=True)
                assert saga.status == saga_pb2.SAGA_STATUS_COMPLETED
                self.calls += 2
            except (grpc.RpcError, AssertionError) as error:
                self.failures.append(str(error))

    def close(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()


def test_drain_under_full_load(world: World) -> None:
    servers = [world.server("one"), world.server("two")]
    saga_id = servers[0].client().create("drained").saga_id
    load = Load(servers, saga_id)
    try:
        for number in range(ROUNDS):
            leaving = servers[number % 2]
            before, deadline = load.calls, time.monotonic() + 60
            while load.calls < before + 200:
                assert time.monotonic() < deadline and not load.failures, (load.calls, load.failures[:3])
                time.sleep(0.01)
            leaving.terminate()
            assert leaving.wait_ended(60) == 0
            leaving.start()
    finally:
        load.close()
    assert not load.failures, f"{len(load.failures)} of {load.calls} calls failed: {load.failures[:3]}"
