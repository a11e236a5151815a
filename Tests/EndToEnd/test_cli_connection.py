"""How the command line reaches its server: TLS, tokens, the file, the environment; and that watch and batch survive a
server that drains."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from support.certificates import Authority, replace
from support.server import binary, clean_environment, run_command
from support.stubs import device_pb2, service_grpcio, service_pb2
from support.waiting import free_port, wait_until
from support.world import World

SUCCESS, UNAVAILABLE, TIMED_OUT, USAGE = 0, 3, 7, 64
TOKEN = "header.pay-load.signature"


class StubService(service_grpcio.DeviceServiceServicer):
    """Knows every device, and what its callers sent along."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []
        self.creates: list[str] = []

    def GetDevice(self, request: device_pb2.Device, context: grpc.ServicerContext) -> device_pb2.Device:
        seen = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        seen["peer"] = ",".join(name.decode() for name in context.auth_context().get("x509_subject_alternative_name", []))
        self.metadata.append(seen)
        return device_pb2.Device(device_id=request.device_id, name="known")

    def CreateDevice(
        self, request: service_pb2.CreateDeviceRequest, context: grpc.ServicerContext
    ) -> service_pb2.CreateDeviceResponse:
        """Twice of three times it is busy."""
        self.creates.append(request.request_id)
        tries = self.creates.count(request.request_id)
        if request.name == "never":
            context.set_trailing_metadata([("grpc-retry-pushback-ms", "-1")])
            context.abort(grpc.StatusCode.UNAVAILABLE, "not again")
        if tries < 3:
            context.set_trailing_metadata([("grpc-retry-pushback-ms", "20")])
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        return service_pb2.CreateDeviceResponse(saga_id="saga_1730188800000_aaaaaaaaaa")


class StubServer:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.service = StubService()
        # With the address: that makes it no certificate for every name that leads there.
        identity = self.authority.issue(dns=["localhost"], addresses=["127.0.0.1"])
        credentials = grpc.ssl_server_credentials(
            [(identity.key_pem, identity.certificate_pem)], self.authority.pem, require_client_auth=True
        )
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        service_grpcio.add_DeviceServiceServicer_to_server(self.service, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.tls_port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()
        self.ca = str(replace(folder / "ca.crt", self.authority.pem))
        client = self.authority.issue(uris=["spiffe://test/cli"])
        certificate, key = client.write(folder, "client")
        self.certificate, self.key = str(certificate), str(key)

    def close(self) -> None:
        self._server.stop(0).wait(10)


@pytest.fixture
def stub(tmp_path: pathlib.Path) -> Iterator[StubServer]:
    server = StubServer(tmp_path)
    try:
        yield server
    finally:
        server.close()


def _get(*arguments: str, code: int = SUCCESS, environment: dict[str, str] | None = None) -> str:
    done = run_command(["get", "some-device", *arguments], {"HOME": "/nowhere", **(environment or {})})
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_mutual_tls_and_a_token_by_flags(stub: StubServer) -> None:
    text = _get(
        "--server", f"localhost:{stub.tls_port}", "--tls", "--tls-ca", stub.ca, "--tls-cert", stub.certificate,
        "--tls-key", stub.key, "--token", TOKEN,
    )
    assert "known" in text
    (seen,) = stub.service.metadata
    assert seen["authorization"] == f"Bearer {TOKEN}"
    assert seen["peer"] == "spiffe://test/cli"


def test_everything_from_a_file_or_the_environment(stub: StubServer) -> None:
    (stub.folder / "token").write_text(TOKEN + "\n")
    settings = {
        "server": f"127.0.0.1:{stub.tls_port}", "token-file": str(stub.folder / "token"),
        "tls": {"ca": stub.ca, "cert": stub.certificate, "key": stub.key, "server-name": "localhost"},
    }
    home = stub.folder / "home"
    (home / ".config").mkdir(parents=True)
    (home / ".config/devicerpc.json").write_text(json.dumps(settings))
    _get(environment={"HOME": str(home)})
    _get("--config", str(home / ".config/devicerpc.json"))
    _get(environment={
        "DEVICERPC_SERVER": f"localhost:{stub.tls_port}", "DEVICERPC_TOKEN": TOKEN, "DEVICERPC_CLIENT_TLS_CA": stub.ca,
        "DEVICERPC_CLIENT_TLS_CERT": stub.certificate, "DEVICERPC_CLIENT_TLS_KEY": stub.key,
    })
    # What a flag says wins over the file: cleartext, elsewhere.
    _get("--no-tls", "--server", f"127.0.0.1:{stub.port}", environment={"HOME": str(home)})
    assert [seen["peer"] for seen in stub.service.metadata] == ["spiffe://test/cli"] * 3 + [""]
    assert {seen["authorization"] for seen in stub.service.metadata} == {f"Bearer {TOKEN}"}


def test_servers_that_are_not_the_one_asked_for(stub: StubServer) -> None:
    tls = ("--server", f"localhost:{stub.tls_port}", "--tls-cert", stub.certificate, "--tls-key", stub.key)
    other = str(replace(stub.folder / "other.crt", Authority().pem))
    def said(*arguments: str) -> str:
        text = _get(*arguments, code=UNAVAILABLE)
        assert ".cc" not in text and "OPENSSL" not in text and "NIO" not in text, text
        return text

    where = f"cannot connect to localhost:{stub.tls_port}: TLS: the server's certificate "
    assert where + "comes from no authority that is trusted" in said(*tls, "--tls-ca", other)
    assert where + "is not for phones.example" in said(
        *tls, "--tls-ca", stub.ca, "--tls-server-name", "phones.example")
    # A server that speaks no TLS, one that speaks nothing else, one that wants a certificate, one that doesn't like it.
    assert "TLS: the server does not speak TLS" in said(
        "--server", f"127.0.0.1:{stub.port}", "--tls", "--tls-ca", stub.ca)
    assert "it may want TLS" in said("--server", f"127.0.0.1:{stub.tls_port}", "--no-tls")
    assert "want a certificate of the client" in said("--server", f"localhost:{stub.tls_port}", "--tls-ca", stub.ca)
    certificate, key = Authority().issue(uris=["spiffe://test/stranger"]).write(stub.folder, "stranger")
    assert "not accept the client's" in said(
        "--server", f"localhost:{stub.tls_port}", "--tls-ca", stub.ca, "--tls-cert", str(certificate), "--tls-key",
        str(key))
    assert not stub.service.metadata


def test_servers_that_cannot_be_reached(tmp_path: pathlib.Path) -> None:
    port = free_port()
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused\n" in _get(
        "--server", f"127.0.0.1:{port}", code=UNAVAILABLE)
    assert "cannot connect to nowhere.invalid:1: nowhere.invalid can't be resolved: " in _get(
        "--server", "nowhere.invalid:1", code=UNAVAILABLE)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"before there was a connection: no answer from {address} yet" in _get(
            "--server", address, "--timeout", "500ms", code=TIMED_OUT)
    with expired_server(tmp_path) as (address, ca):
        assert f"cannot connect to {address}: TLS: the server's certificate has expired\n" in _get(
            "--server", address, "--tls-ca", ca, code=UNAVAILABLE)


