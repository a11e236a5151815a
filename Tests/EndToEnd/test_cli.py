"""The command line, as a script sees it: pipes, JSON, exit codes."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import select
import subprocess
import time
from typing import Any

import pytest

from support import ledger as ledgers
from support.client import unique
from support.server import Server, binary, clean_environment, run_command
from support.waiting import free_port, wait_until
from support.world import World

# What scripts may rely on.
SUCCESS, FAILED = 0, 1
UNAVAILABLE, NOT_FOUND, PARKED, REFUSED, TIMED_OUT = range(3, 8)
USAGE = 64


class CommandLine:
    """Runs commands against one server."""

    def __init__(self, server: Server, folder: pathlib.Path) -> None:
        self.server = server
        self.folder = folder
        self.environment = {"DEVICERPC_SERVER": server.address}

    def run(self, *arguments: str, code: int = SUCCESS, input: str | None = None, timeout: float = 60) -> str:
        done = run_command(arguments, self.environment, timeout, input, self.folder)
        assert done.returncode == code, (
            f"{' '.join(arguments)}: exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
        )
        self.errors = done.stderr
        assert "\x1b" not in done.stdout + done.stderr, "colours in a pipe"
        return done.stdout

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.run(*arguments, "--output", "json", **options))

    def lines(self, *arguments: str, **options: Any) -> list[Any]:
        return [json.loads(line) for line in self.run(*arguments, "--output", "json", **options).splitlines()]


@pytest.fixture
def cli(world: World, tmp_path: pathlib.Path) -> CommandLine:
    return CommandLine(world.server(), tmp_path)


def test_create_and_watch_in_a_pipe(world: World, cli: CommandLine) -> None:
    text = cli.run("create", "--name", "my phone", "--user", "ann", "--watch")
    saga_id = re.search(r"saga_\d{13}_[0-9a-z]{10}", text)
    assert saga_id, text
    events = [line for line in text.splitlines() if re.match(r"\d{4}-\d\d-\d\dT\S+Z \d+ ", line)]
    assert [int(line.split()[1]) for line in events] == list(range(1, len(events) + 1))
    assert "SAGA_STARTED" in events[0] and "SAGA_COMPLETED" in events[-1]
    assert any("RUNNING" in line for line in text.splitlines()[len(events) :])
    assert "request_id" in cli.errors
    assert world.saga_row(saga_id[0])["status"] == "COMPLETED"
    shown = cli.run("get", saga_id[0])
    assert "COMPLETED" in shown and "START_DEVICE" in shown
    replayed = cli.run("watch", saga_id[0])
    assert replayed.splitlines() == events
    assert cli.run("watch", saga_id[0], "--after", "3").splitlines() == events[3:]


def test_create_as_json(cli: CommandLine) -> None:
    answer = cli.json("create", "--name", "p", "--user", "ann", "--return-when", "finished", "--tag", "x",
                      "--metadata", "team=qa", "--cpu-cores", "3")
    device = answer["device"]
    assert device["status"] == "DEVICE_STATUS_RUNNING"
    assert device["tags"] == ["x"] and device["metadata"] == {"team": "qa"} and device["spec"]["cpuCores"] == 3
    saga = cli.json("get", answer["sagaId"])
    assert saga["status"] == "SAGA_STATUS_COMPLETED" and saga["stepIndex"] == 4
    assert cli.json("get", device["deviceId"])["name"] == "p"
    first, *events = cli.lines("create", "--name", "q", "--user", "ann", "--watch")
    assert first["sagaId"].startswith("saga_")
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "SAGA_EVENT_TYPE_SAGA_COMPLETED"


def test_exit_codes(world: World, cli: CommandLine) -> None:
    assert world.ledger
    base = ("create", "--name", "p", "--user", "ann", "--watch")
    cli.run(*base, "--option", "fail=start:refused", code=FAILED)
    assert "BOOT_FAILED" in cli.run(
        "create", "--name", "p", "--user", "ann", "--return-when", "finished", "--option", "fail=start:refused",
        code=FAILED,
    ) + cli.errors
    cli.run("no-such-command", code=USAGE)
    cli.run("create", "--no-such-flag", code=USAGE)
    cli.run("create", "--name", "p", "--user", "ann", "--type", "fridge", code=USAGE)
    cli.run("create", "--name", "p", "--user", "ann", "--option", "warp=1", code=REFUSED)
    assert "provider_options.warp" in cli.errors and "INVALID_FIELD" in cli.errors
    cli.run("get", "saga_1730188800000_aaaaaaaaaa", code=NOT_FOUND)
    cli.run(*base, "--option", "fail=start:refused,destroy:undecidable", code=PARKED)
    cli.run(
        "create", "--name", "p", "--user", "ann", "--return-when", "finished", "--option", "latency_ms=3000",
        "--timeout", "300ms", code=TIMED_OUT,
    )
    cli.run("version")
    cli.environment["DEVICERPC_SERVER"] = f"127.0.0.1:{free_port()}"
    cli.run("get", "saga_1730188800000_aaaaaaaaaa", code=UNAVAILABLE)
    error = json.loads(_errors_as_json(cli))
    assert error["error"]["code"] == "UNAVAILABLE"


def _errors_as_json(cli: CommandLine) -> str:
    cli.run("get", "saga_1730188800000_aaaaaaaaaa", "--output", "json", code=UNAVAILABLE)
    return cli.errors


def test_batch(world: World, cli: CommandLine) -> None:
    assert world.ledger
    template = cli.folder / "template.json"
    template.write_text(json.dumps({"userId": "bulk", "spec": {"androidVersion": "12"}, "tags": ["batch"]}))
    batch = unique("batch")
    world.ledger.rule(ledgers.refuse(), operation="increment", user="bulk", times=2)
    arguments = (
        "batch", "--template", str(template), "--name", "farm-{n:3}", "--count", "25", "--batch-id", batch,
        "--parallel", "8",
    )
    cli.run(*arguments, code=FAILED)
    results = json.loads((cli.folder / f"{batch}.results.json").read_text())
    assert sorted(results) == [f"farm-{number:03}" for number in range(1, 26)]
    failed = {name for name, one in results.items() if one["status"] != "COMPLETED"}
    assert len(failed) == 2
    assert {results[name]["reason"] for name in failed} == {"QUOTA_REFUSED"}
    assert all(one["saga_id"].startswith("saga_") and one["request_id"] for one in results.values())
    assert len(cli.json("sagas", "--batch", batch)["sagas"]) == 25
    # Run again: nothing is made twice, and what failed fails as before.
    cli.run(*arguments, code=FAILED)
    again = json.loads((cli.folder / f"{batch}.results.json").read_text())
    assert {name: one["saga_id"] for name, one in again.items()} == {name: one["saga_id"] for name, one in results.items()}
    # Unless it is told to try again.
    cli.run(*arguments, "--retry-failed")
    final = json.loads((cli.folder / f"{batch}.results.json").read_text())
    assert {one["status"] for one in final.values()} == {"COMPLETED"}
    assert {name for name in final if final[name]["saga_id"] != results[name]["saga_id"]} == failed
    listed = cli.json("list", "--user", "bulk")["devices"]
    assert sorted(device["name"] for device in listed) == sorted(results)
    findings = world.audit(world.servers[0].client())
    assert findings.count("COMPLETED") == 25


def test_batch_whose_results_can_go_nowhere(world: World, cli: CommandLine) -> None:
    """It is told before anything starts."""
    cli.run(
        "batch", "--name", "p-{n}", "--count", "30", "--user", "ann", "--results", "no/such/folder.json", code=USAGE
    )
    assert "can't be written: no such folder" in cli.errors and "NSError" not in cli.errors, cli.errors
    assert world.database.value("SELECT count(*) FROM saga_state") == 0


def test_batch_on_one_stream(world: World, cli: CommandLine) -> None:
    """Its template's fields, what it checks, where it stops, what it keeps, and what it is watched and deleted by."""
    template = cli.folder / "template.json"
    template.write_text(json.dumps({"userId": "x", "spec": {"cpu_cores": 1}, "metadata": {"a.b": "1"}}))
    batch = unique("batch")
    base = (
        "batch", "--template", str(template), "--set", "user_id=bulk", "--set", "spec.cpuCores=4", "--set", "metadata.a.b=2",
        "--set", "tags=red,blue", "--name", "s-{n:2}", "--batch-id", batch,
    )
    path = cli.folder / f"{batch}.results.json"
    # Nothing starts while it is only checked.
    cli.run(*base, "--count", "10", "--validate")
    cli.run(*base, "--count", "3", "--validate", "--option", "warp=1", code=REFUSED)
    assert "✗ 3 INVALID_FIELD" in cli.errors
    assert not path.exists() and world.database.value("SELECT count(*) FROM saga_state") == 0
    cli.run(*base, "--count", "10")
    assert cli.server.client().saga(json.loads(path.read_text())["s-01"]["saga_id"]).batch_id == batch
    results = json.loads(path.read_text())
    device = cli.json("get", results["s-07"]["device_id"])
    assert device["spec"]["cpuCores"] == 4 and device["userId"] == "bulk" and device["metadata"] == {"a.b": "2"}
    assert device["tags"] == ["red", "blue"] and device["batchId"] == batch
    assert results["s-07"]["connection"]["adb_port"] == device["connection"]["adbPort"]
    calls = [line for line in cli.server.log_text().splitlines() if "[AUDIT]" in line]
    assert len(calls) == 10 and all("/CreateDevices" in line for line in calls)
    # What was made stays made, whatever the next run is told.
    cli.run(*base, "--count", "10", "--memory-mb", "1024", code=REFUSED)
    assert json.loads(path.read_text()) == results
    # It stops after so many failures; the failed ones come last.
    more = ("--start", "11", "--count", "30", "--parallel", "2", "--max-failures", "3")
    output = cli.run(*base, *more, "--option", "fail=create:refused", code=FAILED)
    failed = output.count("COMPENSATED")
    assert 3 <= failed <= 4 and f"{30 - failed} were not started" in cli.errors and "✗ " in cli.errors
    statuses = [one["status"] for one in json.loads(path.read_text()).values()]
    assert statuses == ["COMPLETED"] * 10 + ["COMPENSATED"] * failed
    # Watched as one.
    shown = cli.run("watch", "--batch", batch, code=FAILED)
    assert shown.count("COMPLETED ") == 10 and shown.count("COMPENSATED ") == failed
    assert f"{10 + failed}/{10 + failed}" in shown and f"✗ {failed} PROVIDER_REFUSED" in shown
    updates = cli.lines("watch", "--batch", batch, code=FAILED)
    assert len([update for update in updates if "saga" in update]) == 10 + failed
    # Only those of the batch go.
    other = cli.json("create", "--name", "s-other", "--user", "bulk", "--return-when", "finished")["device"]["deviceId"]
    assert len(cli.json("list", "--tag", "red")["devices"]) == len(cli.json("list", "--batch", batch)["devices"]) == 10
    assert len(cli.json("list", "--name", "s-")["devices"]) == 11
    cli.run("delete", "--batch", batch, "--yes")
    assert [device["deviceId"] for device in cli.json("list", "--user", "bulk")["devices"]] == [other]


