"""gRPC's interop cases by five clients against InteropServer, and the main job by those that test_clients.py lacks."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from interop import cases, clients
from interop.python import values
from interop.server import InteropServer
from support.certificates import Authority, replace
from support.client import unique
from support.stubs import REPOSITORY, interop_grpcio, interop_pb2
from support.waiting import free_port, wait_until
from support.world import World

# One worker builds the clients and runs the whole file.
pytestmark = pytest.mark.xdist_group("interop")


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    clients.build()


@pytest.fixture(scope="module")
def server() -> Iterator[InteropServer]:
    """One server for the whole file. It must outlive all that its clients do, and drain at the end."""
    server = InteropServer()
    try:
        yield server
        assert server.process.is_running, server.process.log_tail()
        assert server.process.end(signal.SIGTERM, timeout=60) == 0, server.process.log_tail()
        assert "Fatal error" not in server.process.log_text(), server.process.log_tail()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("client", "case"),
    [(client, case) for client in cases.CLIENTS for case in cases.CASES if (case, client) not in cases.NOT_RUN],
)
def test_case(server: InteropServer, client: str, case: str) -> None:
    clients.ALL[client].run(case, server.address, cases.ITERATIONS.get(case, 1))


def test_table_is_true() -> None:
    """docs/interop.md says what is run, and each client has the cases that it is said to have."""
    assert set(clients.ALL) == set(cases.CLIENTS)
    for name, client in clients.ALL.items():
        assert client.cases() - {clients.DEVICE_CASE, clients.BATCH_CASE, clients.CALLS_WITHOUT_END} == cases.runs(name), name
    document = (REPOSITORY / "docs/interop.md").read_text("utf-8")
    assert cases.tables() in document, "docs/interop.md is not what `python -m interop.cases` prints"
    for client, description in cases.CLIENTS.items():
        assert f"- **{client}**: {description}\n" in document


@pytest.fixture
def stub(server: InteropServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield interop_grpcio.TestServiceStub(channel)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InteropServer, str]]:
    """With TLS, and the file of the authority to trust."""
    authority, folder = Authority(), tmp_path_factory.mktemp("tls")
    certificate, key = authority.issue_for_server().write(folder, "server")
    server = InteropServer("--tls-cert", str(certificate), "--tls-key", str(key))
    try:
        yield server, str(replace(folder / "authority.crt", authority.pem))
    finally:
        server.close()


@pytest.mark.parametrize("client", cases.CLIENTS)
@pytest.mark.parametrize("case", ["large_unary", "ping_pong", "channel_soak"])
def test_tls(tls_server: tuple[InteropServer, str], client: str, case: str) -> None:
    server, ca_file = tls_server
    clients.ALL[client].run(case, server.address, 5, ca_file)


def test_restarts_fail_no_call(tmp_path: pathlib.Path) -> None:
    """Servers replace each other, each with a drain, under clients that call all the time. No call fails: the old
    server answers what it took, and GOAWAY sends the rest to the new one, which clients do by themselves (transparent
    retries, on unless switched off). A client ends at the first failure."""
    port = free_port()
    server = InteropServer("--port", str(port))
    callers = {
        name: clients.PROCESSES[name].start(clients.CALLS_WITHOUT_END, server.address, tmp_path / name)
        for name in clients.RECONNECTING
    }

    def hundreds(name: str) -> int:
        assert callers[name].is_running, callers[name].log_tail()
        return callers[name].log_text().count("hundred")

    try:
        for _ in range(4):
            before = {name: hundreds(name) for name in callers}
            wait_until(lambda: all(hundreds(name) > before[name] + 1 for name in callers), 60, "calls by each")
            server.process.send(signal.SIGTERM)
            old, server = server, InteropServer.replacing(port)
            assert old.process.wait(10) == 0, old.process.log_tail()
            old.close()
        assert all(hundreds(name) for name in callers)
    finally:
        server.close()
        for caller in callers.values():
            caller.kill()


# What no case of the table reaches


def test_cacheable_unary_call(stub: Any) -> None:
    response, call = stub.CacheableUnaryCall.with_call(values.large_request())
    values.check_payload(response, 314159)
    assert ("cache-control", "max-age=60, public") in call.initial_metadata()


def test_half_duplex_call(stub: Any) -> None:
    """Nothing is answered before the last request is there."""
    asked: list[str] = []

    def requests() -> Iterator[Any]:
        for size in (9, 31415, 0):
            asked.append("request")
            yield values.output_request(size)

    responses = []
    for response in stub.HalfDuplexCall(requests()):
        assert len(asked) == 3
        responses.append(len(response.payload.body))
    assert responses == [9, 31415, 0]


def test_intervals(stub: Any) -> None:
    """interval_us comes before each response, and a client that leaves meanwhile ends the handler."""
    parameters = [interop_pb2.ResponseParameters(size=1, interval_us=interval) for interval in (0, 600_000)]
    start = time.monotonic()
    arrived = []
    for _ in stub.StreamingOutputCall(interop_pb2.StreamingOutputCallRequest(response_parameters=parameters)):
        arrived.append(time.monotonic() - start)
    assert len(arrived) == 2 and arrived[1] - arrived[0] > 0.1


def test_impossible_sizes(stub: Any) -> None:
    for size in (-1, 2**31 - 1):
        with pytest.raises(grpc.RpcError) as caught:
            stub.UnaryCall(interop_pb2.SimpleRequest(response_size=size))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_message_limit(stub: Any) -> None:
    """4 MiB go through, one byte more is refused, and the connection lives on."""
    limit = 4 << 20
    request = interop_pb2.SimpleRequest(payload=values.payload(limit - 64))
    request.payload.body = bytes(len(request.payload.body) + limit - request.ByteSize())
    assert request.ByteSize() == limit
    assert stub.UnaryCall(request) == interop_pb2.SimpleResponse(payload=interop_pb2.Payload())
    request.payload.body += b"\0"
    with pytest.raises(grpc.RpcError) as caught:
        stub.UnaryCall(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.EmptyCall(interop_pb2.Empty()) == interop_pb2.Empty()


def test_metadata_limit(stub: Any) -> None:
    """More metadata than the server reads fails its call alone."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.EmptyCall(interop_pb2.Empty(), metadata=(("much", "x" * 20_000),))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, caught.value
    assert stub.EmptyCall(interop_pb2.Empty()) == interop_pb2.Empty()


