"""Devices are deleted: whatever else is done with them, from whatever point on, exactly once, and nothing of them is left."""

from __future__ import annotations

import json
import time
from typing import Any

import grpc
import pytest

from support import ledger as ledgers
from support.client import DeviceClient, RPCFailure, create_request, device_status, status_name, step_statuses, unique
from support.server import run_command
from support.sites import site_server, wait_for_version
from support.waiting import wait_until
from support.world import World


def expect_nothing(world: World, *, except_for: int = 0) -> None:
    """What providers, ports, rows and the user service hold."""
    counts = {
        "simulated devices": "SELECT count(*) FROM simulated_device WHERE destroyed_at IS NULL OR destroyed_at > now()",
        "ports": "SELECT count(*) FROM port WHERE saga_id IS NOT NULL",
        "rows": "SELECT count(*) FROM devices",
    }
    left = {name: int(world.database.value(query)) for name, query in counts.items()}
    if world.ledger:
        left["usage"] = sum(world.ledger.net().values())
    assert left == dict.fromkeys(left, except_for), left


def saga_of(client: DeviceClient, device_id: str, kind: str) -> list[Any]:
    return list(client.list_sagas(device_id=device_id, type=kind).sagas)


@pytest.mark.parametrize("idempotent", ["true", "false"])
def test_nothing_is_left(world: World, idempotent: str) -> None:
    """Devices are made, used and deleted; repeated requests find the saga that did it, and what is gone is not found."""
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": idempotent})
    client = server.client()
    made = [client.create() for _ in range(5)]
    kept = made.pop()
    calls = [client.start_delete(one.device.device_id, request_id=unique("delete")) for one in made]
    answers = [call.result() for call in calls]
    for one, answer in zip(made, answers, strict=True):
        assert answer.device.device_id == one.device.device_id and answer.device.operation_saga_id == ""
        saga = client.saga(answer.saga_id)
        assert saga.type == "DEVICE_DELETION" and status_name(saga) == "COMPLETED" and saga.device_id == one.device.device_id
        assert set(step_statuses(saga).values()) == {"SUCCEEDED"}
        with pytest.raises(RPCFailure) as gone:
            client.device(one.device.device_id)
        assert gone.value.code == grpc.StatusCode.NOT_FOUND
        with pytest.raises(RPCFailure) as again:
            client.delete(one.device.device_id, request_id=unique("another"))
        assert again.value.code == grpc.StatusCode.NOT_FOUND
        # The same request: the same saga, though the device is gone.
        assert client.delete(one.device.device_id, request_id=saga.request_id).saga_id == answer.saga_id
    with pytest.raises(RPCFailure) as reused:
        client.delete(made[0].device.device_id, request_id=client.saga(answers[0].saga_id).request_id, saga_timeout=5)
    assert reused.value.reason == "REQUEST_ID_REUSED"
    shown = client.device(kept.device.device_id)
    assert device_status(shown) == "RUNNING" and shown.site == "simulated" and shown.operation_saga_id == ""
    assert [device.device_id for device in client.list_devices().devices] == [kept.device.device_id]
    expect_nothing(world, except_for=1)
    world.audit(client)
    # Creations alone are counted by the names that operators know.
    metrics = server.http("/metrics")[1].splitlines()
    assert 'saga_device_creation_total{status="completed"} 5' in metrics


def test_requests_are_checked(world: World) -> None:
    client = world.server().client()
    for fields, wrong in [
        ({"device_id": "x"}, "device_id"), ({"device_id": ""}, "device_id"),
        ({"device_id": "123e4567-e89b-12d3-a456-426614174000", "when": "PROVISIONED"}, "return_when"),
        ({"device_id": "123e4567-e89b-12d3-a456-426614174000", "saga_timeout": 0.5}, "saga_timeout"),
        ({"device_id": "123e4567-e89b-12d3-a456-426614174000", "request_id": "é"}, "request_id"),
    ]:
        with pytest.raises(RPCFailure) as failure:
            client.delete(**fields)
        assert failure.value.reason == "INVALID_FIELD" and failure.value.fields == {wrong}
    with pytest.raises(RPCFailure) as unknown:
        client.delete("123e4567-e89b-12d3-a456-426614174000")
    assert unknown.value.code == grpc.StatusCode.NOT_FOUND


