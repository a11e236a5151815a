"""ListSagas and ListDevices by every kind of filter, warm, among a million sagas (BENCH_LIST_SAGAS) and 100,000 devices.

One caller at a time, as a service, as users and as a tenant's administrators; random users, and pages that follow others.
First pages are compared with what PostgreSQL finds by plain SQL over all rows. docs/performance.md, "Lists", has the table of
filters: which pages are whole, and which may be short.
"""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Callable

import psycopg

from . import many
from .contract import Client, device_pb2, saga_pb2, service_pb2, service_token, user_token
from .figures import Figure, at_most, table
from .service import Service, clusters, service
from .turns import BEFORE

SAGAS = int(os.environ.get("BENCH_LIST_SAGAS", "1000000"))
CALLS = int(os.environ.get("BENCH_LIST_CALLS", "150"))  # of each combination
PAGES = 4  # that follow one another
PAGE = 100  # the contract's default
GOAL = 50
DEADLINE = 2.0  # of the calls whose pages may be short
SAMPLE = 400  # copies that are compared with their originals

PERMISSIONS = "service:bench=device.read,saga.read; role:user=device.read; role:admin=device.read,saga.read,tenant.admin"
AUTH = {"DEVICERPC_AUTH": "jwt", "DEVICERPC_PERMISSIONS": PERMISSIONS}


@dataclasses.dataclass
class Filter:
    """What is asked for, and the same in SQL over s (saga_state) and e (its first event row), or over d (devices)."""

    name: str
    method: str
    fields: Callable[[Pick], dict[str, object]]
    where: str = "true"
    caller: str = "service"
    is_whole: bool = True


@dataclasses.dataclass
class Pick:
    """A random user, with a batch and a device of theirs."""

    user: str
    tenant: str
    batch: str
    device: str


def sagas(*statuses: str) -> list[int]:
    return [saga_pb2.SagaStatus.Value(f"SAGA_STATUS_{status}") for status in statuses]


def devices(*statuses: str) -> list[int]:
    return [device_pb2.DeviceStatus.Value(f"DEVICE_STATUS_{status}") for status in statuses]


_MINE, _TENANTS = "e.user_id = %(user)s", "(e.tenant_id = %(tenant)s OR e.user_id = %(user)s)"
_RARE = "s.status IN ('RUNNING', 'COMPENSATING', 'PARKED')"
_NOT_RUNNING = "d.status <> 'RUNNING'"

