"""The benchmark of scaling laws: exponents of known curves, and one tiny point of each quick curve."""

from __future__ import annotations

import pytest

from benchmarks.scaling import CURVES, exponent, run_point, table


def test_the_exponent_of_the_upper_half() -> None:
    sizes = [1, 2, 4, 8, 16, 32]
    assert exponent(sizes, [5.0 + 3 * size for size in [0] * 3 + sizes[3:]]) == pytest.approx(0.9, abs=0.05)
    assert exponent(sizes, [float(size) ** 2 for size in sizes]) == pytest.approx(2)
    assert exponent(sizes, [7.0] * 6) == pytest.approx(0)
    assert exponent([1], [1.0]) is None and exponent([1, 2], [0.0, 0.0]) is None


@pytest.mark.parametrize("curve", ["images", "listing"])
def test_a_point(curve: str) -> None:
    point = run_point(curve, 2, 1, 1.0)
    assert point["size"] == 2 and point["rounds"] == 1 and point["seconds"]["median"] > 0
    assert set(CURVES) > {curve}


def test_the_table() -> None:
    points = [
        {"size": size, "seconds": {"median": seconds}, "bytes": 2**20 * size}
        for size, seconds in ((1, 0.5), (1000, 2.0))
    ]
    found = {"points": points, "exponents": {"seconds": 0.2, "bytes": None}}
    assert table({"curves": {"k": found}}).splitlines()[2:] == ["| k | 1 to 1,000 | 0.5 to 2 | 1 to 1,000 | 0.20 | - |"]
