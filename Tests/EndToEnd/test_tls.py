"""TLS: versions, ALPN, mutual TLS, and certificates that change under live connections."""

from __future__ import annotations

import os
import pathlib
import resource
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import grpc
import hpack
import pytest

from support.certificates import Authority, Identity, replace
from support.client import RPCFailure
from support.rawhttp2 import DATA, END_HEADERS, END_STREAM, HEADERS, frame, message
from support.server import Server, run_command
from support.waiting import wait_until
from support.world import World

NOT_FOUND = "5"
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


class TLSServer:
    """A server with certificates of its own authority, in files that the test may change."""

    def __init__(self, world: World, *, mutual: str = "", environment: dict[str, str] | None = None) -> None:
        self.authority = Authority()
        self.folder = world.home / "tls"
        self.certificate, self.key = self.authority.issue_for_server().write(self.folder, "server")
        settings = {
            "DEVICERPC_TLS_CERT": str(self.certificate), "DEVICERPC_TLS_KEY": str(self.key),
            "DEVICERPC_TLS_RELOAD_INTERVAL": "50ms", **(environment or {}),
        }
        self.client_identity: Identity | None = None
        if mutual:
            self.client_identity = self.authority.issue(uris=["spiffe://test/ns/shop/sa/orders"])
            settings["DEVICERPC_TLS_CLIENT_CA"] = str(replace(self.folder / "clients.crt", self.authority.pem))
            settings["DEVICERPC_TLS_CLIENT_CERT"] = mutual
        self.server: Server = world.server(
            environment=settings, credentials=self.authority.credentials(self.client_identity)
        )

    def context(self, identity: Identity | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.set_alpn_protocols(["h2"])
        identity = identity or self.client_identity
        if identity:
            chain, key = identity.write(self.folder, "client")
            context.load_cert_chain(chain, key)
        return context

    def connect(self, context: ssl.SSLContext, **options: Any) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.server.port), timeout=10)
        try:
            return context.wrap_socket(raw, server_hostname="localhost", **options)
        except BaseException:
            raw.close()
            raise

    def serial(self) -> int:
        """Of the certificate that new connections see."""
        from cryptography import x509

        with self.connect(self.context()) as connection:
            shown = connection.getpeercert(binary_form=True)
            assert shown is not None
            return x509.load_der_x509_certificate(shown).serial_number

    def reloads(self, outcome: str) -> int:
        prefix = f'rpc_server_tls_reloads_total{{outcome="{outcome}"}} '
        lines = [line for line in self.server.http("/metrics")[1].splitlines() if line.startswith(prefix)]
        assert len(lines) == 1, lines
        return int(float(lines[0].removeprefix(prefix)))


@pytest.fixture
def tls(world: World) -> TLSServer:
    return TLSServer(world)


def test_a_device_is_created_over_tls(tls: TLSServer) -> None:
    client = tls.server.client()
    created = client.create(user="tls-user")
    assert client.saga(created.saga_id).device_id == created.device.device_id
    assert [event.sequence for event in client.watch(created.saga_id)][0] == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_speak_h2(tls: TLSServer, version: ssl.TLSVersion) -> None:
    context = tls.context()
    context.minimum_version = context.maximum_version = version
    with tls.connect(context) as connection:
        assert connection.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
        assert connection.selected_alpn_protocol() == "h2"
        cipher = connection.cipher()
        assert cipher is not None and ("GCM" in cipher[0] or "CHACHA20" in cipher[0])
        connection.sendall(HTTP2_PREFACE)
        assert connection.recv(9)[3] == 4, "the first frame is SETTINGS"


def test_no_name_is_needed(tls: TLSServer) -> None:
    """Who connects to an address sends none (RFC 6066, section 3)."""
    context = tls.context()
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", tls.server.port), timeout=10) as raw:
        with context.wrap_socket(raw) as connection:
            connection.sendall(HTTP2_PREFACE)
            assert connection.recv(9)[3] == 4


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_versions_and_weak_suites_are_refused(tls: TLSServer) -> None:
    context = tls.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls.connect(context).close()
    weak = tls.context()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls.connect(weak).close()


