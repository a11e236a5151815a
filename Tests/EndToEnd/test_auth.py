"""Who may call: tokens of users and services, permissions, what belongs to whom, and the audit log."""

from __future__ import annotations

import base64
import json
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import jwt
import pytest

from support.certificates import Authority, replace
from support.client import DeviceClient, RPCFailure, create_request
from support.ledger import JWT_SECRET
from support.server import Server, run_command
from support.stubs import service_pb2
from support.tokens import (
    SigningKey,
    as_service,
    as_user,
    bearer,
    key_set,
    service_claims,
    sign,
    user_claims,
)
from support.waiting import wait_until
from support.world import World

UNKNOWN_DEVICE = "123e4567-e89b-12d3-a456-426614174000"
UNKNOWN_SAGA = "saga_1730188800000_7k2m9x4q1c"
PERMISSIONS = """
role:user = device.create, device.read, device.delete   # everybody
role:admin = device.read, device.delete, saga.read, tenant.admin
service:template-service = device.create device:read
san:spiffe://test/ns/shop/sa/orders = device.create, device.read
"""
KEYS = {name: SigningKey(name, f"key-{name.lower()}") for name in ("RS256", "ES256", "EdDSA")}
ADMIN = as_user("root", is_super_admin=True)
Metadata = tuple[tuple[str, str], ...]


class Guarded:
    """A server that asks its callers who they are."""

    def __init__(
        self, world: World, credentials: grpc.ChannelCredentials | None = None, **environment: str
    ) -> None:
        self.folder = world.home / "auth"
        self.folder.mkdir()
        self.keys = replace(self.folder / "keys.json", key_set(*KEYS.values()))
        permissions = replace(self.folder / "permissions", PERMISSIONS.encode())
        self.server: Server = world.server(
            environment={
                "DEVICERPC_AUTH": "jwt", "DEVICERPC_JWKS": str(self.keys), "DEVICERPC_PERMISSIONS": f"@{permissions}",
                "DEVICERPC_TLS_RELOAD_INTERVAL": "50ms", **environment,
            },
            metadata=ADMIN, credentials=credentials,
        )

    def call_as(self, metadata: Metadata, credentials: grpc.ChannelCredentials | None = None) -> DeviceClient:
        return self.server.client_with(metadata, credentials)

    def refusal(self, metadata: Metadata, method: str = "GetDevice", request: Any = None) -> RPCFailure:
        with pytest.raises(RPCFailure) as failure:
            client = self.call_as(metadata)
            service = client.admin if hasattr(client.admin, method) else client.stub
            client.call(method, request or service_pb2.GetDeviceRequest(device_id=UNKNOWN_DEVICE), service=service)
        return failure.value

    def accepts(self, metadata: Metadata) -> bool:
        """Whether the token is good; what it is good for is another question."""
        return self.refusal(metadata).code != grpc.StatusCode.UNAUTHENTICATED

    def audit_lines(self) -> list[str]:
        time.sleep(0.2)  # lines are gathered for some milliseconds before they are written
        return [line for line in self.server.log_text().splitlines() if "[AUDIT]" in line]


@pytest.fixture
def guarded(world: World) -> Guarded:
    return Guarded(world)


# Tokens


@pytest.mark.parametrize("algorithm", ["HS256", *KEYS])
def test_tokens_of_every_algorithm_are_accepted(guarded: Guarded, algorithm: str) -> None:
    key = KEYS.get(algorithm)
    user = bearer(sign(user_claims("ann", permissions=["device.read"]), key))
    service = bearer(sign(service_claims("template-service"), key))
    for metadata in (user, user, service, (("x-service-token", service[0][1].removeprefix("Bearer ")),)):
        assert guarded.refusal(metadata).code == grpc.StatusCode.NOT_FOUND


def _tampered() -> str:
    header, payload, signature = sign(user_claims("ann")).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["isSuperAdmin"] = True
    return ".".join([header, base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("="), signature])


def _unsigned(algorithm: str) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).decode().rstrip("=")
    return f"{head}.{sign(user_claims('ann')).split('.')[1]}."


def _confused(key: SigningKey) -> str:
    """HS256 with the bytes of a public key, which everybody knows (CVE-2015-9235)."""
    import hashlib
    import hmac

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    head = encode(json.dumps({"alg": "HS256", "kid": key.kid}).encode())
    signed = f"{head}.{encode(json.dumps(user_claims('ann', is_super_admin=True)).encode())}"
    return f"{signed}.{encode(hmac.new(key.public_pem(), signed.encode(), hashlib.sha256).digest())}"


