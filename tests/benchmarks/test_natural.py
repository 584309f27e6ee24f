"""The benchmark on photographs: tiny points in this process."""

from __future__ import annotations

import pytest

from benchmarks.natural import POINTS, run_point


@pytest.mark.parametrize(("system", "samples"), POINTS)
def test_a_point(system: str, samples: int) -> None:
    found = run_point(system, samples, batch=1, repeats=1, edge=48)
    assert found["seconds"] > 0 and found["bytes"] >= 0
