"""A handful of sagas that between them do everything that a saga can do, each with its only right outcome."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from . import ledger as ledgers
from .client import DeviceClient, PendingCall, RPCFailure, create_request, device_status, unique
from .world import World


@dataclasses.dataclass(frozen=True)
class Part:
    """One saga of a scenario."""

    name: str
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    # What the user service does with this saga's increments or decrements: operation, action, how often.
    service: tuple[tuple[str, ledgers.Action, int | None], ...] = ()
    # The reason that its caller gets; empty: the device runs.
    reason: str = ""
    saga_timeout: float | None = None


FORWARD: tuple[Part, ...] = (
    Part("plain"),
    Part("retried", {"fail": "create:unavailable", "fail_times": "1"}),
    Part("create's reply lost", {"lose_reply": "create"}),
    Part("create's reply lost, no keys", {"lose_reply": "create", "unique_keys": "false"}),
    Part("port taken", {"fail": "create:conflict", "fail_times": "1"}),
    Part("start's reply lost", {"lose_reply": "start"}),
    Part("report's reply lost", service=(("increment", ledgers.lose_reply(), 1),)),
    Part("report fails once", service=(("increment", ledgers.fail(503), 1),)),
)

BACKWARD: tuple[Part, ...] = (
    Part("boot fails", {"fail": "start:refused"}, reason="BOOT_FAILED"),
    Part("create refused", {"fail": "create:refused"}, reason="PROVIDER_REFUSED"),
    Part("report refused", service=(("increment", ledgers.refuse(), None),), reason="QUOTA_REFUSED"),
    Part(
        "destroy fails once", {"fail": "start:refused,destroy:unavailable", "fail_times": "1"},
        service=(("decrement", ledgers.fail(500), 1),), reason="BOOT_FAILED",
    ),
    Part(
        "undo's replies lost", {"fail": "start:refused", "lose_reply": "destroy"},
        service=(("decrement", ledgers.lose_reply(), 1),), reason="BOOT_FAILED",
    ),
    Part("undo can't be decided", {"fail": "start:refused,destroy:undecidable"}, reason="PARKED"),
)

# With a user service that ignores keys: nobody can be asked, and nobody guesses.
PARKING: tuple[Part, ...] = (
    Part("report in doubt", service=(("increment", ledgers.lose_reply(), 1),), reason="PARKED"),
)


class Scenario:
    """Starts its sagas, each under a request id of its own, so that they can be asked for again after a crash."""

    def __init__(self, world: World, parts: Sequence[Part], copies: int = 1) -> None:
        self.world = world
        self._requests: list[tuple[Part, Any]] = []
        for copy in range(copies):
            for part in parts:
                user = unique(f"user {part.name} {copy}")
                assert world.ledger
                for operation, action, times in part.service:
                    world.ledger.rule(action, operation=operation, user=user, times=times)
                request = create_request(
                    part.name, user=user, options=part.options, request_id=unique("part"),
                    saga_timeout=part.saga_timeout,
                )
                self._requests.append((part, request))

    @property
    def size(self) -> int:
        return len(self._requests)

    def start(self, client: DeviceClient, timeout: float = 120) -> list[PendingCall]:
        return [client.start(request, timeout) for _, request in self._requests]

    def finish(self, client: DeviceClient, timeout: float = 120) -> None:
        """Asks for every saga again by its request id, and checks that it came to its only right end."""
        wrong = []
        for (part, _), call in zip(self._requests, self.start(client, timeout), strict=True):
            outcome = call.outcome()
            reason = outcome.reason or outcome.code.name if isinstance(outcome, RPCFailure) else ""
            if reason != part.reason:
                wrong.append(f"{part.name}: {outcome if reason else 'runs'}, expected {part.reason or 'a running device'}")
        assert not wrong, "\n".join(wrong)


class Deletions:
    """Devices that are deleted, one of them twice at once: whatever happens meanwhile, nothing of them is left."""

    def __init__(self, world: World) -> None:
        self.world = world
        # Device and request id.
        self._requests: list[tuple[str, str]] = []

    def prepare(self, client: DeviceClient) -> None:
        """Makes the devices."""
        parts: Sequence[tuple[str, tuple[tuple[str, ledgers.Action, int | None], ...]]] = (
            ("plain", ()), ("twice", ()),
            ("decrement's reply lost", (("decrement", ledgers.lose_reply(), 1),)),
            ("decrement fails once", (("decrement", ledgers.fail(503), 1),)),
        )
        for name, service in parts:
            user = unique(f"user {name}")
            assert self.world.ledger
            for operation, action, times in service:
                self.world.ledger.rule(action, operation=operation, user=user, times=times)
            device_id = client.create(name, user=user).device.device_id
            for _ in range(2 if name == "twice" else 1):
                self._requests.append((device_id, unique("delete")))

    def start(self, client: DeviceClient, timeout: float = 120) -> list[PendingCall]:
        return [client.start_delete(device, request_id=request, timeout=timeout) for device, request in self._requests]

    def finish(self, client: DeviceClient, timeout: float = 120) -> None:
        """Asks for every deletion again by its request id. One that had not come to be finds its device gone, or deletes it."""
        for (device, _), call in zip(self._requests, self.start(client, timeout), strict=True):
            outcome = call.outcome()
            assert not isinstance(outcome, RPCFailure) or outcome.reason == "NOT_FOUND", f"{device}: {outcome}"
        held = {
            "rows": "SELECT count(*) FROM devices", "ports": "SELECT count(*) FROM port WHERE saga_id IS NOT NULL",
            "devices": "SELECT count(*) FROM simulated_device WHERE destroyed_at IS NULL",
        }
        left = {name: int(self.world.database.value(query)) for name, query in held.items()}
        assert self.world.ledger
        left["usage"] = sum(self.world.ledger.net().values())
        assert left == dict.fromkeys(left, 0), left


class Controls:
    """Devices that are started, stopped and restarted, each once: whatever happens meanwhile, they are what they were to become."""

    def __init__(self, world: World) -> None:
        self.world = world
        # Method, device, request id, and what the device is to become.
        self._requests: list[tuple[str, str, str, str]] = []

    def prepare(self, client: DeviceClient) -> None:
        """Makes the devices."""
        for method, end in (("StopDevice", "STOPPED"), ("StartDevice", "RUNNING"), ("RestartDevice", "RUNNING")):
            device_id = client.create(method).device.device_id
            if method == "StartDevice":
                client.operate("StopDevice", device_id)
            self._requests.append((method, device_id, unique("control"), end))

    def start(self, client: DeviceClient, timeout: float = 120) -> list[PendingCall]:
        return [
            client.start_operation(method, device, request_id=request, timeout=timeout)
            for method, device, request, _ in self._requests
        ]

    def finish(self, client: DeviceClient, timeout: float = 120) -> None:
        """Asks for every operation again by its request id."""
        for (method, device, _, end), call in zip(self._requests, self.start(client, timeout), strict=True):
            call.result()
            shown = client.device(device)
            runs = self.world.database.value("SELECT started_at IS NOT NULL FROM simulated_device WHERE device_id = %s", device)
            assert (device_status(shown), runs) == (end, end == "RUNNING"), f"{method}: {shown}, and it runs: {runs}"
            assert shown.operation_saga_id == "", f"{method}: {shown}"
