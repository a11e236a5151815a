"""The contract's messages, generated for this run, and a client that calls by name."""

from __future__ import annotations

import atexit
import base64
import hashlib
import hmac
import importlib
import json
import pathlib
import shutil
import sys
import tempfile
import time

import grpc
from grpc_tools import protoc

from .service import ROOT, SECRET


def _generate() -> pathlib.Path:
    output = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-bench-stubs-"))
    atexit.register(shutil.rmtree, output, ignore_errors=True)
    bundled = pathlib.Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(path) for path in (ROOT / "proto" / "cloudphone").rglob("*.proto"))
    arguments = ["protoc", f"--proto_path={ROOT / 'proto'}", f"--proto_path={bundled}", f"--python_out={output}", *sources]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    return output


sys.path.append(str(_generate()))
device_pb2, saga_pb2, service_pb2 = (
    importlib.import_module(f"cloudphone.device.v1.{name}_pb2") for name in ("device", "saga", "device_service"))


class Client:
    """One connection."""

    def __init__(self, address: str, token: str = "") -> None:
        self._channel = grpc.insecure_channel(
            address, [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)])
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, method: str, request, timeout: float = 10):
        """Raises unless it is answered with OK."""
        if method not in self._methods:
            answer = service_pb2.DESCRIPTOR.services_by_name["DeviceService"].methods_by_name[method].output_type
            self._methods[method] = self._channel.unary_unary(
                f"/cloudphone.device.v1.DeviceService/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=sys.modules[f"cloudphone.device.v1.{pathlib.Path(answer.file.name).stem}_pb2"]
                .__dict__[answer.name].FromString)
        return self._methods[method](request, timeout=timeout, metadata=self._metadata, wait_for_ready=True)


def token(**claims: object) -> str:
    """A JWT, HS256."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    body = {"iss": "cloudphone-platform", "exp": int(time.time()) + 3600, **claims}
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(body).encode())
    return (signed + b"." + part(hmac.digest(SECRET.encode(), signed, hashlib.sha256))).decode()


def user_token(user: str, tenant: str, *roles: str) -> str:
    return token(aud="cloudphone-users", sub=user, tenantId=tenant, roles=list(roles))


def service_token() -> str:
    return token(aud="internal-services", service="bench")
