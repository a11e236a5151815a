"""What operators do to sagas: through any replica, once, by whoever may; and the park reasons, each resolved by the commands that
`get` names."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from support import ledger as ledgers
from support.client import (
    DeviceClient,
    RPCFailure,
    cause_name,
    create_request,
    event_name,
    status_name,
    step_statuses,
    unique,
)
from support.postgres import Cluster
from support.server import Server, binary, clean_environment, run_command
from support.sites import wait_for_version
from support.stubs import REPOSITORY, service_pb2
from support.tokens import as_user, sign, user_claims
from support.waiting import wait_until
from support.world import World

pytestmark = pytest.mark.xdist_group("operators")

ROOT = as_user("root", is_super_admin=True)
REFUSED, PARKED, TIMED_OUT, USAGE = 6, 5, 7, 64


class Stage(World):
    """Two replicas that ask who calls, shared by tests."""

    def __init__(self, cluster: Cluster, template: str, honours_keys: bool = True, **settings: str) -> None:
        super().__init__(cluster, template)
        assert self.ledger
        self.ledger.honours_keys = honours_keys
        self.settings = {"DEVICERPC_AUTH": "jwt", "USER_SERVICE_IDEMPOTENT": str(honours_keys).lower(), **settings}
        self.one, self.two = self.replicas(2, environment=self.settings, metadata=ROOT)
        self.here, self.there = self.one.client(), self.two.client()
        wait_for_version(self.one, 2)
        wait_for_version(self.two, 2)

    # Sagas

    def start(self, *, user: str = "", **fields: Any) -> str:
        """One that the first replica drives."""
        return str(self.here.create(user=user or unique("user"), when="ACCEPTED", **fields).saga_id)

    def parked(self, options: dict[str, str] | None = None, **fields: Any) -> str:
        saga_id = self.start(options=options, **fields)
        saga = self.here.wait_finished(saga_id)
        assert status_name(saga) == "PARKED", saga
        return saga_id

    def stuck(self, **fields: Any) -> str:
        """Parked in the undo, since the user service denies what it has confirmed; asked again it takes it back."""
        assert self.ledger
        user = unique("user")
        self.ledger.rule(ledgers.refuse(409, "nothing to take back"), operation="decrement", user=user, times=1)
        return self.parked({"fail": "start:refused"}, user=user, **fields)

    def wait(self, saga_id: str, status: str) -> Any:
        wait_until(lambda: status_name(self.there.saga(saga_id)) == status, 60, f"{saga_id} to be {status}")
        return self.there.saga(saga_id)

    def wait_for_step(self, saga_id: str, step: str) -> None:
        wait_until(lambda: self.here.saga(saga_id).current_step == step, 60, f"{saga_id} to come to {step}")

    # Commands, through the replica that has not got the saga

    def compensate(self, saga_id: str, reason: str = "not needed", client: DeviceClient | None = None, **options: Any) -> Any:
        client = client or self.there
        request = service_pb2.CompensateSagaRequest(saga_id=saga_id, reason=reason)
        return client.call("CompensateSaga", request, service=client.admin, **options)

    def resume(
        self, saga_id: str, reason: str = "mended", skip: bool = False, client: DeviceClient | None = None, **options: Any
    ) -> Any:
        client = client or self.there
        request = service_pb2.ResumeSagaRequest(saga_id=saga_id, reason=reason, skip_step=skip)
        return client.call("ResumeSaga", request, service=client.admin, **options)

    def refusal(self, command: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[str, str]:
        with pytest.raises(RPCFailure) as failure:
            command(*arguments, **options)
        assert not failure.value.saga_id, "no saga has failed"
        return failure.value.code.name, failure.value.reason

    def results(self, saga_id: str) -> list[str]:
        rows = self.database.rows("SELECT result FROM saga_command WHERE saga_id = %s ORDER BY command_id", saga_id)
        return [result for (result,) in rows]

    # What people see to

    def destroyed_by_hand(self, saga_id: str) -> None:
        """At the provider, which keeps its things in a table."""
        self.database.execute(
            "UPDATE simulated_device SET destroyed_at = now() WHERE saga_id = %s AND destroyed_at IS NULL", saga_id)

    def cli(self, *arguments: str, code: int = 0, token: Sequence[tuple[str, str]] = ROOT, **options: Any) -> str:
        environment = {
            "DEVICERPC_SERVER": self.two.address, "DEVICERPC_TOKEN": token[0][1].removeprefix("Bearer "), "HOME": "/nowhere"}
        done = run_command(arguments, environment, **options)
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.errors = done.stderr
        return done.stdout


def _staged(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Stage]:
    failed = request.session.testsfailed
    try:
        yield stage
        if request.session.testsfailed == failed:
            stage.wait_all_over()
            stage.audit(stage.here)
    finally:
        stage.close()


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, cluster: Cluster, template: str) -> Iterator[Stage]:
    yield from _staged(request, Stage(cluster, template))


@pytest.fixture(scope="module")
def keyless(request: pytest.FixtureRequest, cluster: Cluster, template: str) -> Iterator[Stage]:
    """The same with a user service that honours no keys; undos are given up after the second attempt, not after 80."""
    yield from _staged(request, Stage(cluster, template, honours_keys=False, DEVICERPC_FAULT="undo.impatient"))


# Where commands meet sagas (lifecycle.md, 7.3)


def test_running(stage: Stage) -> None:
    saga_id = stage.start(options={"boot_ms": "60000"})
    stage.wait_for_step(saga_id, "START_DEVICE")
    assert list(stage.there.saga(saga_id).next_actions) == ["compensate"]
    assert stage.refusal(stage.resume, saga_id) == ("FAILED_PRECONDITION", "SAGA_NOT_PARKED")
    assert stage.refusal(stage.resume, saga_id, skip=True) == ("FAILED_PRECONDITION", "SAGA_NOT_PARKED")
    began = time.monotonic()
    answer = stage.compensate(saga_id, "the customer has gone")
    assert status_name(answer) in ("COMPENSATING", "COMPENSATED") and list(answer.next_actions) == []
    assert time.monotonic() - began < 20, "a boot is given up at once"
    saga = stage.wait(saga_id, "COMPENSATED")
    assert cause_name(saga) == "CANCELLED" and saga.failure.reason == "CANCELLED"
    received = [event for event in stage.there.watch(saga_id) if event_name(event) == "COMMAND_RECEIVED"]
    assert [(event.reason, event.message) for event in received] == [("COMPENSATE", "by user:root: the customer has gone")]
    # What is over.
    assert status_name(stage.compensate(saga_id)) == "COMPENSATED"
    assert stage.refusal(stage.resume, saga_id) == ("FAILED_PRECONDITION", "SAGA_NOT_PARKED")
    assert stage.results(saga_id) == ["DONE"]


def test_completed(stage: Stage) -> None:
    saga_id = stage.here.create(user="ann").saga_id
    assert stage.refusal(stage.compensate, saga_id) == ("FAILED_PRECONDITION", "SAGA_COMPLETED")
    assert stage.refusal(stage.resume, saga_id) == ("FAILED_PRECONDITION", "SAGA_NOT_PARKED")
    assert list(stage.there.saga(saga_id).next_actions) == []
    assert stage.results(saga_id) == []


def test_asleep(stage: Stage) -> None:
    """Nobody has it: whoever wakes it obeys."""
    options = {"lose_reply": "create", "unique_keys": "false", "lookup_lag_ms": "7000"}
    saga_id = stage.start(options=options)
    wait_until(lambda: stage.database.value("SELECT owner FROM saga_state WHERE saga_id = %s", saga_id) == -1, 30, "sleep")
    shown = stage.cli("get", saga_id)
    assert re.search(r"blocked_by +CREATE_PROVIDER_DEVICE: what a call has done may not be visible yet", shown), shown
    assert re.search(r"tried_next +\d{4}-\d\d-\d\dT", shown) and re.search(r"left +to do: CREATE_PROVIDER_DEVICE, ", shown)
    assert f"devicerpc compensate {saga_id} --reason" in shown
    assert stage.refusal(stage.resume, saga_id) == ("FAILED_PRECONDITION", "SAGA_NOT_PARKED")
    assert status_name(stage.compensate(saga_id)) == "COMPENSATING"
    assert stage.results(saga_id) == ["DONE"]
    # What may still appear is waited for.
    assert stage.wait(saga_id, "COMPENSATED").failure.reason == "CANCELLED"


def test_quarantined(stage: Stage) -> None:
    """The database refuses its records; somebody mends that, and says so."""
    stage.database.refuse_removal_of("stuck")
    saga_id = stage.start(name="stuck", options={"fail": "start:refused"})
    # Each replica tries it once.
    tried = re.compile(rf"quarantined: the database refuses its records.*{saga_id}")
    wait_until(lambda: all(tried.search(server.log_text()) for server in (stage.one, stage.two)), 60, "both to try it")
    wait_until(lambda: stage.there.saga(saga_id).quarantined, 60, "it to be set aside")
    assert list(stage.there.saga(saga_id).next_actions) == ["resume"]
    shown = stage.cli("get", saga_id)
    assert "tried_next  not by itself" in shown and "the database refuses its records" in shown
    assert status_name(stage.compensate(saga_id)) == "COMPENSATING", "it is answered as it is"
    stage.database.allow_removal()
    answer = stage.resume(saga_id, "the trigger is gone")
    assert status_name(answer) in ("COMPENSATING", "COMPENSATED") and not answer.quarantined
    assert stage.wait(saga_id, "COMPENSATED").failure.reason == "BOOT_FAILED"


def test_parked_and_unreadable(stage: Stage) -> None:
    """Whoever takes it up can't read it: the command stands, and is obeyed once somebody can."""
    saga_id = stage.stuck()
    events = stage.database.rows("SELECT sequence, events FROM saga_event WHERE saga_id = %s", saga_id)
    stage.database.execute("UPDATE saga_event SET events = %s WHERE saga_id = %s", b"\x07\xff", saga_id)
    answer = stage.resume(saga_id, timeout=6)
    assert status_name(answer) == "PARKED" and answer.quarantined and list(answer.next_actions) == ["resume"]
    for sequence, packed in events:
        stage.database.execute(
            "UPDATE saga_event SET events = %s WHERE saga_id = %s AND sequence = %s", bytes(packed), saga_id, sequence)
    stage.resume(saga_id, "the rows are mended")
    assert not stage.wait(saga_id, "COMPENSATED").quarantined
    assert sorted(stage.results(saga_id)) == ["DONE", "NO_EFFECT"]
    for server in (stage.one, stage.two):
        lines = [line for line in server.log_text().splitlines() if "can't be read" in line and saga_id in line]
        assert sum("quarantined" in line for line in lines) <= 2, lines


