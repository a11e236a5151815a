"""Days of sagas go once everything on them has long been over; devices stay (docs/database.md, "Retention")."""

from __future__ import annotations

import json
import os
import re
import threading
import time

import grpc
import psycopg
import pytest

from support.client import DeviceClient, RPCFailure, create_request, device_status, status_name, unique
from support.days import make_day
from support.server import Server, run_command
from support.waiting import wait_until
from support.world import World

OLD, HELD, YOUNG = 40, 39, 20  # days ago


def backdate(world: World, saga_id: str, days: int) -> str:
    """Has a saga begun so many days ago; returns its new id."""
    _, milliseconds, end = saga_id.split("_")
    older = f"saga_{int(milliseconds) - days * 86_400_000:013}_{end}"
    tables = world.database.rows(
        """
        SELECT quote_ident(table_name::text) FROM information_schema.columns c
        WHERE column_name = 'saga_id' AND table_schema = 'public' AND NOT EXISTS (
            SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(quote_ident(c.table_name::text)))
        """)
    for table, in tables:
        world.database.execute(f"UPDATE {table} SET saga_id = %s WHERE saga_id = %s", older, saga_id)
    return older


def leaves(world: World, day: str) -> dict[str, bool]:
    """A day's tables, and whether they are attached."""
    return {
        name: attached for name, attached in world.database.rows(
            """
            SELECT relname::text, relispartition FROM pg_class
            WHERE relkind = 'r' AND relname IN ('saga_state_' || %s, 'saga_event_' || %s)
            """, day, day)
    }


def retention(world: World, *arguments: str, **environment: str) -> dict[str, str]:
    """Runs the command; returns days by their states."""
    done = run_command(
        ["retention", "--output", "json", *arguments], {"DATABASE_URL": world.database.url, **environment})
    assert done.returncode == 0, done.stderr + done.stdout
    answer = json.loads(done.stdout)
    assert answer["problems"] == []
    return {day["day"]: day["state"] for day in answer["days"]}


def later(world: World) -> None:
    """An hour after a day was detached."""
    world.database.execute("UPDATE saga_detached_day SET detached_at = detached_at - interval '61 minutes'")


def gone(client: DeviceClient, saga_id: str) -> bool:
    try:
        client.saga(saga_id)
    except RPCFailure as failure:
        assert failure.code == grpc.StatusCode.NOT_FOUND, failure
        return True
    return False


def audit(world: World, client: DeviceClient) -> None:
    """Nothing is left of what can be deleted: devices without rows of a creation say nothing to the audit."""
    for device in client.list_devices().devices:
        client.delete(device.device_id)
    world.audit(client)


class Past:
    """A day whose sagas are over, one with a saga that isn't, and one that is too young."""

    def __init__(self, world: World) -> None:
        self.old, self.held, self.young = (make_day(world, days) for days in (OLD, HELD, YOUNG))
        server = world.server("past")
        client = server.client()
        requests = {name: create_request(request_id=unique(name)) for name in ("old", "failed", "held", "young")}
        requests["failed"].provider_options["fail"] = "start:refused"
        living = create_request(when="ACCEPTED", options={"boot_ms": "25000"}, saga_timeout=300)
        self.requests = requests
        self.devices = {
            name: client.start(request).result().device.device_id for name, request in requests.items() if name != "failed"
        }
        with pytest.raises(RPCFailure) as failed:
            client.start(requests["failed"]).result()
        ids = {name: client.device(device).saga_id for name, device in self.devices.items()}
        ids["failed"], ids["living"] = failed.value.saga_id, client.start(living).result().saga_id
        server.kill()
        server.wait_ended(10)
        ages = {"old": OLD, "failed": OLD, "held": HELD, "living": HELD, "young": YOUNG}
        self.sagas = {name: backdate(world, saga_id, ages[name]) for name, saga_id in ids.items()}


