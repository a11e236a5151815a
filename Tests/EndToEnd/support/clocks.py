"""Processes whose wall clock is off, by a library of a few lines that is loaded before libc.

CLOCK_MONOTONIC and CLOCK_BOOTTIME stay as they are. (libfaketime can't be used: it moves the environment, by which
Swift finds a program's arguments.)
"""

from __future__ import annotations

import atexit
import functools
import pathlib
import shutil
import subprocess
import tempfile

_SOURCE = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void)
{
    static long value;
    static int known;
    if (!known) {
        const char *text = getenv("CLOCK_OFF_BY");
        value = text ? atol(text) : 0;
        known = 1;
    }
    return value;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += offset();
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
"""


@functools.cache
def _library() -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-clock-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)  # PostgreSQL loads it as another user
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", library, source], check=True)
    return library


def clock_off_by(seconds: int) -> dict[str, str]:
    """The environment for a process whose wall clock is that much ahead (or behind, if negative)."""
    return {"LD_PRELOAD": str(_library()), "CLOCK_OFF_BY": str(seconds)}
