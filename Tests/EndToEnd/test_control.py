"""Devices are stopped, started and restarted, one operation at a time; a deletion always wins."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from support.client import DeviceClient, RPCFailure, create_request, device_status, status_name, unique
from support.server import run_command
from support.sites import site_server, wait_for_version
from support.waiting import wait_until
from support.world import World

METHODS = ("StartDevice", "StopDevice", "RestartDevice")


def runs(world: World, saga_id: str) -> bool:
    """What the provider says of a creation's device."""
    return bool(world.database.value(
        "SELECT started_at IS NOT NULL FROM simulated_device WHERE saga_id = %s AND destroyed_at IS NULL", saga_id))


def make(client: DeviceClient, world: World, status: str) -> Any:
    """A device that is so."""
    made = client.create(options={"boot_ms": "60000"} if status == "CREATING" else {}, when="ACCEPTED" if status == "CREATING" else "FINISHED")
    device = made.device.device_id
    if status == "STOPPED":
        client.operate("StopDevice", device)
    elif status == "ERROR":
        world.database.execute("UPDATE devices SET status = 'ERROR' WHERE device_id = %s", device)
    elif status in ("DELETING", "STARTING", "STOPPING"):
        # Another saga holds it, and doesn't come to its end.
        world.database.execute(
            "UPDATE devices SET status = %s, operation_saga_id = %s WHERE device_id = %s", status,
            client.create(options={"boot_ms": "60000"}, when="ACCEPTED").saga_id, device)
    return made


# What comes of each method, by the status that the device has: the status that it has afterwards, or the reason.
TABLE: dict[str, tuple[str, str, str]] = {
    "CREATING": ("DEVICE_BUSY", "DEVICE_BUSY", "DEVICE_BUSY"),
    "RUNNING": ("RUNNING", "STOPPED", "RUNNING"),
    "STOPPED": ("RUNNING", "STOPPED", "RUNNING"),
    "ERROR": ("DEVICE_STATE", "DEVICE_STATE", "DEVICE_STATE"),
    "DELETING": ("DEVICE_BUSY", "DEVICE_BUSY", "DEVICE_BUSY"),
    "STARTING": ("DEVICE_BUSY", "DEVICE_BUSY", "DEVICE_BUSY"),
    "STOPPING": ("DEVICE_BUSY", "DEVICE_BUSY", "DEVICE_BUSY"),
}


def test_every_cell_of_the_table(world: World) -> None:
    """The contract's table, but for deletions (test_deletion.py and below)."""
    client = world.server(environment={"USER_SERVICE_IDEMPOTENT": "true"}).client()
    wrong = []
    for status, ends in TABLE.items():
        for method, end in zip(METHODS, ends, strict=True):
            made = make(client, world, status)
            try:
                answer = client.operate(method, made.device.device_id, timeout=8)
                came = device_status(answer.device)
                saga = client.saga(answer.saga_id)
                assert saga.type == f"DEVICE_{method.removesuffix('Device').upper()}" and status_name(saga) == "COMPLETED"
                assert runs(world, made.saga_id) == (came == "RUNNING"), (status, method)
                assert answer.device.operation_saga_id == ""
                assert bool(answer.device.connection.adb_port) == (came == "RUNNING")
                # What needed nothing is as it was.
                assert (answer.device.saga_id == answer.saga_id) == (method == "RestartDevice" or came != status)
            except RPCFailure as failure:
                came = failure.reason
                assert failure.code == grpc.StatusCode.FAILED_PRECONDITION, (status, method)
                if came == "DEVICE_BUSY":
                    held = client.device(made.device.device_id).operation_saga_id
                    assert held and held in str(failure), failure
            if came != end:
                wrong.append(f"{status} {method}: {came}, expected {end}")
    assert not wrong, "\n".join(wrong)
    world.was_audited = True  # rows were written by hand


