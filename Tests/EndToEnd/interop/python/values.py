"""What the cases of gRPC's interop-test-descriptions.md send and expect, for both Python clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from support.stubs import interop_pb2

INITIAL = ("x-grpc-test-echo-initial", "test_initial_metadata_value")
TRAILING = ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab")
STATUS = (2, "test status message")
SPECIAL_STATUS = (2, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")
INPUT_SIZES = (27182, 8, 1828, 45904)
OUTPUT_SIZES = (31415, 9, 2653, 58979)
PING_PONG = tuple(zip(OUTPUT_SIZES, INPUT_SIZES, strict=True))  # (27182, 8, 1828, 45904) out, the others back


def payload(size: int) -> Any:
    return interop_pb2.Payload(body=bytes(size))


def flag(value: bool | None) -> Any:
    return None if value is None else interop_pb2.BoolValue(value=value)


def large_request(expect: bool | None = None, response: bool | None = None) -> Any:
    return interop_pb2.SimpleRequest(
        response_size=314159, payload=payload(271828), expect_compressed=flag(expect),
        response_compressed=flag(response),
    )


def status_request(message: Any, status: tuple[int, str]) -> Any:
    return message(response_status=interop_pb2.EchoStatus(code=status[0], message=status[1]))


def output_request(*sizes: int, size: int = 0, compressed: Sequence[bool | None] = ()) -> Any:
    """Asks for responses of these sizes in a message with a payload of `size`."""
    flags = compressed or (None,) * len(sizes)
    parameters = [
        interop_pb2.ResponseParameters(size=one, compressed=flag(wanted))
        for one, wanted in zip(sizes, flags, strict=True)
    ]
    return interop_pb2.StreamingOutputCallRequest(
        response_parameters=parameters, payload=payload(size) if size else None
    )


def check_payload(response: Any, size: int) -> None:
    assert response.payload.type == interop_pb2.COMPRESSABLE
    assert len(response.payload.body) == size, len(response.payload.body)
    assert response.payload.body == bytes(size), "a payload of something but zeros"
