"""1. Two gRPC stacks and buf curl call every RPC that there is; every error is as the contract says."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from support import ledger as ledgers
from support.client import (
    ERROR_DOMAIN,
    STEPS,
    DeviceClient,
    PendingCall,
    RPCFailure,
    cause_name,
    create_request,
    device_status,
    event_name,
    status_name,
    step_statuses,
    unique,
)
from support.events import check_against_saga
from support.postgres import Cluster
from support.stacks import STACKS, Stack
from support.stubs import device_pb2, health_pb2, saga_pb2, service_pb2
from support.waiting import wait_until
from support.world import World

# One worker runs the whole file: its tests share a server, and the last one audits them all.
pytestmark = pytest.mark.xdist_group("clients")


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[World]:
    """One server for the whole file, on a database that it has to migrate itself."""
    world = World(cluster, template=None)
    try:
        world.server()
        yield world
    finally:
        world.close()


@pytest.fixture
def client(place: World) -> DeviceClient:
    return place.servers[0].client()


@pytest.fixture(params=list(STACKS))
def stack(request: pytest.FixtureRequest, place: World) -> Iterator[Stack]:
    stack = STACKS[request.param](place.servers[0].address)
    try:
        yield stack
    finally:
        stack.close()


def _watch_request(saga_id: str, after: int = 0) -> Any:
    return service_pb2.WatchSagaRequest(saga_id=saga_id, after_sequence=after)


# Every RPC


def test_create_until_finished(place: World, stack: Stack) -> None:
    request = create_request(
        "  Pixel 电话  ", user="ann", description="for trying", tags=["a", "b"], metadata={"team": "qa"},
        request_id=unique("request"), batch_id="batch-7", tenant_id="tenant-1",
        spec=device_pb2.DeviceSpec(cpu_cores=4, android_version="13"),
    )
    answer = stack.unary("device", "CreateDevice", request)
    device = answer.device
    assert answer.saga_id.startswith("saga_")
    assert device.name == "Pixel 电话"
    assert device.description == "for trying"
    assert device.type == device_pb2.DEVICE_TYPE_PHONE
    assert device.provider == device_pb2.PROVIDER_SIMULATED
    assert device_status(device) == "RUNNING"
    assert (device.user_id, device.tenant_id) == ("ann", "tenant-1")
    assert list(device.tags) == ["a", "b"]
    assert dict(device.metadata) == {"team": "qa"}
    assert uuid.UUID(device.device_id)
    assert device.saga_id == answer.saga_id
    assert device.external_id
    assert device.connection.host
    assert device.connection.adb_port and device.connection.webrtc_port
    spec = device.spec
    assert (spec.cpu_cores, spec.memory_mb, spec.storage_mb) == (4, 4096, 10240)
    assert (spec.width_px, spec.height_px, spec.dpi, spec.android_version) == (1920, 1080, 240, "13")

    # What an operator types, as ever.
    row = place.saga_row(answer.saga_id)
    assert (row["status"], row["step_index"], row["current_step"]) == ("COMPLETED", 4, "START_DEVICE")
    assert row["completed_at"] is not None and row["error_message"] is None

    saga = stack.unary("device", "GetSaga", service_pb2.GetSagaRequest(saga_id=answer.saga_id))
    assert status_name(saga) == "COMPLETED"
    assert (saga.step_index, saga.current_step, saga.type) == (4, "START_DEVICE", "DEVICE_CREATION")
    assert step_statuses(saga) == {step: "SUCCEEDED" for step in STEPS}
    assert all(step.attempts == 1 and step.compensation_attempts == 0 for step in saga.steps)
    assert all(step.started_at.ToNanoseconds() <= step.finished_at.ToNanoseconds() for step in saga.steps)
    assert not saga.HasField("failure")
    assert (saga.device_id, saga.user_id) == (device.device_id, "ann")
    assert (saga.request_id, saga.batch_id) == (request.request_id, "batch-7")
    assert saga.created_at.ToNanoseconds() <= saga.completed_at.ToNanoseconds() <= saga.updated_at.ToNanoseconds()
    lifetime = (saga.deadline.ToNanoseconds() - saga.created_at.ToNanoseconds()) / 1e9
    assert abs(lifetime - 600) < 1
    assert saga.saga_id[5:18] == str(saga.created_at.ToMilliseconds()) or abs(
        int(saga.saga_id[5:18]) - saga.created_at.ToMilliseconds()
    ) < 2000

    events = stack.streaming("device", "WatchSaga", _watch_request(answer.saga_id))
    check_against_saga(events, saga)
    assert event_name(events[0]) == "SAGA_STARTED" and event_name(events[-1]) == "SAGA_COMPLETED"
    again = stack.streaming("device", "WatchSaga", _watch_request(answer.saga_id, after=3))
    assert again == events[3:]
    assert stack.streaming("device", "WatchSaga", _watch_request(answer.saga_id, after=saga.last_sequence)) == []

    shown = stack.unary("device", "GetDevice", service_pb2.GetDeviceRequest(device_id=device.device_id))
    assert shown == device


def test_return_when(stack: Stack, client: DeviceClient) -> None:
    options = {"latency_ms": "300", "boot_ms": "600"}
    accepted = stack.unary("device", "CreateDevice", create_request(when="ACCEPTED", options=options))
    assert device_status(accepted.device) == "CREATING"
    saga = stack.unary("device", "GetSaga", service_pb2.GetSagaRequest(saga_id=accepted.saga_id))
    assert status_name(saga) == "RUNNING"
    assert step_statuses(saga)["ALLOCATE_PORTS"] == "SUCCEEDED"
    assert step_statuses(saga)["CREATE_DATABASE_RECORD"] == "PENDING"
    # Known from CreateDevice's answer on, before its record exists too.
    early = stack.unary("device", "GetDevice", service_pb2.GetDeviceRequest(device_id=accepted.device.device_id))
    assert device_status(early) == "CREATING" and early.name == accepted.device.name
    events = stack.streaming("device", "WatchSaga", _watch_request(accepted.saga_id))
    assert event_name(events[-1]) == "SAGA_COMPLETED"

    for when in ("PROVISIONED", "UNSPECIFIED"):
        provisioned = stack.unary("device", "CreateDevice", create_request(when=when, options=options))
        assert device_status(provisioned.device) == "CREATING"
        assert provisioned.device.external_id
        saga = stack.unary("device", "GetSaga", service_pb2.GetSagaRequest(saga_id=provisioned.saga_id))
        assert status_name(saga) == "RUNNING"
        statuses = step_statuses(saga)
        assert [statuses[step] for step in STEPS] == ["SUCCEEDED"] * 4 + ["RUNNING"]
        assert status_name(client.wait_finished(provisioned.saga_id)) == "COMPLETED"


def test_batch_get(stack: Stack) -> None:
    ids = [stack.unary("device", "CreateDevice", create_request(when="ACCEPTED")).saga_id for _ in range(3)]
    unknown = "saga_1730188800000_aaaaaaaaaa"
    asked = [ids[2], unknown, ids[0], ids[2], unknown, ids[1]]
    answer = stack.unary("device", "BatchGetSagas", service_pb2.BatchGetSagasRequest(saga_ids=asked))
    assert [saga.saga_id for saga in answer.sagas] == [ids[2], ids[0], ids[1]]
    assert list(answer.missing_saga_ids) == [unknown]
    with pytest.raises(RPCFailure) as caught:
        stack.unary("device", "BatchGetSagas", service_pb2.BatchGetSagasRequest(saga_ids=[ids[0], "no id at all"]))
    _is_invalid(caught.value, {"saga_ids[1]"})
    with pytest.raises(RPCFailure) as caught:
        stack.unary("device", "BatchGetSagas", service_pb2.BatchGetSagasRequest(saga_ids=[unknown] * 1001))
    _is_invalid(caught.value, {"saga_ids"})


def test_lists(stack: Stack) -> None:
    user, batch = unique("lister"), unique("batch")
    made = [
        stack.unary("device", "CreateDevice", create_request(f"d{number}", user=user, batch_id=batch))
        for number in range(5)
    ]
    with pytest.raises(RPCFailure):
        stack.unary("device", "CreateDevice", create_request("bad", user=user, options={"fail": "create:refused"}))
    newest_first = [one.saga_id for one in reversed(made)]

    def sagas(**fields: Any) -> Any:
        return stack.unary("device", "ListSagas", service_pb2.ListSagasRequest(**fields))

    assert [saga.saga_id for saga in sagas(batch_id=batch).sagas] == newest_first
    by_user = sagas(user_id=user).sagas
    assert [saga.saga_id for saga in by_user][1:] == newest_first
    assert status_name(by_user[0]) == "COMPENSATED"
    assert len(sagas(user_id=user, statuses=[saga_pb2.SAGA_STATUS_COMPLETED]).sagas) == 5
    assert len(sagas(user_id=user, statuses=[saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_PARKED]).sagas) == 1
    assert len(sagas(user_id=user, type="DEVICE_CREATION").sagas) == 6
    assert len(sagas(user_id=user, type="DEVICE_DELETION").sagas) == 0
    one = sagas(device_id=made[2].device.device_id).sagas
    assert [saga.saga_id for saga in one] == [made[2].saga_id]

    pages, token = [], ""
    while True:
        answer = sagas(user_id=user, page_size=2, page_token=token)
        assert len(answer.sagas) <= 2
        pages += [saga.saga_id for saga in answer.sagas]
        token = answer.next_page_token
        if not token:
            break
    assert pages == [saga.saga_id for saga in by_user]

    def devices(**fields: Any) -> Any:
        return stack.unary("device", "ListDevices", service_pb2.ListDevicesRequest(**fields))

    newest_devices = [one.device.device_id for one in reversed(made)]
    assert [device.device_id for device in devices(user_id=user).devices] == newest_devices
    first = devices(user_id=user, page_size=3)
    rest = devices(user_id=user, page_size=3, page_token=first.next_page_token)
    assert [device.device_id for device in [*first.devices, *rest.devices]] == newest_devices
    assert rest.next_page_token == ""
    assert len(devices(user_id=user, statuses=[device_pb2.DEVICE_STATUS_RUNNING]).devices) == 5
    assert len(devices(user_id=user, statuses=[device_pb2.DEVICE_STATUS_ERROR]).devices) == 0
    assert len(devices(user_id=user, provider=device_pb2.PROVIDER_SIMULATED).devices) == 5
    assert len(devices(user_id=user, provider=device_pb2.PROVIDER_REDROID).devices) == 0

    # A token belongs to its filters.
    for method, bad in (
        ("ListDevices", service_pb2.ListDevicesRequest(user_id="other", page_size=3, page_token=first.next_page_token)),
        ("ListDevices", service_pb2.ListDevicesRequest(user_id=user, page_token="nonsense")),
        ("ListSagas", service_pb2.ListSagasRequest(user_id=user, page_token="nonsense")),
    ):
        with pytest.raises(RPCFailure) as caught:
            stack.unary("device", method, bad)
        _is_invalid(caught.value, {"page_token"})
    for method, bad in (
        ("ListDevices", service_pb2.ListDevicesRequest(page_size=1001)),
        ("ListSagas", service_pb2.ListSagasRequest(page_size=1001)),
    ):
        with pytest.raises(RPCFailure) as caught:
            stack.unary("device", method, bad)
        _is_invalid(caught.value, {"page_size"})


def test_operators(stack: Stack) -> None:
    """More of them: test_operators.py."""
    unknown = "saga_1730188800000_aaaaaaaaaa"
    for method, request in (
        ("CompensateSaga", service_pb2.CompensateSagaRequest(saga_id=unknown)),
        ("ResumeSaga", service_pb2.ResumeSagaRequest(saga_id=unknown)),
    ):
        with pytest.raises(RPCFailure) as caught:
            stack.unary("admin", method, request)
        assert caught.value.code is grpc.StatusCode.NOT_FOUND, method
    made = stack.unary("device", "CreateDevice", create_request())
    ports = stack.unary("admin", "ListPorts", service_pb2.ListPortsRequest(host=made.device.connection.host)).ports
    held = [(port.kind, port.port) for port in ports if port.saga_id == made.saga_id]
    assert held == [("adb", made.device.connection.adb_port), ("webrtc", made.device.connection.webrtc_port)]


def test_unknown_method(place: World) -> None:
    channel = place.servers[0].client().channel
    for path in ("/cloudphone.device.v1.DeviceService/Nothing", "/no.such.Service/GetSaga"):
        call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health(stack: Stack) -> None:
    for service in ("", "cloudphone.device.v1.DeviceService"):
        answer = stack.unary("health", "Check", health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        first = stack.streaming("health", "Watch", health_pb2.HealthCheckRequest(service=service), limit=1)
        assert first[0].status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(RPCFailure) as caught:
        stack.unary("health", "Check", health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    first = stack.streaming("health", "Watch", health_pb2.HealthCheckRequest(service="no.such.Service"), limit=1)
    assert first[0].status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


# buf curl, by reflection


def _buf(place: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    tool = pathlib.Path(sys.executable).parent / "buf"
    return subprocess.run(
        [str(tool), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments],
        capture_output=True, text=True, timeout=60, cwd=place.home,
        env={**os.environ, "BUF_CACHE_DIR": str(place.home / "buf")},
    )


@pytest.mark.parametrize("version", ["grpc-v1", "grpc-v1alpha"])
def test_buf_curl_by_reflection(place: World, version: str) -> None:
    base = f"http://{place.servers[0].address}"
    listed = _buf(place, "--reflect-protocol", version, "--list-methods", base)
    assert listed.returncode == 0, listed.stderr
    for method in (
        "cloudphone.device.v1.DeviceService/CreateDevice", "cloudphone.device.v1.DeviceService/WatchSaga",
        "cloudphone.device.v1.DeviceAdminService/ResumeSaga", "grpc.health.v1.Health/Check",
    ):
        assert method in listed.stdout, listed.stdout
    made = _buf(
        place, "--reflect-protocol", version, "--data",
        json.dumps({"name": "by buf", "userId": "bob", "returnWhen": "RETURN_WHEN_FINISHED"}),
        f"{base}/cloudphone.device.v1.DeviceService/CreateDevice",
    )
    assert made.returncode == 0, made.stderr
    answer = json.loads(made.stdout)
    assert answer["device"]["status"] == "DEVICE_STATUS_RUNNING"
    watched = _buf(
        place, "--reflect-protocol", version, "--data", json.dumps({"sagaId": answer["sagaId"]}),
        f"{base}/cloudphone.device.v1.DeviceService/WatchSaga",
    )
    assert watched.returncode == 0, watched.stderr
    assert "SAGA_EVENT_TYPE_SAGA_COMPLETED" in watched.stdout
    # buf finds the details' types by reflection too, and shows them decoded.
    refused = _buf(
        place, "--reflect-protocol", version, "--data", json.dumps({"name": "", "userId": "bob"}),
        f"{base}/cloudphone.device.v1.DeviceService/CreateDevice",
    )
    assert refused.returncode != 0
    error = json.loads(refused.stderr)
    assert error["code"] == "invalid_argument", refused.stderr
    assert {"google.rpc.ErrorInfo", "google.rpc.BadRequest"} <= {one["type"] for one in error["details"]}


# Errors


def _is_invalid(failure: RPCFailure, fields: set[str]) -> None:
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT, failure
    assert (failure.reason, failure.domain) == ("INVALID_FIELD", ERROR_DOMAIN), failure
    assert "saga_id" not in failure.metadata
    assert failure.fields == fields, f"{failure.violations}, expected {fields}"
    assert all(text for _, text in failure.violations), failure.violations


_LONG = "é"  # two bytes, one scalar: lengths count scalars


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": " \t "}, {"name"}),
        ({"name": _LONG * 101}, {"name"}),
        ({"user": ""}, {"user_id"}),
        ({"description": _LONG * 501}, {"description"}),
        ({"type": 99}, {"type"}),
        ({"provider": 99}, {"provider"}),
        ({"provider": device_pb2.PROVIDER_HUAWEI_CPH}, {"provider"}),
        ({"request_id": "x" * 65}, {"request_id"}),
        ({"request_id": "é"}, {"request_id"}),
        ({"request_id": "a\x07b"}, {"request_id"}),
        ({"batch_id": "x" * 65}, {"batch_id"}),
        ({"batch_id": "\u3042"}, {"batch_id"}),
        ({"tags": ["x"] * 11}, {"tags"}),
        ({"tags": ["ok", ""]}, {"tags[1]"}),
        ({"tags": [_LONG * 51]}, {"tags[0]"}),
        ({"metadata": {str(number): "v" for number in range(33)}}, {"metadata"}),
        ({"options": {"no_such_option": "1"}}, {"provider_options.no_such_option"}),
        ({"options": {"latency_ms": "soon"}}, {"provider_options.latency_ms"}),
        ({"saga_timeout": 0.5}, {"saga_timeout"}),
        ({"saga_timeout": 24 * 3600 + 1}, {"saga_timeout"}),
        ({"spec": device_pb2.DeviceSpec(cpu_cores=17)}, {"spec.cpu_cores"}),
        ({"spec": device_pb2.DeviceSpec(memory_mb=511)}, {"spec.memory_mb"}),
        ({"spec": device_pb2.DeviceSpec(memory_mb=32769)}, {"spec.memory_mb"}),
        ({"spec": device_pb2.DeviceSpec(storage_mb=1023)}, {"spec.storage_mb"}),
        ({"spec": device_pb2.DeviceSpec(storage_mb=1048577)}, {"spec.storage_mb"}),
        ({"spec": device_pb2.DeviceSpec(width_px=239)}, {"spec.width_px"}),
        ({"spec": device_pb2.DeviceSpec(height_px=7681)}, {"spec.height_px"}),
        ({"spec": device_pb2.DeviceSpec(dpi=641)}, {"spec.dpi"}),
        ({"spec": device_pb2.DeviceSpec(android_version="eleven")}, {"spec.android_version"}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else None,
)
def test_invalid_field(client: DeviceClient, fields: dict[str, Any], wrong: set[str]) -> None:
    with pytest.raises(RPCFailure) as caught:
        client.create(**{"name": "fine", **fields})
    _is_invalid(caught.value, wrong)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": _LONG * 100},
        {"name": f"  {_LONG * 100}  "},
        {"description": _LONG * 500},
        {"tags": [_LONG * 50] * 10},
        {"metadata": {str(number): _LONG * 256 for number in range(31)} | {_LONG * 64: ""}},
        {"request_id": unique("x" * 40), "batch_id": "~" * 64},
        {"saga_timeout": 24 * 3600},
        {"spec": device_pb2.DeviceSpec(cpu_cores=16, memory_mb=32768, storage_mb=1048576, width_px=7680, height_px=240,
                                       dpi=640, android_version="12.0")},
    ],
    ids=["name", "trimmed", "description", "tags", "metadata", "ids", "timeout", "spec"],
)
def test_largest_allowed(client: DeviceClient, fields: dict[str, Any]) -> None:
    answer = client.create(**{"name": "fine", **fields})
    assert device_status(answer.device) == "RUNNING"
    assert client.device(answer.device.device_id) == answer.device


def test_all_violations_at_once(stack: Stack) -> None:
    request = create_request(
        " ", user="", description="x" * 501, tags=["y" * 51], request_id="z" * 65,
        spec=device_pb2.DeviceSpec(cpu_cores=99, dpi=1), saga_timeout=0.1,
    )
    request.return_when = 77
    with pytest.raises(RPCFailure) as caught:
        stack.unary("device", "CreateDevice", request)
    _is_invalid(
        caught.value,
        {
            "name", "user_id", "description", "tags[0]", "request_id", "spec.cpu_cores", "spec.dpi", "saga_timeout",
            "return_when",
        },
    )


def test_metadata_limits(client: DeviceClient) -> None:
    composed = {"caf\u00e9": "one", "cafe\u0301": "another"}
    for metadata in ({"": "v"}, {"k" * 65: "v"}, {"k": "v" * 257}, composed):
        with pytest.raises(RPCFailure) as caught:
            client.create("fine", metadata=metadata)
        assert caught.value.reason == "INVALID_FIELD"
        assert len(caught.value.violations) == 1
        assert all(field.startswith("metadata") for field in caught.value.fields), caught.value.violations


@pytest.mark.parametrize(
    "body",
    [b"\x12\x03\xff\xfe\xfd", b"\x12\x03a\x00b", b"\x12\x7f", b"\xff" * 40],
    ids=["not UTF-8", "NUL", "cut short", "garbage"],
)
def test_broken_message(place: World, client: DeviceClient, body: bytes) -> None:
    call = client.channel.unary_unary(
        "/cloudphone.device.v1.DeviceService/CreateDevice", request_serializer=bytes, response_deserializer=bytes
    )
    before = place.database.value("SELECT count(*) FROM saga_state")
    with pytest.raises(grpc.RpcError) as caught:
        call(body + b"\x32\x03bob", timeout=30)
    invalid = b"\x00" in body
    assert caught.value.code() is (grpc.StatusCode.INVALID_ARGUMENT if invalid else grpc.StatusCode.INTERNAL)
    assert place.database.value("SELECT count(*) FROM saga_state") == before
    assert client.health() == "SERVING"


def test_secrets_are_not_returned(place: World, client: DeviceClient) -> None:
    secret = "latency-is-a-secret-too"
    with pytest.raises(RPCFailure) as caught:
        client.create("fine", options={"latency_ms": secret})
    assert secret not in str(caught.value) and secret not in str(caught.value.trailers)
    assert secret not in place.servers[0].log_text()


def test_unknown_ids(stack: Stack, client: DeviceClient) -> None:
    def saga_calls(saga_id: str) -> list[RPCFailure]:
        with pytest.raises(RPCFailure) as get:
            stack.unary("device", "GetSaga", service_pb2.GetSagaRequest(saga_id=saga_id))
        with pytest.raises(RPCFailure) as watch:
            stack.streaming("device", "WatchSaga", _watch_request(saga_id))
        return [get.value, watch.value]

    def device_call(device_id: str) -> RPCFailure:
        with pytest.raises(RPCFailure) as caught:
            stack.unary("device", "GetDevice", service_pb2.GetDeviceRequest(device_id=device_id))
        return caught.value

    unknown = ["saga_1730188800000_aaaaaaaaaa", "saga_9999999999999_aaaaaaaaaa", "saga_0000000000000_aaaaaaaaaa"]
    for failure in [*(one for saga_id in unknown for one in saga_calls(saga_id)), device_call(str(uuid.uuid4()))]:
        assert (failure.code, failure.reason, failure.domain) == (
            grpc.StatusCode.NOT_FOUND, "NOT_FOUND", ERROR_DOMAIN
        ), failure
    for malformed in ("nonsense", ""):
        for failure in saga_calls(malformed):
            _is_invalid(failure, {"saga_id"})
        _is_invalid(device_call(malformed), {"device_id"})
    made = client.create()
    last = client.saga(made.saga_id).last_sequence
    with pytest.raises(RPCFailure) as caught:
        stack.streaming("device", "WatchSaga", _watch_request(made.saga_id, after=last + 1))
    assert caught.value.code is grpc.StatusCode.OUT_OF_RANGE


def test_request_id_reused(stack: Stack) -> None:
    request_id = unique("reused")
    first = stack.unary("device", "CreateDevice", create_request("one", request_id=request_id))
    with pytest.raises(RPCFailure) as caught:
        stack.unary("device", "CreateDevice", create_request("two", request_id=request_id))
    failure = caught.value
    assert failure.code is grpc.StatusCode.ALREADY_EXISTS
    assert (failure.reason, failure.domain) == ("REQUEST_ID_REUSED", ERROR_DOMAIN)
    assert first.saga_id and not failure.saga_id


def test_deadline_of_the_caller(client: DeviceClient) -> None:
    """The call ends by its own deadline; the saga goes on, and its id can be learnt."""
    request_id = unique("deadline")
    with pytest.raises(RPCFailure) as caught:
        client.create("slow", request_id=request_id, options={"latency_ms": "2500"}, timeout=1.5)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    answer = client.create("slow", request_id=request_id, options={"latency_ms": "2500"}, when="ACCEPTED")
    assert status_name(client.wait_finished(answer.saga_id)) == "COMPLETED"


def test_caller_goes_away(place: World, client: DeviceClient) -> None:
    request_id = unique("cancelled")
    fields: dict[str, Any] = {"user": unique("cancelling"), "request_id": request_id, "options": {"latency_ms": "1500"}}
    pending = client.start(create_request("gone", **fields))
    wait_until(
        lambda: client.list_sagas(user_id=fields["user"]).sagas, 60, "the saga to have started"
    )
    pending.cancel()
    answer = client.create("gone", when="ACCEPTED", **fields)
    assert status_name(client.wait_finished(answer.saga_id)) == "COMPLETED"


_FAILURES: dict[str, tuple[grpc.StatusCode, str, str, dict[str, Any], ledgers.Action | None]] = {
    # case: code, reason, step, fields of the request, what the user service does with increments
    "provider refuses": (
        grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REFUSED", "CREATE_PROVIDER_DEVICE",
        {"options": {"fail": "create:refused"}}, None,
    ),
    "provider away": (
        grpc.StatusCode.ABORTED, "PROVIDER_UNAVAILABLE", "CREATE_PROVIDER_DEVICE",
        {"options": {"fail": "create:unavailable"}}, None,
    ),
    "quota refused 403": (
        grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_REFUSED", "REPORT_QUOTA_USAGE", {}, ledgers.refuse(403),
    ),
    "quota refused 409": (
        grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_REFUSED", "REPORT_QUOTA_USAGE", {}, ledgers.refuse(409),
    ),
    "quota refused 429 without Retry-After": (
        grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_REFUSED", "REPORT_QUOTA_USAGE", {}, ledgers.refuse(429),
    ),
    "user service away": (
        grpc.StatusCode.ABORTED, "QUOTA_UNAVAILABLE", "REPORT_QUOTA_USAGE", {}, ledgers.fail(503),
    ),
    "user service silent": (
        grpc.StatusCode.ABORTED, "QUOTA_UNAVAILABLE", "REPORT_QUOTA_USAGE", {}, ledgers.lose_reply(),
    ),
    "boot fails": (
        grpc.StatusCode.ABORTED, "BOOT_FAILED", "START_DEVICE", {"options": {"fail": "start:refused"}}, None,
    ),
    "too late": (
        grpc.StatusCode.ABORTED, "TIMED_OUT", "CREATE_PROVIDER_DEVICE",
        {"options": {"fail": "create:hang"}, "saga_timeout": 1}, None,
    ),
    "undo refused": (
        grpc.StatusCode.FAILED_PRECONDITION, "PARKED", "START_DEVICE",
        {"options": {"fail": "start:refused,destroy:undecidable"}}, None,
    ),
}


@pytest.fixture(scope="module")
def failed(place: World) -> dict[str, tuple[PendingCall, str]]:
    """All the failures at once: most of their time goes by between attempts."""
    client = place.servers[0].client()
    assert place.ledger
    calls = {}
    for case, (_, _, _, fields, action) in _FAILURES.items():
        user = unique("unlucky")
        if action:
            # As often as the forward direction tries: an undo must learn whether the report was counted.
            place.ledger.rule(action, operation="increment", user=user, times=4)
        calls[case] = (client.start(create_request("unlucky", user=user, **fields), timeout=60), user)
    return calls


@pytest.mark.parametrize("case", list(_FAILURES))
def test_failure(
    place: World, client: DeviceClient, failed: dict[str, tuple[PendingCall, str]], case: str
) -> None:
    code, reason, step, _, _ = _FAILURES[case]
    call, user = failed[case]
    with pytest.raises(RPCFailure) as caught:
        call.result()
    failure = caught.value
    assert (failure.code, failure.reason, failure.domain) == (code, reason, ERROR_DOMAIN), failure
    assert failure.metadata.get("step") == step, failure
    assert failure.trailers.get("grpc-retry-pushback-ms") == "-1", failure.trailers
    saga = client.saga(failure.saga_id)
    assert saga.user_id == user
    if reason == "PARKED":
        # The answer's details name the step that failed; its message and the saga, the one that needs an operator.
        assert "CREATE_PROVIDER_DEVICE could not be undone" in failure.message, failure.message
        assert status_name(saga) == "PARKED"
        assert saga.failure.step == step
        assert saga.current_step == "CREATE_PROVIDER_DEVICE"
        assert step_statuses(saga)["CREATE_PROVIDER_DEVICE"] == "COMPENSATION_FAILED"
        return
    assert status_name(saga) == "COMPENSATED"
    assert cause_name(saga) == ("TIMED_OUT" if reason == "TIMED_OUT" else "STEP_FAILED")
    assert (saga.failure.step, saga.failure.reason) == (step, reason)
    assert saga.failure.message
    row = place.saga_row(failure.saga_id)
    assert row["status"] == "COMPENSATED" and row["error_message"]
    with pytest.raises(RPCFailure) as gone:
        client.device(saga.device_id)
    assert gone.value.code is grpc.StatusCode.NOT_FOUND


def test_events_of_the_whole_saga_name_no_step(client: DeviceClient) -> None:
    with pytest.raises(RPCFailure) as caught:
        client.create(options={"fail": "start:refused,destroy:undecidable"})
    events = list(client.watch(caught.value.saga_id))
    named = {event_name(event): event.step for event in events if event_name(event).startswith("SAGA_")}
    assert set(named) == {"SAGA_STARTED", "SAGA_COMPENSATING", "SAGA_PARKED"}
    assert set(named.values()) == {""}, named


def test_retries_are_counted(place: World, client: DeviceClient) -> None:
    answer = client.create(options={"fail": "create:unavailable", "fail_times": "2"})
    saga = client.saga(answer.saga_id)
    attempts = {step.name: step.attempts for step in saga.steps}
    assert attempts == {step: 3 if step == "CREATE_PROVIDER_DEVICE" else 1 for step in STEPS}
    retrying = [event for event in client.watch(answer.saga_id) if event_name(event) == "STEP_RETRYING"]
    assert [event.attempt for event in retrying] == [1, 2] or [event.attempt for event in retrying] == [2, 3]
    assert all(event.retry_at.ToNanoseconds() >= event.time.ToNanoseconds() for event in retrying)


def test_user_service_asks_for_patience(place: World, client: DeviceClient) -> None:
    assert place.ledger
    user = unique("patient")
    place.ledger.rule(ledgers.throttle("1"), operation="increment", user=user, times=1)
    answer = client.create(user=user)
    calls = place.ledger.calls_for(answer.device.device_id)
    assert [call.operation for call in calls] == ["increment", "increment"]
    assert calls[0].key == calls[1].key
    assert calls[1].at - calls[0].at >= 1


def test_report_to_the_user_service(place: World, client: DeviceClient) -> None:
    assert place.ledger
    user = unique("counted user/ü")
    answer = client.create(
        user=user, spec=device_pb2.DeviceSpec(cpu_cores=4, memory_mb=6144, storage_mb=20480)
    )
    (call,) = place.ledger.calls_for(answer.device.device_id)
    assert call.user == user
    assert call.body["operation"] == "increment"
    assert (call.body["cpuCores"], call.body["memoryGB"], call.body["storageGB"]) == (4, 6, 20)


def test_without_user_service(make_world: Callable[..., World]) -> None:
    world = make_world(user_service=False)
    client = world.server().client()
    answer = client.create()
    saga = client.saga(answer.saga_id)
    assert step_statuses(saga) == {
        step: "SKIPPED" if step == "REPORT_QUOTA_USAGE" else "SUCCEEDED" for step in STEPS
    }
    with pytest.raises(RPCFailure):
        client.create(options={"fail": "start:refused"})
    world.audit(client)


def test_user_service_that_ignores_keys(world: World) -> None:
    """The default: a report in doubt parks, and is neither repeated nor undone blindly."""
    assert world.ledger
    client = world.server(environment={"USER_SERVICE_IDEMPOTENT": "false"}).client()
    world.ledger.rule(ledgers.lose_reply(), operation="increment", times=1)
    with pytest.raises(RPCFailure) as caught:
        client.create()
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PARKED"), caught.value
    assert caught.value.metadata["step"] == "REPORT_QUOTA_USAGE"
    saga = client.saga(caught.value.saga_id)
    assert status_name(saga) == "PARKED"
    assert [call.operation for call in world.ledger.calls_for(saga.device_id)] == ["increment"]
    # Nothing else is in doubt: a definite no, and a fine one.
    world.ledger.rule(ledgers.refuse(), operation="increment", times=1)
    with pytest.raises(RPCFailure) as refused:
        client.create()
    assert refused.value.reason == "QUOTA_REFUSED"
    assert device_status(client.create().device) == "RUNNING"
    world.audit(client)


def test_audit(place: World, client: DeviceClient) -> None:
    """Last in the file: what all the tests above left behind."""
    place.wait_all_over(timeout=60)
    assert place.ledger
    assert not place.ledger.bad_requests
    findings = place.audit(client)
    assert findings.count("COMPLETED") > 20
    assert findings.count("COMPENSATED") >= 8