STRANGER = SigningKey("RS256", "key-rs256")
REFUSED: dict[str, Callable[[], str]] = {
    "expired": lambda: sign(user_claims("ann", exp=int(time.time()) - 10)),
    "expired, RS256": lambda: sign(user_claims("ann", exp=int(time.time()) - 10), KEYS["RS256"]),
    "without exp": lambda: sign(user_claims("ann", exp=...)),
    "not yet valid": lambda: sign(user_claims("ann", nbf=int(time.time()) + 60)),
    "wrong issuer": lambda: sign(user_claims("ann", iss="somebody")),
    "no issuer": lambda: sign(user_claims("ann", iss=...)),
    "wrong audience": lambda: sign(user_claims("ann", aud="others")),
    "no audience": lambda: sign(user_claims("ann", aud=...)),
    "both audiences": lambda: sign(user_claims("ann", service="s", aud=["cloudphone-users", "internal-services"])),
    "no subject": lambda: sign(user_claims("ann", sub=...)),
    "empty subject": lambda: sign(user_claims("")),
    "roles of the wrong type": lambda: sign(user_claims("ann", isSuperAdmin="yes")),
    "service without a name": lambda: sign(service_claims("x", service=...)),
    "none": lambda: _unsigned("none"),
    "None": lambda: _unsigned("None"),
    "HS256 without a signature": lambda: _unsigned("HS256"),
    "tampered with": _tampered,
    "another secret": lambda: jwt.encode(user_claims("ann"), "x" * 40, "HS256"),
    "HS512": lambda: jwt.encode(user_claims("ann"), JWT_SECRET * 2, "HS512"),
    "RS512": lambda: jwt.encode(user_claims("ann"), KEYS["RS256"].private, "RS512", {"kid": KEYS["RS256"].kid}),
    "PS256": lambda: jwt.encode(user_claims("ann"), KEYS["RS256"].private, "PS256", {"kid": KEYS["RS256"].kid}),
    "HS256 with an RSA public key": lambda: _confused(KEYS["RS256"]),
    "HS256 with an EC public key": lambda: _confused(KEYS["ES256"]),
    "a stranger's key of the same kid": lambda: sign(user_claims("ann"), STRANGER),
    "an unknown kid": lambda: sign(user_claims("ann"), KEYS["ES256"], {"kid": "key-of-nobody"}),
    "another key's kid": lambda: sign(user_claims("ann"), KEYS["EdDSA"], {"kid": KEYS["ES256"].kid}),
    "critical extensions": lambda: sign(user_claims("ann"), None, {"crit": ["urn:x"], "urn:x": True}),
    "a payload that is not encoded": lambda: sign(user_claims("ann"), None, {"crit": ["b64"], "b64": False}),
    "rubbish": lambda: "rubbish",
    "two parts": lambda: "a.b",
    "empty parts": lambda: "..",
    "five parts": lambda: "a.b.c.d.e",
    "deep": lambda: base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=") + ".e30.e30",
}


def test_bad_tokens_are_refused(guarded: Guarded) -> None:
    for name, make in REFUSED.items():
        failure = guarded.refusal(bearer(make()))
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"), (name, failure)
        assert failure.domain == "device.cloudphone"
    assert guarded.accepts(as_user("ann"))


def test_headers_that_say_nothing_are_refused(guarded: Guarded) -> None:
    good = sign(user_claims("ann", permissions=["device.read"]))
    service = sign(service_claims("template-service"))
    assert guarded.accepts((("authorization", f"bearer {good}"),))
    refused: list[Metadata] = [
        (),
        (("authorization", good),),
        (("authorization", f"Basic {good}"),),
        (("authorization", "Bearer"),),
        (("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")),
        (("x-service-token", good),),
        (("x-service-token", "rubbish"), ("authorization", f"Bearer {good}")),
        (("x-service-token", service), ("x-service-token", service)),
    ]
    for metadata in refused:
        assert guarded.refusal(metadata).code == grpc.StatusCode.UNAUTHENTICATED, metadata


def test_a_key_set_without_kids_is_of_use(world: World) -> None:
    guarded = Guarded(world)
    bare = SigningKey("ES256", "")
    entry = bare.jwk()
    for member in ("kid", "alg", "use"):
        del entry[member]
    secret = {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}
    encryption = KEYS["RS256"].jwk(use="enc")
    replace(guarded.keys, json.dumps({"keys": [secret, encryption, entry]}).encode())
    token = jwt.encode(user_claims("ann"), bare.private, "ES256")
    wait_until(lambda: guarded.accepts(bearer(token)), 60, "the new keys")
    assert not guarded.accepts(bearer(sign(user_claims("ann"), KEYS["RS256"])))
    assert guarded.accepts(as_user("ann")), "the secret stays what it is"


