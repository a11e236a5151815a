"""6. What can go wrong in the journal, as far as it can be brought about from outside.

Rows that the database refuses, serialization failures, sagas taken away in mid-flight, missing partitions, a day boundary,
clocks that are an hour off. The rest is in the unit tests of SagaRuntime.
"""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from support.client import (
    DeviceClient,
    RPCFailure,
    create_request,
    device_status,
    status_name,
    unique,
)
from support.clocks import clock_off_by
from support.postgres import Cluster, Database
from support.waiting import wait_until
from support.world import LEASE_SECONDS, World

# Bad rows


def test_one_bad_row_in_a_batch(world: World) -> None:
    """Its own saga's step fails with a fixed error; the others of the batch don't notice."""
    client = world.server().client()
    world.database.execute("ALTER TABLE devices ADD CONSTRAINT e2e_bad CHECK (name NOT LIKE 'bad %')")
    names = [f"bad {number}" if number % 20 == 7 else f"good {number}" for number in range(60)]
    calls = [(name, client.start(create_request(name, options={"latency_ms": "100"}))) for name in names]
    for name, call in calls:
        outcome = call.outcome()
        if not name.startswith("bad"):
            assert not isinstance(outcome, RPCFailure), outcome
            continue
        assert isinstance(outcome, RPCFailure)
        assert outcome.code is grpc.StatusCode.ABORTED and outcome.reason, outcome
        assert outcome.metadata["step"] == "CREATE_DATABASE_RECORD"
        assert outcome.trailers["grpc-retry-pushback-ms"] == "-1"
        for text in (str(outcome), client.saga(outcome.saga_id).failure.message):
            assert "e2e_bad" not in text and "constraint" not in text.lower(), "it tells callers about the schema"
        assert status_name(client.saga(outcome.saga_id)) == "COMPENSATED"
    findings = world.audit(client)
    assert (findings.count("COMPLETED"), findings.count("COMPENSATED")) == (57, 3)


def test_a_bad_row_at_the_end(world: World) -> None:
    """The device runs already and can't be written as running: undone, like any other step."""
    client = world.server().client()
    world.database.execute(
        "ALTER TABLE devices ADD CONSTRAINT e2e_bad CHECK (name <> 'bad' OR status::text NOT ILIKE 'running')"
    )
    calls = [(name, client.start(create_request(name))) for name in ("good", "bad", "fine")]
    for name, call in calls:
        outcome = call.outcome()
        assert isinstance(outcome, RPCFailure) == (name == "bad"), outcome
        if name == "bad":
            assert outcome.metadata["step"] == "START_DEVICE", outcome
            assert outcome.code is grpc.StatusCode.ABORTED
    findings = world.audit(client)
    assert (findings.count("COMPLETED"), findings.count("COMPENSATED")) == (2, 1)


def test_a_bad_row_at_the_beginning(world: World) -> None:
    """A saga that can't even be written never was; its caller learns of it, its batch goes on."""
    client = world.server().client()
    world.database.execute("ALTER TABLE saga_event ADD CONSTRAINT e2e_bad CHECK (batch_id <> 'bad')")
    requests = [
        create_request(f"phone {number}", when="ACCEPTED", batch_id="bad" if number == 11 else "good")
        for number in range(24)
    ]
    outcomes = [call.outcome() for call in [client.start(request, 20) for request in requests]]
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, RPCFailure) == (number == 11), f"{number}: {outcome}"
    bad = outcomes[11]
    assert bad.code is not grpc.StatusCode.DEADLINE_EXCEEDED and not bad.saga_id, bad
    assert "e2e_bad" not in str(bad)
    world.wait_all_over()
    findings = world.audit(client)
    assert findings.count("COMPLETED") == 23 == len(findings.sagas)


def test_an_undo_that_can_not_be_written(world: World) -> None:
    """It holds up nobody else, and comes to an end once the database lets it."""
    server = world.server()
    client = server.client()
    world.database.refuse_removal_of("stuck")
    stuck = create_request("stuck", request_id=unique("stuck"), options={"fail": "start:refused"})
    pending = client.start(stuck, 5)
    for _ in range(5):
        assert device_status(client.create().device) == "RUNNING"
        with pytest.raises(RPCFailure) as caught:
            client.create(options={"fail": "start:refused"})
        assert caught.value.reason == "BOOT_FAILED"
    pending.outcome()
    world.database.allow_removal()
    server.kill()
    server.start()
    client = server.client()
    world.wait_all_over(timeout=60)
    outcome = client.start(stuck).outcome()
    assert isinstance(outcome, RPCFailure) and outcome.reason in ("BOOT_FAILED", "PARKED"), outcome
    world.audit(client)


