"""Waiting for something to become true, with a bound and a message that tells what was missing."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(check: Callable[[], T], timeout: float, what: str, interval: float = 0.02) -> T:
    """Calls `check` until it returns something true, and returns that.

    An AssertionError from `check` counts as "not yet" and is shown when the time is over; any other error ends the wait.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            value = check()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last seen: {last!s:.2000}")
        time.sleep(interval)


_handed_out: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, outside the range the kernel takes ports for clients from.

    Two test runs at once are told apart by where they start to look.
    """
    import os

    low, high = 10000, 32000
    start = low + (os.getpid() * 97) % (high - low)
    for offset in range(high - low):
        port = low + (start - low + offset) % (high - low)
        if port in _handed_out:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise AssertionError("no free port")
