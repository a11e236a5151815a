"""The interop cases by grpclib (pure Python, on the h2 package)."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import grpclib.client
import grpclib.const
import grpclib.exceptions

from support.stubs import interop_grpclib, interop_pb2

from . import values

Status = grpclib.const.Status


class GrpclibClient:
    """A case is a method of that name."""

    def __init__(self, address: str, iterations: int, ca_file: str | None = None) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._iterations = iterations
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else None
        if self._tls:
            self._tls.set_alpn_protocols(["h2"])

    def close(self) -> None:
        pass

    def _channel(self) -> grpclib.client.Channel:
        return grpclib.client.Channel(self._host, self._port, ssl=self._tls)

    def _run(self, case: Any) -> None:
        """Runs a coroutine function of a stub, on a channel of its own."""

        async def run() -> None:
            async with self._channel() as channel:
                await case(interop_grpclib.TestServiceStub(channel))

        asyncio.run(asyncio.wait_for(run(), 60))

    # The cases

    def empty_unary(self) -> None:
        async def case(stub: Any) -> None:
            assert await stub.EmptyCall(interop_pb2.Empty()) == interop_pb2.Empty()

        self._run(case)

    def large_unary(self) -> None:
        self._run(_large_unary)

    def server_compressed_unary(self) -> None:
        """It says that it takes no compressed messages, and must not get one even where one is asked for."""

        async def case(stub: Any) -> None:
            for response in (True, False):
                values.check_payload(await stub.UnaryCall(values.large_request(response=response)), 314159)

        self._run(case)

    def client_streaming(self) -> None:
        async def case(stub: Any) -> None:
            payloads = [values.payload(size) for size in values.INPUT_SIZES]
            requests = [interop_pb2.StreamingInputCallRequest(payload=payload) for payload in payloads]
            assert (await stub.StreamingInputCall(requests)).aggregated_payload_size == 74922

        self._run(case)

    def server_streaming(self) -> None:
        async def case(stub: Any) -> None:
            responses = await stub.StreamingOutputCall(values.output_request(*values.OUTPUT_SIZES))
            assert len(responses) == len(values.OUTPUT_SIZES)
            for response, size in zip(responses, values.OUTPUT_SIZES, strict=True):
                values.check_payload(response, size)

        self._run(case)

    def server_compressed_streaming(self) -> None:
        """As server_compressed_unary."""

        async def case(stub: Any) -> None:
            request = values.output_request(31415, 92653, compressed=(True, False))
            first, second = await stub.StreamingOutputCall(request)
            values.check_payload(first, 31415)
            values.check_payload(second, 92653)

        self._run(case)

    def ping_pong(self) -> None:
        async def case(stub: Any) -> None:
            async with stub.FullDuplexCall.open() as stream:
                for response_size, size in values.PING_PONG:
                    await stream.send_message(values.output_request(response_size, size=size))
                    values.check_payload(await stream.recv_message(), response_size)
                await stream.end()
                assert await stream.recv_message() is None

        self._run(case)

    def empty_stream(self) -> None:
        async def case(stub: Any) -> None:
            async with stub.FullDuplexCall.open() as stream:
                await stream.send_request()
                await stream.end()
                assert await stream.recv_message() is None

        self._run(case)

    def custom_metadata(self) -> None:
        async def check(method: Any, request: Any) -> None:
            async with method.open(metadata=[values.INITIAL, values.TRAILING]) as stream:
                await stream.send_message(request, end=True)
                values.check_payload(await stream.recv_message(), 314159)
                await stream.recv_trailing_metadata()
            assert stream.initial_metadata[values.INITIAL[0]] == values.INITIAL[1]
            assert stream.trailing_metadata[values.TRAILING[0]] == values.TRAILING[1]

        async def case(stub: Any) -> None:
            await check(stub.UnaryCall, values.large_request())
            await check(stub.FullDuplexCall, values.output_request(314159, size=271828))

        self._run(case)

    def status_code_and_message(self) -> None:
        async def case(stub: Any) -> None:
            request = values.status_request(interop_pb2.SimpleRequest, values.STATUS)
            assert await _status(stub.UnaryCall(request)) == values.STATUS
            request = values.status_request(interop_pb2.StreamingOutputCallRequest, values.STATUS)
            assert await _status(stub.FullDuplexCall([request])) == values.STATUS

        self._run(case)

    def special_status_message(self) -> None:
        async def case(stub: Any) -> None:
            request = values.status_request(interop_pb2.SimpleRequest, values.SPECIAL_STATUS)
            assert await _status(stub.UnaryCall(request)) == values.SPECIAL_STATUS

        self._run(case)

    def unimplemented_method(self) -> None:
        async def case(stub: Any) -> None:
            number, _ = await _status(stub.UnimplementedCall(interop_pb2.Empty()))
            assert number == Status.UNIMPLEMENTED.value

        self._run(case)

    def unimplemented_service(self) -> None:
        async def run() -> None:
            async with self._channel() as channel:
                stub = interop_grpclib.UnimplementedServiceStub(channel)
                number, _ = await _status(stub.UnimplementedCall(interop_pb2.Empty()))
                assert number == Status.UNIMPLEMENTED.value

        asyncio.run(run())

    def cancel_after_begin(self) -> None:
        async def case(stub: Any) -> None:
            async with stub.StreamingInputCall.open() as stream:
                await stream.send_request()
                await stream.cancel()
            await _large_unary(stub)  # the connection lives on

        self._run(case)

    def cancel_after_first_response(self) -> None:
        async def case(stub: Any) -> None:
            async with stub.FullDuplexCall.open() as stream:
                await stream.send_message(values.output_request(31415, size=27182))
                values.check_payload(await stream.recv_message(), 31415)
                await stream.cancel()
            await _large_unary(stub)  # the connection lives on

        self._run(case)

    def timeout_on_sleeping_server(self) -> None:
        async def call(stub: Any) -> None:
            async with stub.FullDuplexCall.open(timeout=0.001) as stream:
                await stream.send_message(values.output_request(size=27182))
                await stream.recv_message()

        async def case(stub: Any) -> None:
            await _large_unary(stub)  # the connection stands
            try:
                await call(stub)
            except asyncio.TimeoutError:
                return  # its own clock was first
            except grpclib.exceptions.GRPCError as error:
                assert error.status is Status.DEADLINE_EXCEEDED
                return
            raise AssertionError("the call succeeded")

        self._run(case)

    def rpc_soak(self) -> None:
        async def case(stub: Any) -> None:
            for _ in range(self._iterations):
                await _large_unary(stub)

        self._run(case)

    def channel_soak(self) -> None:
        for _ in range(self._iterations):
            self._run(_large_unary)

    def concurrent_large_unary(self) -> None:
        async def case(stub: Any) -> None:
            await asyncio.gather(*(_large_unary(stub) for _ in range(self._iterations)))

        self._run(case)


async def _large_unary(stub: Any) -> None:
    values.check_payload(await stub.UnaryCall(values.large_request()), 314159)


async def _status(call: Any) -> tuple[int, str]:
    try:
        await call
    except grpclib.exceptions.GRPCError as error:
        return error.status.value, error.message or ""
    raise AssertionError("the call succeeded")
