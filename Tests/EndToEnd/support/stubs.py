"""Python stubs of the contract, and of gRPC's TestService, generated into a temporary folder: what any client would do."""

from __future__ import annotations

import atexit
import importlib
import pathlib
import shutil
import sys
import tempfile
from types import ModuleType

from grpc_tools import protoc

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


def _generate() -> pathlib.Path:
    stage = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-stubs-"))
    atexit.register(shutil.rmtree, stage, ignore_errors=True)
    sources, output = stage / "proto", stage / "python"
    output.mkdir()
    shutil.copytree(REPOSITORY / "proto", sources)
    shutil.copy(REPOSITORY / "Tests/InteropMessages/proto/interop.proto", sources)
    # grpcio's own package is called grpc: the two protocols of that name get another folder, not another package.
    if (sources / "grpc").exists():
        (sources / "grpc").rename(sources / "grpc_protocols")
    files = sorted(str(path.relative_to(sources)) for path in sources.rglob("*.proto"))
    files = [name for name in files if not name.startswith("google/protobuf/")]
    plugin = pathlib.Path(sys.executable).parent / "protoc-gen-grpclib_python"
    bundled = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(
        [
            "protoc", f"--proto_path={sources}", f"--proto_path={bundled}",
            f"--plugin=protoc-gen-grpclib_python={plugin}",
            f"--python_out={output}", f"--grpc_python_out={output}", f"--grpclib_python_out={output}", *files,
        ]
    )
    assert code == 0, f"protoc failed on {files}"
    return output


_folder = _generate()
sys.path.append(str(_folder))


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


device_pb2 = _module("cloudphone.device.v1.device_pb2")
saga_pb2 = _module("cloudphone.device.v1.saga_pb2")
service_pb2 = _module("cloudphone.device.v1.device_service_pb2")
service_grpcio = _module("cloudphone.device.v1.device_service_pb2_grpc")
service_grpclib = _module("cloudphone.device.v1.device_service_grpc")
status_pb2 = _module("google.rpc.status_pb2")
error_details_pb2 = _module("google.rpc.error_details_pb2")
health_pb2 = _module("grpc_protocols.health.v1.health_pb2")
health_grpcio = _module("grpc_protocols.health.v1.health_pb2_grpc")
health_grpclib = _module("grpc_protocols.health.v1.health_grpc")
interop_pb2 = _module("interop_pb2")
interop_grpcio = _module("interop_pb2_grpc")
interop_grpclib = _module("interop_grpc")
