"""PgBouncer between the server and PostgreSQL, in session mode and, where the server is told so, in transaction mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from support.client import create_request, device_status, event_name, status_name, unique
from support.events import replay
from support.pooler import Pooler
from support.waiting import wait_until
from support.world import LEASE_SECONDS, World

_TOLD = {"DEVICERPC_TRANSACTION_POOLER": "true"}


@pytest.fixture
def make_pooler(world: World) -> Iterator[Callable[[str], Pooler]]:
    poolers: list[Pooler] = []

    def make(mode: str) -> Pooler:
        poolers.append(Pooler(world.cluster.port, mode))
        return poolers[-1]

    yield make
    for pooler in poolers:
        pooler.close()


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_two_replicas_behind_a_pooler(world: World, make_pooler: Callable[[str], Pooler], mode: str) -> None:
    """Batches, undo, watching on the other replica, the pooler's own crash, and a replica's."""
    pooler = make_pooler(mode)
    environment = {"DATABASE_URL": world.database.url_through(pooler.port), **(_TOLD if mode == "transaction" else {})}
    servers = [world.server(environment=environment) for _ in range(2)]
    client, other = servers[0].client(), servers[1].client()
    calls = [client.start(create_request(request_id=unique("pooled")), timeout=60) for _ in range(60)]
    failing = client.start(create_request("failing", options={"fail": "start:refused"}), timeout=60)
    for call in calls:
        assert device_status(call.result().device) == "RUNNING"
    assert failing.outcome()
    accepted = client.create(when="ACCEPTED", options={"latency_ms": "300", "boot_ms": "1000"})
    assert replay(list(other.watch(accepted.saga_id))).status == "COMPLETED"

    ids = [
        client.create(when="ACCEPTED", options={"latency_ms": "500", "boot_ms": "500"}).saga_id for _ in range(10)
    ]
    pooler.kill()
    time.sleep(0.5)
    pooler.start()
    world.wait_all_over(timeout=60)
    assert {status_name(saga) for saga in other.sagas(ids).sagas} == {"COMPLETED"}

    wait_until(lambda: client.health() == "SERVING", 60, "it to serve again")
    ids = [
        client.create(when="ACCEPTED", options={"latency_ms": "1500", "boot_ms": "1500"}).saga_id for _ in range(10)
    ]
    servers[0].kill()
    world.wait_all_over(timeout=60)
    adopted = [event for event in other.watch(ids[0]) if event_name(event) == "SAGA_ADOPTED"]
    assert len(adopted) == 1
    world.audit(other)


def test_stopped_in_mid_flush_behind_a_transaction_pooler(
    world: World, make_pooler: Callable[[str], Pooler]
) -> None:
    """Nobody has written down which backend works for the stopped process: it is found by the rows that it holds."""
    pooler = make_pooler("transaction")
    proxy = world.proxy(pooler.port)
    sleeper = world.server(name="sleeper", proxy=proxy, environment=_TOLD)
    other = world.server(
        name="other", environment={"DATABASE_URL": world.database.url_through(pooler.port), **_TOLD})
    time.sleep(LEASE_SECONDS + 1)
    client = sleeper.client()
    ids = [client.create(when="ACCEPTED", options={"latency_ms": "400"}).saga_id for _ in range(5)]
    held = proxy.hold_before_commit()
    assert held.wait(60), "no flush came by"
    sleeper.pause()
    world.wait_all_over(timeout=60)
    before = world.saga_versions()
    proxy.release()
    sleeper.resume()
    time.sleep(4)
    after = world.saga_versions()
    assert after == before, "it wrote after it was fenced"
    findings = world.audit(other.client())
    assert [findings.sagas[saga_id] for saga_id in ids] == ["COMPLETED"] * len(ids)


def test_a_transaction_pooler_that_nobody_told_of(world: World, make_pooler: Callable[[str], Pooler]) -> None:
    """A start that can't work says what is the matter."""
    pooler = make_pooler("transaction")
    url = {"DATABASE_URL": world.database.url_through(pooler.port)}
    first = world.server(environment=url, start=False)
    first.launch()
    wait_until(lambda: "pooler in transaction mode" in first.log_text(), 60, "it to say so")
    assert "DEVICERPC_TRANSACTION_POOLER" in first.log_text()
