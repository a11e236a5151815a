"""The interop cases by our own client, against a TestService written with grpcio and against our own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from interop.grpcio_server import grpcio_server
from interop.server import InteropServer
from support.server import binary

# What grpcio's server can't express: docs/interop.md.
WITH_OURS_ONLY = ["client_compressed_unary", "client_compressed_streaming"]

CASES = [
    "empty_unary", "large_unary", "server_compressed_unary", "client_streaming", "server_streaming",
    "server_compressed_streaming", "ping_pong", "empty_stream", "custom_metadata", "status_code_and_message",
    "special_status_message", "unimplemented_method", "unimplemented_service", "cancel_after_begin",
    "cancel_after_first_response", "timeout_on_sleeping_server",
]


def _run(port: int, *cases: str) -> None:
    arguments = [argument for case in cases for argument in ("--case", case)]
    program = binary().parent / "InteropClient"
    assert program.exists(), f"{program} is not there: swift build --product InteropClient"
    done = subprocess.run([program, "--port", str(port), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": ok\n") == len(cases), done.stderr


@pytest.fixture(scope="module")
def grpcio_port() -> Iterator[int]:
    with grpcio_server() as port:
        yield port


@pytest.mark.parametrize("case", CASES)
def test_against_grpcio(grpcio_port: int, case: str) -> None:
    _run(grpcio_port, case)


def test_against_our_own_server() -> None:
    server = InteropServer()
    try:
        _run(int(server.address.rpartition(":")[2]), *CASES, *WITH_OURS_ONLY)
    finally:
        server.close()
