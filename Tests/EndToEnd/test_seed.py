"""What operators asked for by name: metrics, alerts, dashboards, and the list of where each is (docs/seed.md)."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess

import pytest

from support.client import RPCFailure
from support.server import run_command
from support.stubs import service_pb2
from support.waiting import wait_until
from support.world import World

ROOT = pathlib.Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/devicerpc.rules.yml"
PANELS = [
    "Success rate", "Failures by reason", "Creation time", "In progress", "Failed steps", "Compensations",
]


def _promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60, cwd=RULES.parent)


def test_rules_do_what_they_say() -> None:
    for arguments in (["check", "rules", RULES.name], ["test", "rules", "devicerpc.rules.test.yml"],
                      ["check", "config", "prometheus.yml"]):
        done = _promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_section() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    links = re.findall(r"runbook_url: docs/alerts.md#(\w+)", RULES.read_text())
    assert links == [alert.lower() for alert in alerts]
    assert re.findall(r"(?m)^## (\w+)$", (ROOT / "docs/alerts.md").read_text()) == alerts


def _expressions() -> list[str]:
    expressions = re.findall(r"(?m)^        expr: (?:\|\n((?:          .*\n)+)|(.*)\n)", RULES.read_text())
    found = ["".join(one) for one in expressions]
    for path in (ROOT / "deploy/grafana").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            found += [target["expr"] for target in panel["targets"]]
    return found


def test_the_dashboard_has_these_panels() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/device-creation-saga.json").read_text())
    assert dashboard["title"] == "Device Creation Saga"
    assert [panel["title"] for panel in dashboard["panels"]] == PANELS


def test_what_alerts_and_panels_ask_for_is_there(world: World) -> None:
    server = world.server()
    client = server.client()
    client.create()
    with pytest.raises(RPCFailure):
        client.create(options={"fail": "start:refused"})
    wait_until(lambda: "saga_oldest_unfinished_seconds" in server.http("/metrics")[1], 60, "the gauges of unfinished sagas")
    text = server.http("/metrics")[1]
    names = {re.sub(r"_(bucket|sum|count)$", "", line.split("{")[0].split(" ")[0]) for line in text.splitlines() if line[0] != "#"}
    names |= {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[0] != "#"}
    # What has no series before it first happens, and a help text of its own.
    names |= {"saga_undo_retry_total", "saga_adopted_total", "saga_parked_total", "rpc_server_refusals_total"}
    for expression in _expressions():
        asked = set(re.findall(r"\b((?:saga|rpc|quota|devicerpc|process|operators)_[a-z_]+)\b", expression))
        asked = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in names else name for name in asked}
        assert asked and asked <= names, (expression, asked - names)
    assert 'saga_device_creation_failed_total{reason="BOOT_FAILED"} 1' in text
    assert 'saga_device_creation_failed_total{reason="TIMED_OUT"} 0' in text
    # These names are the operators' own.
    done = _promtool("check", "metrics", text=text)
    problems = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    own = ("saga_device_creation_retry_count", "saga_retention_held_days")
    assert all(line.startswith(own) for line in problems), problems


def test_what_the_list_names_is_there(world: World) -> None:
    """Metrics, methods, commands and settings in docs/seed.md."""
    text = (ROOT / "docs/seed.md").read_text()
    server = world.server()
    server.client().create()
    wait_until(lambda: "saga_unfinished{" in server.http("/metrics")[1], 60, "the gauges of unfinished sagas")
    metrics = server.http("/metrics")[1]
    of_metrics = text.split("## Metrics")[1].split("## Panels")[0]
    for name in set(re.findall(r"`(saga_[a-z_]+)`", of_metrics)):
        assert f"# TYPE {name} " in metrics or f"{name}_bucket" in metrics, name
    services = service_pb2.DESCRIPTOR.services_by_name.values()
    methods = {method.name for service in services for method in service.methods}
    for name in set(re.findall(r"`([A-Z][A-Za-z]+(?:Devices?|Sagas?|Ports))`", text)):
        assert name in methods, name
    for command in set(re.findall(r"`devicerpc ([a-z]+)", text)):
        assert run_command([command, "--help"]).returncode == 0, command
    for path in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / "docs" / path).exists(), path
    for path, name in re.findall(r"`(test_[a-z_]+\.py)(?:::([a-z_]+))?`", text):
        found = ROOT / "Tests/EndToEnd" / path
        assert found.exists() and (not name or f"def {name}" in found.read_text()), (path, name)
