"""What a newer program has written: shown by any replica, left to those that read it, and in quarantine only where nobody does."""

from __future__ import annotations

import time
from typing import Any

from support.client import create_request, event_name, status_name, unique
from support.server import Server
from support.waiting import wait_until
from support.world import World


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    return _unsigned(value * 2 if value >= 0 else -value * 2 - 1)


def _blob(value: bytes) -> bytes:
    return _unsigned(len(value)) + value


def _ignorable_event() -> bytes:
    """A row of format 2 with one event of a type that no program knows and that may be ignored (JournalEventCodec)."""
    body = _unsigned(4000) + b"\x01" + b"\x00\x00" + _signed(0) + _unsigned(9) + _blob(b"whatever")
    return b"\x02" + _unsigned(2) + _unsigned(1) + _signed(int(time.time() * 1_000_000)) + _blob(body)


def _interrupted_saga(world: World) -> str:
    """A saga that is on its way, whose server is dead."""
    creator = world.server(name="creator")
    saga_id = creator.client().create(when="ACCEPTED", options={"boot_ms": "2000"}).saga_id
    wait_until(lambda: world.saga_row(saga_id)["current_step"] == "START_DEVICE", 60, "the saga to be on its way")
    creator.kill()
    return str(saga_id)


def _gauge(server: Server, name: str) -> float:
    lines = [line for line in server.http("/metrics")[1].splitlines() if line.startswith(name + " ")]
    return float(lines[0].split()[1])


def test_an_event_that_may_be_ignored(world: World) -> None:
    """The saga goes on, and its watchers see that there was something."""
    saga_id = _interrupted_saga(world)
    with world.database.transaction() as connection:
        last = world.saga_row(saga_id)["last_sequence"] + 1
        connection.execute(
            "INSERT INTO saga_event (saga_id, sequence, events) VALUES (%s, %s, %s)", (saga_id, last, _ignorable_event()))
        connection.execute("UPDATE saga_state SET last_sequence = %s WHERE saga_id = %s", (last, saga_id))
    server = world.server(name="creator")
    client = server.client()
    assert status_name(client.wait_finished(saga_id, timeout=60)) == "COMPLETED"
    events = list(client.watch(saga_id))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert event_name(events[last - 1]) == "UNSPECIFIED"
    assert event_name(events[last]) == "SAGA_ADOPTED"
    world.was_audited = True  # (It would find an event of a type that it doesn't know.)


class _NewerReplica:
    """What a newer program shows of itself: a row with a lease, which `renew` renews."""

    def __init__(self, world: World, formats: list[int]) -> None:
        self._world = world
        world.database.execute(
            "INSERT INTO saga_instance (instance_id, name, nonce, lease_until, features)"
            " VALUES (nextval('saga_instance_id'), 'newer', gen_random_uuid(), now() + interval '6 s', %s)",
            ["features", *(f"events-{number}" for number in formats)],
        )

    def renew(self) -> None:
        self._world.database.execute(
            "UPDATE saga_instance SET lease_until = now() + interval '30 s' WHERE name = 'newer' AND NOT fenced")

    def leave(self) -> None:
        self._world.database.execute("UPDATE saga_instance SET fenced = true WHERE name = 'newer'")


