"""Fills a database with a million sagas of every outcome, over many days and users.

A server makes one of each kind, as the engine and its codec write them. Their rows are then copied under other ids, users and
times, which keep their lengths; where one isn't found in a row exactly as often as it should be, the run ends. That the copies
are right is checked through GetSaga: it must say of each what it says of the original, but for ids, user and times.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import itertools
import random
import time
import uuid
from collections.abc import Iterator

import psycopg

from .service import DAY_MS, Service, make_day

DAYS = 40  # today and those before
DEVICES_OF = 10  # one of so many COMPLETED sagas has its device still
BIG_USERS, SMALL_USERS = 20, 600  # two fifths of the sagas are the big ones', 2 % of all each
TENANTS = 10
BATCH = 50  # sagas in a row of one user

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
USER, TENANT = "template-user-00000", "template-tenant-00"


@dataclasses.dataclass(frozen=True)
class Kind:
    """An outcome, what the simulated provider is told to bring it about, and how often it comes (of a million)."""

    name: str
    status: str
    options: tuple[str, ...]
    often: int
    sleeps: bool = False


KINDS = [
    Kind("completed", "COMPLETED", (), 965_200),
    Kind("refused", "COMPENSATED", ("fail=create:refused",), 15_000),
    Kind("boot failed", "COMPENSATED", ("fail=start:refused",), 15_000),
    Kind("retried", "COMPLETED", ("fail=create:unavailable", "fail_times=2"), 3_400),
    Kind("undecidable", "PARKED", ("fail=create:undecidable",), 500),
    Kind("not undone", "PARKED", ("fail=start:refused,destroy:undecidable",), 500),
    # Asleep, since nobody takes those up before their time: waiting for a settle time, or for the next try of an undo.
    Kind("running", "RUNNING", ("lose_reply=create", "late_ms=60000", "unique_keys=false"), 200, sleeps=True),
    Kind("undone later", "COMPENSATING", ("fail=start:refused,destroy:unavailable",), 200, sleeps=True),
]

_STATE = (
    "owner", "status", "step_index", "version", "last_sequence", "definition_version", "retry_count", "max_retries", "adoptions",
    "saga_type", "current_step", "error_message", "unsent_version", "site", "commands",
)
_STATE_TIMES = ("timeout_at", "started_at", "created_at", "updated_at", "completed_at")
_DEVICE = (
    "name", "description", "type", "status", "provider", "tenant_id", "cpu_cores", "memory_mb", "storage_mb", "width_px",
    "height_px", "dpi", "android_version", "tags", "metadata", "host", "adb_port", "webrtc_port", "attributes",
)


@dataclasses.dataclass
class Template:
    """The rows of one saga that a server has made."""

    kind: Kind
    saga_id: str
    device_id: uuid.UUID
    request_id: str
    digest: bytes
    state: dict[str, str | None]  # as COPY has it
    times: dict[str, int | None]  # microseconds
    events: list[tuple[int, str, int, str | None]]  # sequence, hexadecimal, the row's time, output
    deadline: str  # as it stands in the first row, hexadecimal
    device: dict[str, str | None] | None
    external_id: str
    waiting: dict[str, str | None] | None

    @property
    def milliseconds(self) -> int:
        return int(self.saga_id.split("_")[1])

    @property
    def mark(self) -> str:
        """The saga's id as the simulated provider's ids have it."""
        return self.saga_id[5:].replace("_", "-")


# ---- the originals ----


def make_originals(running: Service) -> None:
    ends = time.monotonic() + 20
    # Until then sagas are made of a version that doesn't sleep.
    while running.metric(r'saga_feature_on\{feature="sites"\}') != 1:
        if time.monotonic() > ends:
            raise SystemExit("the server doesn't let sagas sleep")
        time.sleep(0.1)
    for kind in KINDS:
        options = [word for option in kind.options for word in ("--option", option)]
        running.load(
            "create", "--in-flight", "1", "--connections", "1", "--count", "1", "--return-when", "accepted", "--user", USER,
            "--tenant", TENANT, "--tag", f"kind:{kind.name}", "--saga-timeout", "1h", *options)


def read_templates(running: Service) -> dict[str, Template]:
    missing: set[str] = set()
    ends = time.monotonic() + 60
    with running.database() as database:
        while time.monotonic() < ends:
            # All rows are of one instant.
            with database.transaction():
                database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                templates = {template.kind.name: template for template in _read(database)}
            missing = {kind.name for kind in KINDS} - templates.keys()
            if not missing:
                return templates
            time.sleep(0.1)
    raise SystemExit(f"the server made no sagas like these: {missing}")


def _read(database: psycopg.Connection) -> Iterator[Template]:
    states = database.execute(
        f"SELECT saga_id, {', '.join(f'{name}::text' for name in _STATE)}, "
        f"{', '.join(f'(extract(epoch FROM {name}) * 1000000)::bigint' for name in _STATE_TIMES)} "
        "FROM saga_state ORDER BY saga_id").fetchall()
    for kind, (saga_id, *values) in zip(KINDS, states, strict=False):
        state = dict(zip(_STATE, values[: len(_STATE)], strict=True))
        if state["status"] != kind.status or kind.sleeps != (state["owner"] == "-1"):
            continue
        request = database.execute(
            "SELECT request_id, digest FROM saga_request WHERE saga_id = %s", (saga_id,)).fetchone()
        events = database.execute(
            "SELECT sequence, encode(events, 'hex'), output, resource_id FROM saga_event WHERE saga_id = %s ORDER BY 1",
            (saga_id,)).fetchall()
        device = database.execute(
            f"SELECT external_id, {', '.join(f'{name}::text' for name in _DEVICE)} FROM devices WHERE saga_id = %s",
            (saga_id,)).fetchone()
        waiting = database.execute(
            "SELECT dependency, reason, doubt_until::text, clock_epoch::text, site FROM saga_waiting WHERE saga_id = %s",
            (saga_id,)).fetchone()
        if kind.sleeps != (waiting is not None):
            continue
        times = dict(zip(_STATE_TIMES, values[len(_STATE):], strict=True))
        deadline = varint(times["timeout_at"])
        rows = []
        for sequence, packed, output, _ in events:
            # Format 1: the format, the count of events, the first one's time.
            if packed[:2] != "01" or int(packed[2:4], 16) > 127:
                raise SystemExit(f"an event row of {kind.name} begins with {packed[:4]}, which is not known here")
            rows.append((sequence, packed, _time(packed[4:20]), output))
        first = rows[0][1]
        for what in (deadline, hexadecimal(USER), hexadecimal(TENANT), hexadecimal(request[0]), events[0][3].hex):
            if first.count(what) != 1:
                raise SystemExit(f"the first event row of {kind.name} has {what} {first.count(what)} times: {first}")
        yield Template(
            kind, saga_id, events[0][3], request[0], request[1], state, times, rows, deadline,
            dict(zip(_DEVICE, device[1:], strict=True)) if device else None, device[0] if device else "",
            dict(zip(("dependency", "reason", "doubt_until", "clock_epoch", "site"), waiting, strict=True)) if waiting else None)


def hexadecimal(text: str) -> str:
    return text.encode().hex()


def varint(microseconds: int) -> str:
    """A time as rows have it: zigzag, seven bits a byte; eight bytes from 1987 to 2112."""
    rest, data = microseconds << 1, bytearray()
    while rest > 0x7F:
        data.append(rest & 0x7F | 0x80)
        rest >>= 7
    data.append(rest)
    if len(data) != 8:
        raise SystemExit(f"the time {microseconds} takes {len(data)} bytes")
    return data.hex()


def _time(packed: str) -> int:
    value = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(bytes.fromhex(packed)))
    if varint(value >> 1) != packed:
        raise SystemExit(f"an event row's time is {packed}, which is not known here")
    return value >> 1


# ---- copies ----


@dataclasses.dataclass
class Copy:
    template: Template
    saga_id: str
    device_id: uuid.UUID
    user: str
    tenant: str
    batch: str
    request_id: str

    @property
    def shift(self) -> int:
        """Microseconds from the original's times to this one's."""
        return (int(self.saga_id[5:18]) - self.template.milliseconds) * 1000


def users() -> list[tuple[str, str]]:
    """Names and tenants; the big ones come first."""
    return [(f"user-{number:014}", f"tenant-{number % TENANTS:011}") for number in range(BIG_USERS + SMALL_USERS)]


@dataclasses.dataclass(frozen=True)
class Copies:
    """What is made of the templates: the same each time that it is asked for."""

    templates: dict[str, Template]
    count: int  # of all days
    until: int  # milliseconds: what comes later are the sagas of the server that runs

    @classmethod
    def of(cls, templates: dict[str, Template], count: int) -> Copies:
        return cls(templates, count, min(template.milliseconds for template in templates.values()) - 1)

    @property
    def days(self) -> list[int]:
        today = self.until // DAY_MS
        return list(range(today - DAYS + 1, today + 1))

    def of_day(self, day: int) -> Iterator[Copy]:
        """In the order of their ids."""
        chance = random.Random(day)
        people = users()
        # What is in flight is so since yesterday at most.
        is_recent = day >= self.days[-2]
        often = [kind.often * (is_recent * DAYS // 2 if kind.sleeps else 1) for kind in KINDS]
        count = self.count // DAYS
        chosen = chance.choices([self.templates[kind.name] for kind in KINDS], often, k=count)
        begin = day * DAY_MS
        length = min(DAY_MS, self.until - begin)
        made = [0] * len(people)
        for index, template in enumerate(chosen):
            user = chance.randrange(BIG_USERS) if chance.random() < 0.4 else BIG_USERS + chance.randrange(SMALL_USERS)
            name, tenant = people[user]
            milliseconds = begin + index * length // count
            bits = chance.getrandbits(128)
            yield Copy(
                template,
                f"saga_{milliseconds:013}_" + "".join(ALPHABET[bits >> 5 * place & 31] for place in range(10)),
                # Of version 7, as the engine's.
                uuid.UUID(int=milliseconds << 80 | 7 << 76 | (bits >> 8 & 0xFFF) << 64 | 2 << 62 | bits >> 66),
                name, tenant, f"batch-{user:05}-{day}-{made[user] // BATCH:04}",
                f"{bits:032x}"[: len(template.request_id)])
            made[user] += 1


_NULL = "\\N"


def _text(value: str | None) -> str:
    """As COPY's text format has it."""
    if value is None:
        return _NULL
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


