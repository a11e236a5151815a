"""Fixtures of the raw-frame tests. docs/wire.md tells which rule each of them is for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from interop.server import InteropServer
from support.raw_calls import RawClient


@pytest.fixture(scope="session")
def interop() -> Iterator[InteropServer]:
    """One server for all tests that need no options of their own."""
    with InteropServer() as server:
        yield server


@pytest.fixture
def connection(interop: InteropServer) -> Iterator[RawClient]:
    """A connection of one's own; whatever a test did to its stream, the connection must still serve calls."""
    with RawClient(interop.port) as connection:
        yield connection
        assert connection.unary("/grpc.testing.TestService/EmptyCall").status == 0
        assert interop.process.is_running