def test_keys_change_without_a_restart(guarded: Guarded) -> None:
    client = guarded.call_as(as_user("ann", permissions=["device.create", "device.read"]))
    created = client.create(user="", when="ACCEPTED", options={"latency_ms": "500"})
    events = client.watch(created.saga_id)
    next(events)
    old, new = bearer(sign(user_claims("ann"), KEYS["RS256"])), SigningKey("RS256", "next")
    fresh = bearer(sign(user_claims("ann"), new))
    assert guarded.accepts(old) and not guarded.accepts(fresh)
    replace(guarded.keys, key_set(KEYS["RS256"], new))
    wait_until(lambda: guarded.accepts(fresh), 60, "the new key")
    assert guarded.accepts(old)
    for number, damage in enumerate((b"{", b'{"keys":[]}', b""), 1):
        replace(guarded.keys, damage)
        wait_until(lambda: guarded.server.log_text().count("stay in use") == number, 60, "the broken file to be noticed")
        assert guarded.accepts(old) and guarded.accepts(fresh)
    # No descriptor to spare just then: that isn't the file's fault, and is tried again.
    open_files = resource.prlimit(guarded.server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(guarded.server.pid, resource.RLIMIT_NOFILE, (3, open_files[1]))
    try:
        replace(guarded.keys, key_set(new))
        wait_until(lambda: guarded.server.log_text().count("stay in use") == 4, 60, "the file not to be read")
    finally:
        resource.prlimit(guarded.server.pid, resource.RLIMIT_NOFILE, open_files)
    wait_until(lambda: not guarded.accepts(old), 60, "the old key to be forgotten, with the tokens that it has signed")
    assert guarded.accepts(fresh)
    assert list(events), "calls under way go on"


# Permissions

METHODS: dict[str, tuple[Any, set[str]]] = {
    "CreateDevice": (create_request(user="", name=""), {"device.create"}),
    "DeleteDevice": (service_pb2.DeleteDeviceRequest(device_id=UNKNOWN_DEVICE), {"device.delete"}),
    "StartDevice": (service_pb2.StartDeviceRequest(device_id=UNKNOWN_DEVICE), {"device.control"}),
    "StopDevice": (service_pb2.StopDeviceRequest(device_id=UNKNOWN_DEVICE), {"device.control"}),
    "RestartDevice": (service_pb2.RestartDeviceRequest(device_id=UNKNOWN_DEVICE), {"device.control"}),
    "GetDevice": (service_pb2.GetDeviceRequest(device_id=UNKNOWN_DEVICE), {"device.read"}),
    "ListDevices": (service_pb2.ListDevicesRequest(page_size=2000), {"device.read"}),
    "BatchGetDevices": (service_pb2.BatchGetDevicesRequest(device_ids=["x"]), {"device.read"}),
    "GetSaga": (service_pb2.GetSagaRequest(saga_id=UNKNOWN_SAGA), {"device.read", "saga.read", "saga.admin"}),
    "BatchGetSagas": (service_pb2.BatchGetSagasRequest(saga_ids=["x"]), {"device.read", "saga.read", "saga.admin"}),
    "ListSagas": (service_pb2.ListSagasRequest(page_size=2000), {"device.read", "saga.read", "saga.admin"}),
    "CompensateSaga": (service_pb2.CompensateSagaRequest(saga_id="x"), {"saga.admin"}),
    "ResumeSaga": (service_pb2.ResumeSagaRequest(saga_id="x"), {"saga.admin"}),
    "ListPorts": (service_pb2.ListPortsRequest(page_size=2000), {"saga.admin"}),
}
# Each refuses what it is asked for (or isn't there yet), once the caller is let in.
METHODS["CreateDevice"][0].name = ""


@pytest.mark.parametrize("separator", [".", ":"])
def test_each_method_takes_its_permission(guarded: Guarded, separator: str) -> None:
    everything = {"device.create", "device.read", "device.delete", "device.control", "saga.read", "saga.admin"}
    for method, (request, sufficient) in METHODS.items():
        for permission in everything:
            claim = permission.replace(".", separator)
            failure = guarded.refusal(as_user("ann", permissions=["device.update", claim]), method, request)
            assert (failure.code != grpc.StatusCode.PERMISSION_DENIED) == (permission in sufficient), (method, claim)
        failure = guarded.refusal(as_user("ann", roles=["guest"]), method, request)
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert set(failure.metadata["permission"].split(" or ")) <= sufficient
        assert guarded.refusal(ADMIN, method, request).code != grpc.StatusCode.PERMISSION_DENIED
        assert guarded.refusal((), method, request).code == grpc.StatusCode.UNAUTHENTICATED


def test_watching_takes_a_permission(guarded: Guarded) -> None:
    for metadata, code in (
        ((), grpc.StatusCode.UNAUTHENTICATED),
        (as_user("ann"), grpc.StatusCode.PERMISSION_DENIED),
        (as_user("ann", permissions=["device.read"]), grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(RPCFailure) as failure:
            list(guarded.call_as(metadata).watch(UNKNOWN_SAGA))
        assert failure.value.code == code


def test_watching_many_takes_a_permission_and_a_filter(guarded: Guarded) -> None:
    def end(metadata: Metadata, **filters: Any) -> str:
        request = service_pb2.WatchSagasRequest(end_when_done=True, **filters)
        call = guarded.call_as(metadata).stub.WatchSagas(request, timeout=30, metadata=metadata)
        try:
            return f"{len([update for update in call if update.HasField('saga')])} sagas"
        except grpc.RpcError:
            return str(call.code().name)

    ann = as_user("ann", permissions=["device.create", "device.read"])
    made = guarded.call_as(ann).create(user="")
    assert end((), user_id="ann") == "UNAUTHENTICATED"
    assert end(as_user("ann", permissions=["device.create"]), user_id="ann") == "PERMISSION_DENIED"
    assert end(ann) == "INVALID_ARGUMENT", "a filter is needed"
    assert end(ann, user_id="ann") == end(ADMIN) == end(ADMIN, saga_ids=[made.saga_id]) == "1 sagas"
    bob = as_user("bob", permissions=["device.create", "device.read"])
    own = guarded.call_as(bob).create(user="")
    assert end(bob, saga_ids=[made.saga_id, own.saga_id]) == "1 sagas", "another's is none that matches"


def test_streams_of_creations_take_a_permission(guarded: Guarded) -> None:
    for metadata, code in (((), "UNAUTHENTICATED"), (as_user("bob", permissions=["device.read"]), "PERMISSION_DENIED")):
        call = guarded.call_as(metadata).stub.CreateDevices(iter(()), timeout=30, metadata=metadata)
        with pytest.raises(grpc.RpcError):
            list(call)
        assert call.code().name == code
    ann = as_user("ann", permissions=["device.create"])
    requests = [create_request(user=user, request_id=f"r-{user}") for user in ("", "eve")]
    call = guarded.call_as(ann).stub.CreateDevices(iter(requests), timeout=30, metadata=ann)
    own, others = sorted(call, key=lambda result: result.index)
    assert own.device.user_id == "ann" and not own.HasField("error")
    assert others.error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]

    def is_told(*words: str) -> bool:
        return any(all(word in line for word in ("/CreateDevices", *words)) for line in guarded.audit_lines())

    wait_until(lambda: is_told(f"saga_id={own.saga_id}", "outcome=OK"), 30, "the line of the one")
    wait_until(lambda: is_told("user_id=eve", "outcome=PERMISSION_DENIED"), 30, "the line of the other")


def test_what_one_may_not_see_is_not_deleted(guarded: Guarded) -> None:
    everything = ["device.create", "device.read", "device.delete", "device.control"]
    ann, eve = (guarded.call_as(as_user(name, permissions=everything)) for name in ("ann", "eve"))
    device = ann.create(user="").device.device_id
    for method in ("StopDevice", "RestartDevice", "StartDevice", "DeleteDevice"):
        with pytest.raises(RPCFailure) as failure:
            eve.operate(method, device)
        assert failure.value.code == grpc.StatusCode.NOT_FOUND, method
    # Nobody's device, and no id at all: what stands in the log is no line of the caller's making.
    with pytest.raises(RPCFailure) as failure:
        eve.delete("x\nforged=yes")
    assert failure.value.reason == "INVALID_FIELD"
    assert ann.operate("StopDevice", device).device.user_id == "ann"
    deleted = ann.delete(device).saga_id
    lines = [line for line in guarded.audit_lines() if "/DeleteDevice" in line or "/StopDevice" in line]
    assert any(f"saga_id={deleted}" in line and "caller=user:ann" in line and "outcome=OK" in line for line in lines)
    assert any("caller=user:eve" in line and "outcome=NOT_FOUND" in line for line in lines)
    assert not any("forged" in line for line in lines)


def test_roles_and_services_get_theirs_from_the_map(guarded: Guarded) -> None:
    created = guarded.call_as(as_user("ann", roles=["user"])).create(user="")
    assert created.device.user_id == "ann"
    assert guarded.call_as(as_service("template-service")).device(created.device.device_id).user_id == "ann"
    assert guarded.refusal(as_service("nobody-knows")).code == grpc.StatusCode.PERMISSION_DENIED
    assert guarded.refusal(as_service("x", permissions=["device.read"])).code == grpc.StatusCode.NOT_FOUND
    # A user that is called like a service or a role is neither.
    assert guarded.refusal(as_user("template-service", service="template-service")).code == (
        grpc.StatusCode.PERMISSION_DENIED
    )


def test_health_is_open_and_reflection_is_for_callers_that_are_known(guarded: Guarded) -> None:
    assert guarded.call_as(()).health() == "SERVING"
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    call = guarded.call_as(()).channel.stream_stream(path)
    with pytest.raises(grpc.RpcError) as refused:
        list(call(iter([b"\x3a\x00"]), timeout=5))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
    assert list(call(iter([b"\x3a\x00"]), timeout=5, metadata=as_user("ann")))


# What belongs to whom


def test_users_create_for_themselves_and_services_for_whom_they_name(guarded: Guarded) -> None:
    rights = ["device.create", "device.read"]
    ann = guarded.call_as(as_user("ann", tenant="north", permissions=rights))
    assert _owner(ann.create(user="")) == ("ann", "north")
    assert _owner(ann.create(user="ann", tenant_id="north")) == ("ann", "north")
    for fields, field in (({"user": "bob"}, "user_id"), ({"user": "", "tenant_id": "south"}, "tenant_id")):
        with pytest.raises(RPCFailure) as failure:
            ann.create(**fields)
        assert failure.value.code == grpc.StatusCode.PERMISSION_DENIED
        assert failure.value.metadata["field"] == field
    administrator = guarded.call_as(as_user("max", tenant="north", roles=["admin", "user"]))
    with pytest.raises(RPCFailure) as failure:
        administrator.create(user="ann")
    assert failure.value.code == grpc.StatusCode.PERMISSION_DENIED

    service = guarded.call_as(as_service("template-service"))
    assert _owner(service.create(user="bob", tenant_id="south")) == ("bob", "south")
    with pytest.raises(RPCFailure) as failure:
        service.create(user="")
    assert failure.value.fields == {"user_id"}
    root = guarded.call_as(ADMIN)
    assert _owner(root.create(user="bob", tenant_id="south")) == ("bob", "south")
    assert _owner(root.create(user="bob")) == ("bob", "")
    assert _owner(root.create(user="")) == ("root", "")


def test_request_ids_are_per_user(guarded: Guarded) -> None:
    rights = ["device.create"]
    ann = guarded.call_as(as_user("ann", permissions=rights)).create("phone", user="", request_id="once")
    bob = guarded.call_as(as_user("bob", permissions=rights)).create("phone", user="", request_id="once")
    again = guarded.call_as(as_service("template-service")).create("phone", user="ann", request_id="once")
    assert ann.saga_id == again.saga_id != bob.saga_id


@pytest.fixture
def estate(guarded: Guarded) -> Estate:
    return Estate(guarded)


class Estate:
    """Devices of four users: ann and bob of the tenant north, cid of south, dan of none."""

    TENANTS = {"ann": "north", "bob": "north", "cid": "south", "dan": ""}

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        service = guarded.call_as(as_service("template-service"))
        self.devices: dict[str, list[str]] = {user: [] for user in self.TENANTS}
        self.sagas: dict[str, list[str]] = {user: [] for user in self.TENANTS}
        for number in range(3):
            for user, tenant in self.TENANTS.items():
                created = service.create(f"{user}-{number}", user=user, tenant_id=tenant, batch_id="shared")
                self.devices[user].append(created.device.device_id)
                self.sagas[user].append(created.saga_id)
        # Whoever is in no tenant of its own: a device without tenant of the administrator's.
        created = service.create("max-0", user="max")
        self.devices["max"], self.sagas["max"] = [created.device.device_id], [created.saga_id]

    def check(self, metadata: Metadata, users: Sequence[str]) -> None:
        """That the caller sees what is these users', and nothing else, however it asks."""
        client = self.guarded.call_as(metadata)
        devices = {device for user in users for device in self.devices[user]}
        sagas = {saga for user in users for saga in self.sagas[user]}
        for user in self.devices:
            for device, saga in zip(self.devices[user], self.sagas[user], strict=True):
                seen = user in users
                assert _found(lambda: client.device(device)) == seen, (user, "device")
                assert _found(lambda: client.saga(saga)) == seen, (user, "saga")
                assert _found(lambda: list(client.watch(saga))) == seen, (user, "watch")
                assert _found(lambda: list(client.watch(saga, after=999))) is (
                    "out of range" if seen else False
                ), "beyond the end it is no different"
        everything = [saga for one in self.sagas.values() for saga in one]
        answer = client.sagas(everything)
        assert {saga.saga_id for saga in answer.sagas} == sagas
        assert set(answer.missing_saga_ids) == set(everything) - sagas
        for size in (1, 2, 100):
            assert set(_pages(client.list_devices, "devices", "device_id", size)) == devices
            assert set(_pages(client.list_sagas, "sagas", "saga_id", size)) == sagas
            batch = set(_pages(client.list_sagas, "sagas", "saga_id", size, batch_id="shared"))
            assert batch == sagas - set(self.sagas["max"])
        for user in self.devices:
            expected = (set(self.devices[user]), set(self.sagas[user])) if user in users else (set(), set())
            assert set(_pages(client.list_devices, "devices", "device_id", 2, user_id=user)) == expected[0]
            assert set(_pages(client.list_sagas, "sagas", "saga_id", 2, user_id=user)) == expected[1]
            named = _pages(client.list_sagas, "sagas", "saga_id", 2, device_id=self.devices[user][0])
            assert named == (self.sagas[user][:1] if user in users else [])


def test_users_see_what_is_theirs(estate: Estate) -> None:
    estate.check(as_user("ann", tenant="north", permissions=["device.read"]), ["ann"])
    # The right to read sagas is not the right to see other users.
    estate.check(as_user("dan", roles=["user"], permissions=["saga.read"]), ["dan"])
    estate.check(as_user("stranger", tenant="north", roles=["user"]), [])


def test_administrators_of_a_tenant_see_their_tenant(estate: Estate) -> None:
    estate.check(as_user("max", tenant="north", roles=["admin"]), ["ann", "bob", "max"])
    # In no tenant there is nothing to administer: least of all what belongs to no tenant.
    estate.check(as_user("max", roles=["admin"]), ["max"])
    estate.check(as_user("max", tenant="", roles=["admin"]), ["max"])


def test_services_and_administrators_see_everybody(estate: Estate) -> None:
    everybody = list(estate.devices)
    estate.check(as_service("template-service"), everybody)
    estate.check(ADMIN, everybody)
    estate.check(as_user("ops", permissions=["device.read", "saga.admin"]), everybody)


# Everybody × every method: what becomes of a call about ann, of the tenant north.

DENIED, UNKNOWN, MISSING = "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND"
NO_OWNER = "INVALID_ARGUMENT"
RPCS = (
    "create for ann", "create for nobody", "GetDevice", "ListDevices", "GetSaga", "BatchGetSagas", "ListSagas",
    "WatchSaga",
)
SEES, BLIND = ("ann",) * 6, (MISSING, "", MISSING, "", "", MISSING)
# Who owns what is made, "own" being the caller; whose is found, "" being an answer without it; or the code.
OUTCOMES: dict[str, tuple[str, ...]] = {
    "the user": ("ann", "own", *SEES),
    "another user of the tenant": (DENIED, "own", *BLIND),
    "a user who may read sagas": (DENIED, DENIED, DENIED, DENIED, MISSING, "", "", MISSING),
    "a user who may do nothing": (DENIED,) * 8,
    "the tenant's administrator": (DENIED, DENIED, *SEES),
    "another tenant's administrator": (DENIED, DENIED, *BLIND),
    "an administrator without a tenant": (DENIED, DENIED, *BLIND),
    "a service of the map": ("ann", NO_OWNER, *SEES),
    "a service by its claim": (DENIED, DENIED, *SEES),
    "a service who may do nothing": (DENIED,) * 8,
    "an administrator of sagas": (DENIED, DENIED, DENIED, DENIED, *SEES[2:]),
    "an administrator who creates": ("ann", "own", *SEES),
    "a superadmin": ("ann", "own", *SEES),
    "a certificate of the map": ("ann", NO_OWNER, *SEES),
    "a certificate of nobody": (DENIED,) * 8,
    "nobody": (UNKNOWN,) * 8,
}
CALLERS: dict[str, tuple[str, Metadata]] = {
    "the user": ("ann", as_user("ann", tenant="north", roles=["user"])),
    "another user of the tenant": ("bob", as_user("bob", tenant="north", roles=["user"])),
    "a user who may read sagas": ("bob", as_user("bob", tenant="north", permissions=["saga.read"])),
    "a user who may do nothing": ("bob", as_user("bob", tenant="north")),
    "the tenant's administrator": ("max", as_user("max", tenant="north", roles=["admin"])),
    "another tenant's administrator": ("sue", as_user("sue", tenant="south", roles=["admin"])),
    "an administrator without a tenant": ("kim", as_user("kim", roles=["admin"])),
    "a service of the map": ("", as_service("template-service")),
    "a service by its claim": ("", as_service("other-service", permissions=["device.read"])),
    "a service who may do nothing": ("", as_service("other-service")),
    "an administrator of sagas": ("ops", as_user("ops", permissions=["saga.admin"])),
    "an administrator who creates": ("ops", as_user("ops", permissions=["saga.admin", "device.create", "device.read"])),
    "a superadmin": ("root", ADMIN),
    "a certificate of the map": ("", ()),
    "a certificate of nobody": ("", ()),
    "nobody": ("", ()),
}


@pytest.fixture
def certified(world: World) -> tuple[Guarded, Authority]:
    """A server that takes tokens and certificates."""
    authority = Authority()
    folder = world.home / "tls"
    certificate, key = authority.issue_for_server().write(folder, "server")
    guarded = Guarded(
        world, authority.credentials(), DEVICERPC_TLS_CERT=str(certificate), DEVICERPC_TLS_KEY=str(key),
        DEVICERPC_TLS_CLIENT_CA=str(replace(folder / "clients.crt", authority.pem)),
        DEVICERPC_TLS_CLIENT_CERT="optional",
    )
    return guarded, authority


def test_what_becomes_of_every_call_of_everybody(certified: tuple[Guarded, Authority]) -> None:
    guarded, authority = certified
    shown = {
        "a certificate of the map": authority.issue(uris=["spiffe://test/ns/shop/sa/orders"]),
        "a certificate of nobody": authority.issue(uris=["spiffe://test/ns/shop/sa/others"]),
    }
    made = guarded.call_as(CALLERS["the user"][1]).create(user="")
    device, saga = made.device.device_id, made.saga_id
    found: dict[str, tuple[str, ...]] = {}
    for caller, (name, metadata) in CALLERS.items():
        client = guarded.call_as(metadata, authority.credentials(shown[caller]) if caller in shown else None)

        def owner(created: Any, name: str = name) -> str:
            return "own" if created.device.user_id == name else str(created.device.user_id)

        asked: tuple[Callable[[], str], ...] = (
            lambda: str(client.create(user="ann").device.user_id),
            lambda: owner(client.create(user="")),
            lambda: str(client.device(device).user_id),
            lambda: "ann" if device in _pages(client.list_devices, "devices", "device_id", 1000) else "",
            lambda: str(client.saga(saga).user_id),
            lambda: "".join(one.user_id for one in client.sagas([saga]).sagas),
            lambda: "ann" if saga in _pages(client.list_sagas, "sagas", "saga_id", 1000) else "",
            lambda: "ann" if list(client.watch(saga)) else "",
        )
        found[caller] = tuple(_outcome(ask) for ask in asked)
    for caller, outcomes in OUTCOMES.items():
        assert dict(zip(RPCS, found[caller], strict=True)) == dict(zip(RPCS, outcomes, strict=True)), caller


def test_what_nobody_may_see_reads_like_what_does_not_exist(estate: Estate) -> None:
    client = estate.guarded.call_as(as_user("bob", tenant="north", roles=["user"]))
    device, saga = estate.devices["ann"][0], estate.sagas["ann"][0]
    for hidden, absent in (
        (lambda: client.device(device), lambda: client.device(UNKNOWN_DEVICE)),
        (lambda: client.saga(saga), lambda: client.saga(UNKNOWN_SAGA)),
        (lambda: list(client.watch(saga)), lambda: list(client.watch(UNKNOWN_SAGA))),
    ):
        failures = []
        for ask in (hidden, absent):
            with pytest.raises(RPCFailure) as failure:
                ask()
            words = str(failure.value)
            for name in (device, saga, UNKNOWN_DEVICE, UNKNOWN_SAGA):
                words = words.replace(name, "ID")
            failures.append((failure.value.code, failure.value.reason, words))
        assert failures[0] == failures[1]


def test_a_page_token_shows_nothing_that_its_bearer_may_not_see(estate: Estate) -> None:
    root = estate.guarded.call_as(ADMIN)
    bob = estate.guarded.call_as(as_user("bob", tenant="north", roles=["user"]))
    for method, field, key, own in (
        ("list_devices", "devices", "device_id", estate.devices["bob"]),
        ("list_sagas", "sagas", "saga_id", estate.sagas["bob"]),
    ):
        token = getattr(root, method)(page_size=1).next_page_token
        assert token
        answer = getattr(bob, method)(page_size=100, page_token=token)
        assert {getattr(entry, key) for entry in getattr(answer, field)} <= set(own)
        with pytest.raises(RPCFailure) as failure:
            getattr(bob, method)(page_size=100, page_token=token, user_id="ann")
        assert failure.value.fields == {"page_token"}, "a token belongs to its filters"


def test_a_request_id_of_another_user_tells_nothing(guarded: Guarded) -> None:
    """Neither the other's saga, nor that there is one: the same id with another request is no conflict."""
    ann = guarded.call_as(as_user("ann", tenant="north", roles=["user"]))
    bob = guarded.call_as(as_user("bob", tenant="north", roles=["user"]))
    first = ann.create("phone", user="", request_id="once")
    second = bob.create("tablet", user="", request_id="once")
    assert first.saga_id != second.saga_id and second.device.user_id == "bob"
    with pytest.raises(RPCFailure) as failure:
        bob.create("phone", user="ann", request_id="once")
    assert failure.value.code == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(RPCFailure) as failure:
        ann.create("tablet", user="", request_id="once")
    assert failure.value.reason == "REQUEST_ID_REUSED"


# Certificates


def test_a_certificate_tells_who_calls(world: World) -> None:
    authority = Authority()
    folder = world.home / "tls"
    certificate, key = authority.issue_for_server().write(folder, "server")
    authorities = replace(folder / "clients.crt", authority.pem)
    orders = authority.issue(uris=["spiffe://test/ns/shop/sa/orders"], dns=["orders.shop"])
    admin = authority.issue(dns=["ops.internal"])
    server = world.server(
        environment={
            "DEVICERPC_AUTH": "mtls", "DEVICERPC_TLS_CERT": str(certificate), "DEVICERPC_TLS_KEY": str(key),
            "DEVICERPC_TLS_CLIENT_CA": str(authorities),
            "DEVICERPC_PERMISSIONS": "san:spiffe://test/ns/shop/sa/orders=device.create,device.read;"
            "san:ops.internal=device.read,saga.admin",
        },
        credentials=authority.credentials(admin),
        start=False,
    )
    # Beyond this machine, without a word: TLS and callers that are known.
    server.environment["DEVICERPC_LISTEN"] = f"0.0.0.0:{server.port}"
    server.start()
    client = server.client_with((), authority.credentials(orders))
    created = client.create(user="ann")
    assert client.device(created.device.device_id).user_id == "ann"
    line = [line for line in server.log_text().splitlines() if "[AUDIT]" in line][-1]
    assert "caller=san:spiffe://test/ns/shop/sa/orders" in line
    unknown = server.client_with((), authority.credentials(authority.issue(dns=["orders.shop.evil"])))
    with pytest.raises(RPCFailure) as failure:
        unknown.device(created.device.device_id)
    assert failure.value.code == grpc.StatusCode.PERMISSION_DENIED
    nameless = server.client_with(bearer("rubbish"), authority.credentials(authority.issue(addresses=["10.0.0.1"])))
    with pytest.raises(RPCFailure) as failure:
        nameless.device(created.device.device_id)
    assert failure.value.code == grpc.StatusCode.UNAUTHENTICATED


def test_a_token_comes_before_a_certificate(world: World) -> None:
    authority = Authority()
    folder = world.home / "tls"
    certificate, key = authority.issue_for_server().write(folder, "server")
    identity = authority.issue(uris=["spiffe://test/ns/shop/sa/orders"])
    permissions = replace(folder / "permissions", PERMISSIONS.encode())
    server = world.server(
        environment={
            "DEVICERPC_AUTH": "jwt", "DEVICERPC_PERMISSIONS": f"@{permissions}",
            "DEVICERPC_TLS_CERT": str(certificate), "DEVICERPC_TLS_KEY": str(key),
            "DEVICERPC_TLS_CLIENT_CA": str(replace(folder / "clients.crt", authority.pem)),
            "DEVICERPC_TLS_CLIENT_CERT": "optional",
        },
        credentials=authority.credentials(), metadata=ADMIN,
    )
    with_certificate = authority.credentials(identity)
    created = server.client_with((), with_certificate).create(user="ann")
    assert server.client_with(as_user("ann", roles=["user"]), with_certificate).device(created.device.device_id)
    with pytest.raises(RPCFailure) as failure:
        server.client_with(as_user("bob", roles=["user"]), with_certificate).device(created.device.device_id)
    assert failure.value.code == grpc.StatusCode.NOT_FOUND
    with pytest.raises(RPCFailure) as failure:
        server.client_with(bearer("rubbish"), with_certificate).device(created.device.device_id)
    assert failure.value.code == grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(RPCFailure) as failure:
        server.client_with(()).device(created.device.device_id)
    assert failure.value.code == grpc.StatusCode.UNAUTHENTICATED


# The audit log, and the start


def test_every_call_that_changes_something_leaves_a_line(guarded: Guarded) -> None:
    ann = guarded.call_as(as_user("ann\nforged=yes", permissions=["device.create", "device.delete"]))
    created = ann.create(user="")
    for user, metadata, code in (
        ("", (), "UNAUTHENTICATED"), ("", as_user("bob"), "PERMISSION_DENIED"),
        ("ann", as_user("eve", permissions=["device.create"]), "PERMISSION_DENIED"),
    ):
        with pytest.raises(RPCFailure) as failure:
            guarded.call_as(metadata).create(user=user)
        assert failure.value.code.name == code
    with pytest.raises(RPCFailure):
        ann.create(user="", options={"fail": "create:refused"})
    lines = guarded.audit_lines()
    assert len(lines) == 5, "\n".join(lines)
    assert f"saga_id={created.saga_id}" in lines[0] and f"device_id={created.device.device_id}" in lines[0]
    assert 'caller="user:ann\\nforged=yes"' in lines[0], "a line stays one line"
    assert "outcome=OK" in lines[0] and "peer=" in lines[0] and "CreateDevice" in lines[0]
    assert "caller=unknown" in lines[1] and "outcome=UNAUTHENTICATED" in lines[1]
    assert "caller=user:bob" in lines[2] and "outcome=PERMISSION_DENIED" in lines[2]
    assert "caller=user:eve" in lines[3] and "user_id=ann" in lines[3] and "outcome=PERMISSION_DENIED" in lines[3]
    assert "outcome=INVALID_ARGUMENT" in lines[4] and "saga_id=saga_" in lines[4]
    assert guarded.call_as(ADMIN).device(created.device.device_id)
    assert len(guarded.audit_lines()) == 5, "reading leaves none"
    assert "eyJ" not in guarded.server.log_text(), "tokens are not logged"


def test_refusals_are_told_once_a_second_and_changes_always(guarded: Guarded) -> None:
    """A caller that is known, and has all the time in the world."""
    bob = guarded.call_as(as_user("bob", permissions=["device.create"]))
    began = time.monotonic()
    for _ in range(100):
        for request in ({"user": "ann"}, {"name": "\x00"}):
            with pytest.raises(RPCFailure):
                bob.create(**request)
    created = [bob.create(user="", when="ACCEPTED").saga_id for _ in range(5)]
    seconds = time.monotonic() - began
    lines = guarded.audit_lines()
    refused = [line for line in lines if "outcome=OK" not in line]
    assert 1 <= len(refused) <= seconds + 1, "\n".join(refused)
    changes = [line for line in lines if "outcome=OK" in line]
    assert [saga for saga in created if any(f"saga_id={saga}" in line for line in changes)] == created

    def told() -> int:
        """How many of the refusals the lines stand for."""
        refused = [line for line in guarded.audit_lines() if "outcome=OK" not in line]
        return sum(1 + int(line.partition("unlogged_before=")[2].partition(" ")[0] or 0) for line in refused)

    def told_with_one_more() -> bool:
        nonlocal more
        more += 1
        with pytest.raises(RPCFailure):
            bob.create(user="ann")
        return told() == 200 + more

    more = 0
    wait_until(told_with_one_more, 60, "the next line to tell of those that were left out")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"DEVICERPC_AUTH": "jwt", "JWT_SECRET": ""}, "DEVICERPC_AUTH: jwt without keys"),
        ({"DEVICERPC_AUTH": "mtls"}, "DEVICERPC_AUTH: mtls without client certificates"),
        ({"DEVICERPC_AUTH": "jwt", "DEVICERPC_JWKS": "/nowhere/keys.json"}, "DEVICERPC_JWKS: /nowhere/keys.json"),
        ({"DEVICERPC_AUTH": "jwt", "DEVICERPC_JWKS": "/etc/hostname"}, "DEVICERPC_JWKS: /etc/hostname"),
        ({"DEVICERPC_AUTH": "jwt", "DEVICERPC_PERMISSIONS": "role:user=device.fly"}, "DEVICERPC_PERMISSIONS: role:user"),
        ({"DEVICERPC_AUTH": "jwt", "DEVICERPC_PERMISSIONS": "@/nowhere"}, "DEVICERPC_PERMISSIONS: /nowhere"),
        ({"DEVICERPC_PERMISSIONS": "role:user=device.read"}, "DEVICERPC_PERMISSIONS: is of no use"),
        ({"DEVICERPC_AUTH": "jwt", "DEVICERPC_LISTEN": "0.0.0.0:0"}, "--insecure-listen"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(world: World, settings: dict[str, str], named: str) -> None:
    environment = {
        "DATABASE_URL": world.database.url, "DEVICERPC_SIMULATED": "true", "JWT_SECRET": JWT_SECRET,
        "DEVICERPC_LISTEN": "127.0.0.1:0", "DEVICERPC_OPS_LISTEN": "127.0.0.1:0", **settings,
    }
    done = run_command(["serve"], environment)
    assert done.returncode == 64 and named in done.stderr, done.stderr


def _owner(created: Any) -> tuple[str, str]:
    return created.device.user_id, created.device.tenant_id


def _outcome(ask: Callable[[], str]) -> str:
    """What it gives, or the code of its failure."""
    try:
        return ask()
    except RPCFailure as failure:
        return failure.code.name


def _found(ask: Callable[[], object]) -> bool | str:
    try:
        ask()
        return True
    except RPCFailure as failure:
        if failure.code == grpc.StatusCode.OUT_OF_RANGE:
            return "out of range"
        assert failure.code == grpc.StatusCode.NOT_FOUND, failure
        return False


def _pages(method: Callable[..., Any], field: str, key: str, size: int, **filters: Any) -> list[str]:
    """All pages; none but the last is short, and nothing comes twice."""
    found: list[str] = []
    token = ""
    while True:
        answer = method(page_size=size, page_token=token, **filters)
        page = [getattr(entry, key) for entry in getattr(answer, field)]
        found += page
        token = answer.next_page_token
        if not token:
            assert len(found) == len(set(found))
            return found
        assert len(page) == size
