"""What all clients share can't be used up by one of them: not by one connection, nor by many of one address."""

from __future__ import annotations

import contextlib
import gzip
import select
import time

import psycopg
import pytest

from support.bounds import connections, cpu_seconds, refusals, resident_bytes
from support.rawhttp2 import (
    DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, HEALTH_CHECK, HEALTH_WATCH, INITIAL_WINDOW_SIZE, REFLECTION, RawConnection,
    frame, message, reset, window_update,
)
from support.raw_calls import RawClient, Response
from support.server import Server
from support.stubs import service_pb2
from support.tokens import SigningKey, bearer, key_set, sign, user_claims
from support.waiting import wait_until
from support.world import World

pytestmark = pytest.mark.xdist_group("shares")

MIB = 1 << 20
SYMBOL = b"cloudphone.device.v1.DeviceService"
ASK = message(b"\x22" + bytes([len(SYMBOL)]) + SYMBOL)
OTHER = "127.0.0.2"
LIST_DEVICES = "/cloudphone.device.v1.DeviceService/ListDevices"
CREATE = "/cloudphone.device.v1.DeviceService/CreateDevice"


def _server(place: World, name: str, **limits: int) -> Server:
    server = place.server(name, environment={f"DEVICERPC_{key}": str(value) for key, value in limits.items()})
    wait_until(lambda: connections(server) == 0, 60, "the client that waited for readiness to be gone")
    return server


def _keep(raw: RawConnection, streams: int) -> None:
    """Has the server keep some 70 KiB a stream: answers for which the client has no window."""
    for _ in range(streams):
        raw.send(frame(DATA, 0, raw.open(REFLECTION), ASK * 100))


def test_handshakes_of_one_address(place: World) -> None:
    """Who opens connections and says nothing keeps nobody else out."""
    server = _server(place, "handshakes", MAX_HANDSHAKES=20)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(RawConnection(server.port, handshake=False))
        wait_until(lambda: refusals(server)["too_many_handshakes"] == 10, 60, "the bound")
        for _ in range(10):
            with RawConnection(server.port, source=OTHER) as other:
                other.trailers(other.call())
        assert refusals(server)["too_many_handshakes"] == 10


def test_headers_of_calls_that_run(place: World) -> None:
    """A field of 3.9 kB is one byte on the wire once it is in HPACK's table: calls that go on are counted with their
    headers."""
    server = _server(place, "headers", MAX_KEPT_BYTES=4 * MIB)
    before = resident_bytes(server)
    with RawConnection(server.port) as raw, RawConnection(server.port, source=OTHER) as other:
        _keep(other, 1)
        # Without their headers they take 2.4 MiB.
        for _ in range(300):
            if raw.is_closed:
                break
            raw.call(HEALTH_WATCH, extra=[("x-much", "m" * 3900)] * 4)
        goaway = raw.wait_closed()
        assert goaway is not None and (goaway.error_code, goaway.debug_data) == (ENHANCE_YOUR_CALM, "too_much_kept")
        assert resident_bytes(server) - before < 24 * MIB
        other.pump(0.1)
        assert not other.is_closed
    assert refusals(server)["too_much_kept"] == 1


def test_many_calls_that_do_nothing(place: World) -> None:
    """Calls take memory while they run, whatever they are about, and no longer: a thousand may come after each other."""
    server = _server(place, "calls", MAX_KEPT_BYTES=4 * MIB)
    with RawConnection(server.port) as raw:
        for _ in range(10):
            for stream in [raw.call() for _ in range(100)]:
                raw.trailers(stream)
            watches = [raw.call(HEALTH_WATCH) for _ in range(100)]
            for watch in watches:
                raw.wait_for(lambda one, watch=watch: one.kind == DATA and one.stream == watch)
            raw.send(b"".join(reset(watch) for watch in watches))
            raw.received.clear()
        assert refusals(server)["too_much_kept"] == 0
        for _ in range(900):
            if raw.is_closed:
                break
            raw.call(HEALTH_WATCH)
        goaway = raw.wait_closed()
    assert goaway is not None and goaway.debug_data == "too_much_kept"


