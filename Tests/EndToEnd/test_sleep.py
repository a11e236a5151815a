"""Sagas that wait for a dead site sleep: nobody holds them, and nobody has to wait for them (engine.md, 3; rows 4 and 10)."""

from __future__ import annotations

import os
import time
from typing import Any

from support.bounds import resident_bytes
from support.client import create_request
from support.server import Server
from support.sites import site_server, wait_for_version
from support.waiting import wait_until
from support.world import World

DEAD = {"name": "dead", "provider": "simulated", "latency": "2ms", "boot": "2ms"}
LIVE = {"name": "live", "provider": "simulated", "latency": "2ms", "boot": "2ms"}

# ./dev sleepers: 100000. A hundredth of that in `./dev test`.
SLEEPERS = int(os.environ.get("DEVICERPC_SLEEPERS", "1000"))


def _outage(world: World, *calls: str) -> None:
    # Never without any in between.
    for call in calls:
        world.database.execute("INSERT INTO simulated_outage VALUES ('dead', %s) ON CONFLICT DO NOTHING", call)
    world.database.execute("DELETE FROM simulated_outage WHERE NOT call = ANY(%s)", list(calls))
    time.sleep(0.3)  # it is looked at ten times a second


def _asleep(world: World) -> int:
    return int(world.database.value("SELECT count(*) FROM saga_waiting"))


def _metric(server: Server, name: str) -> float:
    return next(
        (float(line.split()[1]) for line in server.http("/metrics")[1].splitlines() if line.startswith(f"{name} ")), 0.0
    )


def _fill(world: World, count: int, batch: int = 200, **environment: str) -> None:
    """Lets `count` sagas fall asleep whose devices can't be destroyed: their site answers nothing else any more."""
    server = site_server(world, "filler", [DEAD], **environment)
    wait_for_version(server, 2)
    _outage(world, "destroy")
    client = server.client()
    made = 0
    while made < count:
        calls = [
            client.start(create_request(when="ACCEPTED", options={"fail": "start:refused"}), 60)
            for _ in range(min(batch, count - made))
        ]
        for call in calls:
            call.result()
        made += len(calls)
    # One that had no device yet would have nothing to undo.
    wait_until(lambda: world.count("COMPENSATING") == count, 60 + count / 100, "all of them to be undone")
    _outage(world, "all")
    wait_until(lambda: _asleep(world) == count, 120 + count / 100, "all of them to sleep")
    wait_until(lambda: _metric(server, "saga_in_progress") == 0, 20, "the replica to hold none of them")
    server.terminate()
    assert server.wait_ended(30) == 0


def _rest(world: World) -> list[tuple[Any, ...]]:
    return world.database.rows(
        "SELECT status::text, owner, adoptions, count(*) FROM saga_state WHERE status NOT IN ('COMPLETED', 'COMPENSATED')"
        " GROUP BY 1, 2, 3"
    )


def _wait_undone(world: World, count: int, timeout: float) -> None:
    wait_until(lambda: world.count("COMPENSATED") == count, timeout, "all of them to be undone")
    # Others may still be on their way forward.
    assert [row for row in _rest(world) if row[0] != "RUNNING"] == [] and _asleep(world) == 0


def test_waiting_is_no_crash(world: World) -> None:
    """Row 10: six undos wait for a dead site while servers are killed. That says nothing against them: they wait on, and end."""
    _fill(world, 6)
    server = site_server(world, "killed", [DEAD])
    for _ in range(8):
        time.sleep(0.3)
        server.kill()
        server.start()
    wait_until(lambda: _asleep(world) == 6, 60, "all of them to sleep")
    assert {(status, owner) for status, owner, _, _ in _rest(world)} == {("COMPENSATING", -1)}
    _outage(world)
    _wait_undone(world, 6, 90)
    world.audit(server.client())


def _resident(server: Server) -> float:
    """MB."""
    return resident_bytes(server) / (1 << 20)


def _speed(server: Server, count: int) -> float:
    """Creations a second, at the site that lives."""
    client = server.client()
    begin = time.monotonic()
    made = 0
    while made < count:
        calls = [client.start(create_request(), 60) for _ in range(min(100, count - made))]
        for call in calls:
            call.result()
        made += len(calls)
    return count / (time.monotonic() - begin)


