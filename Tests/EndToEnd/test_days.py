"""Days that are over: what looks for sagas that aren't passes their partitions by (docs/architecture.md, "Tables")."""

from __future__ import annotations

from support.client import create_request, status_name, unique
from support.days import make_day
from support.waiting import wait_until
from support.world import World

LONG_AGO = 40  # days


def _wait_for_leaves(world: World, servers: int) -> None:
    """Until every replica asks the leaves of open days for sagas to take up, which a session of its does every second."""
    seen: set[int] = set()

    def all_ask() -> bool:
        seen.update(row[0] for row in world.database.rows(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE %s", "SELECT 2%::bigint WHERE EXISTS (SELECT 1 FROM saga_state_2%"))
        return len(seen) >= servers

    wait_until(all_ask, 60, "the replicas to have found the days that are over", interval=0.02)


def test_locked_day_of_long_ago_keeps_nobody_waiting(world: World) -> None:
    """Somebody holds a lock on a day that is over: sagas are given back, taken up and ended all the same."""
    leaf = f"saga_state_{make_day(world, LONG_AGO)}"
    leaver, survivor = world.server(name="leaver"), world.server(name="survivor")
    _wait_for_leaves(world, 2)
    with world.database.transaction() as connection:
        connection.execute(f"LOCK TABLE {leaf} IN ACCESS EXCLUSIVE MODE")
        options = {"latency_ms": "300", "boot_ms": "700"}
        calls = [
            leaver.client().start(create_request(when="ACCEPTED", options=options, request_id=unique("day")))
            for _ in range(10)
        ]
        ids = [call.result().saga_id for call in calls]
        leaver.terminate()
        assert leaver.wait_ended(20) == 0, leaver.log_tail()
        # (Whoever asks the parent's partitions, as the tests do too, waits for the lock.)
        client = survivor.client()
        for saga_id in ids:
            assert status_name(client.wait_finished(saga_id, timeout=20)) == "COMPLETED"
        took_up = survivor.http("/metrics")[1]
    assert 'saga_adopted_total{type="DEVICE_CREATION"}' in took_up
    findings = world.audit(survivor.client())
    assert findings.count("COMPLETED") == len(calls)
