"""Devices are made and deleted, again and again, while replicas are killed: in the end there is nothing."""

from __future__ import annotations

import collections
import os
import random
import time
from typing import Any

from support.client import DeviceClient, RPCFailure, create_request, is_over, unique
from support.sites import site_server, wait_for_version
from support.waiting import wait_until
from support.world import World

# ./dev cycle: 10000. A hundredth of that in `./dev test`.
DEVICES = int(os.environ.get("DEVICERPC_CYCLE", "100"))
# Each of two sites has so many pairs of ports: they are all used several times.
PAIRS = max(DEVICES // 10, 10)
AT_ONCE = 40
KILL_EVERY = 3.0


class Life:
    """A device from its creation to its deletion. A call that fails is repeated with its request id, at any replica, as long as
    its saga isn't known to be over."""

    def __init__(self) -> None:
        self.failures: collections.Counter[str] = collections.Counter()
        self.is_over = False
        self._device = ""
        self._name = self._request_id = unique("cycle")
        self._call: Any = None
        self._next = 0.0

    def go_on(self, client: DeviceClient) -> None:
        if time.monotonic() < self._next:
            return
        if self._call is None and self._device:
            self._call = client.start_delete(self._device, request_id=self._request_id)
        elif self._call is None:
            self._call = client.start(create_request(self._name, request_id=self._request_id))
        elif self._call.is_done:
            answer = self._call.outcome()
            self._call = None
            if isinstance(answer, RPCFailure):
                self._failed(answer, client)
            elif self._device:
                self.is_over = True
            else:
                self._device, self._request_id = answer.device.device_id, unique("cycle")

    def _failed(self, failure: RPCFailure, client: DeviceClient) -> None:
        self.failures[failure.reason or failure.code.name] += 1
        self._next = time.monotonic() + random.uniform(0.1, 0.5)
        if failure.saga_id:
            try:
                # Undone, so that the request is over.
                if is_over(client.saga(failure.saga_id, timeout=5)):
                    self._request_id = unique("cycle")
            except RPCFailure:
                pass


def test_made_and_deleted(world: World) -> None:
    ports = {"hosts": 1, "adb-ports": f"20000-{19999 + PAIRS}", "webrtc-ports": f"40000-{39999 + PAIRS}"}
    sites = [
        {"name": name, "provider": "simulated", "latency": "5ms", "boot": "20ms", **ports} for name in ("east", "west")
    ]
    # Without keys a kill would leave doubt about usage.
    environment = {"USER_SERVICE_IDEMPOTENT": "true", "DEVICERPC_PORT_COOL_DOWN": "1s"}
    servers = [site_server(world, f"cycle-{number}", sites, **environment) for number in range(3)]
    for server in servers:
        wait_for_version(server, 2)
    clients = [server.client() for server in servers]
    to_come = DEVICES
    lives: list[Life] = []
    failures: collections.Counter[str] = collections.Counter()
    kills = 0
    began, killed = time.monotonic(), 0
    last_kill = began - KILL_EVERY + 0.7
    while lives or to_come:
        while to_come and len(lives) < AT_ONCE:
            lives.append(Life())
            to_come -= 1
        for life in lives:
            life.go_on(random.choice(clients))
        for life in lives:
            if life.is_over:
                failures += life.failures
        lives = [life for life in lives if not life.is_over]
        if time.monotonic() - last_kill > KILL_EVERY:
            servers[killed].kill()
            servers[killed].wait_ended(10)
            servers[killed].launch()
            kills, killed, last_kill = kills + 1, (killed + 1) % len(servers), time.monotonic()
        assert time.monotonic() - began < DEVICES + 120, f"{len(lives)} are still under way: {failures}"
        time.sleep(0.005)
    print(f"{DEVICES} devices made and deleted in {time.monotonic() - began:.1f} s, {kills} kills; calls that failed: {failures}")
    servers[killed].wait_ready()
    left = "SELECT count(*) FROM saga_state WHERE status NOT IN ('COMPLETED', 'COMPENSATED')"
    wait_until(lambda: world.database.value(left) == 0, 60, "all sagas to end")
    assert world.database.value("SELECT count(*) FROM devices") == 0
    assert world.database.value("SELECT count(*) FROM simulated_device WHERE destroyed_at IS NULL") == 0
    assert world.database.value("SELECT count(*) FROM port WHERE saga_id IS NOT NULL") == 0
    assert {name for name, in world.database.rows("SELECT DISTINCT host FROM port")} == {"east-1", "west-1"}
    assert world.ledger and sum(world.ledger.net().values()) == 0
    assert kills > 0
    world.audit(clients[killed])