# Errors that pass


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03", "53200", "57014"])
def test_an_error_that_passes(world: World, sqlstate: str) -> None:
    """Serialization failure, deadlock, lock time-out: the same batch again. Resources, cancel: pause and again."""
    client = world.server().client()
    # Of those that pause: fewer than callers are told of, which they are after 0.4 s.
    times = 2 if sqlstate in ("53200", "57014") else 8
    _fail_at_times(world.database, sqlstate, times=times, each="ROW")
    calls = [client.start(create_request(options={"latency_ms": "50"})) for _ in range(20)]
    calls += [client.start(create_request(options={"fail": "start:refused"})) for _ in range(5)]
    outcomes = [call.outcome() for call in calls]
    raised = world.database.value("SELECT last_value FROM e2e_failures")
    assert raised >= 2 * times, f"only {raised // 2} failures were raised: nothing was shown"
    assert not [one for one in outcomes[:20] if isinstance(one, RPCFailure)], outcomes[:20]
    assert {one.reason for one in outcomes[20:]} == {"BOOT_FAILED"}
    findings = world.audit(client)
    assert (findings.count("COMPLETED"), findings.count("COMPENSATED")) == (20, 5)


@pytest.mark.parametrize("sqlstate", ["40001", "53200", "57P01"])
def test_a_probe_that_fails_once_is_no_outage(world: World, sqlstate: str) -> None:
    """The server asks the database every 0.3 s whether it takes records. Every other time it says no."""
    server = world.server()
    client = server.client()
    _fail_at_times(world.database, sqlstate, times=50, each="PROBE")

    def enough() -> bool:
        assert device_status(client.create().device) == "RUNNING"
        assert server.http("/readyz")[0] == 200
        return int(world.database.value("SELECT last_value FROM e2e_failures")) >= 10

    wait_until(enough, 60, "five probes to have failed")


def _fail_at_times(database: Database, sqlstate: str, times: int, each: str) -> None:
    """Every other event (ROW) that is written from now on fails its flush, `times` of them; or every other PROBE, which writes
    none. A sequence keeps counting when a transaction rolls back."""
    database.execute("CREATE SEQUENCE e2e_failures")
    others = "EXISTS (SELECT FROM written)" if each == "PROBE" else "false"
    database.execute(
        f"""
        CREATE FUNCTION e2e_fail() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE number bigint;
        BEGIN
            IF {others} THEN RETURN NULL; END IF;
            number := nextval('e2e_failures');
            IF number <= {times * 2} AND number % 2 = 1 THEN
                RAISE EXCEPTION 'made up by a test' USING ERRCODE = '{sqlstate}';
            END IF;
            RETURN NULL;
        END $$
        """
    )
    every = "REFERENCING NEW TABLE AS written FOR EACH STATEMENT" if each == "PROBE" else "FOR EACH ROW"
    database.execute(f"CREATE TRIGGER e2e_fail AFTER INSERT ON saga_event {every} EXECUTE FUNCTION e2e_fail()")


def test_real_deadlocks(world: World) -> None:
    """A stranger locks the same rows in the other order, over and over."""
    client = world.server().client()
    calls = [client.start(create_request(options={"latency_ms": "200", "boot_ms": "200"})) for _ in range(40)]
    deadline = time.monotonic() + 3
    with world.database.cluster.connect(world.database.name) as stranger:
        while time.monotonic() < deadline:
            try:
                with stranger.transaction():
                    stranger.execute("SET LOCAL deadlock_timeout = '10s'")  # so that the server is the one that gives way
                    ids = stranger.execute(
                        "SELECT saga_id FROM saga_state WHERE status = 'RUNNING' ORDER BY saga_id DESC"
                    ).fetchall()
                    for (saga_id,) in ids:
                        stranger.execute("SELECT 1 FROM saga_state WHERE saga_id = %s FOR UPDATE", (saga_id,))
                        time.sleep(0.01)
            except Exception as error:
                print(f"the stranger lost: {error}")
    for call in calls:
        assert device_status(call.result().device) == "RUNNING"
    world.audit(client)