def test_a_saga_of_a_newer_format(world: World) -> None:
    """Left to the replicas that publish the format, as it was; once there are none, it is in quarantine, for all to see."""
    saga_id = _interrupted_saga(world)
    events = world.database.rows("SELECT sequence, events FROM saga_event WHERE saga_id = %s", saga_id)
    world.database.execute("UPDATE saga_event SET events = %s WHERE saga_id = %s", b"\x09\x01", saga_id)
    newer = _NewerReplica(world, [2, 9])
    server = world.server(name="creator")
    client = server.client()

    def is_left() -> bool:
        newer.renew()
        row = world.saga_row(saga_id)
        return bool(row["owner"] == 0) and "left to the replicas that read events of format 9" in server.log_text()

    wait_until(is_left, 60, "the saga to be left")
    row = world.saga_row(saga_id)
    assert row["adoptions"] == 0, "it counts as if it had killed somebody"
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        newer.renew()
        time.sleep(0.2)
    assert world.saga_row(saga_id)["version"] == row["version"], "it is taken again and again"
    assert world.database.value("SELECT count(*) FROM saga_quarantine") == 0
    shown: Any = client.saga(saga_id)
    assert status_name(shown) == "RUNNING" and not shown.quarantined
    newer.leave()
    wait_until(lambda: _gauge(server, "saga_quarantined") == 1, 60, "it to be in quarantine")
    # Whoever reads it goes on with it: here, because its rows are mended.
    for sequence, packed in events:
        world.database.execute(
            "UPDATE saga_event SET events = %s WHERE saga_id = %s AND sequence = %s", bytes(packed), saga_id, sequence)
    world.database.execute("DELETE FROM saga_quarantine")
    assert status_name(client.wait_finished(saga_id, timeout=60)) == "COMPLETED"
    world.audit(client)


def test_a_saga_of_a_type_that_this_program_does_not_have(world: World) -> None:
    """Its plan is in the database: it is shown with its steps, and nobody touches it."""
    server = world.server()
    client = server.client()
    own = client.saga(client.create().saga_id)
    names = world.database.value("SELECT DISTINCT step_names FROM saga_plan WHERE saga_type = %s", own.type)
    assert names == [step.name for step in own.steps]
    saga_id = f"saga_{int(time.time() * 1000):013d}_00000newer"
    birth = (
        _blob(b"DEVICE_LIFTING") + _unsigned(3) + _signed(int((time.time() + 600) * 1_000_000)) + b"\x00" + _blob(b"r-1")
        + _blob(b""))
    packed = b"\x01" + _unsigned(1) + _signed(int(time.time() * 1_000_000)) + b"\x01\x40\x00" + _signed(0) + birth
    with world.database.transaction() as connection:
        connection.execute(
            "INSERT INTO saga_plan VALUES ('DEVICE_LIFTING', 3, '{GRASP,LIFT}', '{REMOTE,REMOTE}', 1)")
        connection.execute(
            "INSERT INTO saga_event (saga_id, sequence, user_id, events) VALUES (%s, 1, 'alice', %s)", (saga_id, packed))
        connection.execute(
            "INSERT INTO saga_state (saga_id, status, step_index, version, last_sequence, owner, timeout_at, started_at,"
            " created_at, updated_at, definition_version, saga_type, current_step) VALUES"
            " (%s, 'RUNNING', 0, 1, 1, 0, now(), now(), now(), now(), 3, 'DEVICE_LIFTING', 'GRASP')", (saga_id,))
    for saga in (client.saga(saga_id), *client.sagas([saga_id]).sagas):
        assert [step.name for step in saga.steps] == ["GRASP", "LIFT"]
        assert saga.request_id == "r-1" and saga.type == "DEVICE_LIFTING"
    assert saga_id in [saga.saga_id for saga in client.list_sagas(page_size=10).sagas]
    assert event_name(next(iter(client.watch(saga_id)))) == "SAGA_STARTED"
    time.sleep(2.2)  # two sweeps
    assert world.saga_row(saga_id)["version"] == 1
    world.database.execute("DELETE FROM saga_state WHERE saga_id = %s", saga_id)
    world.database.execute("DELETE FROM saga_event WHERE saga_id = %s", saga_id)
    world.audit(client)


def test_steps_that_are_not_those_of_the_database(world: World) -> None:
    """A program whose definition has other steps under the same version would read every saga wrongly: it does not start."""
    world.database.execute(
        "INSERT INTO saga_plan VALUES ('DEVICE_CREATION', 1, '{CREATE_PROVIDER_DEVICE,ALLOCATE_PORTS}', '{}', 0)")
    server = world.server(start=False)
    server.launch()
    assert server.wait_ended(60) != 0
    assert "steps that change need a new version" in server.log_text()
    world.was_audited = True
