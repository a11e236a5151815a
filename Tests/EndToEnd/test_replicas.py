"""5. Two replicas: one dies or stands still, the other takes over, and what the first comes back with counts for nothing."""

from __future__ import annotations

import time

import pytest

from support.client import cause_name, create_request, event_name, status_name, unique
from support.pgproxy import PostgresProxy
from support.server import Server
from support.waiting import wait_until
from support.world import LEASE_SECONDS, World

SAGAS = 200
SLOW = {"latency_ms": "300", "boot_ms": "700"}


def _accept(servers: list[Server], count: int, options: dict[str, str]) -> list[str]:
    """Starts sagas by turns on the replicas; returns their ids once all are durable."""
    clients = [server.client() for server in servers]
    calls = [
        clients[number % len(clients)].start(
            create_request(when="ACCEPTED", options=options, request_id=unique("many"))
        )
        for number in range(count)
    ]
    return [call.result().saga_id for call in calls]


def _owner(world: World, server: Server) -> int:
    """The instance id of the process that runs as `server` now."""
    return int(
        world.database.value(
            "SELECT instance_id FROM saga_instance WHERE name = %s AND NOT fenced ORDER BY instance_id DESC LIMIT 1",
            server.name,
        )
    )


def test_one_of_two_is_killed(world: World) -> None:
    doomed, survivor = world.server(name="doomed"), world.server(name="survivor")
    time.sleep(LEASE_SECONDS + 1)  # nobody adopts before it has renewed for a whole lease
    started = time.monotonic()
    ids = _accept([doomed, survivor], SAGAS, SLOW)
    accepted = time.monotonic()
    instance = _owner(world, doomed)
    orphans = world.database.value(
        "SELECT count(*) FROM saga_state WHERE owner = %s AND status = 'RUNNING'", instance
    )
    doomed.kill()
    assert orphans > 20, f"only {orphans} sagas were in flight on the one that was killed: nothing was shown"
    took = world.wait_all_over(timeout=60)
    print(f"accepted in {accepted - started:.2f} s, {orphans} orphans, all over {took:.2f} s after the kill")
    client = survivor.client()
    findings = world.audit(client)
    assert findings.count("COMPLETED") == SAGAS == len(ids)
    assert world.database.value("SELECT fenced FROM saga_instance WHERE instance_id = %s", instance)


def test_watchers_and_callers_see_nothing_of_it(world: World) -> None:
    """Calls on the survivor that wait for the dead one's saga get their answer."""
    doomed, survivor = world.server(name="doomed"), world.server(name="survivor")
    request_id = unique("moved")
    request = create_request("moved", request_id=request_id, options={"latency_ms": "1500", "boot_ms": "500"})
    first = doomed.client().start(request)
    wait_until(lambda: world.count("RUNNING") == 1, 60, "the saga to start")
    second = survivor.client().start(request)
    time.sleep(0.2)
    doomed.kill()
    first.outcome()
    answer = second.result()
    events = list(survivor.client().watch(answer.saga_id))
    adopted = [event for event in events if event_name(event) == "SAGA_ADOPTED"]
    assert len(adopted) == 1
    world.audit(survivor.client())


def test_killed_and_back_at_once(world: World) -> None:
    """A restarted process adopts its predecessor without waiting for a lease to run out."""
    server = world.server(name="phoenix")
    ids = _accept([server], 40, {"latency_ms": "500"})
    server.kill()
    server.start()
    world.wait_all_over()
    # By what the database and the events say, so that how long the start takes doesn't count.
    assert "waiting for the name" not in server.log_text()
    registered = world.database.value("SELECT extract(epoch FROM max(registered_at)) FROM saga_instance")
    client = server.client()
    waited = [
        event.time.ToNanoseconds() / 1e9 - float(registered)
        for saga_id in ids for event in client.watch(saga_id) if event_name(event) == "SAGA_ADOPTED"
    ]
    assert waited and max(waited) < LEASE_SECONDS - 1, waited
    findings = world.audit(client)
    assert findings.count("COMPLETED") == len(ids)


def test_second_holder_of_a_name_is_refused(world: World) -> None:
    first = world.server(name="same")
    second = world.server(name="other", start=False)
    second.environment["DEVICERPC_INSTANCE"] = "same"
    second.launch()
    try:
        code = second.wait_ended(LEASE_SECONDS + 10)
    except AssertionError:
        raise AssertionError("a second live holder of a name started") from None
    assert code not in (0, None)
    assert "same" in second.log_text()
    assert first.client().health() == "SERVING"
    assert first.client().create().saga_id


