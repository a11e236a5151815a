"""2. The redroid provider on a real Docker engine, with a stand-in phone in place of Android.

A device comes up and answers over adb; then each of the five steps fails in turn, and nothing stays.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest

from dockerd import REDROID_IMAGE, ADBServer, DockerEngine
from support import ledger as ledgers
from support.client import (
    ERROR_DOMAIN,
    RPCFailure,
    cause_name,
    create_request,
    device_status,
    status_name,
    step_statuses,
)
from support.postgres import Cluster
from support.stubs import device_pb2
from support.waiting import wait_until
from support.world import World

# One worker runs the whole file: its tests share an engine.
pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("redroid")]


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    assert os.geteuid() == 0 and shutil.which("dockerd") and shutil.which("adb"), (
        "these tests start a Docker engine of their own: they need root, dockerd and adb (./dev test installs both)"
    )
    with DockerEngine() as engine:
        yield engine


@pytest.fixture(scope="module")
def adb(engine: DockerEngine) -> Iterator[ADBServer]:
    with ADBServer(engine.directory) as server:
        yield server


class DockerWorld(World):
    """A world whose provider is redroid."""

    def __init__(self, cluster: Cluster, template: str, engine: DockerEngine, adb: ADBServer) -> None:
        super().__init__(cluster, template)
        self.engine = engine
        # Ranges of one's own: what Docker binds is shared by the whole machine.
        first = _free_range(40)
        self.environment = {
            "DEVICERPC_SIMULATED": "false",
            "DEVICERPC_PROVIDER": "redroid",
            "DOCKER_HOST": engine.docker_host,
            "REDROID_IMAGE": f"{REDROID_IMAGE},15=standin:not-pulled",
            "ADB_PORT": str(adb.port),
            "ADB_PORT_START": str(first),
            "ADB_PORT_END": str(first + 19),
            "WEBRTC_PORT_START": str(first + 20),
            "WEBRTC_PORT_END": str(first + 39),
            "DEVICERPC_REDROID_BOOT_TIMEOUT": "20",
        }
        self.adb_ports = range(first, first + 20)

    def held(self) -> list[dict[str, Any]]:
        """Every container and volume with our label, as devices of their sagas."""
        found: dict[str, dict[str, Any]] = {}
        things = [(one["Labels"], "container", one["Id"][:12]) for one in self.engine.containers(devicerpc_managed="true")]
        things += [(one["Labels"], "volume", one["Name"]) for one in self.engine.volumes(devicerpc_managed="true")]
        for labels, kind, name in things:
            saga = labels["devicerpc.saga"]
            entry = found.setdefault(f"{saga} {labels['devicerpc.generation']}", {"saga_id": saga})
            entry[kind] = name
        return list(found.values())

    def audit_all(self, client: Any) -> Any:
        findings = self.audit(client, provider_devices=self.held)
        for device in self.held():
            if findings.sagas.get(device["saga_id"]) == "COMPLETED":
                assert "container" in device and "volume" in device, device
        return findings


def _free_range(size: int) -> int:
    """The first of `size` ports in a row that nobody listens on."""
    first = 33000 + os.getpid() % 500 * size % 20000
    while True:
        sockets = []
        try:
            for port in range(first, first + size):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            first += size
        finally:
            for one in sockets:
                one.close()


@pytest.fixture
def docker(
    request: pytest.FixtureRequest, cluster: Cluster, template: str, engine: DockerEngine, adb: ADBServer
) -> Iterator[DockerWorld]:
    world = DockerWorld(cluster, template, engine, adb)
    try:
        yield world
        assert world.ledger
        assert not world.ledger.bad_requests
    finally:
        print(world.log_tails())
        for container in engine.containers(devicerpc_managed="true"):
            engine.request("DELETE", f"/containers/{container['Id']}?force=1")
        for volume in engine.volumes(devicerpc_managed="true"):
            engine.request("DELETE", f"/volumes/{volume['Name']}?force=1")
        world.close()


def _spec(version: str) -> Any:
    return device_pb2.DeviceSpec(android_version=version)


def test_a_device_runs(docker: DockerWorld, adb: ADBServer) -> None:
    client = docker.server(environment=docker.environment).client()
    answer = client.create(
        "a phone", user="ann", spec=device_pb2.DeviceSpec(
            android_version="11", cpu_cores=1, memory_mb=512, width_px=720, height_px=1280, dpi=320
        ), options={"fps": "15"},
    )
    device = answer.device
    assert device_status(device) == "RUNNING"
    assert device.provider == device_pb2.PROVIDER_REDROID
    assert device.connection.adb_port in docker.adb_ports
    assert device.connection.webrtc_port in range(docker.adb_ports.stop, docker.adb_ports.stop + 20)

    (container,) = docker.engine.containers(devicerpc_saga=answer.saga_id)
    assert container["State"] == "running"
    assert container["Id"].startswith(device.external_id) or device.external_id in container["Id"]
    labels: Mapping[str, str] = container["Labels"]
    assert labels["devicerpc.device"] == device.device_id
    assert labels["devicerpc.user"] == "ann"
    assert labels["devicerpc.installation"]
    assert answer.saga_id in container["Names"][0]
    (volume,) = docker.engine.volumes(devicerpc_saga=answer.saga_id)
    inspected = docker.engine.get(f"/containers/{container['Id']}/json")
    assert [(mount["Name"], mount["Destination"]) for mount in inspected["Mounts"]] == [(volume["Name"], "/data")]
    arguments = inspected["Args"] + (inspected["Config"]["Cmd"] or [])
    for argument in (
        "androidboot.redroid_width=720", "androidboot.redroid_height=1280", "androidboot.redroid_dpi=320",
        "androidboot.redroid_fps=15",
    ):
        assert argument in arguments, arguments
    host = inspected["HostConfig"]
    assert host["Memory"] == 512 << 20 and host["NanoCpus"] == 10**9
    bindings = host["PortBindings"]
    assert bindings["5555/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(device.connection.adb_port)}]

    # A stranger's adb reaches it under the connection that was answered.
    serial = f"{device.connection.host}:{device.connection.adb_port}"
    command = ["adb", "-P", str(adb.port), "-s", serial, "shell", "getprop", "sys.boot_completed"]
    subprocess.run(["adb", "-P", str(adb.port), "connect", serial], check=True, capture_output=True, timeout=20)
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    assert shown.stdout.strip() == "1"
    docker.audit_all(client)


def test_a_device_is_stopped_started_and_deleted(docker: DockerWorld) -> None:
    """The same container on the same ports; one that somebody else has removed is deleted all the same."""
    client = docker.server(environment=docker.environment).client()
    made, lost = (client.create(user="ann", spec=_spec("11")) for _ in range(2))
    device = made.device.device_id

    def state() -> tuple[str, str]:
        (container,) = docker.engine.containers(devicerpc_saga=made.saga_id)
        return container["Id"], container["State"]

    before = state()
    assert device_status(client.operate("StopDevice", device).device) == "STOPPED"
    assert state() == (before[0], "exited")
    for method in ("StartDevice", "RestartDevice"):
        shown = client.operate(method, device).device
        assert device_status(shown) == "RUNNING" and shown.connection == made.device.connection
        assert state() == before
    (stranger,) = docker.engine.containers(devicerpc_saga=lost.saga_id)
    docker.engine.request("DELETE", f"/containers/{stranger['Id']}?force=1&v=1")
    for one in (made, lost):
        client.delete(one.device.device_id)
    assert docker.held() == []
    assert docker.database.rows("SELECT 1 FROM port WHERE saga_id IS NOT NULL UNION ALL SELECT 1 FROM devices") == []
    docker.audit_all(client)


def test_many_devices_at_once(docker: DockerWorld) -> None:
    client = docker.server(environment=docker.environment).client()
    calls = [client.start(create_request(spec=_spec("11")), 90) for _ in range(6)]
    answers = [call.result() for call in calls]
    ports = [answer.device.connection.adb_port for answer in answers]
    assert len(set(ports)) == 6
    docker.audit_all(client)


def _failed(docker: DockerWorld, failure: RPCFailure, code: grpc.StatusCode, reason: str, step: str) -> Any:
    assert (failure.code, failure.reason, failure.domain) == (code, reason, ERROR_DOMAIN), failure
    assert failure.metadata["step"] == step, failure
    assert failure.trailers["grpc-retry-pushback-ms"] == "-1"
    client = docker.servers[0].client()
    saga = client.saga(failure.saga_id)
    assert status_name(saga) == "COMPENSATED" and cause_name(saga) == "STEP_FAILED"
    assert (saga.failure.step, saga.failure.reason) == (step, reason)
    return saga


def test_ports_are_exhausted(docker: DockerWorld) -> None:
    for kind in ("ADB", "WEBRTC"):
        docker.environment[f"{kind}_PORT_END"] = docker.environment[f"{kind}_PORT_START"]
    client = docker.server(environment=docker.environment).client()
    first = client.create(spec=_spec("11"))
    with pytest.raises(RPCFailure) as caught:
        client.create(spec=_spec("11"))
    saga = _failed(
        docker, caught.value, grpc.StatusCode.RESOURCE_EXHAUSTED, "PORTS_EXHAUSTED", "ALLOCATE_PORTS"
    )
    assert step_statuses(saga)["CREATE_PROVIDER_DEVICE"] == "PENDING"
    assert [one["saga_id"] for one in docker.held()] == [first.saga_id]
    docker.audit_all(client)


def test_the_image_is_missing(docker: DockerWorld) -> None:
    client = docker.server(environment=docker.environment).client()
    with pytest.raises(RPCFailure) as caught:
        client.create(spec=_spec("15"))
    _failed(docker, caught.value, grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REFUSED", "CREATE_PROVIDER_DEVICE")
    assert docker.held() == []
    docker.audit_all(client)


def test_a_version_that_nobody_configured(docker: DockerWorld) -> None:
    client = docker.server(environment=docker.environment).client()
    with pytest.raises(RPCFailure) as caught:
        client.create(spec=_spec("9"))
    assert caught.value.reason == "INVALID_FIELD" and caught.value.fields == {"spec.android_version"}
    assert docker.database.value("SELECT count(*) FROM saga_state") == 0


def test_the_engine_is_away(docker: DockerWorld) -> None:
    """An engine that can't be reached is a definite no; one that dies in between leaves nothing behind."""
    client = docker.server(environment=docker.environment).client()
    docker.engine.stop()
    try:
        with pytest.raises(RPCFailure) as caught:
            client.create(spec=_spec("11"), timeout=60)
    finally:
        docker.engine.start()
    _failed(docker, caught.value, grpc.StatusCode.ABORTED, "PROVIDER_UNAVAILABLE", "CREATE_PROVIDER_DEVICE")
    docker.audit_all(client)


