"""What the user service's answers mean, from outside: services and gateways that lie, and ways there that are broken.

A report is counted once or not at all, in both settings of USER_SERVICE_IDEMPOTENT; and only what nobody can know stands
still.
"""

from __future__ import annotations

import os
import pathlib
import random
import re
import resource
import signal
import ssl
import threading
import time
import urllib.parse

import grpc
import pytest

from support import audit as auditing
from support import ledger as ledgers
from support.certificates import Authority
from support.client import RPCFailure, create_request, device_status, event_name, status_name
from support.server import Server
from support.waiting import wait_until
from support.world import World

_BOTH = pytest.mark.parametrize("keys", ["true", "false"], ids=["keys", "no keys"])
_UNDONE = {"fail": "start:refused"}


def _failure(world: World, server: Server, **options: str) -> RPCFailure:
    with pytest.raises(RPCFailure) as caught:
        server.client().create(options=options, timeout=60)
    return caught.value


def _errors(server: Server, text: str) -> list[str]:
    return [line for line in server.log_text().splitlines() if " error" in line.lower() and text in line]


# Answers that don't say what happened


@_BOTH
@pytest.mark.parametrize(
    "action",
    [
        ledgers.Action(status=408), ledgers.Action(status=425), ledgers.Action(status=499), ledgers.Action(status=500),
        ledgers.gateway(502, applies=True), ledgers.gateway(503, applies=True), ledgers.gateway(504, applies=True),
        ledgers.gateway(200, applies=True), ledgers.Action(status=503, retry_after="1"), ledgers.lose_reply(),
    ],
    ids=["408", "425", "499", "500", "502 page", "503 page", "504 page", "200 page", "503 later", "no answer"],
)
def test_what_was_counted_is_not_counted_again(world: World, keys: str, action: ledgers.Action) -> None:
    """The service counts, and what comes back says nothing: asked again under the key, or not at all."""
    assert world.ledger
    world.ledger.honours_keys = keys == "true"
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": keys})
    world.ledger.rule(action, operation="increment", times=1)
    if keys == "true":
        answer = server.client().create(timeout=60)
        assert world.ledger.net() == {answer.device.device_id: 1}
        assert len(world.ledger.calls_for(answer.device.device_id)) == 2
    else:
        assert _failure(world, server).reason == "PARKED"
        assert len(world.ledger.calls) == 1
    world.audit(server.client())


# Gateways in the way


@_BOTH
def test_an_undo_that_meets_a_gateway_goes_on(world: World, keys: str) -> None:
    assert world.ledger
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": keys})
    for status in (401, 403, 404):
        world.ledger.rule(ledgers.gateway(status), operation="decrement", times=1)
    failure = _failure(world, server, **_UNDONE)
    assert failure.reason == "BOOT_FAILED"
    assert len(world.ledger.calls) == 5
    world.audit(server.client())


@_BOTH
@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 404])
def test_a_wrong_way_is_no_refusal_and_is_said_once(world: World, keys: str, status: int) -> None:
    assert world.ledger
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": keys})
    elsewhere = ledgers.redirect(status, world.ledger.url + "/elsewhere")
    world.ledger.rule(elsewhere if status < 400 else ledgers.gateway(status), operation="increment")
    calls = [server.client().start(create_request()) for _ in range(3)]
    for call in calls:
        failure = call.outcome()
        assert isinstance(failure, RPCFailure)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "QUOTA_UNAVAILABLE"), failure
    assert len(_errors(server, "reports don't reach the user service")) == 1
    assert not world.ledger.bad_requests, "a redirect was followed"
    world.audit(server.client())


# Not sent is not unknown


