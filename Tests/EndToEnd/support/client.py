"""A grpcio client of the service, with errors as the contract describes them."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc

from .stubs import (
    device_pb2,
    error_details_pb2,
    health_grpcio,
    health_pb2,
    saga_pb2,
    service_grpcio,
    service_pb2,
    status_pb2,
)

ERROR_DOMAIN = "device.cloudphone"
STEPS = (
    "ALLOCATE_PORTS",
    "CREATE_PROVIDER_DEVICE",
    "CREATE_DATABASE_RECORD",
    "REPORT_QUOTA_USAGE",
    "START_DEVICE",
)
START_STEPS = ("CLAIM_DEVICE", "START_DEVICE", "UPDATE_DATABASE_RECORD")
STOP_STEPS = ("CLAIM_DEVICE", "STOP_DEVICE", "UPDATE_DATABASE_RECORD")
RESTART_STEPS = ("CLAIM_DEVICE", "STOP_DEVICE", "START_DEVICE", "UPDATE_DATABASE_RECORD")
DELETION_STEPS = ("CLAIM_DEVICE", "DESTROY_PROVIDER_DEVICE", "RELEASE_QUOTA", "REMOVE_DATABASE_RECORD")

_numbers = itertools.count(1)

# A channel of its own per client, and no retries behind the tests' back.
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


@dataclasses.dataclass
class RPCFailure(Exception):
    """A call's status other than OK, with its details taken apart."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    violations: Sequence[tuple[str, str]] = ()
    retry_delay: float | None = None
    trailers: Mapping[str, str | bytes] = dataclasses.field(default_factory=dict)
    details: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{self.code.name} {self.reason} {dict(self.metadata)} {list(self.violations)}: {self.message}"

    @property
    def fields(self) -> set[str]:
        return {field for field, _ in self.violations}

    @property
    def saga_id(self) -> str:
        return self.metadata.get("saga_id", "")


def failure_from(code: grpc.StatusCode, message: str, trailers: Mapping[str, str | bytes]) -> RPCFailure:
    """Takes grpc-status-details-bin apart."""
    failure = RPCFailure(code, message or "", trailers=trailers)
    packed = trailers.get("grpc-status-details-bin")
    if packed is None:
        return failure
    assert isinstance(packed, bytes)
    status = status_pb2.Status.FromString(packed)
    assert status.code == code.value[0], f"grpc-status {code} and google.rpc.Status {status.code} differ"
    assert status.message == failure.message, f"{status.message!r} is not grpc-message {failure.message!r}"
    failure.details = [entry.type_url for entry in status.details]
    for entry in status.details:
        if entry.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            entry.Unpack(info)
            failure.reason, failure.domain, failure.metadata = info.reason, info.domain, dict(info.metadata)
        elif entry.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            entry.Unpack(bad)
            failure.violations = [(one.field, one.description) for one in bad.field_violations]
        elif entry.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            entry.Unpack(retry)
            failure.retry_delay = retry.retry_delay.ToTimedelta().total_seconds()
    return failure


def _from_error(error: grpc.RpcError) -> RPCFailure:
    call: Any = error
    trailers = {key: value for key, value in (call.trailing_metadata() or ())}
    return failure_from(call.code(), call.details(), trailers)


def create_request(
    name: str = "",
    *,
    user: str = "user-1",
    when: str = "FINISHED",
    options: Mapping[str, str] | None = None,
    saga_timeout: float | None = None,
    **fields: Any,
) -> Any:
    """A CreateDeviceRequest. `when` is a ReturnWhen without its prefix; `fields` are the message's own."""
    request = service_pb2.CreateDeviceRequest(
        name=name or f"phone {next(_numbers)}",
        user_id=user,
        return_when=service_pb2.ReturnWhen.Value(f"RETURN_WHEN_{when}"),
        provider_options=options or {},
        **fields,
    )
    if saga_timeout is not None:
        request.saga_timeout.FromNanoseconds(int(saga_timeout * 1e9))
    return request


def delete_request(device_id: str, **fields: Any) -> Any:
    return operation_request("DeleteDevice", device_id, **fields)


def operation_request(
    method: str, device_id: str, *, when: str = "FINISHED", request_id: str = "", saga_timeout: float | None = None,
) -> Any:
    """The request of a method that does something with a device. `when` is a ReturnWhen without its prefix."""
    request = getattr(service_pb2, f"{method}Request")(
        device_id=device_id, return_when=service_pb2.ReturnWhen.Value(f"RETURN_WHEN_{when}"), request_id=request_id,
    )
    if saga_timeout is not None:
        request.saga_timeout.FromNanoseconds(int(saga_timeout * 1e9))
    return request