_EPOCH = datetime.datetime(1970, 1, 1)


def _at(microseconds: int | None) -> str:
    return _NULL if microseconds is None else (_EPOCH + datetime.timedelta(microseconds=microseconds)).isoformat() + "Z"


def _state(copy: Copy) -> str:
    template = copy.template
    times = [_at(None if value is None else value + copy.shift) for value in template.times.values()]
    return "\t".join([copy.saga_id, *map(_text, template.state.values()), *times])


def _events(copy: Copy) -> Iterator[str]:
    template, shift = copy.template, copy.shift
    # The simulated provider's ids have the saga's in them.
    old, new = template.mark, copy.saga_id[5:].replace("_", "-")
    old_hex, new_hex = hexadecimal(old), hexadecimal(new)
    for number, (sequence, packed, at, output) in enumerate(template.events):
        packed = (packed[:4] + varint(at + shift) + packed[20:]).replace(old_hex, new_hex)
        whose = [_NULL] * 4
        if number == 0:
            packed = (
                packed.replace(template.deadline, varint(template.times["timeout_at"] + shift))
                .replace(template.device_id.hex, copy.device_id.hex)
                .replace(_USER, hexadecimal(copy.user))
                .replace(_TENANT, hexadecimal(copy.tenant))
                .replace(hexadecimal(template.request_id), hexadecimal(copy.request_id)))
            whose = [copy.user, str(copy.device_id), copy.batch, copy.tenant]
        yield "\t".join([copy.saga_id, str(sequence), *whose, "\\\\x" + packed, _text(output)])