def test_half_of_the_sagas_change_hands(world: World) -> None:
    """Rows that belong to another instance all of a sudden: it takes them up, their old owner's writes count for nothing."""
    server, other = world.server(), world.server()
    client = server.client()
    calls = [client.start(create_request(options={"latency_ms": "1500", "boot_ms": "1000"})) for _ in range(40)]
    wait_until(lambda: world.count("RUNNING") == 40, 60, "the sagas to be in flight")
    new_owner = world.database.value("SELECT instance_id FROM saga_instance WHERE name = %s", other.name)
    taken = world.database.rows(
        "WITH half AS (SELECT saga_id FROM saga_state WHERE status = 'RUNNING' ORDER BY saga_id LIMIT 20)"
        " UPDATE saga_state s SET owner = %s, version = version + 1 FROM half h WHERE s.saga_id = h.saga_id"
        " RETURNING s.saga_id", new_owner,
    )
    assert len(taken) == 20
    world.wait_all_over(timeout=60)
    for call in calls:
        assert device_status(call.result().device) == "RUNNING"
    findings = world.audit(client)
    assert findings.count("COMPLETED") == 40
    owners = dict(world.database.rows("SELECT owner, count(*) FROM saga_state GROUP BY owner"))
    assert owners[new_owner] == 20, owners


# Partitions and days


def test_an_id_without_a_partition(world: World) -> None:
    """No partition for today: new sagas are refused as the contract says, and nothing else breaks."""
    server = world.server()
    client = server.client()
    for table in ("saga_state", "saga_event"):
        for (partition,) in world.database.rows(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", table
        ):
            world.database.execute(f"DROP TABLE {partition}")
    with pytest.raises(RPCFailure) as caught:
        client.create(timeout=10)
    failure = caught.value
    assert failure.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED), failure
    assert not failure.saga_id
    assert world.database.value("SELECT count(*) FROM saga_request") == 0
    assert world.database.value("SELECT count(*) FROM port WHERE saga_id IS NOT NULL") == 0
    server.kill()
    server.start()
    assert device_status(server.client().create().device) == "RUNNING"
    world.audit(server.client())


def test_partitions_are_a_week_ahead(world: World) -> None:
    world.server()
    for table in ("saga_state", "saga_event"):
        names = sorted(
            row[0] for row in world.database.rows(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", table
            )
        )
        for days in range(8):
            day = world.database.value(
                "SELECT to_char(now() AT TIME ZONE 'UTC' + make_interval(days => %s), 'YYYYMMDD')", days
            )
            assert f"{table}_{day}" in names, names


def test_a_day_boundary_is_crossed(make_world: Any, own_cluster: Cluster) -> None:
    """Sagas before, over and after midnight by the database's clock."""
    now = time.time()
    ahead = int(86400 - now % 86400) - 20  # midnight comes 20 s after the database's start
    own_cluster.stop()
    own_cluster.start(clock_off_by(ahead))
    world: World = make_world(cluster_=own_cluster)
    server = world.server()
    client = server.client()
    midnight = (int(now + ahead) // 86400 + 1) * 86400
    calls = []
    clock = "SELECT extract(epoch FROM clock_timestamp())"
    time.sleep(max(0.0, midnight - 3 - float(world.database.value(clock))))
    while world.database.value(clock) < midnight + 2:
        calls.append(client.start(create_request(when="FINISHED", options={"latency_ms": "300", "boot_ms": "300"})))
        time.sleep(0.02)
    ids = [call.result().saga_id for call in calls]
    before = [saga_id for saga_id in ids if int(saga_id[5:18]) < midnight * 1000]
    after = [saga_id for saga_id in ids if int(saga_id[5:18]) >= midnight * 1000]
    assert len(before) > 10 and len(after) > 10, (len(before), len(after))
    partitions = dict(world.database.rows("SELECT saga_id, tableoid::regclass::text FROM saga_state"))
    assert len({partitions[saga_id] for saga_id in before}) == 1
    assert len({partitions[saga_id] for saga_id in after}) == 1
    assert partitions[before[0]] != partitions[after[0]]
    listed = [saga.saga_id for saga in client.list_sagas(page_size=1000).sagas]
    assert sorted(ids, reverse=True) == listed
    assert {status_name(saga) for saga in client.sagas(ids).sagas} == {"COMPLETED"}
    world.audit(client, events_of=1000)


# Clocks


def test_process_clocks_are_off(world: World) -> None:
    """The database's clock decides: ids, deadlines and leases of processes whose own clock is an hour off are right."""
    straight = world.server(name="straight")
    crooked = [world.server(name=name, environment=clock_off_by(off)) for name, off in (("ahead", 3600), ("behind", -3600))]
    time.sleep(LEASE_SECONDS + 2)
    for server in (*crooked, straight):
        client = server.client()
        for _ in range(3):
            before = time.time()
            saga = client.saga(client.create().saga_id)
            after = time.time()
            assert before - 1 < int(saga.saga_id[5:18]) / 1000 < after + 1, (server.name, saga.saga_id)
            assert before - 1 < saga.created_at.ToNanoseconds() / 1e9 < after + 1, server.name
            assert before + 599 < saga.deadline.ToNanoseconds() / 1e9 < after + 601, server.name
    assert world.database.value("SELECT count(*) FROM saga_instance WHERE fenced") == 0, "somebody was fenced"
    # Deadlines and undo as ever, on the crooked ones.
    started = time.monotonic()
    calls = [
        server.client().start(create_request(options={"fail": "create:hang"}, saga_timeout=2), 60) for server in crooked
    ]
    while True:
        is_one_done = any(call.is_done for call in calls)
        if time.monotonic() - started > 1.9:
            break
        assert not is_one_done, "before its deadline"
        time.sleep(0.05)
    for server, call in zip(crooked, calls, strict=True):
        outcome = call.outcome()
        assert isinstance(outcome, RPCFailure) and outcome.reason == "TIMED_OUT", (server.name, outcome)
    # The straight one takes over from them.
    accepted = [
        server.client().create(when="ACCEPTED", options={"latency_ms": "1500", "boot_ms": "500"}) for server in crooked
    ]
    for server in crooked:
        server.kill()
    for one in accepted:
        assert status_name(straight.client().wait_finished(one.saga_id, timeout=60)) == "COMPLETED"
    world.audit(straight.client())


def _refuse_events(world: World, sqlstate: str) -> None:
    world.database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN RAISE EXCEPTION 'the test' USING ERRCODE = '{sqlstate}'; END$$"
    )
    world.database.execute("CREATE TRIGGER refuse BEFORE INSERT ON saga_event FOR EACH ROW EXECUTE FUNCTION refuse()")