def test_a_life(world: World) -> None:
    """Repeated requests find their sagas; what is deleted meanwhile is gone; nothing is left."""
    client = world.server(environment={"USER_SERVICE_IDEMPOTENT": "false"}).client()
    made = client.create()
    device = made.device.device_id
    stop = client.operate("StopDevice", device, request_id="one")
    assert device_status(client.device(device)) == "STOPPED" and not runs(world, made.saga_id)
    start = client.operate("StartDevice", device, request_id="one")
    assert device_status(start.device) == "RUNNING" and start.device.connection == made.device.connection
    # The same request, though the device runs by now.
    assert client.operate("StopDevice", device, request_id="one").saga_id == stop.saga_id
    assert device_status(client.device(device)) == "RUNNING"
    with pytest.raises(RPCFailure) as unknown:
        client.operate("StartDevice", "123e4567-e89b-12d3-a456-426614174000")
    assert unknown.value.code == grpc.StatusCode.NOT_FOUND
    for arguments, status in ((["stop"], "STOPPED"), (["start"], "RUNNING"), (["restart", "--watch"], "RUNNING")):
        done = run_command([*arguments, device, "--server", client.address])
        assert done.returncode == 0 and "saga_" in done.stdout, done.stdout + done.stderr
        assert device_status(client.device(device)) == status
    client.delete(device)
    assert sum(world.ledger.net().values()) == 0 if world.ledger else True
    world.audit(client)


def test_many_at_once(world: World) -> None:
    """Sagas of all types share flushes, and statements in them; each does its own to its own device."""
    client = world.server(environment={"USER_SERVICE_IDEMPOTENT": "true"}).client()
    made = [call.result() for call in [client.start(create_request()) for _ in range(40)]]
    stopped = made[:10]
    for call in [client.start_operation("StopDevice", one.device.device_id) for one in stopped]:
        call.result()
    methods = ("StartDevice", "StopDevice", "RestartDevice", "DeleteDevice")
    calls = [
        (method, one, client.start_operation(method, one.device.device_id))
        for ones in zip(made[:10], made[10:20], made[20:30], made[30:], strict=True)
        for method, one in zip(methods, ones, strict=True)
    ]
    ends = {(method, device_status(call.result().device)) for method, _, call in calls if method != "DeleteDevice"}
    assert ends == {("StartDevice", "RUNNING"), ("StopDevice", "STOPPED"), ("RestartDevice", "RUNNING")}
    for method, one, call in calls:
        call.result()
        if method == "DeleteDevice":
            with pytest.raises(RPCFailure):
                client.device(one.device.device_id)
        else:
            assert runs(world, one.saga_id) == (method != "StopDevice"), method
    world.audit(client)


def test_a_start_that_fails(world: World) -> None:
    """The device is stopped afterwards, and says why; a stop or restart of what the provider has lost makes it an
    ERROR."""
    client = world.server(environment={
        "USER_SERVICE_IDEMPOTENT": "true", "DEVICERPC_SIMULATED_OPTIONS": ""}).client()
    failing, lost = client.create(), client.create()
    client.operate("StopDevice", failing.device.device_id)
    world.database.execute("INSERT INTO simulated_outage VALUES ('simulated', 'start')")
    time.sleep(0.3)
    for method in ("StartDevice", "RestartDevice"):
        with pytest.raises(RPCFailure) as failure:
            client.operate(method, failing.device.device_id, saga_timeout=2, timeout=90)
        assert failure.value.reason in ("PROVIDER_UNAVAILABLE", "TIMED_OUT")
        device = client.device(failing.device.device_id)
        assert device_status(device) == "STOPPED" and failure.value.reason in device.status_reason, device
        assert device.operation_saga_id == "" and not runs(world, failing.saga_id)
    world.database.execute("DELETE FROM simulated_outage")
    time.sleep(0.3)
    started = client.operate("StartDevice", failing.device.device_id).device
    assert device_status(started) == "RUNNING" and started.status_reason == ""
    world.database.execute("UPDATE simulated_device SET destroyed_at = now() WHERE saga_id = %s", lost.saga_id)
    device = client.operate("StopDevice", lost.device.device_id).device
    assert device_status(device) == "ERROR" and "DEVICE_MISSING" in device.status_reason
    client.delete(lost.device.device_id)
    restarted = client.create()
    world.database.execute("UPDATE simulated_device SET destroyed_at = now() WHERE saga_id = %s", restarted.saga_id)
    with pytest.raises(RPCFailure):
        client.operate("RestartDevice", restarted.device.device_id)
    device = client.device(restarted.device.device_id)
    assert device_status(device) == "ERROR" and "DEVICE_MISSING" in device.status_reason, device
    client.delete(restarted.device.device_id)
    world.audit(client)