FILTERS = [
    Filter("none", "ListSagas", lambda _: {}),
    Filter("user", "ListSagas", lambda pick: {"user_id": pick.user}, _MINE),
    Filter("device", "ListSagas", lambda pick: {"device_id": pick.device}, "e.resource_id = %(device)s::uuid"),
    Filter("batch", "ListSagas", lambda pick: {"batch_id": pick.batch}, "e.batch_id = %(batch)s"),
    Filter(
        "batch, user", "ListSagas", lambda pick: {"batch_id": pick.batch, "user_id": pick.user},
        f"e.batch_id = %(batch)s AND {_MINE}"),
    Filter("PARKED", "ListSagas", lambda _: {"statuses": sagas("PARKED")}, "s.status = 'PARKED'"),
    Filter(
        "RUNNING, COMPENSATING, PARKED", "ListSagas",
        lambda _: {"statuses": sagas("RUNNING", "COMPENSATING", "PARKED")}, _RARE),
    Filter("COMPENSATED", "ListSagas", lambda _: {"statuses": sagas("COMPENSATED")}, "s.status = 'COMPENSATED'"),
    Filter("COMPLETED", "ListSagas", lambda _: {"statuses": sagas("COMPLETED")}, "s.status = 'COMPLETED'"),
    Filter(
        "user, PARKED", "ListSagas", lambda pick: {"user_id": pick.user, "statuses": sagas("PARKED")},
        f"{_MINE} AND s.status = 'PARKED'"),
    Filter(
        "user, RUNNING, COMPENSATING, PARKED", "ListSagas",
        lambda pick: {"user_id": pick.user, "statuses": sagas("RUNNING", "COMPENSATING", "PARKED")}, f"{_MINE} AND {_RARE}"),
    Filter(
        "user, COMPENSATED", "ListSagas", lambda pick: {"user_id": pick.user, "statuses": sagas("COMPENSATED")},
        f"{_MINE} AND s.status = 'COMPENSATED'", is_whole=False),
    Filter(
        "user, COMPLETED", "ListSagas", lambda pick: {"user_id": pick.user, "statuses": sagas("COMPLETED")},
        f"{_MINE} AND s.status = 'COMPLETED'"),
    Filter(
        "user, type, COMPLETED", "ListSagas",
        lambda pick: {"user_id": pick.user, "type": "DEVICE_CREATION", "statuses": sagas("COMPLETED")},
        f"{_MINE} AND s.saga_type = 'DEVICE_CREATION' AND s.status = 'COMPLETED'"),
    Filter(
        "a type that few have", "ListSagas", lambda _: {"type": "DEVICE_DELETION"}, "s.saga_type = 'DEVICE_DELETION'",
        is_whole=False),
    Filter("none", "ListSagas", lambda _: {}, _MINE, "user"),
    Filter("PARKED", "ListSagas", lambda _: {"statuses": sagas("PARKED")}, f"{_MINE} AND s.status = 'PARKED'", "user"),
    Filter("none", "ListSagas", lambda _: {}, _TENANTS, "tenant"),
    Filter("PARKED", "ListSagas", lambda _: {"statuses": sagas("PARKED")}, f"{_TENANTS} AND s.status = 'PARKED'", "tenant"),
    Filter("none", "ListDevices", lambda _: {}),
    Filter("user", "ListDevices", lambda pick: {"user_id": pick.user}, "d.user_id = %(user)s"),
    Filter("RUNNING", "ListDevices", lambda _: {"statuses": devices("RUNNING")}, "d.status = 'RUNNING'"),
    Filter("ERROR", "ListDevices", lambda _: {"statuses": devices("ERROR")}, "d.status = 'ERROR'"),
    Filter(
        "all but RUNNING", "ListDevices", lambda _: {"statuses": devices("CREATING", "STOPPED", "ERROR", "DELETING")},
        _NOT_RUNNING),
    Filter(
        "user, all but RUNNING", "ListDevices",
        lambda pick: {"user_id": pick.user, "statuses": devices("CREATING", "STOPPED", "ERROR", "DELETING")},
        f"d.user_id = %(user)s AND {_NOT_RUNNING}"),
    Filter(
        "user, RUNNING", "ListDevices", lambda pick: {"user_id": pick.user, "statuses": devices("RUNNING")},
        "d.user_id = %(user)s AND d.status = 'RUNNING'"),
    Filter(
        "a provider that none have", "ListDevices", lambda _: {"provider": device_pb2.PROVIDER_REDROID},
        "d.provider = 'redroid'", is_whole=False),
    Filter("none", "ListDevices", lambda _: {}, "(d.tenant_id = %(tenant)s OR d.user_id = %(user)s)", "tenant"),
    Filter(
        "all but RUNNING", "ListDevices", lambda _: {"statuses": devices("CREATING", "STOPPED", "ERROR", "DELETING")},
        f"(d.tenant_id = %(tenant)s OR d.user_id = %(user)s) AND {_NOT_RUNNING}", "tenant"),
]

_TRUTH = {
    "ListSagas": """
        SELECT s.saga_id FROM saga_state s JOIN saga_event e ON e.saga_id = s.saga_id AND e.user_id IS NOT NULL
        WHERE {where} ORDER BY s.saga_id DESC LIMIT {limit}
    """,
    "ListDevices": """
        SELECT d.device_id::text FROM devices d WHERE {where} ORDER BY d.created_at DESC, d.device_id DESC LIMIT {limit}
    """,
}


