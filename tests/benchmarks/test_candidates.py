"""The benchmark of candidate places: one tiny point in its own process, and the formula by hand."""

from __future__ import annotations

import pytest

from benchmarks.candidates import candidates, formula, run_point
from benchmarks.measuring import in_own_process


def test_formula() -> None:
    assert candidates(80, 8) == 100 and candidates(80, 1) == 6400
    pixels, patch = 2.7e3 * 6400, 0.88 * 2**20
    assert formula("MIST", 80, 1, 4) == pytest.approx(4 * (pixels + 9 * patch))
    assert formula("Xie20", 80, 8, 4) == pytest.approx(4 * (pixels + 100 * (patch + 8)))


@pytest.mark.parametrize("system", ["MIST", "Xie20", "Perturbed"])
def test_a_step_runs(system: str) -> None:
    point = run_point(system, 40, 1 if system == "MIST" else 10, 1, 1)
    assert point["seconds"] > 0 and point["bytes"] >= 0


@pytest.mark.slow
def test_a_point_has_its_own_process() -> None:
    assert in_own_process(run_point, "MIST", 40, 1, 1, 1)["bytes"] > 2**20
