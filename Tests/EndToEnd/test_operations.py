"""What operators see and do: metrics, health, overload, drain, configuration, logs, the embedded database."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.client import (
    DeviceClient, RPCFailure, create_request, device_status, failure_from, status_name, unique,
)
from support.server import Server, run_command
from support.stubs import health_pb2, service_pb2
from support.waiting import free_port, wait_until
from support.world import World

# Metrics


def _samples(text: str) -> dict[str, float]:
    """Prometheus' text format, checked line by line: name and labels → value."""
    samples: dict[str, float] = {}
    types: dict[str, str] = {}
    helps: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            assert name not in types, f"second TYPE of {name}"
            assert kind in ("counter", "gauge", "histogram", "summary", "untyped"), line
            types[name] = kind
        elif line.startswith("# HELP "):
            helps.add(line.split(" ", 3)[2])
        elif line and not line.startswith("#"):
            match = re.fullmatch(
                r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*\})? (\S+)( \d+)?', line
            )
            assert match, f"not a sample: {line!r}"
            family = match[1]
            if family not in types:
                family = re.sub(r"_(bucket|sum|count)$", "", family)
            assert family in types, f"no TYPE for {line!r}"
            key = match[1] + (match[2] or "")
            assert key not in samples, f"{key} comes twice"
            samples[key] = float(match[3])
    assert set(types) == helps, set(types) ^ helps
    for name, kind in types.items():
        if kind == "histogram":
            _check_histogram(name, samples)
    return samples


def _check_histogram(name: str, samples: dict[str, float]) -> None:
    series: dict[str, list[tuple[float, float]]] = {}
    for key, value in samples.items():
        match = re.fullmatch(rf"{name}_bucket\{{(.*)\}}", key)
        if match:
            bound = re.search(r'le="([^"]+)"', match[1])
            assert bound, key
            rest = re.sub(r',?le="[^"]+",?', "", match[1])
            series.setdefault(rest, []).append((float(bound[1]), value))
    for rest, buckets in series.items():
        buckets.sort()
        assert buckets[-1][0] == float("inf"), f"{name}{{{rest}}} has no +Inf"
        values = [value for _, value in buckets]
        assert values == sorted(values), f"{name}{{{rest}}} is not cumulative"
        assert samples[f"{name}_count{{{rest}}}" if rest else f"{name}_count"] == values[-1]


def _total(samples: dict[str, float], prefix: str) -> float:
    return sum(value for key, value in samples.items() if key == prefix or key.startswith(prefix + "{"))


def test_metrics(world: World) -> None:
    server = world.server()
    client = server.client()
    status, text = server.http("/metrics")
    assert status == 200
    _samples(text)
    for _ in range(3):
        client.create()
    client.create(options={"fail": "create:unavailable", "fail_times": "1"})
    for _ in range(2):
        with pytest.raises(RPCFailure):
            client.create(options={"fail": "start:refused"})
    with pytest.raises(RPCFailure):
        client.create(options={"fail": "create:hang"}, saga_timeout=1, timeout=60)
    with pytest.raises(RPCFailure):
        client.create(" ", user="")
    pending = client.start(create_request(options={"latency_ms": "4000"}))
    # Told every three seconds.
    wait_until(lambda: "saga_device_creation_in_progress 1\n" in server.http("/metrics")[1], 60, "it to be in progress", interval=0.1)
    _, text = server.http("/metrics")
    samples = _samples(text)
    assert samples['saga_device_creation_total{status="completed"}'] == 4
    assert samples['saga_device_creation_total{status="failed"}'] == 2
    assert samples['saga_device_creation_total{status="timeout"}'] == 1
    assert samples["saga_device_creation_in_progress"] == 1
    assert _total(samples, "saga_device_creation_duration_seconds_count") == 7
    assert samples['saga_device_creation_retry_count{step="CREATE_PROVIDER_DEVICE"}'] == 1
    assert samples['saga_device_creation_compensate_total{step="REPORT_QUOTA_USAGE"}'] == 2
    assert samples['saga_device_creation_compensate_total{step="CREATE_PROVIDER_DEVICE"}'] >= 2
    pending.result()
    calls = {key: value for key, value in samples.items() if "CreateDevice" in key}
    assert calls, "no RPC counts"
    for code in ("OK", "ABORTED", "INVALID_ARGUMENT"):
        assert any(code in key for key in calls), f"no count of CreateDevice with {code}: {sorted(calls)[:10]}"
    for word in ("flush", "parked", "lease"):
        assert any(word in key for key in samples), f"nothing about {word}"
    # Another reader of the format than ours. (promtool's linter wants other endings for saga_device_creation_retry_count;
    # operators asked for that name.)
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"saga_device_creation", "saga_device_creation_duration_seconds"} <= families
    world.audit(client)