class DeviceClient:
    """Calls of DeviceService; every failure is an RPCFailure. `metadata` goes with each call, e.g. a token."""

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.address = address
        self.metadata = tuple(metadata)
        self.channel = (
            grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
            if credentials else grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        )
        self.stub = service_grpcio.DeviceServiceStub(self.channel)
        self.admin = service_grpcio.DeviceAdminServiceStub(self.channel)
        self._health = health_grpcio.HealthStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> DeviceClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, request: Any, timeout: float = 60, service: Any = None) -> Any:
        try:
            return getattr(service or self.stub, method)(request, timeout=timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            raise _from_error(error) from None

    def start(self, request: Any, timeout: float = 60) -> Any:
        """CreateDevice without waiting: a future with `result()`."""
        return PendingCall(self.stub.CreateDevice.future(request, timeout=timeout, metadata=self.metadata))

    def create(self, name: str = "", *, timeout: float = 60, **fields: Any) -> Any:
        return self.call("CreateDevice", create_request(name, **fields), timeout)

    def delete(self, device_id: str, *, timeout: float = 60, **fields: Any) -> Any:
        return self.call("DeleteDevice", delete_request(device_id, **fields), timeout)

    def start_delete(self, device_id: str, *, timeout: float = 60, **fields: Any) -> Any:
        """DeleteDevice without waiting: a future with `result()`."""
        request = delete_request(device_id, **fields)
        return PendingCall(self.stub.DeleteDevice.future(request, timeout=timeout, metadata=self.metadata))

    def operate(self, method: str, device_id: str, *, timeout: float = 60, **fields: Any) -> Any:
        """StartDevice, StopDevice or RestartDevice."""
        return self.call(method, operation_request(method, device_id, **fields), timeout)

    def start_operation(self, method: str, device_id: str, *, timeout: float = 60, **fields: Any) -> Any:
        """The same without waiting: a future with `result()`."""
        call = getattr(self.stub, method)
        return PendingCall(
            call.future(operation_request(method, device_id, **fields), timeout=timeout, metadata=self.metadata))

    def saga(self, saga_id: str, timeout: float = 30) -> Any:
        return self.call("GetSaga", service_pb2.GetSagaRequest(saga_id=saga_id), timeout)

    def sagas(self, saga_ids: Sequence[str], timeout: float = 30) -> Any:
        return self.call("BatchGetSagas", service_pb2.BatchGetSagasRequest(saga_ids=saga_ids), timeout)

    def list_sagas(self, timeout: float = 30, **fields: Any) -> Any:
        return self.call("ListSagas", service_pb2.ListSagasRequest(**fields), timeout)

    def device(self, device_id: str, timeout: float = 30) -> Any:
        return self.call("GetDevice", service_pb2.GetDeviceRequest(device_id=device_id), timeout)

    def list_devices(self, timeout: float = 30, **fields: Any) -> Any:
        return self.call("ListDevices", service_pb2.ListDevicesRequest(**fields), timeout)

    def watch(self, saga_id: str, after: int = 0, timeout: float = 60) -> Iterator[Any]:
        """Events until the stream ends with OK; any other end is an RPCFailure."""
        request = service_pb2.WatchSagaRequest(saga_id=saga_id, after_sequence=after)
        call = self.stub.WatchSaga(request, timeout=timeout, metadata=self.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _from_error(error) from None
        finally:
            call.cancel()

    def wait_finished(self, saga_id: str, timeout: float = 60) -> Any:
        """Waits until the saga is terminal or parked, by asking; returns it."""
        deadline = time.monotonic() + timeout
        while True:
            saga = self.saga(saga_id)
            if is_over(saga):
                return saga
            if time.monotonic() > deadline:
                raise AssertionError(f"{saga_id} is still {status_name(saga)} after {timeout:g} s:\n{saga}")
            time.sleep(0.05)

    def health(self, service: str = "", timeout: float = 5) -> str:
        """SERVING, NOT_SERVING, …; the status code's name if there is no answer."""
        try:
            answer = self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        except grpc.RpcError as error:
            return str(_from_error(error).code.name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def watch_health(self, service: str = "", timeout: float = 30) -> Any:
        return self._health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=timeout)


class PendingCall:
    """A unary call under way."""

    def __init__(self, future: Any) -> None:
        self._future = future

    @property
    def is_done(self) -> bool:
        return bool(self._future.done())

    def cancel(self) -> None:
        self._future.cancel()

    def result(self) -> Any:
        """The answer, or its RPCFailure, once it is there."""
        try:
            return self._future.result()
        except grpc.RpcError as error:
            raise _from_error(error) from None

    def initial_metadata(self) -> dict[str, str | bytes]:
        return {key: value for key, value in self._future.initial_metadata() or ()}

    def outcome(self) -> Any:
        """The answer or its RPCFailure, as a value."""
        try:
            return self.result()
        except RPCFailure as failure:
            return failure


def is_over(saga: Any) -> bool:
    return status_name(saga) in ("COMPLETED", "COMPENSATED", "PARKED")


def status_name(saga: Any) -> str:
    return str(saga_pb2.SagaStatus.Name(saga.status)).removeprefix("SAGA_STATUS_")


def step_statuses(saga: Any) -> dict[str, str]:
    return {step.name: str(saga_pb2.StepStatus.Name(step.status)).removeprefix("STEP_STATUS_") for step in saga.steps}


def event_name(event: Any) -> str:
    return str(saga_pb2.SagaEventType.Name(event.type)).removeprefix("SAGA_EVENT_TYPE_")


def cause_name(saga: Any) -> str:
    return str(saga_pb2.FailureCause.Name(saga.failure.cause)).removeprefix("FAILURE_CAUSE_")


def device_status(device: Any) -> str:
    return str(device_pb2.DeviceStatus.Name(device.status)).removeprefix("DEVICE_STATUS_")


def unique(prefix: str) -> str:
    """A name that no other test run uses."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"