def test_many_connections_that_keep_little(place: World) -> None:
    """Forty connections that each keep little are more than may be kept; who keeps more on one stays, from elsewhere."""
    server = _server(place, "little", MAX_KEPT_BYTES=4 * MIB)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(RawConnection(server.port, source=OTHER, initial={INITIAL_WINDOW_SIZE: 0}))
        _keep(other, 5)
        attackers = [
            stack.enter_context(RawConnection(server.port, initial={INITIAL_WINDOW_SIZE: 0})) for _ in range(40)]
        for attacker in attackers:
            _keep(attacker, 2)
        wait_until(lambda: refusals(server)["too_much_kept"] > 0, 60, "some to be closed")
        for attacker in attackers:
            attacker.pump(0.5)
        other.pump(0.1)
        assert not other.is_closed
        assert sum(one.is_closed for one in attackers) < len(attackers), "more than necessary were closed"


def test_lists_that_take_long(place: World) -> None:
    """Lists that each take a connection of the database for long leave others their turn, and the server its health."""
    server = _server(place, "lists")
    client = server.client()
    before = refusals(server)["too_many_reads"]
    with psycopg.connect(place.database.url) as connection, RawConnection(server.port) as raw:
        with connection.transaction():
            # Every list of devices waits for this, as for a query that takes long.
            connection.execute("LOCK TABLE devices IN ACCESS EXCLUSIVE MODE")
            for _ in range(100):
                raw.call(LIST_DEVICES)
            wait_until(lambda: refusals(server)["too_many_reads"] - before == 98, 60, "all but two to wait")
            deadline = time.monotonic() + 2.5
            while time.monotonic() < deadline:
                assert client.health(timeout=60) == "SERVING"
                time.sleep(0.1)
        for stream in range(1, 200, 2):
            raw.wait_for(lambda one, stream=stream: one.stream == stream and one.ends_stream)


def test_sagas_of_one_user(place: World) -> None:
    """A user with as many sagas in flight as one may have is refused, and another one is not."""
    server = place.server("one user", environment={
        "DEVICERPC_MAX_SAGAS_PER_USER": "3", "DEVICERPC_SIMULATED_LATENCY": "1s"})
    with RawClient(server.port) as client:

        def create(user: str) -> Response:
            request = service_pb2.CreateDeviceRequest(
                name="phone", user_id=user, return_when=service_pb2.RETURN_WHEN_ACCEPTED)
            return client.unary(CREATE, message(request.SerializeToString()))

        assert [create("ann").status for _ in range(3)] == [0, 0, 0]
        refused = create("ann")
        assert (refused.status, refused.all("grpc-retry-pushback-ms") != []) == (8, True)
        assert create("bob").status == 0
        place.wait_all_over()
        assert create("ann").status == 0
        place.wait_all_over()


def test_forged_tokens(place: World) -> None:
    """Who floods the server with tokens that are signed by nobody is told so, and keeps no token of others from being
    checked."""
    key, stranger = SigningKey("ES256", "k"), SigningKey("ES256", "k")
    keys = place.home / "keys.json"
    keys.write_bytes(key_set(key))
    server = place.server("tokens", metadata=bearer(sign(user_claims("ann"), key)), environment={
        "DEVICERPC_AUTH": "jwt", "DEVICERPC_JWKS": str(keys), "DEVICERPC_PERMISSIONS": "role:user=device.read"})
    before = refusals(server)["too_many_tokens"]
    genuine = sign(user_claims("bob", roles=["user"]), key)
    forged = sign(user_claims("bob", roles=["user"]), stranger)
    with RawClient(server.port) as attacker, RawConnection(server.port, source=OTHER) as other:
        # A first answer leaves room in the client's table of fields.
        streams = [attacker.begin(LIST_DEVICES, [("authorization", f"Bearer {forged}"), ("x-n", str(n))]) for n in range(900)]
        assert attacker.flood([attacker.data(stream, message(), end=True) for stream in streams])
        assert other.trailers(other.call(LIST_DEVICES, extra=[("authorization", f"Bearer {genuine}")])).field(
            "grpc-status") == "0"
        assert {attacker.response(stream).status for stream in streams} == {16}
    assert refusals(server)["too_many_tokens"] > before


