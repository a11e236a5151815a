"""A minute of chaos. For longer, or for other seeds: ./dev chaos."""

from __future__ import annotations

import pytest

from chaos.run import run


# One in each setting of USER_SERVICE_IDEMPOTENT.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 4])
def test_half_a_minute(seed: int) -> None:
    outcome = run(30, seed)
    print(outcome.summary)
    assert not outcome.findings, outcome.report()
