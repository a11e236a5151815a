"""The audit from outside: nothing belongs to a saga that is not COMPLETED or PARKED.

It looks at what a provider, the user service and the database show, never at what the server says about itself, but
for the events, which are checked against the rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .client import DeviceClient, RPCFailure
from .events import replay
from .ledger import Ledger
from .postgres import Database

_OVER = ("COMPLETED", "COMPENSATED", "PARKED")
_KEEPS_WHAT_IT_HAS = ("COMPLETED", "PARKED")


@dataclasses.dataclass
class Findings:
    """What the audit counted, for tests that want to say more."""

    sagas: dict[str, str] = dataclasses.field(default_factory=dict)
    devices: int = 0
    ports: int = 0
    events: int = 0
    leaks: list[str] = dataclasses.field(default_factory=list)

    def count(self, status: str) -> int:
        return sum(one == status for one in self.sagas.values())


def audit(
    database: Database,
    client: DeviceClient,
    ledger: Ledger | None,
    *,
    provider_devices: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
    has_ports: bool = True,
    events_of: int = 200,
) -> Findings:
    """Fails with everything that is wrong.

    `provider_devices` lists what a real provider holds, as mappings with saga_id and device_id; without it the
    simulated provider's table is read. `events_of`: how many sagas' events are read, the newest first.
    """
    found = Findings()
    leaks = found.leaks
    sagas = {row["saga_id"]: row for row in database.records("SELECT * FROM saga_state")}
    found.sagas = {saga_id: str(row["status"]) for saga_id, row in sagas.items()}
    device_of = {
        row["saga_id"]: str(row["resource_id"])
        for row in database.records("SELECT saga_id, resource_id FROM saga_event WHERE resource_id IS NOT NULL")
    }
    creations = {saga_id for saga_id, row in sagas.items() if row["saga_type"] == "DEVICE_CREATION"}
    saga_of = {device: saga for saga, device in device_of.items() if saga in creations}
    # Devices that a deletion has come to the end with.
    deleted = {
        device_of.get(saga_id, "") for saga_id, row in sagas.items()
        if row["saga_type"] == "DEVICE_DELETION" and row["status"] == "COMPLETED"
    }
    # Those that are started, stopped and restarted are what came of that; tests of these look for themselves.
    operated = {
        device_of.get(saga_id, "") for saga_id, row in sagas.items()
        if row["saga_type"] in ("DEVICE_START", "DEVICE_STOP", "DEVICE_RESTART")
    }
    # Those that one is parked over may have lost some of what they had.
    half_deleted = {
        device_of.get(saga_id, "") for saga_id, row in sagas.items()
        if row["saga_type"] == "DEVICE_DELETION" and row["status"] == "PARKED"
    } - deleted

    def may_hold(saga_id: str) -> bool:
        return found.sagas.get(saga_id) in _KEEPS_WHAT_IT_HAS and device_of.get(saga_id) not in deleted

    for saga_id, row in sagas.items():
        if row["status"] not in _OVER:
            leaks.append(f"{saga_id} is still {row['status']} at {row['current_step']}")
        last = {
            "DEVICE_CREATION": (4, "START_DEVICE"), "DEVICE_DELETION": (3, "REMOVE_DATABASE_RECORD"),
            "DEVICE_START": (2, "UPDATE_DATABASE_RECORD"), "DEVICE_STOP": (2, "UPDATE_DATABASE_RECORD"),
            "DEVICE_RESTART": (3, "UPDATE_DATABASE_RECORD"),
        }[str(row["saga_type"])]
        if row["status"] == "COMPLETED" and (row["step_index"], row["current_step"]) != last:
            leaks.append(f"{saga_id} is COMPLETED at {row['step_index']} {row['current_step']}")
        if saga_id not in device_of:
            leaks.append(f"{saga_id} has no event that says what it is about")

    # What the provider holds.
    if provider_devices is None:
        held = database.records("SELECT * FROM simulated_device WHERE destroyed_at IS NULL OR destroyed_at > now()")
    else:
        held = [dict(one) for one in provider_devices()]
    found.devices = len(held)
    devices_by_saga: dict[str, int] = {}
    for device in held:
        saga_id = str(device["saga_id"])
        devices_by_saga[saga_id] = devices_by_saga.get(saga_id, 0) + 1
        if not may_hold(saga_id):
            leaks.append(f"the provider holds a device of {saga_id} ({found.sagas.get(saga_id, 'unknown')}): {device}")

    # Ports.
    ports = database.records("SELECT * FROM port WHERE saga_id IS NOT NULL")
    found.ports = len(ports)
    ports_by_saga: dict[str, int] = {}
    for port in ports:
        saga_id = str(port["saga_id"])
        ports_by_saga[saga_id] = ports_by_saga.get(saga_id, 0) + 1
        if not may_hold(saga_id):
            leaks.append(f"a port pair is held by {saga_id} ({found.sagas.get(saga_id, 'unknown')}): {port}")

    # Device records.
    rows_by_saga: dict[str, list[dict[str, Any]]] = {}
    for row in database.records("SELECT * FROM devices"):
        saga_id = saga_of.get(str(row["device_id"]), "")
        rows_by_saga.setdefault(saga_id, []).append(row)
        if not may_hold(saga_id):
            leaks.append(f"a device record belongs to {saga_id} ({found.sagas.get(saga_id, 'unknown')}): {row}")

    # The user service's ledger.
    net: dict[str, int] = ledger.net() if ledger else {}
    for booked_on, booked in net.items():
        saga_id = saga_of.get(booked_on, "")
        if booked not in (0, 1):
            leaks.append(f"the user service has {booked} booked on device {booked_on} of {saga_id}")
        if booked != 0 and not may_hold(saga_id):
            leaks.append(f"the user service has {booked} booked for {saga_id} ({found.sagas.get(saga_id, 'unknown')})")

    # A completed creation has exactly one of each.
    for saga_id, status in found.sagas.items():
        device_id = device_of.get(saga_id, "")
        if status != "COMPLETED" or saga_id not in creations or device_id in deleted | half_deleted:
            continue
        if devices_by_saga.get(saga_id, 0) != 1 and [row["status"] for row in rows_by_saga.get(saga_id, [])] != ["ERROR"]:
            leaks.append(f"{saga_id} is COMPLETED with {devices_by_saga.get(saga_id, 0)} devices at the provider")
        if has_ports and ports_by_saga.get(saga_id, 0) != 1:
            leaks.append(f"{saga_id} is COMPLETED with {ports_by_saga.get(saga_id, 0)} port pairs")
        rows = rows_by_saga.get(saga_id, [])
        allowed = ("RUNNING", "STOPPED", "ERROR") if device_id in operated else ("RUNNING",)
        if len(rows) != 1 or str(rows[0]["status"]).upper() not in allowed:
            leaks.append(f"{saga_id} is COMPLETED with the device records {rows}")
        if ledger and net.get(device_id, 0) != 1:
            leaks.append(f"{saga_id} is COMPLETED with {net.get(device_id, 0)} booked at the user service")

    # Nobody who has ended holds a device.
    for device_id, holder in database.rows("SELECT device_id, operation_saga_id FROM devices"):
        if holder is not None and found.sagas.get(holder) in ("COMPLETED", "COMPENSATED", None):
            leaks.append(f"the device {device_id} is held by {holder} ({found.sagas.get(holder, 'unknown')})")

    # Nothing secret outlives a saga, and every request leads to a saga.
    for (saga_id,) in database.rows("SELECT saga_id FROM saga_secret"):
        if found.sagas.get(saga_id) in ("COMPLETED", "COMPENSATED", None):
            leaks.append(f"the secrets of {saga_id} ({found.sagas.get(saga_id, 'unknown')}) are still there")
    for saga_id, request_id in database.rows("SELECT saga_id, request_id FROM saga_request"):
        if saga_id not in sagas:
            leaks.append(f"request {request_id} leads to {saga_id}, which doesn't exist")
    for (saga_id,) in database.rows("SELECT DISTINCT saga_id FROM saga_event"):
        if saga_id not in sagas:
            leaks.append(f"{saga_id} has events and no state")

    # The state can be told from the events.
    for saga_id in sorted(sagas, reverse=True)[:events_of]:
        found.events += _check_events(client, saga_id, sagas[saga_id], leaks)

    assert not leaks, f"{len(leaks)} findings of the audit:\n" + "\n".join(leaks[:40])
    return found


def _check_events(client: DeviceClient, saga_id: str, row: Mapping[str, Any], leaks: list[str]) -> int:
    if row["status"] not in _OVER:
        return 0
    try:
        events = list(client.watch(saga_id, timeout=60))
        told = replay(events)
    except RPCFailure as failure:
        leaks.append(f"the events of {saga_id} can't be read: {failure}")
        return 0
    except AssertionError as error:
        leaks.append(f"the events of {saga_id} are not whole: {error}")
        return 0
    if told.status != row["status"]:
        leaks.append(f"{saga_id}: its events say {told.status}, its row {row['status']}")
    if told.last_sequence != row["last_sequence"]:
        leaks.append(f"{saga_id}: its events end at {told.last_sequence}, its row says {row['last_sequence']}")
    if row["status"] == "COMPLETED" and not all(told.steps[step] in ("SUCCEEDED", "SKIPPED") for step in told.steps):
        leaks.append(f"{saga_id} is COMPLETED with the steps {told.steps}")
    if row["status"] == "COMPENSATED":
        undone = ("PENDING", "FAILED", "COMPENSATED", "SKIPPED")
        if not all(told.steps[step] in undone for step in told.steps):
            leaks.append(f"{saga_id} is COMPENSATED with the steps {told.steps}")
    return len(events)
