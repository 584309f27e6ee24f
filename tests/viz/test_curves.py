"""Curves: axes, scales, holes and the running mean."""

import math
import subprocess
import sys

import numpy as np
import pytest

from mistnn.viz import Curve, draw_curves, figure_to_png
from mistnn.viz.curves import running_mean


def test_small_multiples_are_labelled():
    curves = {
        "both": Curve([0, 10, 20], [0.0, 0.5, 0.9], "fraction", "share"),
        "loss": Curve([0, 10, 20], [100.0, 1.0, 0.0], "log", "loss"),
        "$rate": Curve([0, 10, 20], [5.0, math.nan, 6.0]),
    }
    figure = draw_curves(curves, columns=2)
    both, loss, rate = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(curves)
    assert {axes.get_xlabel() for axes in figure.axes} == {"training step"}
    assert [axes.get_ylabel() for axes in figure.axes] == ["share", "loss", ""]
    assert both.get_ylim() == pytest.approx((-0.02, 1.02))
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log", "linear"]
    # Zero has no logarithm and NaN no place: both leave a hole.
    assert np.isnan(loss.lines[0].get_ydata()[2])
    assert np.isnan(rate.lines[0].get_ydata()[1])
    figure_to_png(figure)


def test_log_of_nothing_positive_falls_back():
    (axes,) = draw_curves({"loss": Curve([0, 1], [0.0, math.nan], "log")}).axes
    assert axes.get_yscale() == "linear"


def test_long_curves_get_a_running_mean():
    values = list(np.random.default_rng(0).random(200))
    (axes,) = draw_curves({"loss": Curve(range(200), values)}).axes
    raw, smooth = axes.lines
    assert np.std(smooth.get_ydata()) < 0.6 * np.std(raw.get_ydata())


def test_running_mean_reference():
    values = np.array([1.0, math.nan, 3.0, 5.0, math.nan, math.nan, math.nan])
    expected = []
    for end in range(len(values)):
        window = [value for value in values[max(0, end - 2) : end + 1] if not math.isnan(value)]
        expected.append(sum(window) / len(window) if window else math.nan)
    np.testing.assert_allclose(running_mean(values, 3), expected)


def test_mistakes():
    with pytest.raises(ValueError, match="at least one curve"):
        draw_curves({})
    with pytest.raises(ValueError, match="'loss' has 2 steps but 1 values"):
        draw_curves({"loss": Curve([0, 1], [0.5])})


def test_import_loads_no_matplotlib():
    code = "import sys, mistnn.viz, mistnn.reports.demo_page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_drawing_never_loads_pyplot():
    code = (
        "import sys; from mistnn.viz import Curve, draw_curves, figure_to_png;"
        "figure_to_png(draw_curves({'a': Curve([0], [1.0])})); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