def test_compressed_messages_take_turns(place: World) -> None:
    """Calls of 300 bytes that inflate to as much as a message may have are worked off by turns."""
    server = _server(place, "inflations")
    bomb = message(gzip.compress(b"\x0a\x00" * 128_000, 9), flag=1)
    encoded = [("grpc-encoding", "gzip")]
    with RawClient(server.port) as attacker, RawConnection(server.port, source=OTHER) as other:
        streams = [attacker.begin(CREATE, encoded) for _ in range(200)]
        assert attacker.flood([attacker.data(stream, bomb, end=True) for stream in streams])
        stream = other.open(CREATE, encoded)
        other.send(frame(DATA, END_STREAM, stream, bomb))
        other.trailers(stream)
        attacker.pump(0)
        assert sum(attacker.has_ended(stream) for stream in streams) < 150
        assert refusals(server)["too_many_inflations"] > 100


def test_combining_marks(place: World) -> None:
    """A key or a name that is a run of combining marks takes no time, whoever looks for it: each of these took up to two
    tenths of a second."""
    server = _server(place, "marks")
    marks = ("e" + "\u0301\u0316" * 15_000).encode()
    key = bytes([0x0A]) + _varint(len(marks)) + marks
    request = bytes([0x52]) + _varint(len(key)) + key
    symbol = bytes([0x22]) + _varint(len(marks)) + marks
    with RawClient(server.port) as client:
        before = cpu_seconds(server)
        for _ in range(20):
            assert client.unary(CREATE, message(gzip.compress(request), flag=1), [("grpc-encoding", "gzip")]).status == 3
            assert client.unary(HEALTH_CHECK, message(b"\x0a" + _varint(4001) + marks[:4001])).status == 5
        stream = client.begin(REFLECTION, [("grpc-encoding", "gzip")])
        for _ in range(20):
            client.send(client.data(stream, message(gzip.compress(symbol), flag=1)))
        client.send(client.data(stream, end=True))
        client.send(window_update(0, 1 << 30))
        client.send(window_update(stream, 1 << 30))
        assert client.response(stream).status == 0
        # 7.7 s when strings of that kind were compared as such.
        assert cpu_seconds(server) - before < 2.5
    assert refusals(server)["message_too_complex"] == 20


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _write(raw: RawConnection, data: bytes) -> None:
    """All of it, without reading anything."""
    with contextlib.suppress(ConnectionError):
        while data:
            assert select.select([], [raw.socket], [], 60)[1], "the server reads nothing"
            data = data[raw.socket.send(data):]


def test_answers_that_sockets_do_not_take(place: World) -> None:
    """What was handed to a socket that takes nothing is kept as well: here as much as what still waits for it."""
    server = _server(place, "sockets", MAX_KEPT_BYTES=3 * MIB)
    with contextlib.ExitStack() as stack:
        raws = [
            stack.enter_context(RawConnection(
                server.port, receive_buffer=4096, segment=536, initial={INITIAL_WINDOW_SIZE: 0x7FFFFFFF}))
            for _ in range(30)]
        for raw in raws:
            raw.send(window_update(0, 0x7FFFFFFF - 65535))
            stream = raw.next_stream()
            # Some 6 MB of answers, more than kernels keep.
            _write(raw, frame(HEADERS, END_HEADERS, stream, raw.request_headers(REFLECTION)))
            for _ in range(15):
                _write(raw, frame(DATA, 0, stream, ASK * 100))
        wait_until(lambda: refusals(server)["too_much_kept"] > 0, 60, "one of them to be closed")