def test_sagas_that_cannot_be_read(world: World) -> None:
    """A damaged row, or one of a newer version: lists show what the saga's row says, and everything else as ever."""
    server = world.server()
    client = server.client()
    batch = unique("batch")
    ids = [client.create(batch_id=batch).saga_id for _ in range(3)]
    damaged = ids[1]
    events = world.database.rows("SELECT sequence, events FROM saga_event WHERE saga_id = %s ORDER BY 1", damaged)
    world.database.execute("UPDATE saga_event SET events = %s WHERE saga_id = %s", b"\x07\xff", damaged)
    listed = client.stub.ListSagas(service_pb2.ListSagasRequest(batch_id=batch), timeout=10).sagas
    assert [saga.saga_id for saga in listed] == sorted(ids, reverse=True)
    request = service_pb2.BatchGetSagasRequest(saga_ids=[*ids, "saga_0000000000001_aaaaaaaaaa"])
    answer = client.stub.BatchGetSagas(request, timeout=10)
    assert [saga.saga_id for saga in answer.sagas] == ids and len(answer.missing_saga_ids) == 1
    for saga in (*listed, *answer.sagas, client.saga(damaged)):
        assert (status_name(saga), saga.current_step, saga.step_index) == ("COMPLETED", "START_DEVICE", 4)
        assert saga.device_id and saga.user_id and saga.batch_id == batch
        assert len(saga.steps) == (0 if saga.saga_id == damaged else 5)
    assert _total(_samples(server.http("/metrics")[1]), "saga_unreadable_total") == 3
    with pytest.raises(grpc.RpcError) as caught:
        list(client.stub.WatchSaga(service_pb2.WatchSagaRequest(saga_id=damaged), timeout=10))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    for sequence, packed in events:
        world.database.execute(
            "UPDATE saga_event SET events = %s WHERE saga_id = %s AND sequence = %s", bytes(packed), damaged, sequence
        )
    world.audit(client)


def test_health_endpoints(world: World) -> None:
    server = world.server()
    assert server.http("/healthz")[0] == 200
    assert server.http("/readyz")[0] == 200
    assert server.http("/nothing")[0] == 404


# Load


def test_overload(world: World) -> None:
    """Beyond the limit of sagas in flight new ones are refused at once, and nothing of them stays."""
    server = world.server(environment={"DEVICERPC_MAX_SAGAS": "10"})
    client = server.client()
    calls = [client.start(create_request(options={"latency_ms": "2000"})) for _ in range(40)]
    outcomes = [call.outcome() for call in calls]
    refused = [one for one in outcomes if isinstance(one, RPCFailure)]
    assert 25 <= len(refused) <= 35, len(refused)
    for failure in refused:
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"), failure
        assert int(failure.trailers["grpc-retry-pushback-ms"]) > 0
        assert not failure.saga_id
    assert client.create().saga_id  # there is room again
    findings = world.audit(client)
    assert findings.count("COMPLETED") == 41 - len(refused)


# Drain


