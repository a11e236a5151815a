"""Creates many devices on one CreateDevices stream, and keeps a results file by name. Killed in the middle and run again
with the same batch id it goes on where it was: one device a name.

    PYTHONPATH=. python examples/batch_creator.py 127.0.0.1:50051 demo 100 me results.json

Stubs are made as in create_and_watch.py.
"""

import json
import os
import sys
import time
from collections.abc import Iterator

import grpc
from cloudphone.device.v1 import device_service_pb2 as service
from cloudphone.device.v1 import device_service_pb2_grpc as stubs
from google.rpc import error_details_pb2, status_pb2


def requests(batch: str, names: list[str], user: str) -> Iterator[service.CreateDeviceRequest]:
    for name in names:
        yield service.CreateDeviceRequest(
            # The same name has the same request id in every run: the server makes nothing twice.
            request_id=f"{batch}/{name}", batch_id=batch, name=name, user_id=user,
            return_when=service.RETURN_WHEN_FINISHED,
        )


def reason(error: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in error.details:
        detail.Unpack(info)
    return info.reason


def is_worth_repeating(error: status_pb2.Status) -> bool:
    """Nothing has failed: the server is going away, or can't reach its database."""
    return error.code == grpc.StatusCode.UNAVAILABLE.value[0]


def save(results: dict[str, dict[str, object]], path: str) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    os.replace(path + ".new", path)


def main() -> None:
    address, batch, count, user, path = sys.argv[1:]
    names = [f"{batch}-{number:04}" for number in range(1, int(count) + 1)]
    results: dict[str, dict[str, object]] = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
    with grpc.insecure_channel(address) as channel:
        stub = stubs.DeviceServiceStub(channel)
        while missing := [name for name in names if name not in results]:
            try:
                # Results come in any order, each when its device runs or is undone.
                for result in stub.CreateDevices(requests(batch, missing, user)):
                    if is_worth_repeating(result.error):
                        continue
                    connection = result.device.connection
                    results[result.name] = {
                        "saga_id": result.saga_id, "device_id": result.device.device_id,
                        "adb": f"{connection.host}:{connection.adb_port}" if connection.host else "",
                        "reason": reason(result.error), "message": result.error.message,
                    }
                    save(results, path)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise SystemExit(f"{error.code().name}: {error.details()}") from None
                print("the server is away, the rest is asked for again", file=sys.stderr)
            if any(name not in results for name in names):
                time.sleep(0.5)
    made = [name for name in names if results[name]["device_id"]]
    print(f"{len(made)} of {len(names)} made")
    for name in names:
        if name not in made:
            print(name, results[name]["reason"], results[name]["message"])
    sys.exit(0 if len(made) == len(names) else 1)


if __name__ == "__main__":
    main()