def _tls(folder: pathlib.Path, authority: Authority, **options: bool) -> ssl.SSLContext:
    identity = authority.issue(dns=["localhost"], addresses=["127.0.0.1"], is_expired=options.get("is_expired", False))
    certificate, key = identity.write(folder, "user-service")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if options.get("wants_certificate"):
        context.load_verify_locations(cadata=authority.pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@_BOTH
@pytest.mark.parametrize("fault", ["unknown authority", "expired", "wants a certificate", "wants one (TLS 1.2)", "no TLS"])
def test_a_handshake_that_fails_is_no_doubt(world: World, keys: str, fault: str) -> None:
    authority = Authority()
    context = _tls(
        world.home, authority, is_expired=fault == "expired", wants_certificate=fault.startswith("wants"))
    if "1.2" in fault:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    service = ledgers.Ledger(tls=None if fault == "no TLS" else context)
    environment = {
        "USER_SERVICE_URL": service.url.replace("http:", "https:"), "USER_SERVICE_IDEMPOTENT": keys,
    }
    if fault != "unknown authority":
        ca = world.home / "ca.crt"
        ca.write_bytes(authority.pem)
        environment["USER_SERVICE_CA"] = str(ca)
    server = world.server(environment=environment)
    try:
        failure = _failure(world, server)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "QUOTA_UNAVAILABLE"), failure
        assert service.calls == []
        # Somebody has to look at the certificates; not once for every attempt.
        assert len(_errors(server, "reports don't reach the user service")) == 1
        world.audit(server.client())
    finally:
        service.close()


def test_a_certificate_of_ones_own_authority(world: World) -> None:
    authority = Authority()
    ca = world.home / "ca.crt"
    ca.write_bytes(authority.pem)
    service = ledgers.Ledger(tls=_tls(world.home, authority))
    try:
        server = world.server(
            environment={"USER_SERVICE_URL": service.url, "USER_SERVICE_CA": str(ca), "USER_SERVICE_IDEMPOTENT": "false"})
        answer = server.client().create()
        assert service.net() == {answer.device.device_id: 1}
        auditing.audit(world.database, server.client(), service)
        world.was_audited = True
    finally:
        service.close()


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"], ids=["missing", "empty", "something else"])
def test_a_file_of_authorities_that_has_none_stops_the_start(world: World, content: bytes | None) -> None:
    ca = world.home / "ca.crt"
    if content is not None:
        ca.write_bytes(content)
    server = world.server(
        environment={"USER_SERVICE_URL": "https://127.0.0.1:1", "USER_SERVICE_CA": str(ca)}, start=False)
    server.launch()
    assert server.wait_ended(60) == 64
    assert "USER_SERVICE_CA" in server.log_text()


def _is_connected_to(port: int | None) -> bool:
    """As the kernel sees it: an established connection to it, of whomever."""
    with open("/proc/net/tcp") as table:
        return any(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in table)


@_BOTH
def test_out_of_descriptors(world: World, keys: str) -> None:
    """No socket can be made: nothing was sent, and everything is well once one can."""
    assert world.ledger
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": keys})
    client = server.client()
    assert device_status(client.create().device) == "RUNNING"
    calls_before = len(world.ledger.calls)
    # An idle connection to the user service is closed after a while; so are those that the start has left.
    port = urllib.parse.urlsplit(world.ledger.url).port
    wait_until(lambda: not _is_connected_to(port), 60, "the connection to the user service to end")
    taken: set[int] = set()
    for _ in range(40):
        before, taken = taken, {int(name) for name in os.listdir(f"/proc/{server.pid}/fd")}
        if taken == before:
            break
        time.sleep(0.5)
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    # A new descriptor gets the lowest number that is free.
    lowest = next(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(RPCFailure) as caught:
            client.create(timeout=60)
        if caught.value.reason == "":
            # The connection broke. A busy process without descriptors may die of signal 4: libdispatch watches its threads through
            # /proc/self/task, and traps where it can't open that (_dispatch_workq_monitor_pools).
            assert server.wait_ended(30) == -signal.SIGILL, caught.value
            server.start()
            world.was_audited = True
            pytest.xfail("libdispatch traps without descriptors")
        assert caught.value.reason == "QUOTA_UNAVAILABLE", caught.value
        assert len(world.ledger.calls) == calls_before
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: device_status(client.create(timeout=30).device) == "RUNNING", 60, "creations to go on")
    world.audit(client)


# Doubt