def test_what_is_not_there_or_makes_no_sense(stage: Stage) -> None:
    unknown = "saga_1730188800000_7k2m9x4q1c"
    assert stage.refusal(stage.compensate, unknown) == ("NOT_FOUND", "NOT_FOUND")
    assert stage.refusal(stage.resume, unknown) == ("NOT_FOUND", "NOT_FOUND")
    for command in (stage.compensate, stage.resume):
        with pytest.raises(RPCFailure) as failure:
            command("saga_1", "ä" * 1001)
        assert failure.value.reason == "INVALID_FIELD" and failure.value.fields == {"saga_id", "reason"}


def test_who_may(stage: Stage) -> None:
    saga_id = stage.parked({"fail": "create:undecidable"}, user="eve")
    eve = stage.two.client_with(as_user("eve", permissions=["device.create", "device.read", "device.delete", "saga.read"]))
    assert list(eve.saga(saga_id).next_actions) == ["resume", "compensate"]
    for command in (stage.compensate, stage.resume):
        assert stage.refusal(command, saga_id, client=eve) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    with pytest.raises(RPCFailure) as failure:
        eve.call("ListPorts", service_pb2.ListPortsRequest(), service=eve.admin)
    assert failure.value.code is grpc.StatusCode.PERMISSION_DENIED
    token = as_user("eve", permissions=["saga.read"])
    assert "PERMISSION_DENIED" in stage.cli("resume", saga_id, "--reason", "x", code=REFUSED, token=token)
    assert stage.results(saga_id) == [] and status_name(stage.here.saga(saga_id)) == "PARKED"
    ops = stage.two.client_with(as_user("ops", permissions=["saga.admin"]))
    stage.compensate(saga_id, "tidied\nup", client=ops)
    assert cause_name(stage.wait(saga_id, "COMPENSATED")) == "CANCELLED"

    def lines(caller: str) -> list[str]:
        written = [line for line in stage.two.log_text().splitlines() if "[AUDIT]" in line and "CompensateSaga" in line]
        return [line for line in written if f"caller=user:{caller} " in line]

    wait_until(lambda: lines("ops"), 20, "the line")
    told = lines("ops")
    assert len(told) == 1 and "outcome=OK" in told[0] and f"saga_id={saga_id}" in told[0], told
    assert "reason=tidied\\nup " in told[0] and "user_id=eve" in told[0] and "device_id=" in told[0], told
    assert any("outcome=PERMISSION_DENIED" in line for line in lines("eve"))


