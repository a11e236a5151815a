"""The simulator (docs/simulator.md): that a seed means one run and no other, and that its findings are findings."""

from __future__ import annotations

import re
import subprocess

import pytest

from support.server import REPOSITORY, binary

# A slow machine changes no run, only how long it takes.
LIMIT = 900


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


def test_the_same_seed_gives_the_same_history_byte_for_byte() -> None:
    # Kills, a freeze, lost answers and refusals are all among these.
    seeds = ("--from", "1", "--seeds", "6", "--history", "--verbose")
    first = history(*seeds)
    assert len(first) > 500
    assert first == history(*seeds)


def test_what_ran_before_changes_nothing() -> None:
    alone = history("--from", "5", "--seeds", "1", "--verbose", "--history")
    after_others = history("--from", "3", "--seeds", "3", "--verbose", "--history")
    assert after_others[-len(alone) :] == alone


def test_another_seed_gives_another_history() -> None:
    digests = [line for line in history("--seeds", "4", "--verbose") if line.startswith("seed ")]
    assert len({line.split()[2] for line in digests if "FAILED" not in line}) == 4


def test_two_hundred_seeds_find_nothing() -> None:
    """As many of them as a minute is enough for; the line at the end says how many that were."""
    done = simulate("--seeds", "200", "--at-most", "60", "--lines", "0")
    count = re.search(r"^(\d+) of 200 seeds", done.stdout, re.MULTILINE)
    assert count, done.stdout + done.stderr
    print(f"simulated {count[1]} of 200 seeds")
    assert int(count[1]) >= 10, "not even ten seeds in a minute"
    assert done.returncode == 0, done.stdout


# The row of the table, the mend that is taken out, a seed that fails without it, and what the oracle says then.
MUTANTS = [
    (1, "unsent-intents-are-doubtful", 60, r"PARKED for no reason"),
    (8, "undo-gives-up-when-refused", 42, r"PARKED for no reason"),
    (14, "answers-count-when-they-come", 88, r"COMPENSATED, with 1 things"),
]


@pytest.mark.parametrize(("row", "mutant", "seed", "finding"), MUTANTS)
def test_a_seed_fails_with_a_mend_taken_out(row: int, mutant: str, seed: int, finding: str) -> None:
    whole = simulate("--from", str(seed), "--seeds", "1")
    assert whole.returncode == 0, whole.stdout
    without = simulate("--from", str(seed), "--seeds", "1", "--mutant", mutant)
    assert without.returncode == 1, f"row {row}: seed {seed} finds nothing any more; look for another one"
    assert re.search(finding, without.stdout), without.stdout