def test_an_accepted_doubt_stops_nobody_and_can_be_reconciled(world: World) -> None:
    assert world.ledger
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": "false", "USER_SERVICE_DOUBT": "accept"})
    client = server.client()
    world.ledger.rule(ledgers.lose_reply(), operation="increment", times=1)
    world.ledger.rule(ledgers.drop(), operation="increment", times=1)
    counted, uncounted = client.create(), client.create()
    world.ledger.rule(ledgers.drop(), operation="decrement", times=1)
    failure = _failure(world, server, **_UNDONE)
    undone = client.saga(failure.saga_id)
    assert status_name(undone) == "COMPENSATED"
    # What the log says makes the ledger right.
    net = world.ledger.net()
    assert net == {counted.device.device_id: 1, undone.device_id: 1}
    told = [line for line in server.log_text().splitlines() if "assumed done" in line]
    assert len(told) == 3
    for saga_id, device, delta in (
        (counted.saga_id, counted.device.device_id, 1), (uncounted.saga_id, uncounted.device.device_id, 1),
        (undone.saga_id, undone.device_id, -1),
    ):
        line = next(line for line in told if saga_id in line)
        key = f"{saga_id}:REPORT_QUOTA_USAGE:1" + (":undo" if delta < 0 else "")
        assert f"delta={delta}" in line and f"device_id={device}" in line and f"key={key}" in line, line
        events = [event for event in client.watch(saga_id) if "assumed" in event.message]
        assert [event_name(event) for event in events] == ["STEP_SUCCEEDED" if delta > 0 else "STEP_COMPENSATED"]
    status, metrics = server.http("/metrics")
    assert status == 200
    assert 'quota_assumed_total{operation="increment"} 2' in metrics
    assert 'quota_assumed_total{operation="decrement"} 1' in metrics
    # The reconciliation, by what the log says and what the service has.
    for line in told:
        device = re.search(r"device_id=(\S+)", line)
        assert device
        wanted = 1 if "delta=1" in line else 0
        world.ledger.book(device[1], wanted - net.get(device[1], 0))
    world.audit(client)


@_BOTH
def test_a_report_that_never_arrived_is_not_taken_back(world: World, keys: str) -> None:
    """Nobody counted it: the undo must not make the usage -1, whatever the service knows of headers."""
    assert world.ledger
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": keys})
    world.ledger.rule(ledgers.drop(), operation="increment", times=4)
    failure = _failure(world, server)
    assert failure.reason == ("QUOTA_UNAVAILABLE" if keys == "true" else "PARKED"), failure
    assert not any(world.ledger.net().values())
    world.audit(server.client())


# A service that lies


_LIES = [
    ledgers.lose_reply(), ledgers.drop(), ledgers.late(0.3), ledgers.late(1.5), ledgers.hang(0.3),
    ledgers.Action(status=408), ledgers.Action(status=500), ledgers.fail(500), ledgers.fail(503),
    ledgers.gateway(502), ledgers.gateway(502, applies=True), ledgers.gateway(504, applies=True),
    ledgers.gateway(200), ledgers.gateway(200, applies=True), ledgers.gateway(401), ledgers.gateway(404),
    ledgers.gateway(403), ledgers.throttle(), ledgers.refuse(), ledgers.redirect(307, "http://127.0.0.1:1/"),
]


@pytest.mark.parametrize("seed", [1, 2])
@_BOTH
def test_a_service_that_lies(world: World, keys: str, seed: int) -> None:
    """Sagas under a service whose every other answer is a lie, and a server that is killed in the midst: what the ledger has
    booked is what the sagas hold. Where keys are ignored, a saga in doubt parks, and no other is wrong."""
    assert world.ledger
    ledger = world.ledger
    ledger.honours_keys = keys == "true"
    chance = random.Random(seed)
    server = world.server(environment={"USER_SERVICE_IDEMPOTENT": keys, "DEVICERPC_USER_SERVICE_TIMEOUT": "1s"})
    done = threading.Event()

    def lie() -> None:
        while not done.wait(0.02):
            if chance.random() < 0.6:
                ledger.rule(chance.choice(_LIES), operation=chance.choice(["increment", "decrement", None]), times=1)

    liar = threading.Thread(target=lie, daemon=True)
    liar.start()
    try:
        client = server.client()
        for round_number in range(3):
            for number in range(20):
                client.create(when="ACCEPTED", options=_UNDONE if number % 3 == 0 else {}, saga_timeout=20)
            time.sleep(chance.uniform(0.2, 2))
            if round_number < 2:
                server.kill()
                server.start()
                client = server.client()
    finally:
        time.sleep(2)
        done.set()
        liar.join()
        ledger.clear_rules()
    world.wait_all_over(timeout=120)
    findings = world.audit(server.client())
    print({status: findings.count(status) for status in set(findings.sagas.values())})
    if keys == "true":
        assert findings.count("PARKED") == 0