@pytest.mark.parametrize("offered", [[], ["http/1.1"], ["http/1.1", "h3"]])
def test_without_h2_the_connection_is_closed(tls: TLSServer, offered: list[str]) -> None:
    context = ssl.create_default_context(cadata=tls.authority.pem.decode())
    if offered:
        context.set_alpn_protocols(offered)
    with tls.connect(context) as connection:
        assert connection.selected_alpn_protocol() is None
        assert connection.recv(1) == b"", "nothing is sent, the connection ends"


def test_a_call_right_behind_the_handshake_waits_for_h2(tls: TLSServer) -> None:
    """Without ALPN, in one segment with the client's Finished: closing takes a moment, and nothing is done meanwhile."""
    context = ssl.create_default_context(cadata=tls.authority.pem.decode())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    method = "grpc.health.v1.Health/List"  # that nobody else calls
    fields = [
        (":method", "POST"), (":scheme", "https"), (":path", f"/{method}"), (":authority", "localhost"),
        ("content-type", "application/grpc"), ("te", "trailers"),
    ]
    call = frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(fields)) + frame(DATA, END_STREAM, 1, message())

    with socket.create_connection(("127.0.0.1", tls.server.port), timeout=10) as raw:
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
        session.write(HTTP2_PREFACE + call)
        raw.sendall(outgoing.read())
        while raw.recv(65536):
            pass
    metrics = tls.server.http("/metrics")[1].splitlines()
    calls = [line for line in metrics if line.startswith("rpc_server_calls_total") and f'method="{method}"' in line]
    assert all(line.endswith(" 0") for line in calls), calls