def test_days_go_that_are_over(world: World) -> None:
    past = Past(world)
    plan = {past.old: "goes", past.held: "stays, not all is over"}
    assert retention(world, "--dry-run") == plan
    assert retention(world, "--dry-run", DEVICERPC_RETENTION="10d") == {**plan, past.young: "goes"}
    assert all(all(leaves(world, day).values()) for day in (past.old, past.held, past.young))

    assert retention(world) == {past.old: "detached", past.held: "stays, not all is over"}
    assert leaves(world, past.old) == {f"saga_state_{past.old}": False, f"saga_event_{past.old}": False}
    # It stays for an hour.
    assert past.old not in retention(world) and leaves(world, past.old) != {}
    assert retention(world, "--dry-run")[past.old] == "is detached"
    server = world.server("present")
    client = server.client()
    assert gone(client, past.sagas["old"]) and gone(client, past.sagas["failed"])
    # Devices outlive their creation's rows, and can be deleted.
    device = client.device(past.devices["old"])
    assert device_status(device) == "RUNNING" and past.devices["old"] in {
        one.device_id for one in client.list_devices().devices}
    # A request of a day that is gone starts anew; those of other days are remembered.
    again = client.start(past.requests["old"]).result()
    assert again.device.device_id != past.devices["old"]
    for name in ("held", "young"):
        assert client.start(past.requests[name]).result().device.device_id == past.devices[name]
    client.delete(past.devices["old"])
    later(world)
    assert retention(world)[past.old] == "dropped"
    assert leaves(world, past.old) == {} and world.database.value("SELECT count(*) FROM saga_detached_day") == 0
    # What lived has been taken up, and when it is over its day goes as well.
    wait_until(lambda: status_name(client.saga(past.sagas["living"])) == "COMPLETED", 60, "the living saga to end")
    assert retention(world) == {past.held: "detached"}
    wait_until(lambda: gone(client, past.sagas["living"]), 30, "the day to be unknown")
    audit(world, client)


