"""What is wrong after all is over: told from what the provider, the user service and the database hold, and callers heard."""

from __future__ import annotations

import collections
import dataclasses
import time
from typing import Any

from support.client import DeviceClient, RPCFailure, cause_name, event_name, status_name
from support.events import check_against_saga, sequences

from .load import Load
from .stage import Stage

# Deaths of its server after which a saga may be parked as POISON.
_POISON_DEATHS = 4


@dataclasses.dataclass
class Account:
    """One saga, and what belongs to its device, if it made one."""

    saga_id: str
    kind: str
    status: str
    device_id: str = ""
    devices: int = 0
    ports: int = 0
    # Statuses.
    records: list[str] = dataclasses.field(default_factory=list)
    counted: int = 0
    # What the provider has of it runs.
    runs: bool = False
    # The other sagas of its device.
    others: list[Account] = dataclasses.field(default_factory=list, repr=False)
    # Who holds it.
    holder: str = ""

    def problems(self) -> list[str]:
        if self.status not in ("COMPLETED", "COMPENSATED", "PARKED"):
            return [f"still {self.status}"]
        if self.kind != "DEVICE_CREATION":
            return []
        holds = {"devices": self.devices, "port pairs": self.ports, "counted": self.counted, "records": len(self.records)}
        deletions = {other.status for other in self.others if other.kind == "DEVICE_DELETION"}
        parked = [other.saga_id for other in (self, *self.others) if other.status == "PARKED"]
        if "COMPLETED" in deletions:
            return [f"deleted with {holds}"] if any(holds.values()) else []
        if self.status == "PARKED" or "PARKED" in deletions:
            # What it had may be there still, but once.
            return [f"PARKED with {number} {name}" for name, number in holds.items() if number not in (0, 1)]
        if self.status == "COMPENSATED":
            return [f"COMPENSATED with {holds}"] if any(holds.values()) else []
        if any(number != 1 for number in holds.values()):
            return [f"COMPLETED with {holds}"]
        if self.holder or parked:
            return [] if self.holder in parked else [f"is held by {self.holder or 'nobody'}, and parked are {parked}"]
        shown = "RUNNING" if self.runs else "STOPPED"
        return [] if self.records == [shown] else [f"COMPLETED, its record says {self.records}, the provider {shown}"]


