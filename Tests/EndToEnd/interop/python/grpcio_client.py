"""The interop cases by grpcio (gRPC's C core)."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from support.stubs import interop_grpcio, interop_pb2

from . import values

Code = grpc.StatusCode


class GrpcioClient:
    """A case is a method of that name. Channels that it opens are closed with the client."""

    def __init__(self, address: str, iterations: int, ca_file: str | None = None) -> None:
        self._address = address
        self._iterations = iterations
        self._ca_file = ca_file
        self._channels: list[grpc.Channel] = []

    def _channel(self) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        if self._ca_file:
            with open(self._ca_file, "rb") as file:
                credentials = grpc.ssl_channel_credentials(file.read())
            channel = grpc.secure_channel(self._address, credentials, options)
        else:
            channel = grpc.insecure_channel(self._address, options)
        self._channels.append(channel)
        return channel

    def _stub(self) -> Any:
        return interop_grpcio.TestServiceStub(self._channel())

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    # The cases

    def empty_unary(self) -> None:
        assert self._stub().EmptyCall(interop_pb2.Empty()) == interop_pb2.Empty()

    def large_unary(self) -> None:
        _large_unary(self._stub())

    def client_compressed_unary(self) -> None:
        stub = self._stub()
        assert _failure(lambda: stub.UnaryCall(values.large_request(expect=True))) == Code.INVALID_ARGUMENT
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            _large_unary(stub, values.large_request(expect=True), compression=compression)
        _large_unary(stub, values.large_request(expect=False), compression=grpc.Compression.NoCompression)

    def server_compressed_unary(self) -> None:
        stub = self._stub()
        _large_unary(stub, values.large_request(response=True))
        _large_unary(stub, values.large_request(response=False))

    def client_streaming(self) -> None:
        requests = (interop_pb2.StreamingInputCallRequest(payload=values.payload(size)) for size in values.INPUT_SIZES)
        assert self._stub().StreamingInputCall(requests).aggregated_payload_size == 74922

    def server_streaming(self) -> None:
        responses = list(self._stub().StreamingOutputCall(values.output_request(*values.OUTPUT_SIZES)))
        assert len(responses) == len(values.OUTPUT_SIZES)
        for response, size in zip(responses, values.OUTPUT_SIZES, strict=True):
            values.check_payload(response, size)

    def server_compressed_streaming(self) -> None:
        request = values.output_request(31415, 92653, compressed=(True, False))
        first, second = self._stub().StreamingOutputCall(request)
        values.check_payload(first, 31415)
        values.check_payload(second, 92653)

    def ping_pong(self) -> None:
        requests = _Requests()
        responses = self._stub().FullDuplexCall(requests)
        for response_size, size in values.PING_PONG:
            requests.send(values.output_request(response_size, size=size))
            values.check_payload(next(responses), response_size)
        requests.end()
        assert next(responses, None) is None
        assert responses.code() == Code.OK

    def empty_stream(self) -> None:
        responses = self._stub().FullDuplexCall(iter(()))
        assert list(responses) == []
        assert responses.code() == Code.OK

    def custom_metadata(self) -> None:
        stub = self._stub()
        metadata = (values.INITIAL, values.TRAILING)

        def check(call: Any) -> None:
            assert values.INITIAL in call.initial_metadata()
            assert values.TRAILING in call.trailing_metadata()

        response, call = stub.UnaryCall.with_call(values.large_request(), metadata=metadata)
        values.check_payload(response, 314159)
        check(call)
        duplex = stub.FullDuplexCall(iter([values.output_request(314159, size=271828)]), metadata=metadata)
        (response,) = duplex
        values.check_payload(response, 314159)
        check(duplex)

    def status_code_and_message(self) -> None:
        stub = self._stub()
        request = values.status_request(interop_pb2.SimpleRequest, values.STATUS)
        assert _status(lambda: stub.UnaryCall(request)) == values.STATUS
        request = values.status_request(interop_pb2.StreamingOutputCallRequest, values.STATUS)
        assert _status(lambda: list(stub.FullDuplexCall(iter([request])))) == values.STATUS

    def special_status_message(self) -> None:
        request = values.status_request(interop_pb2.SimpleRequest, values.SPECIAL_STATUS)
        assert _status(lambda: self._stub().UnaryCall(request)) == values.SPECIAL_STATUS

    def unimplemented_method(self) -> None:
        assert _failure(lambda: self._stub().UnimplementedCall(interop_pb2.Empty())) == Code.UNIMPLEMENTED

    def unimplemented_service(self) -> None:
        stub = interop_grpcio.UnimplementedServiceStub(self._channel())
        assert _failure(lambda: stub.UnimplementedCall(interop_pb2.Empty())) == Code.UNIMPLEMENTED

    def cancel_after_begin(self) -> None:
        requests = _Requests()
        call = self._stub().StreamingInputCall.future(requests)
        call.cancel()
        assert call.code() == Code.CANCELLED
        requests.end()

    def cancel_after_first_response(self) -> None:
        stub = self._stub()
        requests = _Requests()
        responses = stub.FullDuplexCall(requests)
        requests.send(values.output_request(31415, size=27182))
        values.check_payload(next(responses), 31415)
        responses.cancel()
        assert _failure(lambda: next(responses)) == Code.CANCELLED
        requests.end()
        _large_unary(stub)  # the connection lives on

    def timeout_on_sleeping_server(self) -> None:
        stub = self._stub()
        _large_unary(stub)  # the connection stands
        requests = _Requests()
        responses = stub.FullDuplexCall(requests, timeout=0.001)
        requests.send(values.output_request(size=27182))
        assert _failure(lambda: list(responses)) == Code.DEADLINE_EXCEEDED
        requests.end()

    def rpc_soak(self) -> None:
        stub = self._stub()
        for _ in range(self._iterations):
            _large_unary(stub)

    def channel_soak(self) -> None:
        for _ in range(self._iterations):
            channel = self._channel()
            _large_unary(interop_grpcio.TestServiceStub(channel))
            channel.close()

    def concurrent_large_unary(self) -> None:
        stub = self._stub()
        calls = [stub.UnaryCall.future(values.large_request()) for _ in range(self._iterations)]
        for call in calls:
            values.check_payload(call.result(timeout=60), 314159)


def _large_unary(stub: Any, request: Any = None, **options: Any) -> None:
    values.check_payload(stub.UnaryCall(request or values.large_request(), **options), 314159)


def _status(run: Callable[[], Any]) -> tuple[int, str]:
    try:
        run()
    except grpc.RpcError as error:
        return error.code().value[0], error.details()
    raise AssertionError("the call succeeded")


def _failure(run: Callable[[], Any]) -> grpc.StatusCode:
    number, _ = _status(run)
    return next(code for code in Code if code.value[0] == number)


class _Requests:
    """A request stream that is fed while the call runs."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, message: Any) -> None:
        self._queue.put(message)

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        message = self._queue.get()
        if message is None:
            raise StopIteration
        return message