# Twice at once


def _at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Their answers, or failures."""
    answers: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(index: int) -> None:
        barrier.wait()
        try:
            answers[index] = calls[index]()
        except RPCFailure as failure:
            answers[index] = failure

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_twice_at_once(stage: Stage) -> None:
    running = stage.start(options={"boot_ms": "60000"})
    stage.wait_for_step(running, "START_DEVICE")
    parked = stage.stuck()
    answers = _at_once(*[
        lambda client=client, saga=saga, command=command: command(saga, client=client)
        for client in (stage.here, stage.there)
        for saga, command in ((running, stage.compensate), (parked, stage.resume))
    ])
    assert [answer for answer in answers if isinstance(answer, RPCFailure)] == []
    stage.wait(running, "COMPENSATED")
    stage.wait(parked, "COMPENSATED")
    for saga_id in (running, parked):
        assert stage.results(saga_id) in (["DONE"], ["DONE", "NO_EFFECT"])


def _stuck_twice(stage: Stage, user: str) -> str:
    """Two of its undos can't be decided."""
    assert stage.ledger
    stage.ledger.rule(ledgers.refuse(409, "nothing to take back"), operation="decrement", user=user)
    saga_id = stage.parked({"fail": "start:refused,destroy:undecidable"}, user=user)
    statuses = step_statuses(stage.here.saga(saga_id))
    assert statuses["CREATE_PROVIDER_DEVICE"] == statuses["REPORT_QUOTA_USAGE"] == "COMPENSATION_FAILED"
    return saga_id