def test_servers_do_it_daily(world: World) -> None:
    """One of them does it; it ends what another has begun; and all of them show what stays, and why."""
    past = Past(world)
    # Somebody has begun with it and died.
    world.database.execute("DELETE FROM saga_request WHERE saga_id = %s", past.sagas["failed"])
    world.database.execute("UPDATE saga_job SET done_at = done_at - interval '2 days'")
    servers = world.replicas(2)

    def shown(server: Server, name: str) -> float | None:
        found = re.search(rf"^{name} (\S+)$", server.http("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else None

    wait_until(lambda: not any(leaves(world, past.old).values()), 60, "the old day to go")
    assert all(leaves(world, past.held).values()) and all(leaves(world, past.young).values())
    wait_until(
        lambda: [shown(server, "saga_retention_held_days") for server in servers] == [1, 1], 90, "both to show what stays")
    assert [shown(server, "saga_retention_failing") for server in servers] == [0, 0]
    assert sum(server.log_text().count("removed days that are over") for server in servers) == 1
    assert world.database.value("SELECT count(*) FROM saga_request") == 2
    client = servers[0].client()
    wait_until(lambda: status_name(client.saga(past.sagas["living"])) == "COMPLETED", 60, "the living saga to end")
    audit(world, client)


def test_what_others_do_with_days_is_theirs(world: World) -> None:
    """Somebody detaches a day by hand, and it breaks off; another day has a partition of another name."""
    begun, renamed, ours = (make_day(world, days) for days in (60, 61, 62))
    world.database.execute(f"ALTER TABLE saga_event_{renamed} RENAME TO archive_{renamed}")
    with world.database.transaction() as reader, world.cluster.connect(world.database.name) as somebody:
        reader.execute("SELECT count(*) FROM saga_state")
        somebody.execute("SET statement_timeout = '500ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            somebody.execute(f"ALTER TABLE saga_state DETACH PARTITION saga_state_{begun} CONCURRENTLY")
    assert retention(world) == {ours: "detached"}
    later(world)
    assert retention(world) == {ours: "dropped"}
    assert len(leaves(world, begun)) == 2 and leaves(world, renamed) == {f"saga_state_{renamed}": True}


# ./dev retention: 1,000,000. A hundredth of that in `./dev test`.
SAGAS = int(os.environ.get("DEVICERPC_RETENTION_SAGAS", "10000"))
DAYS = 10  # of forty, that go; half of the sagas lie on the oldest


def _multiply(world: World, saga_id: str, days: int, count: int) -> None:
    """Copies a saga that is over, with its events as they were encoded and its request, so often, onto a day."""
    older = backdate(world, saga_id, days)
    _, milliseconds, end = older.split("_")
    new = "'saga_' || lpad((%s::bigint + n %% 1000)::text, 13, '0') || '_' || right(md5(n::text), 10)"
    for table in ("saga_state", "saga_event", "saga_request"):
        columns = [name for name, in world.database.rows(
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = %s AND table_schema = 'public'", table)]
        changed = {"saga_id": new, "request_id": "request_id || n || 'x' || saga_id"}
        values = ", ".join(changed.get(name, name) for name in columns)
        world.database.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, generate_series(1, %s) n WHERE saga_id = %s",
            int(milliseconds) // 1000 * 1000, count, older)


def _latencies(client: DeviceClient, seconds: float) -> list[float]:
    """How long CreateDevice takes to answer ACCEPTED, eight in flight, ascending."""
    took: list[float] = []

    def create_on_and_on() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            client.create(when="ACCEPTED")
            took.append(time.monotonic() - began)

    end = time.monotonic() + seconds
    threads = [threading.Thread(target=create_on_and_on) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(took)


def test_days_go_under_load(world: World) -> None:
    server = world.server(environment={"DEVICERPC_RETENTION": "0"})
    client = server.client()
    for days in range(40 - DAYS, 40):
        make_day(world, days + 1)
    kept = client.start(create_request(request_id=unique("kept"))).result()
    for days in range(40 - DAYS, 40):
        saga = client.start(create_request(request_id=unique("base"))).result().saga_id
        _multiply(world, saga, days + 1, SAGAS // 2 if days == 39 else SAGAS // 2 // (DAYS - 1))
    for settle in ("VACUUM ANALYZE", "CHECKPOINT"):
        world.database.execute(settle)
    before = int(world.database.value("SELECT count(*) FROM saga_request"))
    seconds = 3 if SAGAS < 100_000 else 20
    _latencies(client, seconds)
    outcome: list[dict[str, str]] = []
    took: list[float] = []

    def go() -> None:
        began = time.monotonic()
        outcome.append(retention(world))
        took.append(time.monotonic() - began)

    command = threading.Thread(target=go)
    command.start()
    meanwhile = _latencies(client, seconds)
    command.join()
    later(world)
    assert set(outcome[0].values()) == {"detached"} and len(outcome[0]) == DAYS
    dropping = threading.Thread(target=go)
    dropping.start()
    dropped = _latencies(client, seconds)
    dropping.join()
    assert set(outcome[1].values()) == {"dropped"} and len(outcome[1]) == DAYS

    # By now the database has come to rest after all that was written.
    usual = _latencies(client, seconds)

    def p99(ascending: list[float]) -> float:
        return ascending[int(len(ascending) * 0.99)] * 1000

    print(
        f"{before} requests, {SAGAS} sagas on {DAYS} days: detached in {took[0]:.1f} s, dropped in {took[1]:.1f} s; CreateDevice ACCEPTED"
        f" p99 {p99(usual):.1f} ms, meanwhile {p99(meanwhile):.1f} and {p99(dropped):.1f}; the longest {usual[-1] * 1000:.0f},"
        f" {meanwhile[-1] * 1000:.0f} and {dropped[-1] * 1000:.0f} ms; {len(usual)}, {len(meanwhile)} and {len(dropped)} calls")
    assert client.start(create_request(kept.device.name, request_id=client.saga(kept.saga_id).request_id)).result().saga_id == kept.saga_id
    assert int(world.database.value("SELECT count(*) FROM saga_request")) < before - SAGAS * 9 // 10 + 4 * len(meanwhile)
    if SAGAS >= 1_000_000:
        assert max(p99(meanwhile), p99(dropped)) < 2 * p99(usual)
    world.was_audited = True