def test_batch_whose_client_dies(world: World, cli: CommandLine) -> None:
    """Run again with the same batch id it makes one device a name; then it is cancelled while some are made."""
    batch = unique("batch")
    base = ["batch", "--name", "d-{n:3}", "--count", "60", "--user", "bulk", "--batch-id", batch, "--option", "latency_ms=50"]
    process = subprocess.Popen(
        [str(binary()), *base, "--server", cli.server.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=cli.folder, env=clean_environment(),
    )
    try:
        wait_until(lambda: world.count("COMPLETED") >= 3, 60, "the batch to be under way")
    finally:
        process.kill()
        process.communicate()
    cli.run(*base)
    results = json.loads((cli.folder / f"{batch}.results.json").read_text())
    assert {one["status"] for one in results.values()} == {"COMPLETED"} and len(results) == 60
    names = [device["name"] for device in cli.json("list", "--batch", batch, "--limit", "1000")["devices"]]
    assert sorted(names) == sorted(results)
    # Of another, some have no record yet.
    pending = unique("batch")
    cli.run("batch", "--name", "e-{n}", "--count", "5", "--user", "bulk", "--batch-id", pending, "--return-when", "accepted",
            "--option", "latency_ms=3000")
    cli.run("cancel", "--batch", pending, "--yes")
    assert cli.json("list", "--batch", pending) == {} and world.count("COMPLETED") >= 60
    world.audit(cli.server.client())


def test_batch_of_requests_over_a_restart(world: World, cli: CommandLine) -> None:
    """The server is killed in the midst; the batch waits for it and goes on."""
    requests = "".join(
        json.dumps({"name": f"device {number}", "userId": "bulk", "providerOptions": {"latency_ms": "200"}}) + "\n"
        for number in range(20)
    )
    batch = unique("batch")
    process = subprocess.Popen(
        [str(binary()), "batch", "--requests", "-", "--batch-id", batch, "--parallel", "5", "--server", cli.server.address],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cli.folder,
        env=clean_environment(),
    )
    try:
        assert process.stdin
        process.stdin.write(requests)
        process.stdin.close()
        process.stdin = None
        wait_until(lambda: world.count("COMPLETED") >= 4, 60, "the batch to be under way")
        cli.server.kill()
        time.sleep(0.5)
        cli.server.start()
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == SUCCESS, out + errors
    results = json.loads((cli.folder / f"{batch}.results.json").read_text())
    assert {one["status"] for one in results.values()} == {"COMPLETED"} and len(results) == 20
    findings = world.audit(cli.server.client())
    assert findings.count("COMPLETED") == 20 == len(findings.sagas)


def test_watch_over_a_restart(world: World, cli: CommandLine) -> None:
    answer = cli.json("create", "--name", "p", "--user", "ann", "--return-when", "accepted",
                      "--option", "latency_ms=1500")
    process = subprocess.Popen(
        [str(binary()), "watch", answer["sagaId"], "--server", cli.server.address, "--output", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )
    try:
        time.sleep(0.5)
        cli.server.kill()
        time.sleep(0.5)
        cli.server.start()
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == SUCCESS, errors
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "SAGA_EVENT_TYPE_SAGA_COMPLETED"


def test_lists(cli: CommandLine) -> None:
    for number in range(3):
        cli.run("create", "--name", f"n{number}", "--user", "lister", "--return-when", "finished")
    cli.run("create", "--name", "bad", "--user", "lister", "--return-when", "finished", "--option",
            "fail=create:refused", code=FAILED)
    table = cli.run("list", "--user", "lister")
    assert [name for name in ("n2", "n1", "n0") if name in table] == ["n2", "n1", "n0"]
    assert table.index("n2") < table.index("n0")
    assert len(cli.json("sagas", "--user", "lister")["sagas"]) == 4
    assert len(cli.json("sagas", "--user", "lister", "--status", "compensated")["sagas"]) == 1
    assert len(cli.json("sagas", "--user", "lister", "--limit", "2")["sagas"]) == 2
    assert len(cli.json("list", "--user", "lister", "--status", "running")["devices"]) == 3
    assert "COMPENSATED" in cli.run("sagas", "--user", "lister")


def test_a_terminal_gets_a_progress_bar(cli: CommandLine) -> None:
    """Colours and a bar that is drawn again, on a terminal only."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [str(binary()), "create", "--name", "p", "--user", "ann", "--watch", "--option", "latency_ms=300",
         "--server", cli.server.address],
        stdin=follower, stdout=follower, stderr=follower, env={**clean_environment(), "TERM": "xterm-256color"},
    )
    os.close(follower)
    output = b""
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    data = os.read(leader, 65536)
                except OSError:
                    break
                if not data:
                    break
                output += data
            elif process.poll() is not None:
                break
        assert process.wait(60) == SUCCESS, output
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    text = output.decode()
    assert "\x1b[" in text and "\r" in text
    assert re.search(r"[█▓▒░#].* \d/5", text), text[-2000:]
    assert "✓ START_DEVICE" in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def test_bench_reports_percentiles(cli: CommandLine) -> None:
    report = cli.json("bench", "health", "--count", "2000", "--in-flight", "16")
    assert json.dumps(report).count("99") >= 1
    cli.json("bench", "create", "--count", "200", "--in-flight", "32")
    cli.json("bench", "get", "--count", "500", "--in-flight", "16")


def test_migrate_twice(world: World) -> None:
    for _ in range(2):
        done = run_command(["migrate"], {"DATABASE_URL": world.database.url})
        assert done.returncode == 0, done.stderr
    done = run_command(["migrate", "--output", "json"], {"DATABASE_URL": world.database.url})
    report = json.loads(done.stdout)
    assert report["applied"] == [] and report["version"] > 0, report


def test_help_lists_every_command() -> None:
    text = run_command(["--help"]).stdout
    for command in (
        "serve", "create", "get", "watch", "delete", "cancel", "start", "stop", "restart", "batch", "list", "sagas", "compensate", "resume", "ports", "migrate", "bench", "version",
    ):
        assert re.search(rf"^\s+{command}\b", text, re.MULTILINE), text
    assert "fault-points" not in text
    serve = run_command(["serve", "--help"]).stdout
    for key in ("DATABASE_URL", "DEVICERPC_LISTEN", "USER_SERVICE_URL", "JWT_SECRET"):
        assert key in serve
