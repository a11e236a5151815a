"""Processes whose wall clock is off, by libfaketime. CLOCK_MONOTONIC and CLOCK_BOOTTIME stay as they are."""

from __future__ import annotations

import pathlib


def clock_off_by(seconds: float) -> dict[str, str]:
    """The environment for a process whose wall clock is that much ahead (or behind, if negative)."""
    libraries = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert libraries, "libfaketime is not installed: ./dev test installs it (package faketime)"
    return {"LD_PRELOAD": str(libraries[0]), "FAKETIME": f"{seconds:+.3f}", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1"}
