"""What a lease says is the database's time, and that clock may be another host's tomorrow: whoever lives shows it by renewing."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from support.client import status_name, unique
from support.clocks import SteppedClock, clock_off_by
from support.postgres import Cluster
from support.stubs import service_pb2
from support.waiting import wait_until
from support.world import LEASE_SECONDS, World


def test_dead_replicas_whose_leases_lie_ahead(world: World) -> None:
    ahead = {"doomed-1": "1 hour", "doomed-2": "2 minutes"}
    survivor, *doomed = [world.server(name=name) for name in ("survivor", *ahead)]
    time.sleep(LEASE_SECONDS + 2)
    sagas = [server.client().create(when="ACCEPTED", options={"latency_ms": "1500"}).saga_id for server in doomed]
    for server in doomed:
        server.kill()
    for name, interval in ahead.items():
        world.database.execute(
            f"UPDATE saga_instance SET lease_until = lease_until + interval '{interval}' WHERE name = '{name}' AND NOT fenced")
    started = time.monotonic()
    took: dict[str, float] = {}

    def all_are_fenced() -> bool:
        for (name,) in world.database.rows("SELECT name FROM saga_instance WHERE name = ANY(%s) AND fenced", list(ahead)):
            took.setdefault(name, time.monotonic() - started)
        return len(took) == len(ahead)

    wait_until(all_are_fenced, 60, "the dead ones to be fenced")
    assert min(took.values()) > LEASE_SECONDS - 1, f"nobody may be so quick: {took}"
    world.wait_all_over(timeout=60)
    assert {status_name(survivor.client().saga(saga)) for saga in sagas} == {"COMPLETED"}


def test_a_restart_under_the_name_of_one_whose_lease_lies_ahead(world: World) -> None:
    """Without a data directory of its own, nothing but the lease says that the one before is dead."""
    def replica(start: bool) -> object:
        server = world.server(name="same", start=False)
        del server.environment["DEVICERPC_DATA_DIR"]
        if start:
            server.start()
        return server

    first = replica(True)
    first.kill()  # type: ignore[attr-defined]
    world.database.execute("UPDATE saga_instance SET lease_until = lease_until + interval '1 hour' WHERE NOT fenced")
    second = replica(False)
    second.launch()  # type: ignore[attr-defined]
    wait_until(
        lambda: "waiting for the name same" in second.log_text(), 60, "a word about it")  # type: ignore[attr-defined]
    second.wait_ready(60)  # type: ignore[attr-defined]
    assert world.database.value("SELECT count(*) FROM saga_instance WHERE fenced") == 1


@pytest.fixture
def two_clusters() -> Iterator[list[Cluster]]:
    clusters = [Cluster(), Cluster()]
    try:
        for cluster in clusters:
            cluster.start()
        yield clusters
    finally:
        for cluster in clusters:
            cluster.remove()


def test_the_databases_clock_is_another_after_a_restart(make_world: Callable[..., World], two_clusters: list[Cluster]) -> None:
    """A failover to a host whose clock is off: nobody who lives is fenced, and who is dead is taken over. An hour ahead, and an
    hour behind: both at once, since it takes a while."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for done in [pool.submit(_fail_over, make_world, *one) for one in zip(two_clusters, (3600, -3600), strict=True)]:
            done.result()


def _fail_over(make_world: Callable[..., World], own_cluster: Cluster, step: int) -> None:
    world = make_world(cluster_=own_cluster, user_service=False)
    doomed, survivor = world.server(name="doomed"), world.server(name="survivor")
    time.sleep(LEASE_SECONDS + 2)
    instances = world.database.value("SELECT max(instance_id) FROM saga_instance")
    own_cluster.stop("immediate")
    own_cluster.start(clock_off_by(step))
    for server in (doomed, survivor):
        client = server.client()
        wait_until(lambda client=client: client.health() == "SERVING", 60, "it to serve again")
    time.sleep(2 * LEASE_SECONDS)
    assert world.database.value("SELECT max(instance_id) FROM saga_instance") == instances, "somebody was fenced"
    saga = doomed.client().create(when="ACCEPTED", options={"latency_ms": "1500"}).saga_id
    doomed.kill()
    world.wait_all_over(timeout=60)
    assert status_name(survivor.client().saga(saga)) == "COMPLETED"