def _stopped_between_attempts(world: World, server: Server) -> list[str]:
    """Sagas whose next request to the provider is due while `server` stands still; it is stopped on return."""
    for _ in range(20):
        ids = _accept([server], 24, {"fail": "create:unavailable", "fail_times": "2"})
        # The delays before the second and third attempt are up to 1 and 2 s: some always wait.
        time.sleep(0.15)
        server.pause()
        # The fifth event is the first STEP_RETRYING, the seventh the second; nothing but the next attempt follows them.
        waiting = world.database.rows(
            "SELECT saga_id FROM saga_state WHERE saga_id = ANY(%s) AND status = 'RUNNING'"
            " AND current_step = 'CREATE_PROVIDER_DEVICE' AND last_sequence IN (5, 7)", ids,
        )
        if len(waiting) >= 8:
            return ids
        server.resume()
        world.wait_all_over()
    raise AssertionError("never caught sagas between two attempts")


def test_stopped_before_a_request_to_the_provider(world: World) -> None:
    """SIGSTOP between two attempts, SIGCONT beyond the lease: the request that was due is never sent."""
    sleeper, other = world.server(name="sleeper"), world.server(name="other")
    client = other.client()
    time.sleep(LEASE_SECONDS + 1)
    ids = _stopped_between_attempts(world, sleeper)
    instance = _owner(world, sleeper)
    world.wait_all_over(timeout=60)
    before = world.database.rows("SELECT * FROM saga_state ORDER BY saga_id")
    devices_before = world.database.rows("SELECT * FROM simulated_device ORDER BY 1, 2, 3")
    calls_before = len(world.ledger.calls) if world.ledger else 0
    sleeper.resume()
    time.sleep(4)
    assert world.database.rows("SELECT * FROM saga_state ORDER BY saga_id") == before, "it wrote after it was fenced"
    assert world.database.rows("SELECT * FROM simulated_device ORDER BY 1, 2, 3") == devices_before, (
        "it called the provider after its lease was over"
    )
    assert not world.ledger or len(world.ledger.calls) == calls_before, "it called the user service"
    findings = world.audit(client)
    assert all(findings.sagas[saga_id] == "COMPLETED" for saga_id in ids)
    _ends_or_starts_anew(world, sleeper, instance)


def _ends_or_starts_anew(world: World, server: Server, fenced: int) -> None:
    """A fenced instance never writes again: the process has ended, or goes on as another instance."""
    assert world.database.value("SELECT fenced FROM saga_instance WHERE instance_id = %s", fenced)
    if server.is_running:
        client = server.client()
        wait_until(lambda: client.health() == "SERVING", 60, "the fenced process to serve again")
        made = client.create()
        owner = world.saga_row(made.saga_id)["owner"]
        assert owner != fenced


def test_stopped_during_a_request_to_the_provider(world: World) -> None:
    """SIGSTOP in the midst of requests; when it goes on they take effect, long after others took over. Nothing stays."""
    sleeper, other = world.server(name="sleeper"), world.server(name="other")
    client = other.client()
    time.sleep(LEASE_SECONDS + 1)
    ids = _accept([sleeper], 20, {"latency_ms": "1000"})
    instance = _owner(world, sleeper)
    time.sleep(0.3)
    sleeper.pause()
    world.wait_all_over(timeout=60)
    before = world.saga_versions()
    sleeper.resume()
    time.sleep(5)
    after = world.saga_versions()
    assert after == before, "it wrote after it was fenced"
    findings = world.audit(client)
    assert [findings.sagas[saga_id] for saga_id in ids] == ["COMPLETED"] * len(ids)
    _ends_or_starts_anew(world, sleeper, instance)


# What a request that left a frozen process long after its lease must not leave behind; how its saga ends elsewhere.
_UNANSWERED: dict[str, tuple[dict[str, str], float, str]] = {
    "repeated elsewhere": ({"lose_reply": "create", "unique_keys": "false"}, 60, "COMPLETED"),
    "repeated elsewhere, late": (
        {"lose_reply": "create", "unique_keys": "false", "late_ms": "1500", "lookup_lag_ms": "500"}, 60, "COMPLETED",
    ),
    "undone elsewhere": ({"lose_reply": "create", "late_ms": "1000"}, 3, "COMPENSATED"),
    "answered": ({"unique_keys": "false"}, 60, "COMPLETED"),
    "hanging": ({"lose_reply": "create", "unique_keys": "false", "latency_ms": "1000"}, 3, "COMPENSATED"),
}