def test_the_record_can_not_be_written(docker: DockerWorld) -> None:
    """A row that the database refuses fails its own saga, and what the provider made is taken away again."""
    client = docker.server(environment=docker.environment).client()
    docker.database.execute("ALTER TABLE devices ADD CONSTRAINT e2e_refused CHECK (name <> 'refused by a check')")
    calls = {
        name: client.start(create_request(name, spec=_spec("11")), 90)
        for name in ("a neighbour", "refused by a check", "another")
    }
    with pytest.raises(RPCFailure) as caught:
        calls["refused by a check"].result()
    failure = caught.value
    assert failure.code in (grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL), failure
    assert failure.metadata["step"] == "CREATE_DATABASE_RECORD"
    assert "e2e_refused" not in str(failure), "it tells callers about the schema"
    saga = client.saga(failure.saga_id)
    assert status_name(saga) == "COMPENSATED"
    assert saga.failure.step == "CREATE_DATABASE_RECORD"
    for name in ("a neighbour", "another"):
        assert device_status(calls[name].result().device) == "RUNNING"
    docker.audit_all(client)


def test_the_quota_is_refused(docker: DockerWorld) -> None:
    assert docker.ledger
    client = docker.server(environment=docker.environment).client()
    docker.ledger.rule(ledgers.refuse(), operation="increment")
    with pytest.raises(RPCFailure) as caught:
        client.create(spec=_spec("11"))
    saga = _failed(
        docker, caught.value, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_REFUSED", "REPORT_QUOTA_USAGE"
    )
    assert step_statuses(saga)["CREATE_PROVIDER_DEVICE"] == "COMPENSATED"
    assert docker.held() == []
    docker.audit_all(client)


