"""Two gRPC implementations behind one small interface: grpcio (C core) and grpclib (pure Python on h2)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import grpc
import grpclib.client
import grpclib.exceptions
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.encoding.proto import ProtoCodec

from .client import CHANNEL_OPTIONS, RPCFailure, failure_from
from .stubs import health_grpcio, health_grpclib, service_grpcio, service_grpclib


class Stack(Protocol):
    """Calls by service ("device", "admin", "health") and method; a status other than OK is an RPCFailure."""

    name: str

    def unary(self, service: str, method: str, request: Any, timeout: float = 30) -> Any: ...

    def streaming(self, service: str, method: str, request: Any, timeout: float = 30, limit: int = 0) -> list[Any]:
        """All messages of the stream; after `limit` of them (0: all) it is cancelled."""
        ...

    def close(self) -> None: ...


class GrpcioStack:
    name = "grpcio"

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stubs = {
            "device": service_grpcio.DeviceServiceStub(self._channel),
            "admin": service_grpcio.DeviceAdminServiceStub(self._channel),
            "health": health_grpcio.HealthStub(self._channel),
        }

    @staticmethod
    def _failure(error: Any) -> RPCFailure:
        return failure_from(error.code(), error.details(), dict(error.trailing_metadata() or ()))

    def unary(self, service: str, method: str, request: Any, timeout: float = 30) -> Any:
        try:
            return getattr(self._stubs[service], method)(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._failure(error) from None

    def streaming(self, service: str, method: str, request: Any, timeout: float = 30, limit: int = 0) -> list[Any]:
        call = getattr(self._stubs[service], method)(request, timeout=timeout)
        messages: list[Any] = []
        try:
            for message in call:
                messages.append(message)
                if len(messages) == limit:
                    break
        except grpc.RpcError as error:
            raise self._failure(error) from None
        finally:
            call.cancel()
        return messages

    def close(self) -> None:
        self._channel.close()


class _RawDetails(StatusDetailsCodecBase):
    """Hands grpc-status-details-bin on as it is; failure_from takes it apart."""

    def encode(self, status: Any, message: str | None, details: Any) -> bytes:
        raise NotImplementedError

    def decode(self, status: Any, message: str | None, data: bytes) -> Any:
        return data


class GrpclibStack:
    name = "grpclib"

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="grpclib", daemon=True).start()
        self._channel: grpclib.client.Channel = self._await(self._open())
        self._stubs: Mapping[str, Any] = {
            "device": service_grpclib.DeviceServiceStub(self._channel),
            "admin": service_grpclib.DeviceAdminServiceStub(self._channel),
            "health": health_grpclib.HealthStub(self._channel),
        }

    async def _open(self) -> grpclib.client.Channel:
        return grpclib.client.Channel(
            self._host, self._port, codec=ProtoCodec(), status_details_codec=_RawDetails()
        )

    def _await(self, coroutine: Any, timeout: float = 60) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def unary(self, service: str, method: str, request: Any, timeout: float = 30) -> Any:
        messages = self._await(self._run(getattr(self._stubs[service], method), request, timeout, 0))
        assert len(messages) == 1
        return messages[0]

    def streaming(self, service: str, method: str, request: Any, timeout: float = 30, limit: int = 0) -> list[Any]:
        return list(self._await(self._run(getattr(self._stubs[service], method), request, timeout, limit)))

    async def _run(self, method: Any, request: Any, timeout: float, limit: int) -> list[Any]:
        messages: list[Any] = []
        try:
            async with method.open(timeout=timeout) as stream:
                await stream.send_message(request, end=True)
                while (message := await stream.recv_message()) is not None:
                    messages.append(message)
                    if len(messages) == limit:
                        await stream.cancel()
                        break
        except grpclib.exceptions.GRPCError as error:
            # grpclib keeps grpc-* trailers to itself; what it hands out of them is the details.
            trailers = {"grpc-status-details-bin": error.details} if error.details else {}
            raise failure_from(_code(error.status.value), error.message or "", trailers) from None
        return messages

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._channel.close)
        self._loop.call_soon_threadsafe(self._loop.stop)


def _code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


STACKS: Mapping[str, Callable[[str], Stack]] = {"grpcio": GrpcioStack, "grpclib": GrpclibStack}
