"""A process may have so many files and sockets open and no more: clients don't take those that keep the server alive."""

from __future__ import annotations

import contextlib
import pathlib
import re
import resource
import socket
import time
from collections.abc import Iterator

from support.client import DeviceClient, create_request
from support.server import Server
from support.waiting import wait_until
from support.world import World

LIMIT = 256
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_SETTINGS_ACKNOWLEDGEMENT = b"\0\0\0\4\1\0\0\0\0"


@contextlib.contextmanager
def _idle_connections(port: int, number: int, greeting: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that say nothing more. Those that the server closes are still in the list."""
    connections = []
    try:
        for _ in range(number):
            connection = socket.create_connection(("127.0.0.1", port), timeout=60)
            connections.append(connection)
            with contextlib.suppress(OSError):
                connection.sendall(greeting)
        yield connections
    finally:
        for connection in connections:
            connection.close()


_HTTP2 = _PREFACE + _SETTINGS + _SETTINGS_ACKNOWLEDGEMENT


def _open_files(server: Server) -> int:
    return len(list(pathlib.Path(f"/proc/{server.pid}/fd").iterdir()))


def _metric(server: Server, name: str, text: str | None = None) -> float:
    text = text if text is not None else server.http("/metrics")[1]
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"no {name}"
    return float(found[1])


def _refused(server: Server, reason: str, text: str | None = None) -> float:
    return _metric(server, f'rpc_server_refusals_total{{reason="{reason}",scope="connection"}}', text)


def _cpu_share(server: Server, seconds: float = 3) -> float:
    """Of one core, while the server has nothing to do."""

    def used() -> float:
        fields = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    before, start = used(), time.monotonic()
    time.sleep(seconds)
    return (used() - before) / (time.monotonic() - start)


def _check_alive(server: Server) -> None:
    assert server.http("/healthz")[0] == 200
    status, text = server.http("/readyz")
    assert status == 200, text
    assert _metric(server, "saga_lease_age_seconds") < 6


def _create_many(client: DeviceClient, number: int) -> None:
    for call in [client.start(create_request()) for _ in range(number)]:
        call.result()


def test_idle_connections_beyond_the_limit(world: World) -> None:
    proxy = world.proxy()
    server = world.server(proxy=proxy, start=False)
    server.launch(shell=f"ulimit -n {LIMIT}")
    server.wait_ready()
    client = server.client()
    client.create()
    assert _metric(server, "process_max_fds") == LIMIT
    assert "it takes" in server.log_text() and "RLIMIT_NOFILE" in server.log_text()
    with _idle_connections(server.port, 400, _HTTP2), _idle_connections(server.ops_port, 400):
        assert _open_files(server) < LIMIT
        _check_alive(server)
        _create_many(client, 60)
        # The database's connections can be made anew.
        proxy.cut_all()
        wait_until(lambda: client.health() == "SERVING", 60, "the server to serve again")
        _create_many(client, 60)
        wait_until(lambda: _refused(server, "too_many_connections") > 100, 60, "more than there is room for to be refused")
        assert _refused(server, "out_of_descriptors") == 0
        wait_until(lambda: _metric(server, "operators_connections_closed_total") > 100, 60, "the operators' port to close some")
        assert _cpu_share(server) < 0.5
        _check_alive(server)
        assert _open_files(server) < LIMIT
    assert world.count("COMPLETED") == 121
    # Those who come after them get in.
    with DeviceClient(server.address) as newcomer:
        wait_until(lambda: newcomer.health() == "SERVING", 60, "a new connection")
    world.audit(client)


def test_too_low_a_limit(world: World) -> None:
    """What is needed is said, and it is enough."""
    server = world.server(start=False)
    server.launch(shell="ulimit -n 64")
    assert server.wait_ended(60) == 64
    said = re.search(r"may have 64 files open .* needs at least (\d+)", server.log_text())
    assert said, server.log_tail()
    server.launch(shell=f"ulimit -n {said[1]}")
    server.wait_ready()
    client = server.client()
    assert client.health() == "SERVING"
    with _idle_connections(server.port, 200, _HTTP2), _idle_connections(server.ops_port, 200):
        _create_many(client, 60)
        _check_alive(server)
        assert _open_files(server) < int(said[1])
    world.audit(client)


def test_the_soft_limit_is_raised(world: World) -> None:
    server = world.server(start=False)
    server.launch(shell="ulimit -Sn 256; ulimit -Hn 4096")
    server.wait_ready()
    assert _metric(server, "process_max_fds") == 4096
    assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (4096, 4096)


def test_all_are_taken_where_there_is_room(world: World) -> None:
    """The bound is the configured one if the limit allows it."""
    server = world.server(environment={"DEVICERPC_MAX_CONNECTIONS": "50"})
    assert "RLIMIT_NOFILE" not in server.log_text()
    with _idle_connections(server.port, 60, _HTTP2):
        wait_until(lambda: _refused(server, "too_many_connections") >= 10, 60, "the last ten to be refused")