@pytest.mark.parametrize("bytes_", [HTTP2_PREFACE, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", b"\x16\x03\x01"])
def test_plaintext_and_rubbish_close_quietly(tls: TLSServer, bytes_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", tls.server.port), timeout=10) as connection:
        connection.sendall(bytes_)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(4096):
            received += chunk
        assert len(received) < 16, "an alert at most"
    assert tls.server.client().health() == "SERVING"
    assert not [line for line in tls.server.log_text().splitlines() if " error " in line.lower()[:60]]


def test_a_handshake_that_never_ends_is_ended(tls: TLSServer) -> None:
    with socket.create_connection(("127.0.0.1", tls.server.port), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00")  # the header of a ClientHello that never comes
        assert len(connection.recv(4096)) < 16


def test_mutual_tls_asks_for_a_certificate_of_the_right_authority(world: World) -> None:
    tls = TLSServer(world, mutual="required")
    assert tls.server.client().create(user="u").saga_id
    strangers = Authority().issue(uris=["spiffe://test/ns/shop/sa/orders"])
    for identity in (None, strangers):
        client = tls.server.client_with((), tls.authority.credentials(identity))
        with pytest.raises(RPCFailure) as failure:
            client.call("GetDevice", _get_device(), timeout=3)
        assert failure.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_optional_certificates_may_be_left_out_but_not_be_wrong(world: World) -> None:
    tls = TLSServer(world, mutual="optional")
    for identity in (None, tls.client_identity):
        assert tls.server.client_with((), tls.authority.credentials(identity)).create(user="u").saga_id
    strangers = Authority().issue(uris=["spiffe://test/ns/shop/sa/orders"])
    with pytest.raises(RPCFailure):
        tls.server.client_with((), tls.authority.credentials(strangers)).call("GetDevice", _get_device(), timeout=3)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def _status(connection: ssl.SSLSocket) -> str:
    """Of a call of GetDevice, which takes a permission."""
    fields = [
        (":method", "POST"), (":scheme", "https"), (":path", "/cloudphone.device.v1.DeviceService/GetDevice"),
        (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers"),
    ]
    request = message(_get_device().SerializeToString())
    connection.sendall(
        HTTP2_PREFACE + frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(fields)) + frame(DATA, END_STREAM, 1, request))
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
        while len(received) >= 9 and len(received) >= (end := 9 + int.from_bytes(received[:3], "big")):
            one, received = received[:end], received[end:]
            if one[3] == HEADERS:
                return str(dict(hpack.Decoder().decode(one[9:]))["grpc-status"])
    return "hung up"


def _known(tls: TLSServer, seconds: float | None = None) -> Identity:
    """Of several names, the second is the one that the map has."""
    names = ["spiffe://test/ns/shop/sa/others", "spiffe://test/ns/shop/sa/known"]
    return tls.authority.issue(uris=names, dns=["others.internal"], seconds=seconds)


def _mutual(world: World) -> TLSServer:
    return TLSServer(world, mutual="required", environment={
        "DEVICERPC_AUTH": "mtls", "DEVICERPC_PERMISSIONS": "san:spiffe://test/ns/shop/sa/known=device.read"})


def _context(tls: TLSServer, identity: Identity, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = tls.context(identity)
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_has_its_first_certificate_as_long_as_that_is_valid(
    world: World, version: ssl.TLSVersion
) -> None:
    """A ticket lives for days, and nothing of the certificate behind it is checked again in a handshake."""
    tls = _mutual(world)
    identity = _known(tls, seconds=8)
    context = _context(tls, identity, version)
    with tls.connect(context) as first:
        assert _status(first) == NOT_FOUND
        session = first.session
    with tls.connect(context, session=session) as second:
        assert second.session_reused
        assert _status(second) == NOT_FOUND, "known by its certificate, without showing it again"
    end = identity.certificate.not_valid_after_utc.timestamp() + 1.1
    wait_until(lambda: time.time() > end, 60, "the certificate to end")
    with tls.connect(context, session=session) as third:
        assert _ended(third)
    assert tls.server.client_with((), tls.authority.credentials(_known(tls))).health() == "SERVING"


@pytest.mark.parametrize("version", VERSIONS)
def test_tickets_are_worthless_once_their_authority_is_not_trusted(world: World, version: ssl.TLSVersion) -> None:
    tls = _mutual(world)
    context = _context(tls, _known(tls), version)
    with tls.connect(context) as first:
        assert _status(first) == NOT_FOUND
        before = tls.reloads("loaded")
        replace(tls.folder / "clients.crt", Authority("another").pem)
        wait_until(lambda: tls.reloads("loaded") > before, 60, "the change to be seen")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with tls.connect(context, session=first.session) as second:
                assert not second.session_reused
                assert not _ended(second), "with TLS 1.3 a client hears of it behind its handshake only"
    assert "stays in use" not in tls.server.log_text()


def _ended(connection: ssl.SSLSocket) -> bool:
    """Whether nothing comes but an end."""
    try:
        return _status(connection) == "hung up"
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_certificates_change_under_live_connections(tls: TLSServer) -> None:
    client = tls.server.client()
    created = client.create(user="u", when="ACCEPTED", options={"latency_ms": "1500"})
    events = client.watch(created.saga_id)
    next(events)
    before = tls.serial()

    fresh = tls.authority.issue_for_server()
    fresh.write(tls.folder, "server")
    wait_until(lambda: tls.serial() == fresh.certificate.serial_number != before, 60, "the new certificate")
    assert client.saga(created.saga_id).saga_id, "the old connection goes on"
    assert list(events), "and so does its watcher, to the end"
    assert f"{fresh.certificate.not_valid_after_utc.timestamp():.0f}" in tls.server.http("/metrics")[1].replace(".0", "")


def test_a_broken_certificate_keeps_the_old_one(tls: TLSServer) -> None:
    good = tls.serial()
    other = tls.authority.issue_for_server()
    breakages: list[Callable[[], object]] = [
        lambda: replace(tls.certificate, b"-----BEGIN CERTIFICATE-----\nrubbish\n"),
        lambda: replace(tls.certificate, other.certificate_pem),  # its key comes later
        lambda: tls.certificate.unlink(),
    ]
    for number, damage in enumerate(breakages, 1):
        damage()
        wait_until(lambda: tls.reloads("rejected") == number, 60, "the change to be refused")
        assert tls.serial() == good
    assert "stays in use" in tls.server.log_text()
    assert "PRIVATE KEY" not in tls.server.log_text()
    other.write(tls.folder, "server")
    wait_until(lambda: tls.serial() == other.certificate.serial_number, 60, "the new certificate")


def test_what_could_not_be_read_is_tried_again(tls: TLSServer) -> None:
    """A server that had no descriptor to spare just then, and a file that looks as it did before."""
    open_files = resource.prlimit(tls.server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(tls.server.pid, resource.RLIMIT_NOFILE, (3, open_files[1]))
    fresh = tls.authority.issue_for_server()
    try:
        fresh.write(tls.folder, "server")
        wait_until(lambda: "stays in use" in tls.server.log_text(), 60, "the change to be refused")
    finally:
        resource.prlimit(tls.server.pid, resource.RLIMIT_NOFILE, open_files)
    wait_until(lambda: tls.serial() == fresh.certificate.serial_number, 60, "the new certificate")
    said = tls.server.log_text().count("stays in use")
    assert said <= 3, "once for each of the files that changed, and not every 50 ms"


def test_a_change_counts_whatever_the_time_of_writing_says(tls: TLSServer) -> None:
    """As with `cp -p` of a file that is as long as the one before."""
    fresh = tls.authority.issue_for_server()
    while len(fresh.certificate_pem) != tls.certificate.stat().st_size:
        fresh = tls.authority.issue_for_server()
    times = [(file, file.stat()) for file in (tls.certificate, tls.key)]
    for (file, before), content in zip(times, (fresh.certificate_pem, fresh.key_pem), strict=True):
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    wait_until(lambda: tls.serial() == fresh.certificate.serial_number, 60, "the new certificate")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "server.crt").unlink(), "DEVICERPC_TLS_CERT"),
        (lambda folder: (folder / "server.key").write_text("rubbish"), "DEVICERPC_TLS_KEY"),
        (lambda folder: Authority().issue_for_server().write(folder, "other")[1].rename(folder / "server.key"),
         "DEVICERPC_TLS_KEY"),
        (lambda folder: (folder / "clients.crt").write_text(""), "DEVICERPC_TLS_CLIENT_CA"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(
    world: World, damage: Callable[[pathlib.Path], object], named: str
) -> None:
    server = world.server(start=False)
    folder = world.home / "tls"
    certificate, key = Authority().issue_for_server().write(folder, "server")
    authority = replace(folder / "clients.crt", Authority().pem)
    damage(folder)
    server.launch(
        {
            "DEVICERPC_TLS_CERT": str(certificate), "DEVICERPC_TLS_KEY": str(key),
            "DEVICERPC_TLS_CLIENT_CA": str(authority),
        }
    )
    assert server.wait_ended(60) == 64
    assert named in server.log_tail(6)


def test_listening_beyond_this_machine_needs_tls_and_callers_that_are_known(world: World) -> None:
    folder = world.home / "tls"
    certificate, key = Authority().issue_for_server().write(folder, "server")
    environment = {
        "DATABASE_URL": world.database.url, "DEVICERPC_SIMULATED": "true", "DEVICERPC_LISTEN": "0.0.0.0:0",
        "DEVICERPC_TLS_CERT": str(certificate), "DEVICERPC_TLS_KEY": str(key),
    }
    done = run_command(["serve"], environment)
    assert done.returncode == 64 and "--insecure-listen" in done.stderr, done.stderr


def _get_device() -> Any:
    from support.stubs import service_pb2

    return service_pb2.GetDeviceRequest(device_id="123e4567-e89b-12d3-a456-426614174000")
