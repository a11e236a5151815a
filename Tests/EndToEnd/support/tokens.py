"""Tokens of users and services, and the keys that they are signed with."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .ledger import JWT_SECRET

ISSUER = "cloudphone-platform"


class SigningKey:
    """A private key with a `kid`, for RS256, ES256 or EdDSA."""

    def __init__(self, algorithm: str, kid: str) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.private: Any = {
            "RS256": lambda: rsa.generate_private_key(65537, 2048),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }[algorithm]()

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public key as a JWKS has it."""
        kind = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm}.get(
            self.algorithm, jwt.algorithms.OKPAlgorithm
        )
        public = json.loads(kind.to_jwk(self.private.public_key()))
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig", **members}

    def public_pem(self) -> bytes:
        return bytes(
            self.private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


def key_set(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.jwk() for key in keys]}).encode()


def sign(claims: Mapping[str, Any], key: SigningKey | None = None, headers: Mapping[str, Any] | None = None) -> str:
    """With JWT_SECRET (HS256) unless a key is given."""
    if key is None:
        return jwt.encode(dict(claims), JWT_SECRET, "HS256", dict(headers or {}))
    return jwt.encode(dict(claims), key.private, key.algorithm, {"kid": key.kid, **(headers or {})})


def user_claims(
    user: str, /, *, tenant: str | None = None, roles: Sequence[str] = (), permissions: Sequence[str] = (),
    is_super_admin: bool = False, **others: Any,
) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": "cloudphone-users", "sub": user, "username": user, "email": f"{user}@example.com",
        "tenantId": tenant, "roles": list(roles), "isSuperAdmin": is_super_admin, "permissions": list(permissions),
        "iat": now, "exp": now + 3600, **others,
    }
    return {name: value for name, value in claims.items() if value is not ...}


def service_claims(service: str, /, **others: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": "internal-services", "service": service, "iat": now, "exp": now + 3600, **others,
    }
    return {name: value for name, value in claims.items() if value is not ...}


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def as_user(user: str, **claims: Any) -> tuple[tuple[str, str], ...]:
    """Metadata of a user's call."""
    return bearer(sign(user_claims(user, **claims)))


def as_service(service: str, **claims: Any) -> tuple[tuple[str, str], ...]:
    return (("x-service-token", sign(service_claims(service, **claims))),)