def _skipped(stage: Stage, saga_id: str) -> list[str]:
    return [step for step, status in step_statuses(stage.there.saga(saga_id)).items() if status == "SKIPPED"]


def test_two_skips_skip_one_step(stage: Stage) -> None:
    user = unique("user")
    saga_id = _stuck_twice(stage, user)
    answers = _at_once(*[lambda client=client: stage.resume(saga_id, skip=True, client=client)
                         for client in (stage.here, stage.there)])
    assert [answer for answer in answers if isinstance(answer, RPCFailure)] == []
    # The other undo is tried again, in vain.
    saga = stage.wait(saga_id, "PARKED")
    assert _skipped(stage, saga_id) == ["CREATE_PROVIDER_DEVICE"] and saga.current_step == "REPORT_QUOTA_USAGE"
    assert stage.results(saga_id) == ["DONE", "NO_EFFECT"]
    stage.destroyed_by_hand(saga_id)
    stage.resume(saga_id, "nothing is counted", skip=True)
    stage.wait(saga_id, "COMPENSATED")
    assert stage.ledger
    stage.ledger.book(stage.there.saga(saga_id).device_id, -1)


# The park reasons


def _shown(stage: Stage, saga_id: str) -> str:
    return stage.cli("get", saga_id)


def _resolve(stage: Stage, saga_id: str, by_hand: Callable[[], None] = lambda: None) -> list[str]:
    """Does what `get` says, the last of it first, until the saga is over; what is to be done by hand is done."""
    taken: list[str] = []
    while True:
        saga = stage.there.wait_finished(saga_id)
        if status_name(saga) != "PARKED":
            assert list(saga.next_actions) == []
            return [*taken, status_name(saga)]
        shown = _shown(stage, saga_id)
        assert "tried_next  not by itself" in shown and re.search(r"^left +to (do|undo): ", shown, re.M), shown
        assert re.search(r"^blocked_by +\S", shown, re.M), shown
        commands = re.findall(r"^  devicerpc (.*)$", shown, re.M)
        assert len(commands) == len(saga.next_actions) and len(taken) < 5, shown
        if "--skip-step" in commands[-1]:
            by_hand()
        words = re.findall(r"'([^']*)'|(\S+)", commands[-1])
        stage.cli(*[quoted or word for quoted, word in words])
        taken.append(saga.next_actions[-1])


