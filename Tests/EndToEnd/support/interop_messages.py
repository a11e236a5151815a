"""Messages of grpc.testing.TestService (grpc/testing/messages.proto), field by field."""

from __future__ import annotations

SERVICE = "/grpc.testing.TestService/"


def varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def payload(size: int) -> bytes:
    return field(2, bytes(size))


def echo_status(code: int, text: str = "") -> bytes:
    return field(1, code) + field(2, text)


def simple_request(response_size: int = 0, body: int = 0, status: bytes | None = None) -> bytes:
    request = field(2, response_size) + field(3, payload(body))
    return request + (field(7, status) if status else b"")


def streaming_request(*sizes: int, interval_us: int = 0, status: bytes | None = None) -> bytes:
    request = b"".join(field(2, field(1, size) + field(2, interval_us)) for size in sizes)
    return request + (field(7, status) if status else b"")


def input_request(size: int) -> bytes:
    return field(1, payload(size))