def test_drain(world: World) -> None:
    """SIGTERM while calls run: reads are answered, whoever waits for a saga gets its answer, watch streams end with
    UNAVAILABLE, the process with 0."""
    server = world.server()
    client, other = server.client(), server.client()
    done = client.create()
    requests = [create_request(request_id=unique("drain"), options={"latency_ms": "600"}) for _ in range(20)]
    calls = [client.start(request) for request in requests]
    accepted = client.create(when="ACCEPTED", options={"latency_ms": "2000"})
    watching = client.stub.WatchSaga(service_pb2.WatchSagaRequest(saga_id=accepted.saga_id), timeout=90)
    next(watching)
    health = client.watch_health()
    assert next(health).status == health_pb2.HealthCheckResponse.SERVING
    assert other.health() == "SERVING"
    reads = [client.stub.GetSaga.future(service_pb2.GetSagaRequest(saga_id=done.saga_id), timeout=60) for _ in range(200)]
    # An answer to one says that those before it had left; the client may not have sent the others when it hears of the
    # drain, and ends them itself.
    wait_until(lambda: reads[100].done(), 60, "a read to be answered")
    server.terminate()
    assert {read.result().saga_id for read in reads[:101]} == {done.saga_id}
    for read in reads[101:]:
        error = read.exception()
        assert error.code() is grpc.StatusCode.UNAVAILABLE if error else read.result().saga_id == done.saga_id
    with pytest.raises(grpc.RpcError) as caught:
        for _ in watching:
            pass
    ended = failure_from(caught.value.code(), caught.value.details(), dict(caught.value.trailing_metadata()))
    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    for call in calls:
        assert call.result().device.device_id
    # New calls, on a connection that is there already or on a new one, are refused or find nobody.
    with pytest.raises(RPCFailure) as refused:
        other.create(timeout=30)
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    assert server.wait_ended(60) == 0, server.log_tail()
    server.start()
    survivor = server.client()
    for call in [survivor.start(request) for request in requests]:
        assert device_status(call.result().device) == "RUNNING"
    assert survivor.wait_finished(accepted.saga_id, timeout=60).saga_id == accepted.saga_id
    findings = world.audit(survivor)
    assert findings.count("COMPLETED") == 22 == len(findings.sagas)


@pytest.mark.parametrize("own_saga", [True, False], ids=["its own", "another replica's"])
def test_drain_ends_waits_that_outlast_it(world: World, own_saga: bool) -> None:
    """Whoever still waits for a saga after drain-timeout is told to ask elsewhere; the saga goes on."""
    server, other = world.server(environment={"DEVICERPC_DRAIN_TIMEOUT": "3s"}), world.server()
    client = server.client()
    request = create_request(request_id=unique("drain"), when="FINISHED", options={"latency_ms": "5000"})
    if not own_saga:
        started = other.client().start(request)
        wait_until(lambda: world.moving() == 1, 60, "the saga to start")
    waiting = client.start(request)
    quick = client.start(create_request(options={"latency_ms": "600"}, when="FINISHED"))
    wait_until(lambda: world.moving() == 2, 60, "both sagas to be under way")
    client.saga(world.database.value("SELECT min(saga_id) FROM saga_state"))  # all calls before it have arrived
    server.terminate()
    assert device_status(quick.result().device) == "RUNNING"
    outcome = waiting.outcome()
    assert isinstance(outcome, RPCFailure)
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"), outcome
    # A caller without a request_id can tell by it that a saga has started.
    started_as = world.database.value("SELECT saga_id FROM saga_request WHERE request_id = %s", request.request_id)
    assert outcome.saga_id == started_as
    assert server.wait_ended(60) == 0, server.log_tail()
    if not own_saga:
        started.result()
    assert device_status(other.client().start(request).result().device) == "RUNNING"
    findings = world.audit(other.client())
    assert findings.count("COMPLETED") == 2


def test_drain_under_load(world: World) -> None:
    """Calls keep coming while the server leaves: each either works or says UNAVAILABLE, and can be repeated."""
    server = world.server()
    client = server.client()
    requests = []
    calls = []
    for number in range(120):
        request = create_request(request_id=unique("drain"), options={"latency_ms": "100"})
        requests.append(request)
        calls.append(client.start(request))
        if number == 60:
            server.terminate()
        time.sleep(0.005)
    outcomes = [call.outcome() for call in calls]
    failures = [one for one in outcomes if isinstance(one, RPCFailure)]
    assert {failure.code for failure in failures} <= {grpc.StatusCode.UNAVAILABLE}, failures
    assert 0 < len(failures) < 120
    assert server.wait_ended(60) == 0
    server.start()
    again = server.client()
    for call in [again.start(request) for request in requests]:
        assert device_status(call.result().device) == "RUNNING"
    findings = world.audit(again)
    assert findings.count("COMPLETED") == 120 == len(findings.sagas)