@contextlib.contextmanager
def expired_server(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    """TLS with a certificate that was good until an hour ago."""
    authority = Authority()
    certificate, key = authority.issue(dns=["localhost"], is_expired=True).write(folder, "expired")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    context.wrap_socket(connection, server_side=True).close()
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"localhost:{listener.getsockname()[1]}", str(replace(folder / "expired-ca.crt", authority.pem))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)


def test_wrong_settings_are_named(stub: StubServer) -> None:
    assert "--server" in _get("--server", "nowhere", code=USAGE)
    assert "--tls-ca" in _get("--tls-ca", str(stub.folder / "none.crt"), code=USAGE)
    assert "--tls-key" in _get("--tls-ca", stub.ca, "--tls-cert", stub.certificate, "--tls-key", stub.ca, code=USAGE)
    assert "--tls-cert" in _get("--tls-cert", stub.certificate, code=USAGE)
    expired, key = Authority(is_expired=True).issue(uris=["spiffe://test/cli"]).write(stub.folder, "expired")
    assert "expired.crt has expired" in _get(
        "--tls-ca", stub.ca, "--tls-cert", str(expired), "--tls-key", str(key), code=USAGE)
    assert "expired.key does not belong to the certificate" in _get(
        "--tls-ca", stub.ca, "--tls-cert", stub.certificate, "--tls-key", str(key), code=USAGE)
    assert "DEVICERPC_SERVER" in _get(environment={"DEVICERPC_SERVER": "?"}, code=USAGE)
    (stub.folder / "c.yaml").write_text("sevrer: here:1\n")
    assert "did you mean server?" in _get("--config", str(stub.folder / "c.yaml"), code=USAGE)
    bad = _get("--token", "to ken", code=USAGE)
    assert "--token" in bad and "to ken" not in bad


@pytest.mark.parametrize("command", ["create", "get", "watch", "delete", "batch", "list", "sagas", "bench"])
def test_help_tells_all(command: str) -> None:
    text = run_command([command, "--help"]).stdout
    for name in ("--config", "--server", "--token", "--token-file", "--tls", "--tls-ca", "--tls-cert", "--tls-key",
                 "--tls-server-name", "DEVICERPC_SERVER", "DEVICERPC_TOKEN", "DEVICERPC_CLIENT_TLS_CA"):
        assert name in text, f"{name} is not in\n{text}"


def test_batch_waits_as_it_is_told_under_one_request_id(stub: StubServer) -> None:
    requests = "".join(json.dumps({"name": name, "userId": "u"}) + "\n" for name in ("a", "b", "never"))
    done = run_command(
        ["batch", "--requests", "-", "--batch-id", "b1", "--server", f"127.0.0.1:{stub.port}"], input=requests,
        cwd=stub.folder,
    )
    assert done.returncode == UNAVAILABLE, done.stdout + done.stderr
    results = json.loads((stub.folder / "b1.results.json").read_text())
    assert {name: one["status"] for name, one in results.items()} == {
        "a": "COMPLETED", "b": "COMPLETED", "never": "ERROR"
    }
    assert sorted(stub.service.creates) == ["b1/a"] * 3 + ["b1/b"] * 3 + ["b1/never"]


def test_watch_over_a_drain(world: World, tmp_path: pathlib.Path) -> None:
    """SIGTERM ends the stream in good order; the watcher comes back to the next server on that port."""
    server = world.server()
    made = run_command(
        ["create", "--name", "p", "--user", "ann", "--return-when", "accepted", "--option", "latency_ms=1500",
         "--output", "json"], {"DEVICERPC_SERVER": server.address},
    )
    saga_id = json.loads(made.stdout)["sagaId"]
    output = tmp_path / "events"
    with output.open("w") as file:
        process = subprocess.Popen(
            [str(binary()), "watch", saga_id, "--server", server.address, "--output", "json"],
            stdout=file, stderr=subprocess.PIPE, text=True, env=clean_environment(),
        )
    try:
        wait_until(lambda: output.read_text().count("\n") > 0, 60, "the first event")
        server.terminate()
        server.wait_ended(60)
        server.start()
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == SUCCESS, errors
    events = [json.loads(line) for line in output.read_text().splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "SAGA_EVENT_TYPE_SAGA_COMPLETED"