def test_parked_for_what_the_provider_said(stage: Stage) -> None:
    refused = stage.parked({"fail": "create:undecidable"})
    boot = stage.parked({"fail": "start:undecidable"})
    assert stage.there.saga(refused).failure.reason == "PROVIDER_REFUSED"
    assert stage.there.saga(boot).failure.reason == "BOOT_FAILED"
    assert "helps:" in _shown(stage, refused) and f"devicerpc resume {refused} --reason" in _shown(stage, refused)
    for saga_id in (refused, boot):
        # In vain: the provider says the same again.
        stage.cli("resume", saga_id, "--reason", "try again")
        assert _resolve(stage, saga_id) == ["compensate", "COMPENSATED"]


def test_parked_in_the_undo(stage: Stage) -> None:
    """The provider can't say whether the device is gone."""
    saga_id = stage.parked({"fail": "start:refused,destroy:undecidable"})
    assert list(stage.there.saga(saga_id).next_actions) == ["resume", "skip"]
    assert "CREATE_PROVIDER_DEVICE could not be undone" in _shown(stage, saga_id)
    stage.cli("resume", saga_id, "--reason", "try again")
    stage.wait(saga_id, "PARKED")
    assert _resolve(stage, saga_id, lambda: stage.destroyed_by_hand(saga_id)) == ["skip", "COMPENSATED"]


@pytest.mark.parametrize("what", ["reported", "taken back", "contradicted"])
def test_parked_for_the_user_service(keyless: Stage, what: str) -> None:
    """Whether a report was counted, or taken back, is not known, and it is not asked twice; or it denies what it has confirmed."""
    stage = keyless
    assert stage.ledger
    user = unique("user")
    action = ledgers.refuse(409, "nothing to take back") if what == "contradicted" else ledgers.lose_reply()
    operation = "increment" if what == "reported" else "decrement"
    stage.ledger.rule(action, operation=operation, user=user)
    saga_id = stage.parked({} if what == "reported" else {"fail": "start:refused"}, user=user)
    saga = stage.there.saga(saga_id)
    assert saga.failure.reason == ("QUOTA_UNAVAILABLE" if what == "reported" else "BOOT_FAILED")
    assert "REPORT_QUOTA_USAGE" in _shown(stage, saga_id)
    taken = _resolve(stage, saga_id, lambda: _put_right(stage, saga.device_id))
    assert taken == (["compensate"] if what == "reported" else []) + ["skip", "COMPENSATED"]


def test_parked_since_the_provider_was_away_for_long(keyless: Stage) -> None:
    """Once it is back, a selection has all of them tried again."""
    keyless.database.execute("INSERT INTO simulated_outage VALUES ('simulated', 'destroy')")
    time.sleep(0.3)  # it is looked at ten times a second
    batch = unique("batch")
    saga_id = keyless.parked({"fail": "start:refused"}, batch_id=batch)
    assert re.search(r"blocked_by +CREATE_PROVIDER_DEVICE could not be undone: .*is away", _shown(keyless, saga_id))
    keyless.database.execute("DELETE FROM simulated_outage")
    time.sleep(0.3)
    keyless.cli("resume", "--status", "parked", "--batch", batch, "--reason", "it is back", "--yes")
    keyless.wait(saga_id, "COMPENSATED")


