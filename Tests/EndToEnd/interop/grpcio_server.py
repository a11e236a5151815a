"""grpc.testing.TestService written with grpcio: what our client's cases run against.

A handler of grpcio cannot see whether a request came compressed, so the probes of client_compressed_unary and
client_compressed_streaming can't be answered as they ask (docs/interop.md).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from support.stubs import interop_grpcio, interop_pb2

INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"


class TestService(interop_grpcio.TestServiceServicer):
    def EmptyCall(self, request: Any, context: grpc.ServicerContext) -> Any:
        _echo(context)
        return interop_pb2.Empty()

    def UnaryCall(self, request: Any, context: grpc.ServicerContext) -> Any:
        _echo(context)
        _fail_if_asked(request, context)
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        return interop_pb2.SimpleResponse(payload=_payload(request.response_size))

    def StreamingOutputCall(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        _echo(context)
        if any(one.compressed.value for one in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        yield from _responses(request, context)

    def StreamingInputCall(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        _echo(context)
        size = sum(len(request.payload.body) for request in requests)
        return interop_pb2.StreamingInputCallResponse(aggregated_payload_size=size)

    def FullDuplexCall(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        _echo(context)
        for request in requests:
            _fail_if_asked(request, context)
            yield from _responses(request, context)


def _echo(context: grpc.ServicerContext) -> None:
    metadata = list(context.invocation_metadata())
    initial = [(key, value) for key, value in metadata if key == INITIAL]
    if initial:
        context.send_initial_metadata(initial)
    context.set_trailing_metadata([(key, value) for key, value in metadata if key == TRAILING])


def _fail_if_asked(request: Any, context: grpc.ServicerContext) -> None:
    status = request.response_status
    if status.code:
        context.abort(next(code for code in grpc.StatusCode if code.value[0] == status.code), status.message)


def _responses(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
    for one in request.response_parameters:
        time.sleep(one.interval_us / 1e6)
        if one.HasField("compressed") and not one.compressed.value:
            context.disable_next_message_compression()
        yield interop_pb2.StreamingOutputCallResponse(payload=_payload(one.size))


def _payload(size: int) -> Any:
    return interop_pb2.Payload(body=bytes(size))


@contextlib.contextmanager
def grpcio_server() -> Iterator[int]:
    """Serves on a free port, and gives it."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    interop_grpcio.add_TestServiceServicer_to_server(TestService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(10)