@dataclasses.dataclass
class Result:
    times: list[float]  # milliseconds
    short: int = 0  # pages that have a token and are not full
    server: float = 0  # milliseconds of CPU a call
    postgres: float = 0

    def part(self, part: float) -> float:
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class Lists:
    def __init__(self, running: Service, database: psycopg.Connection, copies: many.Copies) -> None:
        self._running = running
        self._database = database
        self._chance = random.Random(17)
        chosen = [
            copy for day in (copies.days[-1], copies.days[many.DAYS // 2])
            for copy in self._chance.choices(list(copies.of_day(day)), k=200)
        ]
        self._picks = [Pick(copy.user, copy.tenant, copy.batch, str(copy.device_id)) for copy in chosen]

    def client(self, filter: Filter, pick: Pick) -> Client:
        tokens = {
            "service": service_token, "user": lambda: user_token(pick.user, pick.tenant, "user"),
            "tenant": lambda: user_token(pick.user, pick.tenant, "admin"),
        }
        return Client(self._running.address, tokens[filter.caller]())

    def page(self, client: Client, filter: Filter, pick: Pick, token: str = "") -> tuple[list[str], str, float]:
        """Ids, the next page's token and milliseconds."""
        request = getattr(service_pb2, f"{filter.method}Request")(page_token=token, **filter.fields(pick))
        begin = time.perf_counter()
        answer = client.call(filter.method, request, DEADLINE)
        took = (time.perf_counter() - begin) * 1000
        found = answer.sagas if filter.method == "ListSagas" else answer.devices
        name = "saga_id" if filter.method == "ListSagas" else "device_id"
        return [getattr(one, name) for one in found], answer.next_page_token, took

    def check(self, filter: Filter) -> None:
        """The first PAGE ids, over as many pages as it takes, are what PostgreSQL finds."""
        pick = self._chance.choice(self._picks)
        found: list[str] = []
        token, pages = "", 0
        with self.client(filter, pick) as client:
            while len(found) < PAGE and (token or not pages) and pages < 50:
                ids, token, _ = self.page(client, filter, pick, token)
                found, pages = found + ids, pages + 1
        query = _TRUTH[filter.method].format(where=filter.where, limit=PAGE)
        expected = [row[0] for row in self._database.execute(query, dataclasses.asdict(pick))]
        # Pages without end that hold nothing are right as far as they go.
        if found[:PAGE] != expected[: len(found)] or (len(found) < len(expected) and not token):
            raise SystemExit(f"{filter.method} by {filter.name} ({pick}) has {found[:3]} …, PostgreSQL {expected[:3]} …")

    def measure(self, filter: Filter) -> Result:
        result, warm_ups = Result([]), 0
        before = self._running.usage()
        while len(result.times) < CALLS:
            pick = self._chance.choice(self._picks)
            with self.client(filter, pick) as client:
                self.page(client, filter, pick)  # connects, and is the first of this user: warm is what follows
                warm_ups += 1
                token = ""
                for _ in range(PAGES):
                    ids, token, took = self.page(client, filter, pick, token)
                    result.times.append(took)
                    result.short += bool(token) and len(ids) < PAGE
                    if not token:
                        break
        spent = self._running.usage().since(before)
        # With the calls that warm up.
        calls = len(result.times) + warm_ups
        result.server, result.postgres = spent.server / calls * 1000, spent.postgres / calls * 1000
        return result


# ---- whether the copies are what they should be ----


def shifted(saga, copy: many.Copy):
    """The original as its copy should look."""
    expected = saga_pb2.Saga()
    expected.CopyFrom(saga)
    expected.saga_id, expected.device_id, expected.user_id = copy.saga_id, str(copy.device_id), copy.user
    expected.request_id, expected.batch_id = copy.request_id, copy.batch
    for part in [expected, *expected.steps]:
        for field in ("created_at", "updated_at", "deadline", "completed_at", "started_at", "finished_at"):
            if field in part.DESCRIPTOR.fields_by_name and part.HasField(field):
                at = getattr(part, field)
                at.FromNanoseconds(at.ToNanoseconds() + copy.shift * 1000)
    return without_waits(expected)


def without_waits(saga):
    """What sleeps is due at another time than its original."""
    saga.ClearField("next_attempt_at")
    saga.waiting_for.ClearField("until")
    saga.doubt.ClearField("until")
    return saga


def check_copies(running: Service, copies: many.Copies, originals: dict[str, object]) -> int:
    chance = random.Random(3)
    checked = 0
    with Client(running.address) as client:
        for day in (copies.days[place] for place in (0, many.DAYS // 2, -2, -1)):
            some = list(copies.of_day(day))
            rare = [copy for copy in some if copy.template.kind.often < 100_000]
            for copy in chance.sample(some, min(len(some), SAMPLE // 8)) + chance.sample(rare, min(len(rare), SAMPLE // 8)):
                found = client.call("GetSaga", service_pb2.GetSagaRequest(saga_id=copy.saga_id))
                expected = shifted(originals[copy.template.kind.name], copy)
                if without_waits(found) != expected:
                    raise SystemExit(f"a copy of '{copy.template.kind.name}' is\n{found}\ninstead of\n{expected}")
                checked += 1
    return checked


def originals(running: Service) -> tuple[dict[str, many.Template], dict[str, object]]:
    """Templates, and what GetSaga says of them."""
    many.make_originals(running)
    with Client(running.address) as client:
        for _ in range(20):
            templates = many.read_templates(running)
            answers = {
                name: client.call("GetSaga", service_pb2.GetSagaRequest(saga_id=template.saga_id))
                for name, template in templates.items()
            }
            # None has moved on between its rows and the answer.
            if all(
                answers[name].last_sequence == int(template.state["last_sequence"]) for name, template in templates.items()
            ):
                return templates, answers
    raise SystemExit("the originals never stand still")


def measure(
    running: Service, copies: many.Copies, filters: list[Filter], checks: bool
) -> list[Result]:
    results = []
    with running.database() as database:
        lists = Lists(running, database, copies)
        for filter in filters:
            if checks:
                lists.check(filter)
            results.append(lists.measure(filter))
    return results


def run() -> list[Figure]:
    with clusters("lists"):
        return run_on_cluster()


def run_on_cluster() -> list[Figure]:
    begin = time.monotonic()
    with service(name="lists") as running:
        templates, answers = originals(running)
        copies = many.Copies.of(templates, SAGAS)
        many.fill(running, copies)
        checked = check_copies(running, copies, answers)
        with running.database() as database:
            counts = {
                name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("saga_state", "devices")
            }
    print(
        f"  {counts['saga_state']:,} sagas and {counts['devices']:,} devices on {many.DAYS} days in "
        f"{time.monotonic() - begin:.0f} s, {checked} of them compared through GetSaga", flush=True)
    with service(name="lists", **AUTH) as running:
        results = measure(running, copies, FILTERS, checks=True)
    before: dict[int, Result] = {}
    if BEFORE:
        # Row by row what the program before had of the filters that were slow.
        chosen = [number for number, one in enumerate(FILTERS) if "," in one.name and one.caller == "service"]
        with service(name="lists", binary=BEFORE, **AUTH) as running:
            before = dict(zip(chosen, measure(running, copies, [FILTERS[number] for number in chosen], checks=False), strict=True))
    rows = [
        [
            f"{filter.method}: {filter.name}{'' if filter.caller == 'service' else f' (a {filter.caller} asks)'}",
            *(f"{value:.1f}" for value in (result.part(0.5), result.part(0.99), max(result.times))),
            f"{result.short} of {len(result.times)}", f"{result.server:.1f}", f"{result.postgres:.1f}", *([f"{before[number].part(0.99):.1f}"] if number in before else []),
        ]
        for number, (filter, result) in enumerate(zip(FILTERS, results, strict=True))
    ]
    head = ["", "p50, ms", "p99", "max", "short pages", "server CPU, ms", "PostgreSQL", *(["p99 before"] if BEFORE else [])]
    print(table(head, [row + [""] * (len(head) - len(row)) for row in rows]))
    whole = [result for filter, result in zip(FILTERS, results, strict=True) if filter.is_whole]
    others = [result for filter, result in zip(FILTERS, results, strict=True) if not filter.is_whole]
    if short := [filter.name for filter, result in zip(FILTERS, results) if filter.is_whole and result.short]:
        raise SystemExit(f"pages that should be whole were short: {short}")
    return [
        at_most(f"lists at {SAGAS:,} sagas, whole pages: p99 of the slowest filters", max(one.part(0.99) for one in whole), GOAL, "ms"),
        at_most("… pages that may be short: the slowest", max(max(one.times) for one in others), DEADLINE * 1000, "ms"),
    ]
