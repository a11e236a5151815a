"""Creates one device, or many, from a template, which is a CreateDeviceRequest in JSON: checks it first, starts all on one
CreateDevices stream, and follows them on one WatchSagas stream.

    PYTHONPATH=. python examples/template_creator.py 127.0.0.1:50051 examples/phone.json demo 10

Stubs are made as in create_and_watch.py.
"""

import sys
import time

import grpc
from cloudphone.device.v1 import device_service_pb2 as service
from cloudphone.device.v1 import device_service_pb2_grpc as stubs
from cloudphone.device.v1 import saga_pb2
from google.protobuf import json_format

RESTING = (saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_PARKED)


def from_template(path: str, batch: str, number: int) -> service.CreateDeviceRequest:
    with open(path, encoding="utf-8") as file:
        request = json_format.Parse(file.read(), service.CreateDeviceRequest())
    request.name = f"{batch}-{number:04}"
    request.request_id = f"{batch}/{number}"
    request.batch_id = batch
    request.return_when = service.RETURN_WHEN_ACCEPTED
    return request


def check(stub: stubs.DeviceServiceStub, request: service.CreateDeviceRequest) -> None:
    """What is wrong with the template is told before anything starts."""
    # A server that doesn't know this doesn't know validate_only either, and would create.
    stub.BatchGetDevices(service.BatchGetDevicesRequest(), timeout=30)
    question = service.CreateDeviceRequest()
    question.CopyFrom(request)
    question.validate_only = True
    stub.CreateDevice(question, timeout=30)


def start(stub: stubs.DeviceServiceStub, requests: list[service.CreateDeviceRequest]) -> dict[str, str]:
    """The saga of each request, by request id. What has no result yet is asked for again under the same id."""
    sagas: dict[str, str] = {}
    while rest := [request for request in requests if request.request_id not in sagas]:
        try:
            for result in stub.CreateDevices(iter(rest)):
                if result.error.code not in (0, grpc.StatusCode.UNAVAILABLE.value[0]):
                    raise SystemExit(f"{result.name}: {result.error.message}")
                if result.saga_id:
                    sagas[result.request_id] = result.saga_id
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        if len(sagas) < len(requests):
            time.sleep(0.5)
    return sagas


def follow(stub: stubs.DeviceServiceStub, batch: str) -> dict[str, saga_pb2.Saga]:
    """Every saga of the batch, once none of them moves any more. A stream that was lost begins with all as they are."""
    while True:
        sagas: dict[str, saga_pb2.Saga] = {}
        try:
            for update in stub.WatchSagas(service.WatchSagasRequest(batch_id=batch, end_when_done=True)):
                if update.HasField("saga"):
                    sagas[update.saga.saga_id] = update.saga
                elif update.HasField("event"):
                    saga, event = sagas[update.event.saga_id], update.event
                    saga.status = event.saga_status
                    if event.reason and event.saga_status != saga_pb2.SAGA_STATUS_RUNNING:
                        saga.failure.reason = event.reason
                    if saga.status in RESTING:
                        print(saga.request_id, saga_pb2.SagaStatus.Name(saga.status), saga.failure.reason)
            return sagas
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.5)


def main() -> None:
    address, template, batch, count = sys.argv[1:]
    requests = [from_template(template, batch, number) for number in range(1, int(count) + 1)]
    with grpc.insecure_channel(address) as channel:
        stub = stubs.DeviceServiceStub(channel)
        try:
            check(stub, requests[0])
            start(stub, requests)
            sagas = follow(stub, batch)
        except grpc.RpcError as error:
            raise SystemExit(f"{error.code().name}: {error.details()}") from None
        ids = [saga.device_id for saga in sagas.values() if saga.status == saga_pb2.SAGA_STATUS_COMPLETED]
        # Up to a thousand at a time.
        for first in range(0, len(ids), 1000):
            some = service.BatchGetDevicesRequest(device_ids=ids[first : first + 1000])
            for device in stub.BatchGetDevices(some, timeout=30).devices:
                print(device.name, device.device_id, device.saga_id, f"{device.connection.host}:{device.connection.adb_port}")
    print(f"{len(ids)} of {len(requests)} made")
    sys.exit(0 if len(ids) == len(requests) else 1)


if __name__ == "__main__":
    main()