def test_second_signal_ends_at_once(world: World) -> None:
    server = world.server()
    server.client().create(when="ACCEPTED", options={"latency_ms": "30000"})
    server.terminate()
    time.sleep(0.5)
    assert server.is_running
    server.terminate()
    code = server.wait_ended(20)
    assert code != 0


# Configuration and logs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEVICERPC_LISTEN", "nowhere"),
        ("DEVICERPC_PROVIDER", "toaster"),
        ("USER_SERVICE_URL", "ftp://x"),
        ("JWT_SECRET", "tiny-secret"),
        ("DEVICERPC_LOG_LEVEL", "loud"),
        ("USER_SERVICE_IDEMPOTENT", "perhaps"),
        ("ADB_PORT_START", "70000"),
        ("DATABASE_URL", "nonsense with spaces"),
    ],
)
def test_wrong_values_stop_the_start(world: World, name: str, value: str) -> None:
    server = world.server(start=False, environment={name: value})
    server.launch()
    assert server.wait_ended(60) not in (0, None)
    text = server.log_text()
    assert name in text, text
    if name in ("JWT_SECRET", "DATABASE_URL"):
        assert value not in text, "a secret is printed"


def test_simulated_needs_a_word(world: World) -> None:
    """On somebody's database the simulated provider exists only when asked for."""
    server = world.server(start=False)
    del server.environment["DEVICERPC_SIMULATED"]
    server.launch()
    assert server.wait_ended(60) not in (0, None)
    assert "DEVICERPC_" in server.log_text()


def test_logs(world: World) -> None:
    assert world.ledger
    server = world.server(environment={"DEVICERPC_LOG_FORMAT": "json", "DEVICERPC_LOG_LEVEL": "trace"})
    client = server.client()
    answer = client.create(options={"fail": "create:unavailable", "fail_times": "1", "latency_ms": "7"})
    wait_until(lambda: "SAGA_COMPLETED" in server.log_text(), 60, "its last line")
    lines = [json.loads(line) for line in server.log_text().splitlines() if line.startswith("{")]
    assert lines, server.log_tail()
    about = [line for line in lines if answer.saga_id in json.dumps(line)]
    assert about and any("[SAGA]" in json.dumps(line) for line in about)
    events = [line for line in about if line["message"].startswith(("[SAGA] STEP_", "[SAGA] SAGA_"))]
    assert len(events) >= 12, about
    for line in events:
        assert line["saga_id"] == answer.saga_id and line["step"] and int(line["attempt"]) >= 0, line
    tries = [line["attempt"] for line in events if line["step"] == "CREATE_PROVIDER_DEVICE"]
    assert {str(attempt) for attempt in tries} == {"1", "2"}, tries
    text = server.log_text()
    assert server.environment["JWT_SECRET"] not in text
    for call in world.ledger.calls:
        assert call.headers["x-service-token"] not in text


def test_access_log(world: World) -> None:
    """A line for each call, found again by what its client calls it; audit lines have that name too."""
    settings = {"DEVICERPC_LOG_FORMAT": "json", "DEVICERPC_ACCESS_LOG": "true"}
    server = world.server(environment=settings)
    quiet = world.server(environment={"DEVICERPC_LOG_FORMAT": "json"})
    for one in (server, quiet):
        client = one.client_with([("x-request-id", "req-4711/a")])
        made = client.create()
        with pytest.raises(RPCFailure):
            client.call("GetSaga", service_pb2.GetSagaRequest(saga_id="saga_1795676228994_aaaaaaaaaa"))
        odd = one.client_with([("x-request-id", "with a space")])
        odd.saga(made.saga_id)
    server.terminate()
    assert server.wait_ended(60) == 0

    def lines(of: Server, kind: str) -> list[dict[str, str]]:
        parsed = [json.loads(line) for line in of.log_text().splitlines() if line.startswith("{")]
        return [line for line in parsed if line["message"] == kind]

    ours = [line for line in lines(server, "[ACCESS]") if line.get("x_request_id") == "req-4711/a"]
    assert [(line["method"].rpartition("/")[2], line["outcome"]) for line in ours] == [
        ("CreateDevice", "OK"), ("GetSaga", "NOT_FOUND")]
    for line in ours:
        assert line["peer"] and int(line["duration_us"]) > 0
    unnamed = [line for line in lines(server, "[ACCESS]") if line["method"].endswith("/GetSaga") and line["outcome"] == "OK"]
    assert unnamed and all("x_request_id" not in line for line in unnamed)
    for one in (server, quiet):
        assert [line["x_request_id"] for line in lines(one, "[AUDIT]")] == ["req-4711/a"]
    assert not lines(quiet, "[ACCESS]")


