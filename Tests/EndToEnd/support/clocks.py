"""Processes whose wall clock is off, or steps, by a library of a few lines that is loaded before libc.

CLOCK_MONOTONIC and CLOCK_BOOTTIME stay as they are. (libfaketime can't be used: it moves the environment, by which
Swift finds a program's arguments.)
"""

from __future__ import annotations

import atexit
import functools
import mmap
import pathlib
import shutil
import subprocess
import tempfile

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Seconds: a number that stays, or the one in a file, which somebody else may change at any time. */
static volatile long fixed, *shared = &fixed;

__attribute__((constructor)) static void find_offset(void)
{
    const char *text = getenv("CLOCK_OFF_BY"), *path = getenv("CLOCK_OFFSET_FILE");
    fixed = text ? atol(text) : 0;
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED)
        shared = page;
    close(file);
}

static long offset(void)
{
    return *shared;
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


class SteppedClock:
    """A wall clock that steps while its processes run."""

    def __init__(self) -> None:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-clock-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # PostgreSQL reads it as another user
        self._path = folder / "offset"
        self._path.write_bytes(bytes(8))
        with self._path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 8)

    def step_to(self, seconds: int) -> None:
        """From now on that much ahead of the true clock; behind, if negative."""
        self._page[:8] = seconds.to_bytes(8, "little", signed=True)

    @property
    def environment(self) -> dict[str, str]:
        """For its processes."""
        return {"LD_PRELOAD": str(_library()), "CLOCK_OFFSET_FILE": str(self._path)}