def test_a_deletion_always_wins(world: World) -> None:
    """It comes while devices are started, stopped and restarted."""
    client = world.server(environment={
        "USER_SERVICE_IDEMPOTENT": "true", "DEVICERPC_SIMULATED_LATENCY": "100ms", "DEVICERPC_SIMULATED_BOOT": "500ms"}).client()
    made = [client.create() for _ in range(6)]
    for one in made[:2]:
        client.operate("StopDevice", one.device.device_id)
    calls = []
    for index, one in enumerate(made):
        method = METHODS[index // 2]
        calls.append(client.start_operation(method, one.device.device_id, request_id=unique("op")))
    time.sleep(0.15)
    deletions = [client.start_delete(one.device.device_id, timeout=120) for one in made]
    for call in deletions:
        assert status_name(client.saga(call.result().saga_id)) == "COMPLETED"
    for call in calls:
        call.outcome()
    wait_until(lambda: world.moving() == 0, 30, "all of them to end")
    assert client.list_devices().devices == [] and sum(world.ledger.net().values() if world.ledger else ()) == 0
    assert int(world.database.value("SELECT count(*) FROM simulated_device WHERE destroyed_at IS NULL")) == 0
    assert int(world.database.value("SELECT count(*) FROM port WHERE saga_id IS NOT NULL")) == 0
    world.audit(client)


def test_through_a_replica_that_does_not_serve_the_site(world: World) -> None:
    """It learns where the device is when it claims it; the rest is for those who can call there."""
    servers = [
        site_server(
            world, f"control-{name}", [{"provider": "simulated", "name": name, "latency": "10ms", "boot": "0s"}],
            USER_SERVICE_IDEMPOTENT="true")
        for name in ("north", "south")
    ]
    here, there = (server.client() for server in servers)
    for server in servers:
        wait_for_version(server, 2)
    made = here.create()
    device = made.device.device_id
    assert here.saga(made.saga_id).site == "north"
    for method, status in (("StopDevice", "STOPPED"), ("StartDevice", "RUNNING"), ("RestartDevice", "RUNNING")):
        assert device_status(there.operate(method, device).device) == status
        assert runs(world, made.saga_id) == (status == "RUNNING")
    there.delete(device)
    world.audit(here)


def test_a_restart_that_does_not_stop_it(world: World) -> None:
    """One that the provider refuses to stop still runs, and is reached as before; one whose stop was not answered is stopped for
    certain before anybody says so."""
    environment = {"USER_SERVICE_IDEMPOTENT": "true"}
    client = world.server(environment=environment).client()
    for failure, status in (("refused", "RUNNING"), ("unknown;fail_times=2", "STOPPED")):
        there = world.server(environment={**environment, "DEVICERPC_SIMULATED_OPTIONS": f"fail=stop:{failure}"})
        made = client.create()
        with pytest.raises(RPCFailure) as failed:
            there.client().operate("RestartDevice", made.device.device_id, saga_timeout=1, timeout=90)
        client.wait_finished(failed.value.saga_id, 90)
        device = client.device(made.device.device_id)
        assert device_status(device) == status and failed.value.reason in device.status_reason, device
        assert runs(world, made.saga_id) == (status == "RUNNING")
        assert (device.connection == made.device.connection) == (status == "RUNNING")
        assert device.operation_saga_id == ""
        there.kill()
    world.audit(client)