# The options of a creation, and when its deletion comes: once this holds of the creation's row.
_POINTS: list[tuple[str, dict[str, str], str]] = [
    ("accepted", {"latency_ms": "300"}, "current_step = 'CREATE_PROVIDER_DEVICE'"),
    ("being made", {"latency_ms": "600"}, "current_step = 'CREATE_PROVIDER_DEVICE'"),
    ("retrying", {"fail": "create:unavailable"}, "retry_count > 0"),
    ("reported", {"boot_ms": "1500"}, "current_step = 'START_DEVICE'"),
    ("being undone", {"fail": "start:refused", "latency_ms": "500"}, "status = 'COMPENSATING'"),
    ("a reply lost", {"lose_reply": "create", "unique_keys": "false"}, "current_step = 'CREATE_PROVIDER_DEVICE'"),
    ("made", {}, "status = 'COMPLETED'"),
]


def test_during_every_point_of_a_creation(world: World) -> None:
    """The deletion comes while the device is being made: through another replica than the one that makes it."""
    first, second = (one.client() for one in world.replicas(2, environment={"USER_SERVICE_IDEMPOTENT": "true"}))
    creations, deletions = {}, {}
    for name, options, condition in _POINTS:
        creations[name] = first.start(create_request(name, options=options, when="ACCEPTED")).result()
        saga_id = creations[name].saga_id
        wait_until(
            lambda: world.database.value(
                f"SELECT {condition} OR status IN ('COMPLETED', 'COMPENSATED') FROM saga_state WHERE saga_id = %s", saga_id),
            30, name, interval=0.01)
        deletions[name] = second.start_delete(creations[name].device.device_id, timeout=120)
    for name, call in deletions.items():
        answer = call.result()
        assert status_name(second.saga(answer.saga_id)) == "COMPLETED", name
    ends = {name: status_name(first.saga(one.saga_id)) for name, one in creations.items()}
    assert ends.pop("made") == "COMPLETED"
    assert ends["retrying"] == "COMPENSATED" and ends["being made"] == "COMPENSATED"
    expect_nothing(world)
    world.audit(first)


def test_before_and_after_the_last_flush(world: World) -> None:
    """The cancel may come before or after the creation's last flush: it makes no difference to the deletion. Two deletions of one
    device both end well, and the device is destroyed once."""
    client = world.server(environment={"USER_SERVICE_IDEMPOTENT": "true"}).client()
    calls = []
    for index in range(12):
        # Their last flushes come about when the deletions do.
        made = client.start(create_request(when="ACCEPTED", options={"boot_ms": str(60 + 5 * index)})).result()
        calls.append((made, [client.start_delete(made.device.device_id) for _ in range(2)]))
        time.sleep(0.02)
    for made, deletions in calls:
        ids = {call.result().saga_id for call in deletions}
        assert len(ids) == 2
        assert {status_name(client.saga(saga_id)) for saga_id in ids} == {"COMPLETED"}
    expect_nothing(world)
    world.audit(client)


def test_a_parked_holder_parks_the_deletion(world: World) -> None:
    """BLOCKED_BY_SAGA, with the holder's id."""
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": "true"})
    client = server.client()
    with pytest.raises(RPCFailure) as parked:
        client.create(options={"fail": "start:refused,destroy:undecidable"}, request_id="stuck")
    assert parked.value.reason == "PARKED"
    creation = client.saga(parked.value.saga_id)
    with pytest.raises(RPCFailure) as blocked:
        client.delete(creation.device_id)
    assert blocked.value.reason == "PARKED" and creation.saga_id in str(blocked.value)
    saga = client.saga(blocked.value.saga_id)
    assert status_name(saga) == "PARKED" and saga.failure.reason == "BLOCKED_BY_SAGA" and saga.current_step == "CLAIM_DEVICE"
    # Somebody sees to the holder by hand, and resumes the deletion.
    world.database.execute("UPDATE simulated_device SET destroyed_at = now()")
    for one in (creation.saga_id, saga.saga_id):
        _command(world, one, "SKIP" if one == creation.saga_id else "RESUME")
        wait_until(lambda: status_name(client.saga(one)) in ("COMPENSATED", "COMPLETED"), 30, f"{one} to be over")
    assert status_name(client.saga(saga.saga_id)) == "COMPLETED"
    assert int(world.database.value("SELECT count(*) FROM devices")) == 0