class Audit:
    def __init__(self, stage: Stage, load: Load) -> None:
        self._stage = stage
        self._load = load
        self._database = stage.database
        self._accounts: dict[str, Account] = {}
        self._clients = [DeviceClient(replica.server.address) for replica in stage.replicas]
        self.sagas: dict[str, Any] = {}
        self.events: dict[str, list[Any]] = {}
        # Devices by site.
        self.held: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        """Every finding goes to the history, with the saga's events."""
        self._read_sagas()
        self._count()
        self._check_sites()
        self._check_requests()
        for saga_id, account in sorted(self._accounts.items()):
            self._check_events(saga_id)
            for problem in account.problems():
                self._find(saga_id, problem)
            if account.status == "PARKED" and not self._is_parked_rightly(saga_id):
                self._find(saga_id, "PARKED, and no fault explains it")
            if saga_id not in self.events:
                self._find(saga_id, "has no events")
        for client in self._clients:
            client.close()

    def totals(self) -> collections.Counter[str]:
        return collections.Counter(account.status for account in self._accounts.values())

    def parked(self) -> list[str]:
        return [self._summary(saga_id) for saga_id, one in self._accounts.items() if one.status == "PARKED"]

    # Reading

    def _read_sagas(self) -> None:
        for row in self._database.records("SELECT saga_id, saga_type, status::text AS status FROM saga_state"):
            account = Account(str(row["saga_id"]), str(row["saga_type"]), str(row["status"]))
            self._accounts[account.saga_id] = account
        for number, saga_id in enumerate(sorted(self._accounts)):
            client = self._clients[number % len(self._clients)]
            try:
                self.sagas[saga_id] = client.saga(saga_id)
                self._accounts[saga_id].device_id = self.sagas[saga_id].device_id
                if self._accounts[saga_id].status in ("COMPLETED", "COMPENSATED", "PARKED"):
                    self.events[saga_id] = list(client.watch(saga_id, timeout=20))
            except RPCFailure as failure:
                self._stage.history.find(f"{saga_id} can't be read: {failure}")

    def _count(self) -> None:
        """Whatever exists is put on the account of its saga; what has none is nobody's."""
        creations = [one for one in self._accounts.values() if one.kind == "DEVICE_CREATION"]
        of_device = {account.device_id: account for account in creations if account.device_id}
        for account in self._accounts.values():
            if account.kind != "DEVICE_CREATION" and account.device_id in of_device:
                of_device[account.device_id].others.append(account)
        for (saga_id, device, runs) in self._database.rows(
            # What was told to go late has gone by now, and the clock may have been set back since.
            "SELECT saga_id, device_id, started_at IS NOT NULL FROM simulated_device WHERE destroyed_at IS NULL"
        ):
            if account := self._owner(self._accounts, saga_id, f"the provider's device {device}"):
                account.devices += 1
                account.runs = account.runs or runs
        for saga_id, host, port in self._database.rows(
            "SELECT saga_id, host, adb_port FROM port WHERE saga_id IS NOT NULL"
        ):
            if account := self._owner(self._accounts, saga_id, f"the ports {host}:{port}"):
                account.ports += 1
        for device, status, holder in self._database.rows(
            "SELECT device_id::text, status::text, operation_saga_id FROM devices"
        ):
            if account := self._owner(of_device, device, f"the record of device {device}"):
                account.records.append(str(status).upper())
                account.holder = holder or ""
        for device, number in self._stage.user_service.net().items():
            if number and (account := self._owner(of_device, device, f"{number} counted for device {device}")):
                account.counted += number

    def _owner(self, accounts: dict[str, Account], key: str, what: str) -> Account | None:
        if key not in accounts:
            self._stage.history.find(f"nobody's: {what} (of {key})")
        return accounts.get(key)

    # Checks

    def _check_sites(self) -> None:
        """Every device is at a site that its saga names, and sites count what they hold."""
        held: collections.Counter[str] = collections.Counter()
        for saga_id, version in self._database.rows("SELECT saga_id, definition_version FROM saga_state"):
            # Sagas of version 1 name no site: they are from when not all replicas were known to know sites.
            if version > 1 and saga_id in self.sagas and self._accounts[saga_id].ports:
                held[self.sagas[saga_id].site] += 1
        sites = self._stage.plan.sites
        for name in held:
            if name not in (sites or {"simulated": None}):
                self._stage.history.find(f"{held[name]} devices are at a site {name!r}")
        for name, used in self._database.rows("SELECT name, devices_used FROM site WHERE devices IS NOT NULL"):
            if used != held[name]:
                self._stage.history.find(f"the site {name} counts {used} devices, and holds {held[name]}")
            if used > sites[name].keys["devices"]:
                self._stage.history.find(f"the site {name} has room for {sites[name].keys['devices']} devices, and holds {used}")
        self.held = held

    def _check_requests(self) -> None:
        sagas_of: dict[str, set[str]] = {}
        for saga_id, request_id in self._database.rows("SELECT saga_id, request_id FROM saga_request"):
            sagas_of.setdefault(request_id, set()).add(saga_id)
        for request in self._load.requests:
            known = sagas_of.get(request.request_id, set())
            if len(known) > 1:
                self._stage.history.find(f"{request.request_id} has the sagas {sorted(known)}")
            for saga_id in request.saga_ids - set(self._accounts):
                self._stage.history.find(f"{saga_id} was acknowledged to {request.request_id}, and is not there")
            for saga_id in request.saga_ids & set(self._accounts):
                self._check_outcome(saga_id, request.when, request.outcome)

    def _check_outcome(self, saga_id: str, when: str, outcome: str) -> None:
        """What its caller was told is what became of it."""
        status = self._accounts[saga_id].status
        if saga_id in self._load.resumed:
            return
        if when == "FINISHED" and outcome == "OK" and status != "COMPLETED":
            self._find(saga_id, f"its caller was told that it runs, it is {status}")
        if outcome not in ("OK", "") and status == "COMPLETED":
            self._find(saga_id, f"its caller was told {outcome}, it is COMPLETED")

    def _check_events(self, saga_id: str) -> None:
        events, saga = self.events.get(saga_id), self.sagas.get(saga_id)
        if events is None or saga is None:
            return
        try:
            check_against_saga(events, saga)
        except AssertionError as error:
            self._find(saga_id, f"events: {error}")
        if status_name(saga) != self._accounts[saga_id].status:
            self._find(saga_id, f"GetSaga says {status_name(saga)}, its row {self._accounts[saga_id].status}")
        heard = self._load.watched.get(saga_id)
        if heard and event_name(heard[-1]) == "SAGA_PARKED":
            # There its stream ends; what commands have come of it since is for whoever asks again.
            events = events[: len(heard)]
        if heard is not None and sequences(heard) != sequences(events):
            self._find(saga_id, f"its watcher heard {sequences(heard)}")
        elif heard is not None and [one.SerializeToString() for one in heard] != [one.SerializeToString() for one in events]:
            self._find(saga_id, "its watcher heard other events than there are now")

    def _is_parked_rightly(self, saga_id: str) -> bool:
        """Whether the faults explain that nobody can decide what to do."""
        if saga_id not in self.sagas:
            return False
        saga, stage = self.sagas[saga_id], self._stage
        request = self._load.request_of(saga_id)
        begin, end = request.began_at if request else 0, stage.parked_at.get(saga_id, stage.history.now)
        met = [name for name, start, over in stage.history.faults if start < end and over > begin]
        if saga.failure.reason == "POISON":
            return sum(name.startswith("kill") for name in met) >= _POISON_DEATHS
        if saga.failure.reason == "BLOCKED_BY_SAGA":
            return any(
                one.status == "PARKED" or one.saga_id in self._load.resumed for one in self._accounts.values()
                if one.device_id == saga.device_id and one.saga_id != saga_id)
        if saga.current_step not in ("REPORT_QUOTA_USAGE", "RELEASE_QUOTA") or stage.plan.is_idempotent:
            return False
        # Nobody but the user service knows whether it has counted: an answer was lost, or whoever asked was.
        return saga.device_id in stage.user_service.in_doubt or any(
            name.startswith(("kill", "freeze", "crash", "stall", "cut", "refuse", "read-only", "lock")) for name in met
        )

    # Findings

    def _find(self, saga_id: str, problem: str) -> None:
        self._stage.history.find(f"{saga_id}: {problem}\n{self.describe(saga_id)}")

    def _summary(self, saga_id: str) -> str:
        saga = self.sagas[saga_id]
        return f"{saga_id} {saga.current_step} {cause_name(saga)} {saga.failure.reason}: {saga.failure.message}"

    def describe(self, saga_id: str) -> str:
        """A saga as whoever looks for the cause wants to see it."""
        history, account = self._stage.history, self._accounts[saga_id]
        lines = [f"    {account}"]
        request = self._load.request_of(saga_id)
        if request:
            lines.append(f"    {request}")
        if saga_id in self.sagas:
            lines.append(f"    {self._summary(saga_id)}")
        for event in self.events.get(saga_id, []):
            at = history.at(event.time.ToMilliseconds() / 1000)
            lines.append(
                f"    {at:8.2f} {event.sequence:2} {event_name(event)} {event.step} attempt={event.attempt}"
                f" {event.reason} {event.message}".rstrip()
            )
        lines += [f"    {other} {self._summary(other.saga_id)}" for other in account.others if other.saga_id in self.sagas]
        rows = self._database.records(
            "SELECT * FROM simulated_device WHERE saga_id = %s ORDER BY generation, created_at", saga_id)
        lines += [f"    provider: {row}" for row in rows]
        if account.device_id:
            lines += [
                f"    user service: {history.now - (time.monotonic() - call.at):8.2f} {call.operation} {call.key}"
                for call in self._stage.user_service.calls_for(account.device_id)
            ]
        return "\n".join(lines)