@pytest.mark.parametrize(("minimum_ms", "is_forgiven"), [(1000, True), (3000, False)])
def test_keepalive(minimum_ms: int, is_forgiven: bool) -> None:
    """A client may PING just as often as the server allows, and one that does so more often is told to calm down."""
    options = [
        ("grpc.keepalive_time_ms", 1000),  # gRPC's C core sends no PINGs more often than that
        ("grpc.http2.max_pings_without_data", 0), ("grpc.use_local_subchannel_pool", 1),
    ]
    server = InteropServer("--minimum-ping-interval", str(minimum_ms))
    try:
        with grpc.insecure_channel(server.address, options) as channel:
            # The first response comes at once, the second after five PINGs with nothing in between: the fourth is
            # the third too many.
            parameters = [interop_pb2.ResponseParameters(interval_us=interval) for interval in (0, 5_500_000)]
            call = interop_grpcio.TestServiceStub(channel).StreamingOutputCall(
                interop_pb2.StreamingOutputCallRequest(response_parameters=parameters)
            )
            next(call)
            if is_forgiven:
                assert len(list(call)) == 1 and call.code() is grpc.StatusCode.OK
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    next(call)
                assert "too_many_pings" in caught.value.details(), caught.value
    finally:
        server.close()


# The real service


def test_device_service(world: World) -> None:
    """CreateDevice, WatchSaga, GetSaga and GetDevice by node:http2, C++ and Go."""
    server = world.server()
    for client in clients.PROCESSES.values():
        client.run(clients.DEVICE_CASE, server.address)


# ./dev batches: 1000.
@pytest.mark.parametrize("client", clients.BATCHING)
def test_client_of_a_batch_dies(world: World, client: str, tmp_path: pathlib.Path) -> None:
    """A third of its creations is wrong; it is killed in the middle, and repeats with the same request ids."""
    # So slow that there is a middle.
    server = world.server(environment={"DEVICERPC_MAX_SAGAS": "16", "DEVICERPC_SIMULATED_LATENCY": "10ms"})
    batch, count = unique(client), int(os.environ.get("BATCH_CREATIONS", "100"))
    run = clients.BATCHING[client]
    dying = run.start_batch(server.address, count, batch, tmp_path / "dying")
    try:
        wait_until(lambda: world.count("COMPLETED") >= count / 10, 60, "some to be made")
    finally:
        dying.kill()
    assert world.count("COMPLETED") < count * 2 / 3, "it was not in the middle"
    repeating = run.start_batch(server.address, count, batch, tmp_path / "repeating")
    try:
        assert repeating.wait(300) == 0, repeating.log_tail()
    finally:
        repeating.kill()
    names = world.database.rows(f"SELECT name FROM devices WHERE batch_id = '{batch}'")
    expected = [f"{batch} {number}" for number in range(1, count + 1) if number % 3]
    assert sorted(name for (name,) in names) == sorted(expected)
    assert world.count("COMPENSATED") == count // 9


def test_example_in_go(world: World) -> None:
    """examples/batch_creator.go makes one device a name, run twice."""
    server, batch = world.server(), unique("go")
    for _ in range(2):
        done = subprocess.run(
            [REPOSITORY / ".build/interop/go-batch-creator", server.address, batch, "20", "me"], capture_output=True, text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "20 of 20 made"
    names = sorted(device.name for device in server.client().list_devices(page_size=1000).devices)
    assert names == [f"{batch}-{number:04}" for number in range(1, 21)]
