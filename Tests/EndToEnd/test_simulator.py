"""The simulator (docs/simulator.md): that a seed means one run and no other, and that its findings are findings."""

from __future__ import annotations

import re
import subprocess

import pytest

from support.server import REPOSITORY, binary

# A slow machine changes no run, only how long it takes.
LIMIT = 900
SIX = ("--from", "1", "--seeds", "6", "--history", "--verbose")
# One worker runs these: they share a run.
together = pytest.mark.xdist_group("simulator")


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = binary().with_name("Simulator")
    assert program.exists(), f"{program} is not there: swift build --product Simulator"
    return subprocess.run(
        [program, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def history(*arguments: str) -> list[str]:
    """What happened, without the figures at the end, which are the machine's."""
    done = simulate(*arguments)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if " an hour)" not in line]


@pytest.fixture(scope="module")
def first_six() -> list[str]:
    """Kills, a freeze, lost answers and refusals are all among these."""
    return history(*SIX)


@together
def test_the_same_seed_gives_the_same_history_byte_for_byte(first_six: list[str]) -> None:
    assert len(first_six) > 500
    assert first_six == history(*SIX)


@together
def test_what_ran_before_changes_nothing(first_six: list[str]) -> None:
    alone = history("--from", "6", "--seeds", "1", "--verbose", "--history")
    seed = [line for line in alone if not line.startswith(("sums ", "ends "))]
    assert len(seed) > 50
    assert [line for line in first_six if not line.startswith(("sums ", "ends "))][-len(seed) :] == seed


@together
def test_another_seed_gives_another_history(first_six: list[str]) -> None:
    digests = [line for line in first_six if line.startswith("seed ")]
    assert len(digests) == 6
    assert len({line.split()[2] for line in digests if "FAILED" not in line}) == 6


def test_two_hundred_seeds_find_nothing() -> None:
    """As many of them as a minute is enough for; the line at the end says how many that were."""
    done = simulate("--seeds", "200", "--at-most", "60", "--shrink", "30")
    count = re.search(r"^(\d+) of 200 seeds", done.stdout, re.MULTILINE)
    assert count, done.stdout + done.stderr
    print(done.stdout.splitlines()[-1])
    assert int(count[1]) >= 3, "not even three seeds in a minute"
    assert done.returncode == 0, done.stdout


def test_recorded_seeds_fail_with_their_mends_taken_out() -> None:
    done = simulate("--mutants")
    assert done.returncode == 0, f"look for other seeds: ./dev simulate --mutant NAME\n{done.stdout}"
    rows = re.findall(r"^row (\d+),", done.stdout, re.MULTILINE)
    assert rows == [str(row) for row in range(1, 16)], done.stdout
    # And what fails is made smaller, and shown.
    found = re.search(r"^row 7, (\S+), seed (\d+): \S+ (.*)$", done.stdout, re.MULTILINE)
    assert found
    shown = simulate("--seed", found[2], "--shrink", "10", "--mutant", found[1])
    assert shown.returncode == 1, shown.stdout
    _, smallest = shown.stdout.split("the smallest of ")
    assert found[3].split(",")[0] in smallest, shown.stdout
    page = smallest.split("its history")[1].splitlines()[1:]
    assert 10 < sum(line.startswith("    ") for line in page) <= 60, shown.stdout
