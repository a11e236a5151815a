"""Part A8: health and reflection, and the same rules on the product's own server."""

from __future__ import annotations

import gzip
import re
import signal
from collections.abc import Iterator

import grpc
import pytest

from interop.server import InteropServer
from support.interop_messages import SERVICE, field
from support.raw_calls import RawClient, messages
from support.rawhttp2 import REFLECTION, message
from support.stubs import REPOSITORY, service_pb2
from support.waiting import wait_until
from support.world import World

HEALTH = "/grpc.health.v1.Health/"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = field(1, 1), field(1, 2), field(1, 3)


def test_health_check(connection: RawClient) -> None:
    assert connection.unary(HEALTH + "Check").messages == [SERVING]
    assert connection.unary(HEALTH + "Check", message(field(1, "grpc.testing.TestService"))).messages == [SERVING]
    assert connection.unary(HEALTH + "Check", message(field(1, "nobody"))).status == 5
    assert connection.unary(HEALTH + "Check", message(b"\x0a\x05ab")).status == 13


def test_health_list(connection: RawClient) -> None:
    entries = [field(1, field(2, SERVING)), field(1, field(1, "grpc.testing.TestService") + field(2, SERVING))]
    assert connection.unary(HEALTH + "List").messages == [b"".join(entries)]


def test_health_watch_answers_at_once_and_stays_open(connection: RawClient) -> None:
    streams = {}
    for name, expected in (("", SERVING), ("nobody", SERVICE_UNKNOWN)):
        stream = connection.begin(HEALTH + "Watch")
        connection.send(connection.data(stream, message(field(1, name)), end=True))
        connection.read_until(
            lambda s=stream: s in connection.responses and bool(connection.responses[s].data), "a message")
        streams[stream] = expected
    connection.ping()
    for stream, expected in streams.items():
        response = connection.responses[stream]
        assert response.messages == [expected] and not response.has_ended
        connection.reset(stream)


def test_health_watch_hears_of_the_shutdown() -> None:
    with InteropServer() as server, RawClient(server.port) as client:
        stream = client.begin(HEALTH + "Watch")
        client.send(client.data(stream, message(), end=True))
        client.read_until(lambda: stream in client.responses and bool(client.responses[stream].data), "a message")
        server.process.send(signal.SIGTERM)
        response = client.response(stream)
        assert response.messages == [SERVING, NOT_SERVING]
        assert response.status == 14


def _strings(data: bytes, number: int) -> list[bytes]:
    """The values of a length-delimited field, at the top of a message."""
    found = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        assert key & 7 == 2, key
        length = varint()
        if key >> 3 == number:
            found.append(data[at : at + length])
        at += length
    return found


def _calls(metrics: list[str], method: str, code: str) -> int:
    found = [line for line in metrics if "rpc_server_calls_total" in line and method in line and f'"{code}"' in line]
    assert len(found) == 1, found
    return int(float(found[0].rpartition(" ")[2]))


def test_resets_and_retries_reach_the_metrics(world: World) -> None:
    """A reset counts as the status that its code means."""
    server = world.server()
    watch = 'method="grpc.health.v1.Health/Watch"'
    with RawClient(server.port) as client:
        for code, _ in RESETS:
            stream = client.begin(HEALTH + "Watch", [("grpc-previous-rpc-attempts", "1")])
            client.send(client.data(stream, message(), end=True))
            client.read_until(lambda s=stream: s in client.responses and bool(client.responses[s].data), "a message")
            client.reset(stream, code)
        client.ping()
        metrics = server.http("/metrics")[1].splitlines()
        for _, name in RESETS:
            assert _calls(metrics, watch, name) == 1
        stream = client.begin(HEALTH + "Watch")
        client.send(client.data(stream, message(), end=True))
        client.read_until(lambda: client.has_begun(stream), "a response")
    # A connection that is lost cancels its calls.
    wait_until(
        lambda: _calls(server.http("/metrics")[1].splitlines(), watch, "CANCELLED") == 2, 60, "its end to be counted")
    assert any("rpc_server_retries_total" in line and watch in line and line.endswith(" 4") for line in metrics)