def _put_right(stage: Stage, device_id: str) -> None:
    """Somebody looks at the user service's books."""
    assert stage.ledger
    stage.ledger.book(device_id, -stage.ledger.net().get(device_id, 0))


def test_parked_by_whoever_takes_it_up(stage: Stage) -> None:
    """One has killed so many servers that nobody tries it again; the stored request of another is damaged."""
    victim = stage.server("victim", environment=stage.settings, metadata=ROOT)
    poison, unreadable = (
        victim.client().create("a victim", user="ann", when="ACCEPTED", options={"boot_ms": "60000"}).saga_id for _ in range(2))
    for saga_id in (poison, unreadable):
        wait_until(lambda: stage.there.saga(saga_id).current_step == "START_DEVICE", 60, "it to boot")
    victim.kill()
    stage.database.execute("UPDATE saga_state SET adoptions = 6 WHERE saga_id = %s", poison)
    row = "FROM saga_event WHERE saga_id = %s ORDER BY sequence LIMIT 1"
    ((sequence, events),) = stage.database.rows(f"SELECT sequence, events {row}", unreadable)
    # The version of the request, which is followed by the device's id and its name (DeviceRequest+Encoding.swift).
    damaged = bytearray(events)
    version = damaged.index(b"\x02\x08a victim") - 18
    assert damaged[version] == 1
    damaged[version] = 99
    stage.database.execute(
        "UPDATE saga_event SET events = %s WHERE saga_id = %s AND sequence = %s", bytes(damaged), unreadable, sequence)
    assert stage.wait(poison, "PARKED").failure.reason == "POISON"
    assert _resolve(stage, poison) == ["compensate", "COMPENSATED"]
    saga = stage.wait(unreadable, "PARKED")
    assert saga.failure.reason == "UNREADABLE", saga

    def by_hand() -> None:
        stage.destroyed_by_hand(unreadable)
        _put_right(stage, saga.device_id)

    # What can't be read can't be undone either: people do it, the device and the report.
    assert _resolve(stage, unreadable, by_hand) == ["compensate", "skip", "skip", "COMPENSATED"]


def test_the_table_has_every_reason() -> None:
    """Whatever the sources park for stands in the table of docs/operators.md."""
    sources = "\n".join(path.read_text() for path in (REPOSITORY / "Sources").rglob("*.swift"))
    found = re.findall(
        r"\.undecidable, reason: (?:\"(\w+)\"|DeviceFailureReason\.(\w+))", re.sub(r"\s+", " ", sources))
    names = dict(re.findall(r"static let (\w+) = \"(\w+)\"", sources))
    reasons = {literal or names[constant] for literal, constant in found}
    assert {"POISON", "QUOTA_UNAVAILABLE", "UNREADABLE", "QUOTA_REFUSED"} <= reasons
    table = (REPOSITORY / "docs/operators.md").read_text()
    assert {reason for reason in reasons if f"`{reason}`" not in table} == set()


# The command line


def test_a_selection(stage: Stage) -> None:
    batch = unique("batch")
    sagas = sorted(stage.stuck(batch_id=batch) for _ in range(3))
    # In the same batch, and of no use to a resume.
    over = stage.here.create(user="ann", batch_id=batch).saga_id
    forward = stage.parked({"fail": "create:undecidable"}, batch_id=batch)
    select_all = ["--batch", batch, "--reason", "mended", "--status", "parked"]
    stage.cli("resume", *select_all, code=USAGE)
    assert "resume: 4 sagas" in stage.errors and "--yes" in stage.errors and forward in stage.errors
    stage.cli("compensate", *select_all, code=USAGE)
    assert "compensate: 1 saga (3 more match" in stage.errors
    by_reason = ["--batch", batch, "--failure-reason", "BOOT_FAILED", "--reason", "mended"]
    assert [stage.results(saga_id) for saga_id in [*sagas, forward]] == [[]] * 4, "nothing was done"
    began = time.monotonic()
    lines = [json.loads(line) for line in stage.cli(
        "resume", *by_reason, "--yes", "--rate", "2", "--output", "json").splitlines()]
    assert time.monotonic() - began >= 1, "two a second at most"
    assert sorted(line["sagaId"] for line in lines) == sagas and {line["isPending"] for line in lines} == {False}
    for saga_id in sagas:
        stage.wait(saga_id, "COMPENSATED")
    assert stage.cli("resume", *by_reason, "--yes") == "" and "resume: 0 sagas" in stage.errors
    # By name, one of them in vain: a line each, and the exit code says so.
    text = stage.cli("compensate", over, forward, "--reason", "not needed", code=REFUSED)
    assert re.search(rf"^{over}  SAGA_COMPLETED: ", text, re.M) and re.search(rf"^{forward}  COMPENSAT", text, re.M), text
    stage.wait(forward, "COMPENSATED")