def test_many_asleep_cost_nothing(world: World) -> None:
    """Row 4: twice as many undos as a replica may drive wait for a dead site. Two replicas serve the other site as ever, a
    killed one's sagas are taken over as ever, and once the dead site is back everything is undone, at its rate."""
    rate = max(SLEEPERS // 250, 200)
    dead = {**DEAD, "calls-per-second": rate}
    # What it is without any, on a machine that is as busy as it is then.
    fresh = site_server(world, "fresh", [LIVE])
    wait_for_version(fresh, 2)
    _speed(fresh, 200)
    idle, speed = _resident(fresh), _speed(fresh, 300)
    made = world.count("COMPLETED")
    fresh.terminate()
    assert fresh.wait_ended(20) == 0
    _fill(world, SLEEPERS, DEVICERPC_MAX_SAGAS="100000", DEVICERPC_MAX_SAGAS_PER_USER="100000")
    servers = [site_server(world, name, [dead, LIVE], DEVICERPC_MAX_SAGAS=str(SLEEPERS // 2)) for name in ("one", "two")]
    for server in servers:
        wait_for_version(server, 2)
        down = 'saga_breaker_open{dependency="site-dead"} 1'
        wait_until(lambda: down in server.http("/metrics")[1].splitlines(), 20, down, interval=0.1)
    wait_until(lambda: _asleep(world) == SLEEPERS, 30, "the probes to fall asleep again")
    saga = servers[0].client().list_sagas(statuses=[3], page_size=1).sagas[0]
    assert (saga.waiting_for.reason, saga.waiting_for.dependency, saga.site) == ("BREAKER_OPEN", "site-dead", "dead"), saga
    # New ones go where somebody answers.
    _speed(servers[0], 200)
    speeds = [_speed(servers[0], 300) for _ in range(2)]
    wait_until(lambda: _metric(servers[0], "saga_asleep") > 0.9 * SLEEPERS, 8, "the metric to count them")
    grown = _resident(servers[0]) - idle
    print(f"{SLEEPERS} asleep: {grown:.0f} MB more than without, {max(speeds):.0f} sagas/s ({speed:.0f} without any)")
    assert grown < 50, grown
    client = servers[1].client()
    slow = {"when": "ACCEPTED", "options": {"boot_ms": "15000"}, "saga_timeout": 120}
    calls = [client.start(create_request(**slow), 60) for _ in range(100)]
    ids = [call.result().saga_id for call in calls]
    servers[1].kill()
    killed = time.monotonic()
    taken = (
        "SELECT count(*) FROM saga_state s JOIN saga_instance o ON o.instance_id = s.owner"
        " WHERE s.saga_id = ANY(%s) AND NOT o.fenced AND o.name = 'one'"
    )
    wait_until(lambda: world.database.value(taken, ids) == 100, 12, "a dead peer's sagas to be taken over")
    print(f"a killed peer's taken over after {time.monotonic() - killed:.1f} s")
    _outage(world)
    back = time.monotonic()
    _wait_undone(world, SLEEPERS, 60 + 4 * SLEEPERS / rate)
    took = time.monotonic() - back
    print(f"all undone after {took:.1f} s: {SLEEPERS / took:.0f} a second of {rate}")
    assert SLEEPERS / took < rate * 1.3, "faster than the site can bear"
    wait_until(lambda: world.count("COMPLETED") == made + 900, 90, "the others to be over")
    world.audit(servers[0].client())


def _command(world: World, saga_id: str, kind: str) -> None:
    """As the engine issues one (SagaCommands.issue)."""
    world.database.execute("UPDATE saga_state SET commands = commands + 1 WHERE saga_id = %s", saga_id)
    world.database.execute(
        "INSERT INTO saga_command (saga_id, kind, issuer, reason) VALUES (%s, %s, 'ann', 'a test')", saga_id, kind
    )
    world.database.execute(
        "INSERT INTO saga_waiting (saga_id, saga_type, definition_version, site, due_at, reason, clock_epoch)"
        " SELECT saga_id, saga_type, definition_version, coalesce(site, ''), now(), 'COMMAND', 1 FROM saga_state"
        " WHERE saga_id = %s", saga_id,
    )


def test_the_command_of_a_parked_saga_finds_who_serves_it(world: World) -> None:
    """Whoever takes it up and lacks its provider gives it back with its command. (A saga of version 1 says only in its events
    what it needs.)"""
    world.database.execute(
        "INSERT INTO saga_instance (instance_id, name, nonce, lease_until)"
        " VALUES (1000000, 'an older program', gen_random_uuid(), now() + interval '1 hour')"
    )
    owner = site_server(world, "owner", [LIVE])
    client = owner.client()
    options = {"fail": "start:refused,destroy:undecidable"}
    saga_id = client.create(when="ACCEPTED", options=options).saga_id
    wait_until(lambda: world.count("PARKED") == 1, 30, "it to park")
    assert world.saga_row(saga_id)["definition_version"] == 1
    owner.terminate()
    assert owner.wait_ended(20) == 0
    elsewhere = {
        "name": "elsewhere", "provider": "redroid", "docker-host": f"unix://{world.home}/nobody.sock", "image": "redroid:11",
        "adb-ports": "5555-5574", "webrtc-ports": "8080-8099",
    }
    stranger = site_server(world, "stranger", [elsewhere], DEVICERPC_PROVIDER="redroid")
    _command(world, saga_id, "RESUME")
    wait_until(lambda: world.saga_row(saga_id)["site"], 30, "the stranger to say what it lacks")
    assert world.saga_row(saga_id)["status"] == "PARKED"
    assert world.database.rows(
        "SELECT w.due_at <= now(), c.consumed_at IS NULL FROM saga_waiting w JOIN saga_command c USING (saga_id)"
    ) == [(True, True)]
    owner.start()
    wait_until(lambda: world.database.value("SELECT result FROM saga_command") == "DONE", 30, "it to be resumed")
    # The same call fails in the same way.
    wait_until(lambda: world.count("PARKED") == 1, 30, "it to park again")
    assert stranger.is_running
    world.audit(client)