def _command(world: World, saga_id: str, kind: str) -> None:
    world.database.execute(
        """
        WITH s AS (UPDATE saga_state SET commands = commands + 1 WHERE saga_id = %s RETURNING *),
        c AS (INSERT INTO saga_command (saga_id, kind, issuer, reason) SELECT saga_id, %s, 'test', 'by hand' FROM s)
        INSERT INTO saga_waiting (saga_id, saga_type, definition_version, site, due_at, reason, clock_epoch)
        SELECT saga_id, saga_type, definition_version, coalesce(site, ''), now(), 'COMMAND', (SELECT epoch FROM saga_clock) FROM s
        ON CONFLICT (saga_id) DO UPDATE SET due_at = excluded.due_at
        """, saga_id, kind)


def test_a_site_that_is_away(world: World) -> None:
    """The deletion sleeps until the site is back; a limited site has its room again afterwards."""
    site = {"name": "cellar", "provider": "simulated", "latency": "2ms", "boot": "2ms", "devices": 4}
    server = site_server(world, "one", [site], USER_SERVICE_IDEMPOTENT="true")
    wait_for_version(server, 2)
    client = server.client()
    made = [client.create() for _ in range(3)]
    # The last one is still being made: its undo waits for the site, and the deletion for its undo.
    made.append(client.create(when="ACCEPTED", options={"boot_ms": "60000"}))
    wait_until(lambda: client.saga(made[3].saga_id).current_step == "START_DEVICE", 30, "the boot")
    world.database.execute("INSERT INTO simulated_outage VALUES ('cellar', 'all')")
    time.sleep(0.3)
    sagas = [client.delete(one.device.device_id, when="ACCEPTED").saga_id for one in made]
    wait_until(lambda: int(world.database.value("SELECT count(*) FROM saga_waiting")) >= 4, 60, "those that the site keeps waiting to sleep")
    waiting = client.saga(sagas[3])
    assert waiting.waiting_for.dependency == made[3].saga_id and waiting.current_step == "CLAIM_DEVICE"
    device = client.device(made[0].device.device_id)
    assert device_status(device) == "DELETING" and device.operation_saga_id == sagas[0] and device.saga_id == sagas[0]
    assert client.saga(sagas[0]).site == "cellar"
    world.database.execute("DELETE FROM simulated_outage")
    wait_until(lambda: world.moving() == 0, 60, "all of them to end")
    assert {status_name(client.saga(saga_id)) for saga_id in sagas} == {"COMPLETED"}
    expect_nothing(world)
    wait_until(lambda: world.database.rows("SELECT devices_used, memory_used_mb FROM site") == [(0, 0)], 30, "the site's room")
    world.audit(client)


def test_what_is_left_of_long_ago(world: World) -> None:
    """The creation's own rows are gone with their day, or it was an older program's: the device's row is enough. What the provider
    has lost ends well."""
    client = world.server(environment={"USER_SERVICE_IDEMPOTENT": "true"}).client()
    dropped, older, lost = (client.create() for _ in range(3))
    world.database.execute("DELETE FROM saga_state WHERE saga_id = %s", dropped.saga_id)
    world.database.execute("DELETE FROM saga_event WHERE saga_id = %s", dropped.saga_id)
    world.database.execute("DELETE FROM saga_request WHERE saga_id = %s", dropped.saga_id)
    world.database.execute("UPDATE devices SET made = NULL, site = NULL WHERE saga_id = %s", older.saga_id)
    world.database.execute("UPDATE simulated_device SET destroyed_at = now() WHERE saga_id = %s", lost.saga_id)
    for one in (dropped, older, lost):
        # What nobody wrote down is looked for again once nothing can appear any more: that takes as long as a call may.
        answer = client.delete(one.device.device_id, timeout=90)
        assert status_name(client.saga(answer.saga_id)) == "COMPLETED"
    expect_nothing(world)


