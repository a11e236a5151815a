"""A database that may be a copy, or an older state: its sagas are left alone until an operator says otherwise."""

from __future__ import annotations

import json
import time

import pytest

from support.client import create_request, device_status, status_name
from support.server import Server, run_command
from support.waiting import wait_until
from support.world import LEASE_SECONDS, World

SUSPICIONS = {
    "another cluster": "UPDATE saga_setting SET value = convert_to('7012345678901234567', 'UTF8') WHERE name = 'system-identifier'",
    "no lease": "UPDATE saga_instance SET lease_until = lease_until - interval '2 hours'",
}


def _held(server: Server) -> bool:
    return "saga_adoption_held 1" in server.http("/metrics")[1].splitlines()


@pytest.mark.parametrize("what", list(SUSPICIONS))
def test_what_may_be_a_copy_is_left_alone(world: World, what: str) -> None:
    first = world.server("first")
    client = first.client()
    made = client.create()
    slow = {"when": "ACCEPTED", "options": {"boot_ms": "60000"}}
    late, going = (client.create(saga_timeout=seconds, **slow).saga_id for seconds in (3, 3600))
    wait_until(
        lambda: world.database.value("SELECT count(*) FROM simulated_device WHERE destroyed_at IS NULL") == 3, 30,
        "the devices to be made")
    first.kill()
    first.wait_ended(10)
    world.database.execute(SUSPICIONS[what])
    # The replica of before, and another one that finds its lease renewed already.
    servers = [first.start(), world.server("second")]
    assert all(_held(server) for server in servers)
    time.sleep(LEASE_SECONDS + 3)
    for server in servers:
        status, text = server.http("/readyz")
        check = json.loads(text)["checks"]["adoption"]
        assert status == 200 and check["ok"] and check["detail"].startswith("held: "), text
        said = [line for line in server.log_text().splitlines() if "devicerpc adopt --after-restore" in line]
        assert sum(" CRITICAL " in line for line in said) == 1, said
        # What is new goes on.
        assert device_status(server.client().create().device) == "RUNNING"
    client = servers[1].client()
    assert {status_name(client.saga(saga)) for saga in (late, going)} == {"RUNNING"}
    assert world.database.value("SELECT count(*) FROM simulated_device WHERE destroyed_at IS NOT NULL") == 0

    environment = {"DATABASE_URL": world.database.url}
    refused = run_command(["adopt"], environment)
    assert refused.returncode == 64 and "--after-restore" in refused.stderr, refused.stderr
    done = run_command(["adopt", "--after-restore"], environment)
    assert (done.returncode, done.stdout) == (0, "sagas are taken up from now on\n"), done.stdout + done.stderr
    wait_until(lambda: not any(_held(server) for server in servers), 30, "the servers to go on", interval=0.2)
    assert status_name(client.wait_finished(late)) == "COMPENSATED"
    assert device_status(client.device(made.device.device_id)) == "RUNNING"
    assert run_command(["adopt", "--after-restore"], environment).stdout == "nothing was held\n"
    # It is known from now on.
    servers[0].kill()
    servers[0].wait_ended(10)
    servers[0].start()
    assert not _held(servers[0])
    client.delete(client.saga(going).device_id, timeout=90)
    world.audit(client)


def test_what_is_none_is_not_held(world: World) -> None:
    """Nothing unfinished is left, or a weekend is nothing unusual here."""
    server = world.server()
    server.client().create()
    server.kill()
    server.wait_ended(10)
    for suspicion in SUSPICIONS.values():
        world.database.execute(suspicion)
    server.start()
    assert not _held(server)
    saga = server.client().create(when="ACCEPTED", options={"boot_ms": "5000"}, saga_timeout=60).saga_id
    server.kill()
    server.wait_ended(10)
    world.database.execute(SUSPICIONS["no lease"])
    server.start({"DEVICERPC_RESTORE_SUSPECT": "3h"})
    assert not _held(server)
    client = server.client()
    assert status_name(client.wait_finished(saga)) == "COMPLETED"
    world.audit(client)