def test_the_databases_clock_is_set_back_after_the_simulated_provider_has_acted(
    make_world: object, own_cluster: Cluster
) -> None:
    """What it made is there, what it destroyed is gone, and nothing comes later than it promises."""
    clock = SteppedClock()
    own_cluster.stop()
    own_cluster.start(clock.environment)
    world = make_world(cluster_=own_cluster, user_service=False)  # type: ignore[operator]
    server = world.server(name="only")
    client = server.client()
    # Each call takes a second, and has its effect half-way.
    slow = {"latency_ms": "1000"}
    wanted: dict[str, tuple[dict[str, str], str]] = {
        "to be started": ({}, "COMPLETED"),
        "to be destroyed": ({"fail": "start:refused"}, "COMPENSATED"),
        "to be found": ({"lose_reply": "create", "unique_keys": "false"}, "COMPLETED"),
        "to be made late": ({"lose_reply": "create", "unique_keys": "false", "late_ms": "700"}, "COMPLETED"),
        "to be seen late": ({"lose_reply": "create", "unique_keys": "false", "lookup_lag_ms": "700"}, "COMPLETED"),
    }
    sagas = {
        name: client.create(name, when="ACCEPTED", options=slow | options).saga_id
        for name, (options, _) in wanted.items()
    }
    booting = client.create("booting", when="ACCEPTED", options={"boot_ms": "3000"}).saga_id
    made = "SELECT count(*) FROM simulated_device"
    wait_until(lambda: world.database.value(made) == len(sagas) + 1, 60, "all to be made", interval=0.02)
    started = "SELECT count(*) FROM simulated_device WHERE saga_id = %s AND started_at IS NOT NULL"
    wait_until(lambda: world.database.value(started, booting) == 1, 60, "one to boot", interval=0.02)
    clock.step_to(-120)
    world.wait_all_over(timeout=60)
    assert status_name(client.saga(booting)) == "COMPLETED"
    for name, (_, status) in wanted.items():
        assert status_name(client.saga(sagas[name])) == status, name
    right = [sagas[name] for name, (_, status) in wanted.items() if status == "COMPLETED"]
    living = "SELECT saga_id FROM simulated_device WHERE destroyed_at IS NULL ORDER BY 1"
    assert [row[0] for row in world.database.rows(living)] == sorted([*right, booting])
    # Sent by what the clock said before, and held up: it may not take effect later than its own settle time.
    with world.database.transaction() as connection:
        connection.execute("LOCK TABLE simulated_device IN EXCLUSIVE MODE")
        held_up = client.create("held up", when="ACCEPTED", saga_timeout=1.5, options={"unique_keys": "false"}).saga_id
        wait_until(lambda: status_name(client.saga(held_up)) == "COMPENSATED", 60, "it to be undone")
    assert [row[0] for row in world.database.rows(living)] == sorted([*right, booting])
    world.was_audited = True


@pytest.mark.parametrize("step", [-600, 600])
def test_a_set_clock_ends_streams_that_would_miss_what_begins(make_world: object, own_cluster: Cluster, step: int) -> None:
    """Who watches many sagas finds new ones by their ids, and these come from the database's clock."""
    clock = SteppedClock()
    own_cluster.stop()
    own_cluster.start(clock.environment)
    world = make_world(cluster_=own_cluster, user_service=False)  # type: ignore[operator]
    client = world.server(name="only").client()
    batch = unique("set")
    request = service_pb2.WatchSagasRequest(batch_id=batch)
    call = client.stub.WatchSagas(request, timeout=60)
    assert next(call).HasField("synced")
    clock.step_to(step)
    with pytest.raises(grpc.RpcError) as ended:
        next(call)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE and "clock" in ended.value.details()
    call = client.stub.WatchSagas(request, timeout=60)
    assert next(call).HasField("synced")
    made = client.create(batch_id=batch)
    assert next(call).saga.saga_id == made.saga_id
    call.cancel()
