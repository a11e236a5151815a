"""Certificate authorities and certificates, made for one test."""

from __future__ import annotations

import datetime
import ipaddress
import os
import pathlib
from collections.abc import Sequence

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Identity:
    """A certificate and its key, in two PEM files."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Puts both files where they belong, each in one go, as a deployment does."""
        folder.mkdir(parents=True, exist_ok=True)
        return replace(folder / f"{name}.crt", self.certificate_pem), replace(folder / f"{name}.key", self.key_pem)


def replace(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """Another file under the same name, never half-written."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)
    return path


class Authority:
    """Signs certificates; itself trusted by whoever is given `pem`."""

    def __init__(self, name: str = "a test's authority", *, is_expired: bool = False) -> None:
        """is_expired: neither it nor what it signs is valid any more."""
        now = datetime.datetime.now(datetime.UTC)
        hour, day = datetime.timedelta(hours=1), datetime.timedelta(days=1)
        self._validity = (now - 2 * day, now - day) if is_expired else (now - hour, now + day)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, is_expired: bool = False,
        seconds: float | None = None,
    ) -> x509.CertificateBuilder:
        begin, end = self._validity
        if is_expired:
            begin, end = begin - datetime.timedelta(days=2), begin
        if seconds is not None:
            end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(self._name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin).not_valid_after(end)
        )

    def issue(
        self, *, dns: Sequence[str] = (), uris: Sequence[str] = (), addresses: Sequence[str] = (),
        is_expired: bool = False, seconds: float | None = None,
    ) -> Identity:
        """A certificate for servers and clients alike; `seconds`: how long from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        certificate = (
            self._builder(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody looks here")]), key, is_expired, seconds)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Identity(certificate, key)

    def issue_for_server(self) -> Identity:
        return self.issue(dns=["localhost"], addresses=["127.0.0.1"])

    def credentials(self, identity: Identity | None = None) -> grpc.ChannelCredentials:
        """Of a grpcio client that trusts this authority and shows `identity`."""
        return grpc.ssl_channel_credentials(
            self.pem, identity.key_pem if identity else None, identity.certificate_pem if identity else None
        )
