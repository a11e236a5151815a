"""Wrong settings of TLS and of who may call: one clear error each, which names the setting and what is allowed, exit code
64, and no secret in it. No database is needed to find them out."""

from __future__ import annotations

import json
import pathlib
import subprocess
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization

from support.certificates import Authority, replace
from support.server import run_command
from support.tokens import SigningKey

SECRET = "topsecret-topsecret-topsecret-0123456789"


class Files:
    """All kinds of files that somebody might name."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        authority, stranger, expired = Authority(), Authority(), Authority(is_expired=True)
        self.certificate, self.key = map(str, authority.issue_for_server().write(folder, "server"))
        _, self.other_key = map(str, stranger.issue_for_server().write(folder, "other"))
        self.expired, self.expired_key = map(str, expired.issue_for_server().write(folder, "expired"))
        self.authority = self.write("ca.crt", authority.pem)
        self.expired_authority = self.write("expired-ca.crt", expired.pem)
        identity = authority.issue_for_server()
        self.der = self.write("server.der", identity.certificate.public_bytes(serialization.Encoding.DER))
        private = serialization.load_pem_private_key(identity.key_pem, None)
        self.encrypted = self.write("encrypted.key", private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(SECRET.encode())))
        self.rs = SigningKey("RS256", "k")
        (folder / "directory").mkdir()
        self.directory = str(folder / "directory")
        self.nowhere = str(folder / "nowhere")

    def write(self, name: str, content: str | bytes) -> str:
        return str(replace(self.folder / name, content.encode() if isinstance(content, str) else content))

    def keys(self, *keys: object) -> str:
        return self.write("keys.json", json.dumps({"keys": keys}))

    def tls(self, **changes: str) -> dict[str, str]:
        return {"DEVICERPC_TLS_CERT": self.certificate, "DEVICERPC_TLS_KEY": self.key, **changes}

    def jwt(self, **changes: str) -> dict[str, str]:
        return {"DEVICERPC_AUTH": "jwt", "JWT_SECRET": SECRET, **changes}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("settings"))


Environment = dict[str, str]
# What is wrong: the environment, and what the error must say.
SERVER: dict[str, tuple[Callable[[Files], Environment], str]] = {
    "no certificate file": (lambda f: f.tls(DEVICERPC_TLS_CERT=f.nowhere), "DEVICERPC_TLS_CERT: "),
    "a directory": (lambda f: f.tls(DEVICERPC_TLS_CERT=f.directory), "DEVICERPC_TLS_CERT: "),
    "DER": (lambda f: f.tls(DEVICERPC_TLS_CERT=f.der), "holds no certificate in PEM format"),
    "a key as certificate": (lambda f: f.tls(DEVICERPC_TLS_CERT=f.key), "holds no certificate in PEM format"),
    "a certificate as key": (lambda f: f.tls(DEVICERPC_TLS_KEY=f.certificate), "DEVICERPC_TLS_KEY: "),
    "a key with a passphrase": (lambda f: f.tls(DEVICERPC_TLS_KEY=f.encrypted), "without a passphrase"),
    "another key": (lambda f: f.tls(DEVICERPC_TLS_KEY=f.other_key), "does not belong to the certificate"),
    "an expired certificate": (
        lambda f: {"DEVICERPC_TLS_CERT": f.expired, "DEVICERPC_TLS_KEY": f.expired_key},
        "DEVICERPC_TLS_CERT: {folder}/expired.crt has expired"),
    "expired authorities": (
        lambda f: f.tls(DEVICERPC_TLS_CLIENT_CA=f.expired_authority), "DEVICERPC_TLS_CLIENT_CA: "),
    "no key": (lambda f: {"DEVICERPC_TLS_CERT": f.certificate}, "DEVICERPC_TLS_KEY: missing"),
    "no certificate": (lambda f: {"DEVICERPC_TLS_KEY": f.key}, "DEVICERPC_TLS_KEY: is of no use"),
    "authorities alone": (lambda f: {"DEVICERPC_TLS_CLIENT_CA": f.authority}, "DEVICERPC_TLS_CLIENT_CA: is of no use"),
    "a rule without authorities": (
        lambda f: f.tls(DEVICERPC_TLS_CLIENT_CERT="optional"), "DEVICERPC_TLS_CLIENT_CERT: is of no use"),
    "an unknown rule": (
        lambda f: f.tls(DEVICERPC_TLS_CLIENT_CA=f.authority, DEVICERPC_TLS_CLIENT_CERT="maybe"),
        "(allowed: required, optional)"),
    "mtls without authorities": (lambda f: f.tls(DEVICERPC_AUTH="mtls"), "DEVICERPC_AUTH: mtls without client cert"),
    "mtls without permissions": (
        lambda f: f.tls(DEVICERPC_AUTH="mtls", DEVICERPC_TLS_CLIENT_CA=f.authority), "DEVICERPC_PERMISSIONS: nobody"),
    "mtls with token keys": (
        lambda f: f.tls(DEVICERPC_AUTH="mtls", DEVICERPC_TLS_CLIENT_CA=f.authority,
                        DEVICERPC_PERMISSIONS="san:x=device.read", DEVICERPC_JWKS=f.keys(f.rs.jwk())),
        "DEVICERPC_JWKS: is of no use"),
    "an unknown mode": (lambda f: {"DEVICERPC_AUTH": "basic"}, "(allowed: none, jwt, mtls)"),
    "a short secret": (lambda f: f.jwt(JWT_SECRET=SECRET[:31]), "JWT_SECRET: has fewer than 32 bytes"),
    "an empty key set file": (lambda f: f.jwt(DEVICERPC_JWKS=f.write("e", "")), "is not a JSON web key set"),
    "no keys": (lambda f: f.jwt(DEVICERPC_JWKS=f.keys()), "holds no key for RS256, ES256 or EdDSA"),
    "keys of other kinds": (
        lambda f: f.jwt(DEVICERPC_JWKS=f.keys({"kty": "oct", "kid": "s", "k": SECRET}, {"kty": "EC", "crv": "P-384"})),
        'key "s" is of a kind that is not used here'),
    "two keys of one kid": (
        lambda f: f.jwt(DEVICERPC_JWKS=f.keys(f.rs.jwk(), SigningKey("RS256", "k").jwk())), 'two keys "k" for RS256'),
    "a key set that is a list": (lambda f: f.jwt(DEVICERPC_JWKS=f.write("l", "[]")), "is not a JSON web key set"),
    "a key set that is a directory": (lambda f: f.jwt(DEVICERPC_JWKS=f.directory), "DEVICERPC_JWKS: "),
    "an unknown permission": (lambda f: f.jwt(DEVICERPC_PERMISSIONS="role:u=device.fly"), "device.fly is no permission"),
    "an unknown kind of subject": (
        lambda f: f.jwt(DEVICERPC_PERMISSIONS="group:u=device.read"), "must be role:NAME, service:NAME or san:NAME"),
    "a map in JSON": (
        lambda f: f.jwt(DEVICERPC_PERMISSIONS="@" + f.write("m.json", '{"role:u": ["device.read"]}')),
        "an entry is role:NAME=PERMISSION"),
    "a map in Latin-1": (
        lambda f: f.jwt(DEVICERPC_PERMISSIONS="@" + f.write("m", b"role:\xe4=device.read")), "is no UTF-8 text"),
    "listening beyond loopback without TLS": (lambda f: f.jwt(DEVICERPC_LISTEN="0.0.0.0:0"), "--insecure-listen"),
}
# Configuration files: the name, its text, and what the error must say.
CONFIGURATIONS: dict[str, tuple[str, str, str]] = {
    "an unknown key": ("c.yaml", "tls:\n  crt: x\n", "tls.crt in {path}: no such setting (did you mean tls.cert?)"),
    "a wrong type": ("c.yaml", "event-loops: many\n", "event-loops in {path}: is not a whole number"),
    "a list": ("c.json", '{"max-sagas": [1]}', "max-sagas in {path}: is not a single value"),
    "a list of secrets": ("c.yaml", f"jwt-secret: [{SECRET}]\n", "jwt-secret in {path}: is not a single value"),
    "a secret in a broken line": ("c.yaml", f" a: b\n  jwt-secret: {SECRET}: c\n", "is no YAML of settings, at line 2"),
    "a secret behind a tab": ("c.yaml", f"a:\n\tjwt-secret: {SECRET}\n", "is no YAML of settings, at line 2"),
    "a secret twice": ("c.yaml", f"jwt-secret: {SECRET}\njwt-secret: {SECRET}2\n", "each name once"),
    "broken JSON": ("c.json", f'{{"jwt-secret": "{SECRET}"', "is no JSON of settings"),
    "a list at the top": ("c.yaml", "- a\n", "is no YAML of settings"),
    "an unknown ending": ("c.toml", "", "is neither .json nor .yaml nor .yml"),
}


def _refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 64 and says in done.stderr, done.stderr
    assert SECRET[:20] not in done.stdout + done.stderr and "PRIVATE" not in done.stderr
    assert "Fatal" not in done.stderr


def _serve(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    nobody = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "DEVICERPC_SIMULATED": "true"}
    return run_command(["serve", *arguments], {**nobody, **environment})


@pytest.mark.parametrize("case", SERVER)
def test_wrong_settings_of_a_server(files: Files, case: str) -> None:
    make, says = SERVER[case]
    done = _serve(make(files))
    _refused(done, says.replace("{folder}", str(files.folder)))
    assert "allowed" in done.stderr or "missing" in done.stderr or "must be" in done.stderr or "an entry is" in done.stderr


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_wrong_configuration_files(tmp_path: pathlib.Path, case: str) -> None:
    name, text, says = CONFIGURATIONS[case]
    path = replace(tmp_path / name, text.encode())
    _refused(_serve({}, "--config", str(path)), says.replace("{path}", str(path)))


def test_wrong_configuration_files_of_a_client(tmp_path: pathlib.Path) -> None:
    for text, says in (
        (f"token: {SECRET}\ntoken: {SECRET}\n", "each name once"), ("sever: x\n", "did you mean server?"),
        (f"token: [{SECRET}]\n", "is not a single value"), ("tls: 5\n", "tls in "),
    ):
        path = replace(tmp_path / "c.yaml", text.encode())
        _refused(run_command(["get", "x", "--config", str(path)]), says)
    _refused(run_command(["get", "x", "--config", str(tmp_path / "none.yaml")]), "No such file")


def test_all_that_is_wrong_with_files_is_told_at_once(files: Files) -> None:
    done = _serve(files.jwt(
        DEVICERPC_TLS_CERT=files.nowhere, DEVICERPC_TLS_KEY=files.key, DEVICERPC_JWKS=files.nowhere))
    _refused(done, "DEVICERPC_TLS_CERT")
    _refused(done, "DEVICERPC_JWKS")


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: pathlib.Path) -> None:
    path = str(replace(tmp_path / "c.yaml", b"auth: by-file\nauth.jwks: keys\n"))
    _refused(_serve({"DEVICERPC_AUTH": "by-environment"}, "--config", path, "--auth", "by-flag"), '--auth: is not one of '
             'the values that are known: "by-flag"')
    _refused(_serve({"DEVICERPC_AUTH": "by-environment"}, "--config", path), '"by-environment"')
    _refused(_serve({}, "--config", path), f'auth in {path}: is not one of the values that are known: "by-file"')
    _refused(_serve({}, "--jwt-secret", SECRET), "--jwt-secret: has no flag, since others could see it")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--token-file", "{nowhere}"), "--token-file: "), (("--token-file", "{directory}"), "can't be read as text"),
        (("--token-file", "{empty}"), "holds no token"), (("--token-file", "{lines}"), "holds no token"),
        (("--token", "a", "--token-file", "{lines}"), "goes with no token beside it"),
        (("--tls-ca", "{key}"), "--tls-ca: "), (("--tls-ca", "{expired_authority}"), "holds only what has expired"),
        (("--tls-cert", "{certificate}", "--tls-key", "{other_key}"), "does not belong to the certificate"),
        (("--tls-cert", "{expired}", "--tls-key", "{expired_key}"), "has expired"),
        (("--tls-cert", "{certificate}", "--tls-key", "{encrypted}"), "without a passphrase"),
        (("--server", "localhost:0"), "--server: has no port"), (("--server", "localhost:99999"), "--server: "),
    ],
)
def test_wrong_settings_of_a_client(files: Files, arguments: tuple[str, ...], says: str) -> None:
    names = {**vars(files), "empty": files.write("t0", ""), "lines": files.write("t2", f"{SECRET}\n{SECRET}")}
    _refused(run_command(["get", "x", *(one.format(**names) for one in arguments)]), says)
