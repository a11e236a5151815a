"""A log that nobody reads, or that can't be written, holds nothing up; what is lost is counted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest

from support.client import STEPS, create_request
from support.server import Server, binary, clean_environment, run_command
from support.waiting import wait_until
from support.world import World

# A graceful stop of a server with nothing under way takes well under a second; the rest is for a busy machine.
STOP_SECONDS = 10


def _set_blocking(descriptor: int, blocks: bool) -> None:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_NONBLOCK if blocks else flags | os.O_NONBLOCK)


@contextlib.contextmanager
def _full_pipe(blocks: bool = True) -> Iterator[tuple[int, int]]:
    """A pipe that takes nothing more: the end to read, and the end to write."""
    reader, writer = os.pipe()
    _set_blocking(writer, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"." * (size - 1) + b"\n")
    _set_blocking(writer, blocks)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def _standard_error(kind: str) -> Iterator[int]:
    """A standard error that takes nothing."""
    if kind.startswith("full pipe"):
        with _full_pipe(blocks=kind == "full pipe") as (_, writer):
            yield writer
    elif kind == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
        yield writer
        os.close(writer)
    else:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        yield descriptor
        os.close(descriptor)


KINDS = ["full pipe", "full pipe that doesn't block", "closed pipe", "full disk"]


def _metric(server: Server, name: str) -> int:
    status, text = server.http("/metrics")
    assert status == 200
    found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    assert found, f"no {name}"
    return int(found[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_that_takes_nothing(world: World, kind: str) -> None:
    server = world.server(start=False)
    with _standard_error(kind) as stderr:
        server.launch({"DEVICERPC_ACCESS_LOG": "true"}, stderr=stderr)
        server.wait_ready()
        client = server.client()
        for _ in range(5):
            client.create()
        assert server.http("/healthz")[0] == 200
        assert server.http("/readyz")[0] == 200
        if "pipe that" not in kind and kind != "full pipe":
            assert _metric(server, "devicerpc_log_lines_dropped_total") > 0
        world.audit(client)
        server.terminate()
        assert server.wait_ended(STOP_SECONDS) == 0


def test_standard_error_that_is_closed(world: World) -> None:
    """Descriptor 2 must not become a connection that log lines are written to."""
    server = world.server(start=False)
    server.launch(shell="exec 2>&-")
    server.wait_ready()
    for _ in range(5):
        server.client().create()
    world.audit(server.client())
    target = os.readlink(f"/proc/{server.pid}/fd/2")
    assert target == "/dev/null", target
    server.terminate()
    assert server.wait_ended(STOP_SECONDS) == 0


def test_standard_output_that_takes_nothing(world: World) -> None:
    server = world.server(start=False)
    with _full_pipe() as (_, writer):
        server.launch(stdout=writer)
        server.wait_ready()
        server.client().create()
        world.audit(server.client())
        server.terminate()
        assert server.wait_ended(STOP_SECONDS) == 0


def test_what_is_dropped_is_counted_and_told(world: World) -> None:
    """More than the queue holds; then somebody reads."""
    server = world.server(start=False)
    text: list[bytes] = []
    with _full_pipe() as (reader, writer):
        server.launch({"DEVICERPC_ACCESS_LOG": "true"}, stderr=writer)
        server.wait_ready()
        client = server.client()
        deadline = time.monotonic() + 120
        while _metric(server, "devicerpc_log_lines_dropped_total") == 0:
            assert time.monotonic() < deadline, "the queue never was full"
            for pending in [client.start(create_request()) for _ in range(50)]:
                pending.result()
        dropped = _metric(server, "devicerpc_log_lines_dropped_total")

        def read() -> None:
            with contextlib.suppress(OSError):
                while data := os.read(reader, 1 << 16):
                    text.append(data)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        notice = rb"(\d+) lines dropped"
        wait_until(lambda: re.search(notice, b"".join(text)), 60, "the line that says how many are missing")
        told = sum(int(number) for number in re.findall(notice, b"".join(text)))
        assert told >= dropped
        # From here on nothing is lost.
        last = client.create()
        wait_until(lambda: last.saga_id.encode() in b"".join(text), 60, "the next lines")
        assert _metric(server, "devicerpc_log_lines_dropped_total") == told
        world.audit(client)
        server.terminate()
        assert server.wait_ended(STOP_SECONDS) == 0
    lines = b"".join(text).decode().splitlines()
    # Each saga's lines stand in order, and each line is whole.
    sequences: dict[str, int] = {}
    for line in lines:
        if not line.strip("."):
            continue  # what the pipe was filled with
        assert re.match(r"\d{4}-\d\d-\d\dT\S+Z [A-Z]+ +\S+: ", line), line
        found = re.search(r"saga_id=(\S+) sequence=(\d+)", line)
        if found:
            assert int(found[2]) > sequences.get(found[1], 0), line
            sequences[found[1]] = int(found[2])
    assert len(sequences) > 5 and set(STEPS) <= set(re.findall(r"step=(\w+)", "\n".join(lines)))


def test_last_words() -> None:
    """A fatal message is written whole if somebody reads, and holds nothing up if nobody does."""
    wrong = ["serve", "--limits-max-streams", "many"]
    done = run_command(wrong)
    assert done.returncode == 64 and done.stderr.startswith("error: ") and "max-streams" in done.stderr
    with _full_pipe() as (_, writer):
        process = subprocess.Popen([binary(), *wrong], env=clean_environment(), stderr=writer)
        try:
            assert process.wait(STOP_SECONDS) == 64
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("read", [True, False])
def test_a_second_signal(world: World, read: bool) -> None:
    server = world.server(start=False)
    with _full_pipe() as (reader, writer):
        if read:
            _set_blocking(reader, False)
            with contextlib.suppress(BlockingIOError):
                while os.read(reader, 1 << 16):
                    pass
        server.launch(stderr=writer)
        server.wait_ready()
        pending = server.client().start(create_request(options={"latency_ms": "5000"}))
        wait_until(lambda: world.moving() == 1, 60, "a saga to be under way")
        server.terminate()
        wait_until(lambda: server.client().health() != "SERVING", 60, "the server to drain")
        server.terminate()
        assert server.wait_ended(STOP_SECONDS) == 130
        pending.outcome()
        if read:
            assert b"SIGTERM again: stopping at once" in os.read(reader, 1 << 16)
    server.start()


def _command_line(process: int) -> str:
    try:
        return pathlib.Path(f"/proc/{process}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_embedded_database() -> None:
    home = pathlib.Path(tempfile.mkdtemp(prefix="devicerpc-e2e-log-", dir="/tmp"))
    home.chmod(0o755)
    server = Server("embedded", home, {})
    del server.environment["DEVICERPC_SIMULATED"]
    try:
        with _full_pipe() as (_, writer):
            server.launch(stderr=writer)
            server.wait_ready(60)
            server.client().create()
            postmaster = int((home / "data/postgres/postmaster.pid").read_text().split()[0])
            server.terminate()
            assert server.wait_ended(60) == 0
            # One that ended and that nobody has waited for yet has no command line any more.
            assert str(home) not in _command_line(postmaster)
    finally:
        server.close()
        shutil.rmtree(home, ignore_errors=True)