_USER, _TENANT = hexadecimal(USER), hexadecimal(TENANT)


def _has_device(copy: Copy) -> bool:
    return copy.template.device is not None and (
        copy.template.kind.status != "COMPLETED" or copy.device_id.int % DEVICES_OF == 0)


def _device(copy: Copy) -> str:
    template = copy.template
    external = template.external_id.replace(template.mark, copy.saga_id[5:].replace("_", "-"))
    values = template.device | {"tenant_id": copy.tenant}
    return "\t".join([
        str(copy.device_id), copy.user, external, copy.saga_id,
        *(_at(template.times[name] + copy.shift) for name in ("created_at", "updated_at")), *map(_text, values.values())])


def _waiting(copy: Copy) -> str:
    template = copy.template
    # Due long after all measurements.
    due = _at(time.time_ns() // 1000 + 30 * DAY_MS * 1000)
    return "\t".join([
        copy.saga_id, template.state["saga_type"], template.state["definition_version"], due,
        *map(_text, template.waiting.values())])


def _request(copy: Copy) -> str:
    return "\t".join([copy.user, copy.request_id, "1", copy.saga_id, "\\\\x" + copy.template.digest.hex()])


_PART = 1000  # lines that are sent at once


def _write(database: psycopg.Connection, table: str, columns: str, lines: Iterator[str]) -> None:
    with database.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        while part := list(itertools.islice(lines, _PART)):
            copy.write("\n".join(part) + "\n")


def _fill_day(conninfo: str, all_copies: Copies, day: int) -> None:
    copies = list(all_copies.of_day(day))
    name = datetime.datetime.fromtimestamp(day * DAY_MS / 1000, datetime.UTC).strftime("%Y%m%d")
    with psycopg.connect(conninfo, autocommit=True) as database:
        # What is measured comes later.
        database.execute("SET synchronous_commit = off")
        _write(
            database, f"saga_state_{name}", f"saga_id, {', '.join(_STATE + _STATE_TIMES)}", (_state(copy) for copy in copies))
        _write(
            database, f"saga_event_{name}", "saga_id, sequence, user_id, resource_id, batch_id, tenant_id, events, output",
            (line for copy in copies for line in _events(copy)))
        _write(
            database, "saga_request", "user_id, request_id, method, saga_id, digest",
            (_request(copy) for copy in copies))
        _write(
            database, "saga_waiting",
            "saga_id, saga_type, definition_version, due_at, dependency, reason, doubt_until, clock_epoch, site",
            (_waiting(copy) for copy in copies if copy.template.waiting))
        _write(
            database, "devices",
            f"device_id, user_id, external_id, saga_id, created_at, updated_at, {', '.join(_DEVICE)}",
            (_device(copy) for copy in copies if _has_device(copy)))


def fill(running: Service, copies: Copies) -> None:
    with running.database() as database:
        for day in copies.days:
            make_day(database, day)
    with concurrent.futures.ProcessPoolExecutor(2) as workers:
        for done in [workers.submit(_fill_day, running.conninfo, copies, day) for day in copies.days]:
            done.result()
    with running.database() as database:
        # What no saga of today leaves a device in.
        for status, number in (("STOPPED", 400), ("ERROR", 200), ("CREATING", 200)):
            database.execute(
                "UPDATE devices SET status = %s WHERE device_id IN "
                "(SELECT device_id FROM devices WHERE status = 'RUNNING' ORDER BY md5(device_id::text) LIMIT %s)", (status, number))
        database.execute("VACUUM (ANALYZE)")
