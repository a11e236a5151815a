"""Bad input on the command line: every option, with values of no use. One error each that names the option and what is
allowed, exit code 64, and no server is asked."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from support.server import run_command

USAGE = 64
DURATION, NUMBER, PAIR, CHOICE = "duration", "number", "pair", "choice"
# Values that are no good, and what is said of them. The last ones are out of range wherever there is one.
BAD = {
    DURATION: ["5", "", "x", "s", "-5s", "5 s", "1.2.3s", "99999999999h", "9" * 400 + "s"],
    NUMBER: ["", "x", "1.5", "0x10", "+1", " 1", "-1", "99999999999999999999"],
    PAIR: ["", "foo", "=x", "="],
    CHOICE: ["", "x", "1", "unspecified"],
}
CREATE = {
    "--cpu-cores": NUMBER, "--memory-mb": NUMBER, "--storage-mb": NUMBER, "--width": NUMBER, "--height": NUMBER,
    "--dpi": NUMBER, "--metadata": PAIR, "--option": PAIR, "--saga-timeout": DURATION, "--type": CHOICE,
    "--provider": CHOICE, "--return-when": CHOICE, "--set": PAIR,
}
LIST = {"--limit": NUMBER, "--timeout": DURATION, "--status": CHOICE, "--output": CHOICE}
COMMAND = {"--rate": NUMBER, "--timeout": DURATION, "--status": CHOICE, "--output": CHOICE}
# What comes before the option, and the options that are read as something; batch and bench share those of create.
OPTIONS: dict[str, tuple[list[str], dict[str, str]]] = {
    "create": (["--name", "p"], {**CREATE, "--timeout": DURATION, "--output": CHOICE}),
    "get": (["saga_1"], {"--timeout": DURATION, "--output": CHOICE}),
    "watch": (["saga_1"], {"--timeout": DURATION, "--after": NUMBER, "--output": CHOICE}),
    "delete": (["--user", "u"], {**COMMAND, "--saga-timeout": DURATION, "--return-when": CHOICE}),
    "restart": (["--user", "u"], {**COMMAND, "--saga-timeout": DURATION, "--return-when": CHOICE}),
    "batch": (["--name", "p{n}", "--count", "1"], {
        "--count": NUMBER, "--start": NUMBER, "--parallel": NUMBER, "--max-failures": NUMBER, "--timeout": DURATION, "--output": CHOICE}),
    "list": ([], {**LIST, "--provider": CHOICE}),
    "sagas": ([], LIST),
    "compensate": (["--user", "u", "--reason", "x"], COMMAND),
    "resume": (["--user", "u", "--reason", "x"], COMMAND),
    "ports": ([], {name: kind for name, kind in LIST.items() if name != "--status"}),
    "bench": (["create"], {
        "--in-flight": NUMBER, "--connections": NUMBER, "--count": NUMBER, "--ids": NUMBER,
        "--duration": DURATION, "--pause": DURATION, "--timeout": DURATION, "--output": CHOICE}),
    "version": ([], {"--output": CHOICE}),
}


def _bad_values(command: str, option: str) -> list[str]:
    """One that is out of range, and one of the others by turns: a start of the program is a fifth of a second of CPU. Options
    of a kind are read by the same code, and all values of a kind are given to one of them or another."""
    alike = [(one, name) for one, (_, options) in OPTIONS.items() for name, kind in options.items()
             if kind == OPTIONS[command][1][option]]
    *others, last = BAD[OPTIONS[command][1][option]]
    turn, each = alike.index((command, option)), -(-len(others) // len(alike))
    return [others[(turn * each + number) % len(others)] for number in range(each)] + [last]


def test_every_value_of_no_use_is_given_to_some_option() -> None:
    given = {kind: set() for kind in BAD}
    for command, (_, options) in OPTIONS.items():
        for option, kind in options.items():
            given[kind].update(_bad_values(command, option))
    assert given == {kind: set(values) for kind, values in BAD.items()}


SAGA = "saga_1730188800000_7k2m9x4q1c"
# Nobody listens there: whoever asks ends with code 3.
NOWHERE = {
    "HOME": "/nowhere", "DEVICERPC_SERVER": "127.0.0.1:1", "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


def _refused(arguments: list[str], names: str, cwd: pathlib.Path | None = None) -> str:
    done = run_command(arguments, NOWHERE, cwd=cwd)
    shown = f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == USAGE and not done.stdout, shown
    error = done.stderr.split("\nHelp:")[0].split("\nUsage:")[0]
    assert names in error, shown
    return error


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_that_is_read_as_something(command: str, tmp_path: pathlib.Path) -> None:
    before, options = OPTIONS[command]
    allowed = re.compile(r"allowed: |as in |provide one of ")
    for option in options:
        for value in _bad_values(command, option):
            given = [f"{option}={value}"] if value.startswith("-") else [option, value]
            error = _refused([command, *before, *given], option, tmp_path)
            assert allowed.search(error), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [command for command in OPTIONS if command != "version"])
def test_help_has_no_option_that_these_tests_forget(command: str) -> None:
    text = run_command([command, "--help"]).stdout
    assert "EXIT CODES" in text
    flags = set(re.findall(r"^  (--[a-z-]+) <", text, re.M))
    plain = {
        "--config", "--server", "--token", "--token-file", "--tls-ca", "--tls-cert", "--tls-key", "--tls-server-name",
        "--name", "--request-id", "--batch-id", "--template", "--user", "--tenant", "--description", "--tag",
        "--android-version", "--requests", "--results", "--device", "--batch", "--type", "--reason", "--failure-reason",
        "--host", "--tag",
    }
    assert flags - plain - set(OPTIONS[command][1]) - set(CREATE) == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create"], "--name: must have 1 to 100 characters"),
        (["create", "--name", "x" * 101], "--name: must have 1 to 100 characters"),
        (["create", "--name", "p", "--user", "u" * 257], "--user: must have up to 256"),
        (["create", "--name", "p", "--android-version", "x"], "--android-version: must be a version such as"),
        (["create", "--name", "p", "--tag", ""], "--tag[0]: must have 1 to 50"),
        (["create", "--name", "p", "--request-id", "ä"], "--request-id: must be up to 64 printable ASCII"),
        (["create", "--name", "p", "--option", "a=" + "x" * 257], "--option a: must have up to 256"),
        (["create", "--name", "p", "--option", "a=1", "--option", "a=2"], "--option: 'a' is given twice"),
        (["create", "--name", "p", "--metadata", "a=1", "--metadata", "a=1"], "--metadata: 'a' is given twice"),
        (["create", "--name", "p", "--option", "a=@/none"], "--option: '/none' can't be read: No such file"),
        (["create", "--name", "p", "--set", "spec.wings=2"], "--set: spec.wings: "),
        (["create", "--name", "p", "--set", "spec.cpuCores=x"], "--set: spec.cpuCores: "),
        (["create", "--name", "p", "--set", "name=x", "--set", "name.first=y"], "--set: 'name.first': what holds it is no object"),
        (["create", "--name", "p", "--set", "metadata=x"], "--set: 'metadata' is no field"),
        (["create", "--template", "/none"], "--template: '/none' can't be read: No such file"),
        (["create", "--template", "/"], "--template: '/' can't be read as UTF-8 text"),
        (["create", "--name", "p", "--template", "-"], "--template: -: "),
        (["get"], "<id>"), (["get", ""], "'<id>': empty; give an id, as in saga_"), (["get", "a", "b"], "'b'"),
        (["resume", "--reason", "x"], "Give either sagas' ids, or options that select some"),
        (["resume", SAGA, "--user", "u", "--reason", "x"], "Give either sagas' ids, or options"),
        (["resume", SAGA], "--reason"), (["compensate", SAGA, "--reason", ""], "--reason: must have 1 to 1000 characters"),
        (["compensate", SAGA, "--reason", "x" * 1001], "--reason: must have 1 to 1000 characters, has 1001"),
        (["compensate", "saga_1", "--reason", "x"], "'saga_1': must be a saga's id, such as saga_"),
        (["watch", ""], "'<saga-id>': empty"), (["watch"], "Give either a saga's id or --batch"),
        (["watch", "--batch", "b", "saga_1"], "Give either a saga's id or --batch"), (["watch", "--batch", ""], "empty"),
        (["watch", "--batch", "b", "--after", "1"], "--after is for one saga"), (["get", "a", "--timeout"], "Missing value for '--timeout <duration>'"),
        (["batch", "--name", "p", "--count", "2"], "--name: 'p' has no place for a number; give it one {n}"),
        (["batch", "--count", "2"], "--name: '' has no place"), (["batch"], "either --requests or --count"),
        (["batch", "--name", "p{n}", "--count", "2", "--batch-id", ""], "--batch-id: must have 1 to 64"),
        (["batch", "--name", "p{n}", "--count", "2", "--tag", ""], "--tag[0]: must have"),
        (["batch", "--requests", "/none"], "--requests: '/none' can't be read"),
        (["batch", "--name", "p{n}", "--count", "2", "--results", "/none/x"], "--results: '/none/x' can't be written: "),
        (["bench", "fly"], "- watch-batch"),
        (["get", "x", "--server", "h:0"], "the port from 1 to 65535"),
        (["get", "x", "--server", "h:+1"], "--server: is not host:port"),
        (["get", "x", "--server", "-1"], "'--server <host:port>'"),
        (["get", "x", "--config", ""], "--config: an empty path is neither .json"),
        (["get", "x", "--tls-ca", ""], "--tls-ca: is empty"), (["get", "x", "--token", ""], "--token: is empty"),
        (["serve", "--listen"], "--listen: a value is missing (allowed: host:port"),
        (["serve", "--drain-timeout", "5"], "--drain-timeout: is not a duration such as"),
        (["serve", "--drain-timeout", "99999999999h"], "--drain-timeout: is out of range"),
        (["serve", "--max-sagas=-5"], "--max-sagas: is out of range"),
        (["serve", "--liste", "x"], "--liste: no such flag (did you mean --listen?)"),
        (["migrate", "stray"], "stray: not expected here"), (["fly"], "'fly'"),
    ],
)
def test_what_is_wrong_is_named_before_a_server_is_asked(
    arguments: list[str], says: str, tmp_path: pathlib.Path
) -> None:
    _refused(arguments, says, tmp_path)


def test_a_file_is_called_by_what_named_it() -> None:
    for variable, command in (("DEVICERPC_CLIENT_CONFIG", ["get", "x"]), ("DEVICERPC_CONFIG", ["migrate"])):
        done = run_command(command, {**NOWHERE, variable: "/none.yaml"})
        assert done.returncode == USAGE and f"{variable}: /none.yaml can't be read: No such file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["get", "x", "--timeout", "5"], "INVALID_ARGUMENT", "USAGE"), (["create"], "INVALID_ARGUMENT", "USAGE"),
        (["get"], "INVALID_ARGUMENT", "USAGE"), (["get", "x", "--server", "?"], "INVALID_ARGUMENT", "USAGE"),
        (["get", "x"], "UNAVAILABLE", ""), (["watch", "x", "--timeout", "10ms"], "UNAVAILABLE", ""),
        (["create", "--name", "p", "--timeout", "500ms"], "UNAVAILABLE", ""),
        (["migrate", "--listen", "x"], "INVALID_ARGUMENT", "USAGE"),
    ],
)
def test_errors_as_json(arguments: list[str], code: str, reason: str) -> None:
    """Nothing else is on standard error: scripts read it whole."""
    for output in (["--output", "json"], ["--output=json"]):
        done = run_command([*arguments, *output], NOWHERE)
        assert done.returncode == (USAGE if reason else 3) and not done.stdout
        error = json.loads(done.stderr)["error"]
        assert (error["code"], error["reason"]) == (code, reason) and error["message"]


def test_help_lists_the_exit_codes() -> None:
    text = run_command(["help"]).stdout
    for code in (0, 1, 3, 4, 5, 6, 7, 64, 70, 130):
        assert re.search(rf"^  {code} +\S", text, re.M), text
