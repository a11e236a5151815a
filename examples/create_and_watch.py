"""Creates a device and follows its saga, across lost connections, with nothing but grpcio and the contract.

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -Iproto --python_out=. --grpc_python_out=. \
        proto/cloudphone/device/v1/{device,saga,device_service}.proto proto/google/rpc/*.proto
    PYTHONPATH=. python examples/create_and_watch.py 127.0.0.1:50051 my-phone me
"""

import sys
import time
import uuid

import grpc
from cloudphone.device.v1 import device_service_pb2 as service
from cloudphone.device.v1 import device_service_pb2_grpc as stubs
from cloudphone.device.v1 import saga_pb2
from google.rpc import error_details_pb2, status_pb2

UNDER_WAY = (saga_pb2.SAGA_STATUS_RUNNING, saga_pb2.SAGA_STATUS_COMPENSATING)


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """The reason to branch on, and in its metadata the saga, if one ran."""
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
    return info


def create(stub: stubs.DeviceServiceStub, request: service.CreateDeviceRequest) -> service.CreateDeviceResponse:
    """Repeats the call under the same request_id while no saga is known to have started: never a second device."""
    while True:
        try:
            return stub.CreateDevice(request, timeout=30)
        except grpc.RpcError as error:
            info = error_info(error)
            is_worth_repeating = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if "saga_id" in info.metadata or not (is_worth_repeating or info.reason == "OVERLOADED"):
                raise SystemExit(f"{error.code().name} {info.reason}: {error.details()}") from None
            time.sleep(1)


def watch(stub: stubs.DeviceServiceStub, saga_id: str) -> int:
    """Prints every event once and in order, and returns the saga's last status."""
    sequence, status = 0, saga_pb2.SAGA_STATUS_RUNNING
    while status in UNDER_WAY:
        try:
            for event in stub.WatchSaga(service.WatchSagaRequest(saga_id=saga_id, after_sequence=sequence)):
                sequence, status = event.sequence, event.saga_status
                print(sequence, saga_pb2.SagaEventType.Name(event.type), event.step, event.reason, event.message)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.5)
    return status


def main() -> None:
    address, name, user = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        stub = stubs.DeviceServiceStub(channel)
        request = service.CreateDeviceRequest(
            request_id=str(uuid.uuid4()), name=name, user_id=user, return_when=service.RETURN_WHEN_ACCEPTED
        )
        accepted = create(stub, request)
        print("saga", accepted.saga_id, "device", accepted.device.device_id)
        status = watch(stub, accepted.saga_id)
        print(saga_pb2.SagaStatus.Name(status))
        if status == saga_pb2.SAGA_STATUS_COMPLETED:
            print(stub.GetDevice(service.GetDeviceRequest(device_id=accepted.device.device_id)).connection)
    sys.exit(0 if status == saga_pb2.SAGA_STATUS_COMPLETED else 1)


if __name__ == "__main__":
    main()