@pytest.mark.parametrize(("options", "saga_timeout", "end"), list(_UNANSWERED.values()), ids=list(_UNANSWERED))
def test_stopped_between_the_look_at_the_lease_and_the_request(
    world: World, options: dict[str, str], saga_timeout: float, end: str
) -> None:
    """The one point where no look at the lease helps: the request leaves after others have repeated or undone it, and
    its answer may be lost as well. The process that comes back finds by label what it made, and takes it away."""
    sleeper, other = world.server(name="sleeper", start=False), world.server(name="other")
    sleeper.start({"DEVICERPC_FAULT": "call.CREATE_PROVIDER_DEVICE.execute.sending", "DEVICERPC_FAULT_SIGNAL": "STOP"})
    client = other.client()
    time.sleep(LEASE_SECONDS + 1)
    request = create_request(when="ACCEPTED", options=options, saga_timeout=saga_timeout, request_id=unique("stopped"))
    # It may stop itself before it has answered.
    pending = sleeper.client().start(request)
    wait_until(lambda: sleeper.is_paused, 60, "the process to stop itself")
    saga_id = world.database.value("SELECT saga_id FROM saga_state")
    instance = _owner(world, sleeper)
    world.wait_all_over(timeout=60)
    before = world.saga_versions()
    made_before = world.database.value("SELECT count(*) FROM simulated_device")
    sleeper.resume()
    wait_until(
        lambda: world.database.value("SELECT count(*) FROM simulated_device") > made_before
        or world.database.value("SELECT coalesce(sum(create_calls), 0) FROM simulated_device") > made_before,
        60, "the request to leave after all",
    )

    def cleared() -> bool:
        held = world.database.rows(
            "SELECT generation, repeat FROM simulated_device WHERE saga_id = %s"
            " AND (destroyed_at IS NULL OR destroyed_at > now())", saga_id,
        )
        assert len(held) == (end == "COMPLETED"), f"still there: {held}"
        return True

    wait_until(cleared, 60, "what it made to go")
    after = world.saga_versions()
    assert after == before, "it wrote after it was fenced"
    pending.outcome()
    findings = world.audit(client)
    assert findings.sagas[saga_id] == end
    _ends_or_starts_anew(world, sleeper, instance)


def test_a_graceful_stop_waits_for_what_is_cleared_away(world: World) -> None:
    """The process that comes back is told to stop at once: it takes away what its late request made all the same."""
    sleeper, other = world.server(name="sleeper", start=False), world.server(name="other")
    sleeper.start({"DEVICERPC_FAULT": "call.CREATE_PROVIDER_DEVICE.execute.sending", "DEVICERPC_FAULT_SIGNAL": "STOP"})
    time.sleep(LEASE_SECONDS + 1)
    options = {"lose_reply": "create", "unique_keys": "false", "late_ms": "1500", "lookup_lag_ms": "500"}
    pending = sleeper.client().start(create_request(when="ACCEPTED", options=options, request_id=unique("stopped")))
    wait_until(lambda: sleeper.is_paused, 60, "the process to stop itself")
    saga_id = world.database.value("SELECT saga_id FROM saga_state")
    world.wait_all_over(timeout=60)
    made = "SELECT count(*) FROM simulated_device WHERE saga_id = %s"
    assert world.database.value(made, saga_id) == 1
    sleeper.terminate()
    sleeper.resume()
    assert sleeper.wait_ended(60) == 0
    assert world.database.value(made, saga_id) == 2, "the request was never sent"
    pending.outcome()
    findings = world.audit(other.client())
    assert findings.sagas[saga_id] == "COMPLETED"


def _stop_in_mid_flush(world: World, proxy: PostgresProxy, sleeper: Server) -> None:
    """SIGSTOP while PostgreSQL has all of a transaction but its COMMIT; returns once the process stands still."""
    held = proxy.hold_before_commit()
    assert held.wait(60), "no flush came by"
    sleeper.pause()


def test_stopped_in_mid_flush(world: World) -> None:
    """A transaction of the stopped process stays open and holds its rows; others take them all the same."""
    proxy = world.proxy()
    sleeper = world.server(name="sleeper", proxy=proxy)
    other = world.server(name="other")
    client = other.client()
    time.sleep(LEASE_SECONDS + 1)
    ids = _accept([sleeper], 20, {"latency_ms": "400"})
    instance = _owner(world, sleeper)
    _stop_in_mid_flush(world, proxy, sleeper)
    world.wait_all_over(timeout=60)
    before = world.saga_versions()
    proxy.release()
    sleeper.resume()
    time.sleep(4)
    after = world.saga_versions()
    assert after == before, "it wrote after it was fenced"
    findings = world.audit(client)
    assert [findings.sagas[saga_id] for saga_id in ids] == ["COMPLETED"] * len(ids)
    _ends_or_starts_anew(world, sleeper, instance)


