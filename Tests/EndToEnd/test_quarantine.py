"""Sagas that nobody can go on with: seen from outside, counted, and taken up again once somebody can."""

from __future__ import annotations

from typing import Any

from support.client import DeviceClient, create_request, device_status, status_name, unique
from support.server import Server
from support.waiting import wait_until
from support.world import World


def _gauge(server: Server) -> float:
    lines = [line for line in server.http("/metrics")[1].splitlines() if line.startswith("saga_quarantined ")]
    assert len(lines) == 1, lines
    return float(lines[0].split()[1])


def _is_shown(client: DeviceClient, saga_id: str) -> bool:
    """The same wherever it is asked for."""
    listed = [saga for saga in client.list_sagas(page_size=100).sagas if saga.saga_id == saga_id]
    shown: list[Any] = [client.saga(saga_id), *client.sagas([saga_id]).sagas, *listed]
    assert len(shown) == 3
    assert len({saga.quarantined for saga in shown}) == 1, shown
    return bool(shown[0].quarantined)


def test_a_saga_that_nobody_can_read(world: World) -> None:
    """Each replica tries it once. A replica that can read it (a newer one) goes on with it by itself."""
    creator = world.server(name="creator")
    saga_id = creator.client().create(when="ACCEPTED", options={"boot_ms": "2000"}).saga_id
    creator.kill()
    events = world.database.rows("SELECT sequence, events FROM saga_event WHERE saga_id = %s", saga_id)
    world.database.execute("UPDATE saga_event SET events = %s WHERE saga_id = %s", b"\x07\xff", saga_id)
    servers = [world.server(name="one"), world.server(name="two")]
    clients = [server.client() for server in servers]
    wait_until(lambda: all("its rows can't be read" in server.log_text() for server in servers), 60, "both to try it")
    for client in clients:
        wait_until(lambda: _is_shown(client, saga_id), 60, "it to be shown")
        assert status_name(client.saga(saga_id)) == "RUNNING"
    for server in servers:
        wait_until(lambda: _gauge(server) == 1, 60, "it to be counted")
    wait_until(lambda: world.saga_row(saga_id)["owner"] == 0, 60, "the second to let go of it too")
    row = world.saga_row(saga_id)
    # Others go on meanwhile, and sweeps, one a second, leave it alone.
    for _ in range(3):
        for client in clients:
            done = client.create(options={"boot_ms": "500"})
            assert device_status(done.device) == "RUNNING" and not client.saga(done.saga_id).quarantined
    assert world.saga_row(saga_id)["version"] == row["version"]
    assert [server.log_text().count("its rows can't be read") for server in servers] == [1, 1]
    for sequence, packed in events:
        world.database.execute(
            "UPDATE saga_event SET events = %s WHERE saga_id = %s AND sequence = %s", bytes(packed), saga_id, sequence
        )
    newer = world.server(name="newer")
    assert status_name(newer.client().wait_finished(saga_id, timeout=60)) == "COMPLETED"
    assert not _is_shown(newer.client(), saga_id)
    wait_until(lambda: all(_gauge(server) == 0 for server in world.servers if server.is_running), 60, "none to be counted")
    world.audit(newer.client())


def test_a_saga_whose_records_are_refused(world: World) -> None:
    """Visible too; whoever has mended the database takes it out of the table, and the same replica goes on."""
    server = world.server()
    client = server.client()
    world.database.refuse_removal_of("stuck")
    stuck = create_request("stuck", request_id=unique("stuck"), when="ACCEPTED", options={"fail": "start:refused"})
    saga_id = client.call("CreateDevice", stuck).saga_id
    wait_until(lambda: _is_shown(client, saga_id), 60, "it to be set aside")
    assert status_name(client.saga(saga_id)) == "COMPENSATING"
    assert world.database.value("SELECT reason FROM saga_quarantine WHERE saga_id = %s", saga_id) == "REFUSED"
    wait_until(lambda: _gauge(server) == 1, 60, "it to be counted")
    assert device_status(client.create().device) == "RUNNING"
    world.database.allow_removal()
    world.database.execute("DELETE FROM saga_quarantine WHERE saga_id = %s", saga_id)
    assert status_name(client.wait_finished(saga_id, timeout=60)) == "COMPENSATED"
    wait_until(lambda: _gauge(server) == 0, 60, "none to be counted")
    world.audit(client)


def test_an_older_program_that_ended_one(world: World) -> None:
    """It doesn't know the table: what it leaves there is not counted."""
    server = world.server()
    client = server.client()
    saga_id = client.create().saga_id
    world.database.execute(
        "INSERT INTO saga_quarantine (saga_id, instance_id, reason) VALUES (%s, 1, 'UNREADABLE')", saga_id
    )
    assert not _is_shown(client, saga_id)
    wait_until(lambda: world.database.value("SELECT count(*) FROM saga_quarantine") == 0, 60, "it to be tidied away")
    wait_until(lambda: _gauge(server) == 0, 30, "the gauge")


def test_what_was_given_back_unsent_still_is(world: World) -> None:
    """A saga that a stop gave back before its report was sent, and whose rows somebody then damaged and mended."""
    environment = {"USER_SERVICE_IDEMPOTENT": "false"}
    first = world.server(name="first", environment=environment)
    saga_id = first.client().create(when="ACCEPTED", options={"latency_ms": "1500"}).saga_id
    # The call under way is answered and recorded, and with it the intent of the report.
    first.terminate()
    assert first.wait_ended(60) == 0
    assert world.saga_row(saga_id)["current_step"] == "REPORT_QUOTA_USAGE"
    events = world.database.rows("SELECT sequence, events FROM saga_event WHERE saga_id = %s", saga_id)
    world.database.execute("UPDATE saga_event SET events = %s WHERE saga_id = %s", b"\x07\xff", saga_id)
    blind = world.server(name="blind", environment=environment)
    wait_until(lambda: _is_shown(blind.client(), saga_id), 60, "it to be in quarantine")
    for sequence, packed in events:
        world.database.execute(
            "UPDATE saga_event SET events = %s WHERE saga_id = %s AND sequence = %s", bytes(packed), saga_id, sequence
        )
    world.database.execute("DELETE FROM saga_quarantine")
    assert status_name(blind.client().wait_finished(saga_id, timeout=60)) == "COMPLETED"
    world.audit(blind.client())