def test_reads_end_with_their_calls(world: World) -> None:
    """Nobody waits for the answer any more, so PostgreSQL does not look for it either."""
    server = world.server()
    client = server.client()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    requests = {
        "devices": [("ListDevices", service_pb2.ListDevicesRequest())],
        "saga_event": [
            ("ListSagas", service_pb2.ListSagasRequest(user_id="user-1")),
            ("BatchGetSagas", service_pb2.BatchGetSagasRequest(saga_ids=["saga_1795676228994_aaaaaaaaaa"])),
        ],
    }
    for table, calls in requests.items():
        with world.database.transaction() as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            for method, request in calls:
                with pytest.raises(RPCFailure) as caught:
                    client.call(method, request, timeout=1)
                assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
                # A statement without a limit of its own gives up after 5 s (lock_timeout) or 10.
                wait_until(lambda: world.database.value(waiting) == 0, 4, f"{method}'s statement to end")


# The embedded database


def _embedded(home: pathlib.Path, name: str = "own") -> Server:
    server = Server(name, home, {})
    del server.environment["DEVICERPC_SIMULATED"]
    return server


def test_embedded_postgres() -> None:
    """Without DATABASE_URL the server brings a PostgreSQL of its own, and finds it again after SIGKILL."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-embedded-", dir="/tmp"))
    os.chmod(home, 0o755)
    server = _embedded(home)
    try:
        server.start(timeout=60)
        client = server.client()
        first = client.create("kept", when="FINISHED")
        accepted = client.create(when="ACCEPTED", options={"latency_ms": "1500"})
        server.kill()
        server.start(timeout=60)
        client = server.client()
        assert client.device(first.device.device_id).name == "kept"
        assert client.wait_finished(accepted.saga_id).saga_id == accepted.saga_id
        postgres = _postmasters(home)
        assert len(postgres) == 1, postgres
        server.terminate()
        assert server.wait_ended(60) == 0, server.log_tail()
        wait_until(lambda: not _postmasters(home), 60, "the embedded PostgreSQL to be stopped with its server")
        server.start(timeout=60)
        assert server.client().device(first.device.device_id).name == "kept"
        server.terminate()
        assert server.wait_ended(60) == 0
    finally:
        server.close()
        for pid in _postmasters(home):
            os.kill(pid, signal.SIGQUIT)
        shutil.rmtree(home, ignore_errors=True)


def _postmasters(home: pathlib.Path) -> list[int]:
    """Process ids of PostgreSQL servers on a data directory below `home`."""
    found = []
    for file in home.rglob("postmaster.pid"):
        try:
            pid = int(file.read_text().splitlines()[0])
            os.kill(pid, 0)
            found.append(pid)
        except (ValueError, IndexError, ProcessLookupError):
            continue
    return found


def test_the_database_may_be_behind_a_restart_of_the_server(make_world: Callable[..., World]) -> None:
    """A server that starts before its database waits for it, or says why it can't start."""
    world = make_world()
    server = world.server(start=False)
    server.environment["DATABASE_URL"] = f"postgresql://postgres@127.0.0.1:{free_port()}/none?sslmode=disable"
    server.launch()
    time.sleep(2)
    if server.is_running:
        with DeviceClient(server.address) as client:
            assert client.health(timeout=1) in ("NOT_SERVING", "UNAVAILABLE", "DEADLINE_EXCEEDED")
    else:
        assert server.returncode not in (0, -signal.SIGSEGV, -signal.SIGILL, -signal.SIGABRT, -signal.SIGTRAP)
        assert re.search(r"database|PostgreSQL|connect", server.log_text(), re.IGNORECASE)


def test_version() -> None:
    assert re.search(r"\d+\.\d+\.\d+", run_command(["version"]).stdout)