def test_stopped_for_less_than_the_lease(world: World) -> None:
    """A short stop costs nothing: nobody is fenced, the process goes on with its sagas."""
    sleeper, other = world.server(name="sleeper"), world.server(name="other")
    time.sleep(LEASE_SECONDS + 1)
    ids = _accept([sleeper], 20, {"latency_ms": "300"})
    instance = _owner(world, sleeper)
    sleeper.pause()
    time.sleep(2)
    sleeper.resume()
    world.wait_all_over(timeout=60)
    assert not world.database.value("SELECT fenced FROM saga_instance WHERE instance_id = %s", instance)
    findings = world.audit(other.client())
    assert findings.count("COMPLETED") == len(ids)


def test_sagas_that_run_alone_delay_nobody(world: World) -> None:
    """Sagas that were taken up too often run one after the other, and what dies meanwhile is taken up all the same."""
    first, second, survivor = (world.server(name=name) for name in ("first", "second", "survivor"))
    time.sleep(LEASE_SECONDS + 1)
    client = first.client()
    suspects = [
        client.create(when="ACCEPTED", options={"fail": "create:hang"}, saga_timeout=35).saga_id for _ in range(4)
    ]
    first.kill()
    world.database.execute("UPDATE saga_state SET adoptions = 2 WHERE saga_id = ANY(%s)", suspects)
    wait_until(lambda: "running alone" in survivor.log_text() + second.log_text(), 60, "one to run alone")
    ids = _accept([second], 20, {"latency_ms": "500"})
    second.kill()

    def over() -> bool:
        moving = world.database.value(
            "SELECT count(*) FROM saga_state WHERE saga_id = ANY(%s) AND status <> 'COMPLETED'", ids
        )
        assert moving == 0, f"{moving} sagas still wait for somebody to take them up"
        return True

    wait_until(over, 60, "what died meanwhile to be taken up and completed")
    # A call that hangs keeps the next one waiting for a moment, not until it ends.
    for saga_id in suspects:
        events = survivor.client().watch(saga_id)
        assert any(event_name(event) == "SAGA_ADOPTED" for event in events), "its deadline came first"
    world.wait_all_over(timeout=60)
    findings = world.audit(survivor.client())
    assert {findings.sagas[saga_id] for saga_id in suspects} == {"COMPENSATED"}


def test_the_last_time_a_saga_is_alone(world: World) -> None:
    """Before it would park, a saga runs alone until it has made progress, for 8 s at most; those that have another chance come
    first, and wait for none that has not."""
    server = world.server()
    client = server.client()

    def hanging(saga_timeout: int) -> str:
        options = {"fail": "create:hang"}
        return client.create(when="ACCEPTED", options=options, saga_timeout=saga_timeout).saga_id

    last = [hanging(saga_timeout=12), hanging(saga_timeout=16)]
    others = [hanging(saga_timeout=8) for _ in range(3)]
    server.kill()
    adoptions = "UPDATE saga_state SET adoptions = %s WHERE saga_id = ANY(%s)"
    world.database.execute(adoptions, 5, last)
    world.database.execute(adoptions, 2, others)
    server.start()
    client = server.client()
    adopted: dict[str, int] = {}
    progressed: dict[str, int] = {}
    for saga_id in last + others:
        saga = client.wait_finished(saga_id, timeout=60)
        assert status_name(saga) == "COMPENSATED" and cause_name(saga) == "TIMED_OUT"
        events = list(client.watch(saga_id))
        index = next(index for index, event in enumerate(events) if event_name(event) == "SAGA_ADOPTED")
        adopted[saga_id], progressed[saga_id] = (
            event.time.ToNanoseconds() for event in events[index : index + 2]
        )
    assert max(adopted[saga_id] for saga_id in others) < min(progressed[saga_id] for saga_id in others)
    assert adopted[last[0]] >= max(progressed[saga_id] for saga_id in others)
    assert adopted[last[1]] >= progressed[last[0]]
    world.audit(client)


def test_graceful_stop_hands_over(world: World) -> None:
    """SIGTERM: what runs is finished and recorded, what is quiet is released, and the other goes on at once."""
    leaving, staying = world.server(name="leaving"), world.server(name="staying")
    time.sleep(LEASE_SECONDS + 1)
    ids = _accept([leaving], 30, {"latency_ms": "500", "boot_ms": "500"})
    leaving.terminate()
    assert leaving.wait_ended(60) == 0
    world.wait_all_over(timeout=60)
    client = staying.client()
    assert {status_name(client.saga(saga_id)) for saga_id in ids} == {"COMPLETED"}
    world.audit(client)