def test_a_terminal_is_asked(stage: Stage) -> None:
    batch = unique("batch")
    saga_id = stage.parked({"fail": "create:undecidable"}, batch_id=batch)
    for answer, code in (("n", 130), ("y", 0)):
        terminal, other = pty.openpty()
        process = subprocess.Popen(
            [str(binary()), "compensate", "--batch", batch, "--reason", "not needed", "--no-color"], stdin=other, stdout=other,
            stderr=other, env={
                **clean_environment(), "DEVICERPC_SERVER": stage.two.address, "HOME": "/nowhere",
                "DEVICERPC_TOKEN": ROOT[0][1].removeprefix("Bearer "), "TERM": "xterm"})
        os.close(other)
        text = b""
        deadline = time.monotonic() + 60
        while b"[y/N]" not in text and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                text += os.read(terminal, 4096)
        os.write(terminal, answer.encode() + b"\n")
        assert process.wait(60) == code, text
        os.close(terminal)
    stage.wait(saga_id, "COMPENSATED")


def test_ports(stage: Stage) -> None:
    saga_ids = [stage.here.create(user="ann").saga_id for _ in range(2)]
    pages: list[Any] = []
    request = service_pb2.ListPortsRequest(page_size=3)
    while True:
        page = stage.there.call("ListPorts", request, service=stage.there.admin)
        pages += page.ports
        assert len(page.ports) <= 3
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    held = stage.database.rows(
        "SELECT host, adb_port, webrtc_port, saga_id, device_id::text FROM port WHERE saga_id IS NOT NULL ORDER BY host, adb_port")
    assert [(port.host, port.kind, port.port, port.saga_id, port.device_id) for port in pages] == [
        (host, kind, port, saga, device)
        for host, adb, webrtc, saga, device in held for kind, port in (("adb", adb), ("webrtc", webrtc))]
    assert {port.saga_id for port in pages} >= set(saga_ids)
    host = pages[0].host
    listed = json.loads(stage.cli("ports", "--host", host, "--output", "json"))["ports"]
    assert len(listed) == sum(port.host == host for port in pages) and {port["host"] for port in listed} == {host}
    assert saga_ids[0] in stage.cli("ports") and stage.cli("ports", "--host", "nowhere").split()[0] == "HOST"
    request = service_pb2.ListPortsRequest(host="other", page_token=request.page_token)
    with pytest.raises(RPCFailure) as failure:
        stage.there.call("ListPorts", request, service=stage.there.admin)
    assert failure.value.fields == {"page_token"}


def test_commands_are_counted(stage: Stage) -> None:
    def count(server: Server, kind: str, result: str) -> float:
        line = f'saga_commands_total{{kind="{kind}",result="{result}"}} '
        return next(float(one[len(line):]) for one in server.http("/metrics")[1].splitlines() if one.startswith(line))

    assert count(stage.one, "unknown", "unknown_kind") == 0, "from zero on"
    before = sum(count(server, "compensate", "done") for server in (stage.one, stage.two))
    saga_id = stage.parked({"fail": "create:undecidable"})
    stage.compensate(saga_id)
    assert sum(count(server, "compensate", "done") for server in (stage.one, stage.two)) == before + 1