RESETS = [(2, "INTERNAL"), (7, "UNAVAILABLE"), (8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED")]


@pytest.fixture
def device(world: World) -> Iterator[RawClient]:
    with RawClient(world.server().port) as connection:
        yield connection


def test_the_product_keeps_the_same_rules(device: RawClient) -> None:
    """Reflection in both versions, paths, content types, protobuf, and limits, on `devicerpc serve`."""
    for package in ("grpc.reflection.v1", "grpc.reflection.v1alpha"):
        path = f"/{package}.ServerReflection/ServerReflectionInfo"
        questions = [
            field(7, ""), field(4, "grpc.health.v1.Health"), field(3, "no/such.proto"),
            field(4, "grpc.health.v1.Health.List"), field(6, "nobody"), field(5, field(1, "a.B") + field(2, 1)),
        ]
        response = device.unary(path, b"".join(message(field(1, "host") + question) for question in questions))
        assert response.status == 0
        services, by_symbol, unknown, by_method, no_type, no_extension = response.messages
        for answer, question in zip(response.messages, questions, strict=True):
            assert _strings(answer, 1) == [b"host"]
            assert _strings(answer, 2) == [field(1, "host") + question]
        names = [_strings(service, 1)[0] for service in _strings(_strings(services, 6)[0], 1)]
        assert names == sorted(names)
        assert {
            b"cloudphone.device.v1.DeviceService", b"grpc.health.v1.Health", b"grpc.reflection.v1.ServerReflection",
            b"grpc.reflection.v1alpha.ServerReflection",
        } <= set(names)
        for answer in (by_symbol, by_method):
            files = _strings(_strings(answer, 4)[0], 1)
            assert [_strings(file, 1) for file in files] == [[b"grpc/health/v1/health.proto"]]
        # An error is an answer: the stream goes on.
        for answer in (unknown, no_type, no_extension):
            assert _strings(answer, 7)[0].startswith(field(1, 5))

    get = "/cloudphone.device.v1.DeviceService/GetSaga"
    assert device.unary(get + "/").status == 12
    assert device.unary(get.lower()).status == 12
    assert device.unary(get, extra=[("content-type", "application/json")]).http_status == "415"
    assert device.unary(get, message(b"\x0a\xff")).status == 13
    assert device.unary(get, b"").status == 12
    response = device.unary(get, message(field(1, "sg_00000000000000000000000000")))
    assert response.status in (3, 5) and response.all("grpc-status-details-bin")
    assert not response.all("grpc-status-details-bin")[0].endswith("=")
    assert device.unary(SERVICE + "EmptyCall").grpc_message == "unknown service grpc.testing.TestService"


def _methods() -> Iterator[tuple[str, bool]]:
    """Path of each method of the product, and whether it takes any number of messages."""
    for service in service_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}", method.client_streaming
    for name in ("Check", "List", "Watch"):
        yield HEALTH + name, False
    for package in ("grpc.reflection.v1", "grpc.reflection.v1alpha"):
        yield f"/{package}.ServerReflection/ServerReflectionInfo", True


def test_every_method_keeps_the_rules(device: RawClient) -> None:
    for path, takes_many in _methods():
        whole = [
            (message(flag=1), [], 13), (message(flag=2), [], 13), (message(b"cut short")[:-1], [], 13),
            (message(b"no gzip", 1), [("grpc-encoding", "gzip")], 13),
            (message(gzip.compress(bytes(5 << 20)), 1), [("grpc-encoding", "gzip")], 8),
        ]
        if not takes_many:
            whole.append((message() * 2, [], 12))
        for body, extra, status in whole:
            assert device.unary(path, body, extra).status == status, (path, body[:50])
        assert device.unary(path.lower()).status == 12
        assert device.response(device.begin(path, end=True)).status == (0 if takes_many else 12), path
        assert device.response(device.begin(path, [("grpc-timeout", "0n")])).status == 4, path
        stream = device.begin(path)
        device.send(device.data(stream, b"\0\xff\xff\xff\xff"))
        assert device.response(stream).status == 8, path
        # Without fields there is nothing that must be UTF-8.
        texts = [] if path == HEALTH + "List" else [field(1, b"\xff") + field(4, b"\xff")]
        for body in (b"\x0a\xff", *texts):
            response = device.unary(path, message(body))
            if path.endswith("/CreateDevices"):
                # One that can't be read ends itself alone.
                result = service_pb2.CreateDevicesResult.FromString(response.data[5:])
                assert response.status == 0 and result.error.code == 13, (body, result)
                continue
            is_there = not response.grpc_message.endswith("is not there yet")
            assert response.status == (13 if is_there else 12), (path, body, response.grpc_message)


def test_the_products_settings_for_connections(world: World) -> None:
    server = world.server(environment={
        "DEVICERPC_MAX_CONNECTION_AGE": "500ms", "DEVICERPC_MAX_CONNECTION_AGE_GRACE": "500ms",
        "DEVICERPC_MAX_HEADER_BYTES": "2000", "DEVICERPC_COMPRESS_FROM_BYTES": "1",
    })
    with RawClient(server.port) as client:
        stream = client.begin(REFLECTION)
        assert client.unary(HEALTH + "Check", extra=[("x-long", "a" * 2000)]).status == 8
        question = message(field(4, "grpc.health.v1.Health"))
        plain = client.unary(REFLECTION, question)
        packed = client.unary(REFLECTION, question, [("grpc-accept-encoding", "gzip")])
        [(flag, body)] = messages(packed.data)
        assert flag == 1 and gzip.decompress(body) == plain.messages[0]
        # A stream that would never end hears that its time is up, and can be taken up elsewhere.
        assert client.response(stream).status == 14
        client.wait_closed()
        assert client.goaways[-1][2] == "max_age"


def test_streams_without_an_end_leave_with_the_server(world: World) -> None:
    """Those that run, and those that come before their client has heard of the end."""
    server = world.server()
    with RawClient(server.port, answers=False) as client:
        running = client.begin(REFLECTION)
        client.ping()
        server.terminate()
        client.wait_goaway()
        assert client.response(running).status == 14
        late = client.begin(REFLECTION)
        assert client.response(late).status == 14
        assert len(client.goaways) == 1
        client.acknowledge_ping()
        client.wait_closed()


def test_the_service_config_of_the_documents_works(world: World) -> None:
    text = (REPOSITORY / "docs/wire.md").read_text()
    config = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert config
    server = world.server()
    options = [("grpc.service_config", config.group(1))]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        get = channel.unary_unary("/cloudphone.device.v1.DeviceService/GetSaga")
        with pytest.raises(grpc.RpcError) as failure:
            get(field(1, "sg_00000000000000000000000000"), timeout=10)
        assert failure.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
