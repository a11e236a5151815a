"""Each limit of docs/configuration.md that other tests leave as it is: set to something else, that is what holds."""

from __future__ import annotations

import pytest

from support.bounds import refusals
from support.rawhttp2 import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, RST_STREAM, RawConnection, frame, message,
    settings, window_update,
)
from support.server import Server
from support.world import World

pytestmark = pytest.mark.xdist_group("limit-settings")

CREATE = "/cloudphone.device.v1.DeviceService/CreateDevice"


@pytest.fixture(scope="module")
def tight(place: World) -> Server:
    return place.server("tight", environment={
        "DEVICERPC_MAX_HEADER_BYTES": "2000", "DEVICERPC_MAX_HEADER_FIELDS": "16", "DEVICERPC_MAX_MESSAGE_BYTES": "2000",
        "DEVICERPC_MAX_QUEUED_FRAMES": "60", "DEVICERPC_MAX_UNSENT_ACKNOWLEDGEMENTS": "10",
        "DEVICERPC_ERROR_BURST": "150", "DEVICERPC_ERRORS_PER_SECOND": "1",
        "DEVICERPC_CONTROL_FRAME_BURST": "200", "DEVICERPC_CONTROL_FRAMES_PER_SECOND": "1",
        "DEVICERPC_REQUEST_TIMEOUT": "200ms", "DEVICERPC_MIN_BYTES_PER_SECOND": "1000000",
        "DEVICERPC_MIN_PING_INTERVAL": "0s",
    })


@pytest.fixture(scope="module")
def wide(place: World) -> Server:
    return place.server("wide", environment={
        "DEVICERPC_MAX_HEADER_BYTES": "1048576", "DEVICERPC_MAX_HEADER_FIELDS": "1000",
        "DEVICERPC_MAX_UNSENT_ACKNOWLEDGEMENTS": "4000", "DEVICERPC_CONTROL_FRAME_BURST": "100000",
        "DEVICERPC_ERROR_BURST": "5000", "DEVICERPC_MIN_PING_INTERVAL": "0s",
    })


def _status(raw: RawConnection, **options: object) -> str | None:
    return raw.trailers(raw.call(**options)).field("grpc-status")  # type: ignore[arg-type]


def _ends(raw: RawConnection, rule: str) -> None:
    goaway = raw.wait_closed()
    assert goaway is not None and (goaway.error_code, goaway.debug_data) == (ENHANCE_YOUR_CALM, rule)


def test_headers(tight: Server) -> None:
    before = refusals(tight)["headers_too_large"]
    with RawConnection(tight.port) as raw:
        assert _status(raw, extra=[("x-a", "a" * 1500)]) == "0"
        assert _status(raw, extra=[("x-a", "a" * 2000)]) == "8"
        assert _status(raw, extra=[(f"x-{number}", "") for number in range(10)]) == "0"
        assert _status(raw, extra=[(f"x-{number}", "") for number in range(11)]) == "8"
    assert refusals(tight)["headers_too_large"] == before + 2


def test_large_headers_come_in_many_frames(wide: Server) -> None:
    """The most that MAX_HEADER_BYTES allows is far more than eight CONTINUATION frames hold."""
    with RawConnection(wide.port) as raw:
        block = raw.request_headers(extra=[(f"x-{number}", "9" * 15_000) for number in range(60)])
        parts = [block[start : start + 16384] for start in range(0, len(block), 16384)]
        assert len(parts) > 30
        stream = raw.next_stream()
        raw.send(frame(HEADERS, 0, stream, parts[0]))
        for number, part in enumerate(parts[1:], 2):
            raw.send(frame(CONTINUATION, END_HEADERS if number == len(parts) else 0, stream, part))
        raw.send(frame(DATA, END_STREAM, stream, message()))
        assert raw.trailers(stream).field("grpc-status") == "0"


def test_message(tight: Server) -> None:
    with RawConnection(tight.port) as raw:
        assert _status(raw, path=CREATE, payload=bytes([0x1A, 0xCD, 0x0F]) + b"d" * 1997) != "8"
        assert _status(raw, path=CREATE, payload=bytes([0x1A, 0xCE, 0x0F]) + b"d" * 1998) == "8"


def test_acknowledgements(tight: Server, wide: Server) -> None:
    with RawConnection(tight.port) as raw:
        raw.send(frame(PING, 0, 0, bytes(8)) * 20)
        _ends(raw, "too_many_queued_frames")
    with RawConnection(wide.port) as raw:
        raw.send(frame(PING, 0, 0, bytes(8)) * 3000)
        assert _status(raw) == "0"


def test_queued_frames(tight: Server) -> None:
    """Answers of what is read at once, here resets: more than may wait, and fewer than the budget of errors."""
    with RawConnection(tight.port) as raw:
        raw.call()
        block = raw.request_headers()
        raw.send(b"".join(
            frame(HEADERS, END_HEADERS, stream, block) + window_update(stream, 0x7FFFFFFF)
            for stream in [raw.next_stream() for _ in range(100)]))
        _ends(raw, "too_many_queued_frames")


def test_errors(tight: Server, wide: Server) -> None:
    for server in (tight, wide):
        with RawConnection(server.port) as raw:
            for _ in range(170):
                if raw.is_closed:
                    break
                stream = raw.open()
                raw.send(window_update(stream, 0x7FFFFFFF))
                raw.pump(0.05)
            if server is tight:
                _ends(raw, "too_many_errors")
            else:
                assert _status(raw) == "0"


def test_control_frames(tight: Server, wide: Server) -> None:
    with RawConnection(tight.port) as raw:
        raw.send(frame(0xBE) * 300)
        _ends(raw, "too_many_control_frames")
    with RawConnection(wide.port) as raw:
        raw.flood([frame(0xBE) * 1000] * 20)
        assert _status(raw) == "0"


def test_bytes_per_second(tight: Server, wide: Server) -> None:
    """A body that comes by some kilobytes a second: fast enough for the default, too slow for a megabyte a second."""
    before = refusals(tight)["slow_request"]
    for server in (tight, wide):
        with RawConnection(server.port) as raw:
            stream = raw.open(CREATE)
            raw.send(frame(DATA, 0, stream, message(b"\x1a\xcc\x0f" + b"d" * 1996)[:1000]))
            raw.pump(0.7)
            raw.pump(0.7)
            assert any(one.stream == stream and one.ends_stream for one in raw.received) == (server is tight)
            if server is tight:
                assert raw.trailers(stream).field("grpc-status") == "4"
    assert refusals(tight)["slow_request"] == before + 1


def test_pings(tight: Server) -> None:
    """No interval: PINGs are no strikes, only frames."""
    with RawConnection(tight.port) as raw:
        for _ in range(8):
            raw.send(frame(PING, 0, 0, bytes(8)))
        assert _status(raw) == "0"
        assert not [one for one in raw.received if one.kind == RST_STREAM]
        raw.send(settings({}))
        assert _status(raw) == "0"