def _is_told(client: DeviceClient, within: float) -> None:
    """Whoever creates a device now learns that there is no database, in so many seconds."""
    started = time.monotonic()
    with pytest.raises(RPCFailure) as caught:
        client.create(timeout=30)
    took = time.monotonic() - started
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert took < within, f"told after {took:.1f} s"


@pytest.mark.parametrize("sqlstate", ["53100", "57014", "40001"], ids=["disk full", "cancelled", "conflicts"])
def test_a_database_that_takes_nothing(world: World, sqlstate: str) -> None:
    """It can be connected to, and every flush fails: callers are told so, and not kept waiting until their deadline."""
    client = world.server().client()
    _refuse_events(world, sqlstate)
    _is_told(client, within=10)
    if sqlstate != "40001":
        # A conflict may be about one row. This is about all, and whoever looks for a server looks elsewhere.
        wait_until(lambda: client.health() == "NOT_SERVING", 10, "it to say so")
        _is_told(client, within=5)
    world.database.execute("DROP TRIGGER refuse ON saga_event")
    wait_until(lambda: client.health() == "SERVING", 60, "it to serve again")
    assert client.create().saga_id
    # What its callers were told has not happened: the first is withdrawn.
    wait_until(lambda: world.count("COMPLETED") == 1, 60, "the second to be there")
    world.wait_all_over()
    assert len(world.saga_versions()) == 1
    world.audit(client)


def test_a_database_that_became_read_only(world: World) -> None:
    """As the old primary after a failover: callers are told so, nobody hammers it, and all goes on once it is writable."""
    server = world.server()
    client = server.client()
    name = world.database.name
    with world.database.cluster.connect("postgres") as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    world.database.terminate_backends()
    _is_told(client, within=10)
    assert server.log_text().count("the journal has no connection") < 20
    wait_until(lambda: client.health() == "NOT_SERVING", 60, "it to say so")
    with world.database.cluster.connect("postgres") as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
    world.database.terminate_backends()
    wait_until(lambda: client.health() == "SERVING", 60, "it to serve again")
    assert client.create().saga_id
    world.wait_all_over(timeout=60)
    world.audit(client)


def test_a_stop_without_a_database_takes_no_longer_than_it_may(make_world: Any, own_cluster: Cluster) -> None:
    """What can't be recorded is left to whoever takes the sagas up: `drain-timeout` for calls, and as long for sagas."""
    world = make_world(cluster_=own_cluster, migrated=False)
    server = world.server(environment={"DEVICERPC_DRAIN_TIMEOUT": "1s"})
    client = server.client()
    for _ in range(5):
        client.create(when="ACCEPTED", options={"boot_ms": "3000"})
    own_cluster.stop("immediate")
    started = time.monotonic()
    server.terminate()
    server.wait_ended(60)
    assert time.monotonic() - started < 15
    own_cluster.start()
    world.server()
    world.wait_all_over(timeout=60)
    world.audit(world.servers[-1].client())