@pytest.mark.parametrize("version", ["12", "13"], ids=["never boots", "stops by itself"])
def test_it_does_not_boot(docker: DockerWorld, version: str) -> None:
    assert docker.ledger
    docker.environment["DEVICERPC_REDROID_BOOT_TIMEOUT"] = "3"
    client = docker.server(environment=docker.environment).client()
    with pytest.raises(RPCFailure) as caught:
        client.create(spec=_spec(version), timeout=90)
    saga = _failed(docker, caught.value, grpc.StatusCode.ABORTED, "BOOT_FAILED", "START_DEVICE")
    assert step_statuses(saga)["REPORT_QUOTA_USAGE"] == "COMPENSATED"
    assert docker.held() == []
    assert docker.ledger.net() == {saga.device_id: 0}
    docker.audit_all(client)


def test_a_port_is_taken_by_a_stranger(docker: DockerWorld) -> None:
    """The pair is blocked and another tried; the caller sees nothing of it."""
    taken = docker.adb_ports.start
    with socket.create_server(("127.0.0.1", taken)):
        client = docker.server(environment=docker.environment).client()
        answer = client.create(spec=_spec("11"))
    assert answer.device.connection.adb_port != taken
    docker.audit_all(client)


def test_killed_while_it_makes_devices(docker: DockerWorld) -> None:
    server = docker.server(environment=docker.environment)
    calls = [
        server.client().start(create_request(spec=_spec("12" if number % 3 == 2 else "11"), when="FINISHED"))
        for number in range(6)
    ]
    wait_until(lambda: len(docker.engine.containers(devicerpc_managed="true")) >= 2, 60, "containers")
    server.kill()
    for call in calls:
        call.outcome()
    time.sleep(0.2)
    server.start()
    docker.wait_all_over(timeout=150)
    findings = docker.audit_all(server.client())
    assert findings.count("COMPLETED") == 4 and findings.count("COMPENSATED") == 2
