"""How much the log says: one line for each saga's end, and of what goes wrong one for each cause and minute."""

from __future__ import annotations

import collections
import json
import time
from typing import Any

from support.client import create_request
from support.server import Server
from support.waiting import wait_until
from support.world import World

QUIET = {"DEVICERPC_LOG_LEVEL": "info", "DEVICERPC_LOG_FORMAT": "json"}


def _lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log_text().splitlines() if line.startswith("{")]


def _severe(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["level"] in ("warning", "error", "critical")]


def _by_message(lines: list[dict[str, Any]]) -> collections.Counter[str]:
    """How often something was said, without what differs from line to line."""
    return collections.Counter(
        " ".join(str(line.get(key, "")) for key in ("message", "step", "reason"))[:60] for line in lines
    )


def _minutes(since: float) -> int:
    """The most lines that a cause may have left: one at once, and one for each minute that has passed."""
    return 1 + int((time.monotonic() - since) / 60)


def test_a_thousand_sagas_that_fail(world: World) -> None:
    server = world.server(environment=QUIET)
    client = server.client()
    since = time.monotonic()
    kinds = [
        {"fail": "start:refused"}, {"fail": "create:refused"}, {"fail": "create:throttled", "fail_times": "1"},
        {"fail": "start:refused,destroy:unavailable", "fail_times": "1"},
    ]
    number = 1000
    pending = [
        # Few of the last, so that no breaker opens.
        client.start(create_request(options=kinds[3 if one % 200 == 0 else one % 3]), timeout=120)
        for one in range(number)
    ]
    for call in pending:
        call.outcome()
    world.wait_all_over(60)
    found = world.audit(client, events_of=20)

    def all_said() -> bool:
        ends = [line for line in _lines(server) if line["message"] in ("[SAGA] SAGA_COMPLETED", "[SAGA] SAGA_COMPENSATED")]
        assert len(ends) == number, len(ends)
        assert len({line["saga_id"] for line in ends}) == number
        assert {line["level"] for line in ends} == {"info"}
        assert sum("COMPENSATED" in line["message"] for line in ends) == found.count("COMPENSATED") > 0
        assert all(line["reason"] for line in ends if "COMPENSATED" in line["message"])
        return True

    wait_until(all_said, 60, "a line for each saga's end")
    lines = [line for line in _lines(server) if line["message"] != "[AUDIT]"]
    said = _by_message(_severe(lines))
    minutes = _minutes(since)
    assert said and max(said.values()) <= minutes, said
    assert sum(said.values()) <= 30 * minutes, said
    # Beside the ends of sagas, next to nothing.
    assert len(lines) <= number + sum(said.values()) + 20
    # What was left out is told: by the next line of its cause, or once a cause has been quiet for a while.
    assert any("STEP_FAILED" in text for text in said) and any("STEP_RETRYING" in text for text in said)


def test_parked_sagas_have_a_line_each(world: World) -> None:
    server = world.server(environment=QUIET)
    client = server.client()
    number = 20
    pending = [
        client.start(create_request(options={"fail": "start:refused,destroy:undecidable"})) for _ in range(number)
    ]
    for one in pending:
        one.outcome()
    world.wait_all_over()
    assert world.count("PARKED") == number

    def parked() -> bool:
        ids = [line["saga_id"] for line in _lines(server) if line["message"] == "[SAGA] SAGA_PARKED"]
        assert len(ids) == len(set(ids)) == number, len(ids)
        return True

    wait_until(parked, 60, "a line for each parked saga")


def test_a_database_that_is_away(world: World) -> None:
    proxy = world.proxy()
    server = world.server(proxy=proxy, environment=QUIET)
    client = server.client()
    client.create()
    pending = [client.start(create_request(options={"latency_ms": "2000"})) for _ in range(20)]
    wait_until(lambda: world.moving() == 20, 60, "sagas to be under way")
    before = len(_lines(server))
    since = time.monotonic()
    with proxy.refusing():
        time.sleep(15)
    for one in pending:
        one.outcome()
    wait_until(lambda: client.health() == "SERVING", 60, "the server to serve again")
    world.wait_all_over(60)
    said = _by_message(_severe(_lines(server)[before:]))
    minutes = _minutes(since)
    assert said, "nobody said that the database is away"
    assert max(said.values()) <= minutes, said
    assert sum(said.values()) <= 12 * minutes, said
    world.audit(client)
