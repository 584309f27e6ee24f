"""The benchmark of cost: the estimate that spares the machine, one tiny point in its own process, the plot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.cost import Limits, curve, expected, measure_row, run_point
from benchmarks.measuring import GIB, in_own_process
from mistnn.viz import CostPoint, draw_cost, figure_to_png


def point(k: int, canvas: int, peak: float = 1.0, total: float = 1.0) -> dict:
    seconds = {"median": 0.1 * k, "quartile_1": 0.1 * k, "quartile_3": 0.2 * k, "iqr": 0.1 * k, "best": 0.1 * k}
    return {
        "k": k, "canvas": canvas, "seconds": seconds, "total_seconds": total, "peak_bytes": peak * GIB,
        "peak_bytes_before": 0.5 * GIB,
    }  # fmt: skip


def row(measure, limits: Limits, ks: tuple[int, ...] = (1, 2, 4, 8)):
    said: list[str] = []
    done, skipped = measure_row([(k, 64) for k in ks], lambda k, _: k, limits, measure, said.append)
    assert len(said) == len(ks)
    return [entry["k"] for entry in done], {entry["k"]: entry["reason"] for entry in skipped}


def test_expected_goes_on_in_a_straight_line() -> None:
    assert expected(4.0, [], []) is None
    assert expected(4.0, [2.0], [10.0]) == 20.0
    assert expected(8.0, [1.0, 2.0, 4.0], [9.0, 10.0, 14.0]) == 22.0
    assert expected(8.0, [2.0, 4.0], [10.0, 9.0]) == 9.0


def test_points_beyond_the_limits_are_left_out() -> None:
    assert row(lambda k, canvas: point(k, canvas, k, k), Limits(100 * GIB, 100)) == ([1, 2, 4, 8], {})
    done, left = row(lambda k, canvas: point(k, canvas, peak=1 + k), Limits(7 * GIB, 100))
    assert done == [1, 2, 4]
    assert left == {8: "would need about 9.0 GiB, --max-memory-gib is 7"}
    done, left = row(lambda k, canvas: point(k, canvas, total=k), Limits(100 * GIB, 3))
    assert done == [1, 2]
    assert left == {4: "would take about 4 s, --max-seconds is 3", 8: "a smaller one was left out"}


def test_points_that_fail_are_told() -> None:
    def slow(k: int, canvas: int) -> dict:
        raise subprocess.TimeoutExpired("python", 3)

    def broken(k: int, canvas: int) -> dict:
        raise subprocess.CalledProcessError(1, "python", stderr="Traceback\nMemoryError: too much\n")

    assert row(slow, Limits(GIB, 3), (1, 2))[1] == {
        1: "took longer than --max-seconds 3",
        2: "a smaller one was left out",
    }
    assert row(broken, Limits(GIB, 3), (1,))[1] == {1: "its process ended with 1 MemoryError: too much"}


@pytest.mark.slow
def test_a_point_has_a_process_of_its_own(tmp_path: Path) -> None:
    measured = in_own_process(run_point, 2, 32, 2, 0, timeout=240)
    assert (measured["k"], measured["canvas"]) == (2, 32)
    assert 0 < measured["seconds"]["best"] <= measured["seconds"]["median"] <= measured["total_seconds"]
    assert 0 < measured["peak_bytes_before"] <= measured["peak_bytes"]
    (drawn,) = curve([measured], "k")
    assert drawn.size == 2
    assert drawn.peak_bytes == measured["peak_bytes"]


def test_plot_shows_time_and_memory() -> None:
    points = [CostPoint(k, 0.1 * k, 0.09 * k, 0.12 * k, k * GIB, 0.5 * GIB) for k in (1, 2, 4)]
    figure = draw_cost({"K": points, "side": points[:1]})
    time, _, memory, _ = figure.axes
    assert list(time.lines[0].get_ydata()) == pytest.approx([0.1, 0.2, 0.4])
    assert list(memory.lines[0].get_ydata()) == [1, 2, 4]
    assert list(memory.lines[1].get_ydata()) == [0.5, 0.5, 0.5]
    assert figure_to_png(figure).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least one point"):
        draw_cost({"K": points, "side": []})