def test_the_user_service_in_doubt(world: World) -> None:
    """It ignores keys, and its answer to the decrement is lost: the deletion parks, and is never counted twice."""
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": "false"})
    client = server.client()
    made = client.create(user="doubtful")
    assert world.ledger
    world.ledger.rule(ledgers.lose_reply(), operation="decrement", user="doubtful", times=1)
    with pytest.raises(RPCFailure) as parked:
        client.delete(made.device.device_id)
    saga = client.saga(parked.value.saga_id)
    assert parked.value.reason == "PARKED" and saga.current_step == "RELEASE_QUOTA"
    assert saga.failure.reason == "QUOTA_UNAVAILABLE"
    # Looked up by hand: it was counted. Whoever skips the step goes on.
    _command(world, saga.saga_id, "SKIP")
    wait_until(lambda: status_name(client.saga(saga.saga_id)) == "COMPLETED", 30, "the deletion")
    expect_nothing(world)
    world.audit(client)


def test_replies_lost(world: World) -> None:
    """The answers of the provider and of a user service that honours keys are lost on the way, each once."""
    client = world.server(environment={
        "USER_SERVICE_IDEMPOTENT": "true", "DEVICERPC_SIMULATED_OPTIONS": "lose_reply=destroy"}).client()
    made = [client.create(user=f"loser {index}") for index in range(2)]
    assert world.ledger
    world.ledger.rule(ledgers.lose_reply(), operation="decrement", user="loser 0", times=1)
    for call in [client.start_delete(one.device.device_id) for one in made]:
        call.result()
    expect_nothing(world)
    world.audit(client)


def test_other_programs(world: World) -> None:
    """While an older program runs beside it, no deletion starts: it would take none up."""
    world.server("older", start=False).launch({"DEVICERPC_FAULT": "features.none"})
    server = world.server("newer")
    client = server.client()
    wait_until(lambda: world.servers[0].is_running and world.servers[0].wait_ready() is None, 60, "the older program")
    made: list[str] = []

    def refused() -> bool:
        """Within the second in which it isn't known yet that the older one runs, a deletion is taken still."""
        made.append(client.create().device.device_id)
        try:
            client.delete(made[-1])
        except RPCFailure as failure:
            assert failure.code == grpc.StatusCode.UNAVAILABLE, failure
            return failure.reason == "UPGRADING"
        return False

    wait_until(refused, 20, "UPGRADING")
    assert saga_of(client, made[-1], "DEVICE_DELETION") == []


def test_from_the_command_line(world: World) -> None:
    client = world.server(environment={"USER_SERVICE_IDEMPOTENT": "true"}).client()

    def run(*arguments: str, code: int = 0, output: str = "text") -> str:
        done = run_command([*arguments, "--server", client.address, "--output", output])
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 or output == "json" else done.stdout + done.stderr

    made = [client.create(user="cli", batch_id="b1").device.device_id for _ in range(4)]
    assert f"{made[0]}  deleted  saga_" in run("delete", made[0])
    watched = run("delete", made[1], "--watch")
    assert "DESTROY_PROVIDER_DEVICE" in watched and "SAGA_COMPLETED" in watched
    assert "NOT_FOUND" in run("delete", made[0], code=4)
    # Those that run are nothing to cancel.
    assert "left alone (running)" in run("cancel", made[2]).lower()
    creating = [client.create(user="cli", batch_id="b1", when="ACCEPTED", options={"boot_ms": "60000"}) for _ in range(2)]
    assert "--yes" in run("cancel", "--batch", "b1", code=64)
    done = run("cancel", "--batch", "b1", "--yes", output="json")
    assert {json.loads(line)["deviceId"] for line in done.splitlines()} == {one.device.device_id for one in creating}
    assert run("delete", "--user", "cli", "--yes").count("  deleted  ") == 2
    assert client.list_devices().devices == []
    expect_nothing(world)
    world.audit(client)
