"""Figures of counts."""

from __future__ import annotations

import pytest

from mistnn.viz import DARK, draw_counts, draw_histogram, figure_to_png
from mistnn.viz.counts import MOST_BARS


def test_a_dot_for_each_place_and_the_lines() -> None:
    figure = draw_counts([1, 1, 3, 7], [1, 1, 4, 5], 3.0)
    (axes,) = figure.axes
    (dots,) = axes.collections
    assert sorted(map(tuple, dots.get_offsets().tolist())) == [(1, 1), (3, 4), (7, 5)]
    sizes = dict(zip(map(tuple, dots.get_offsets().tolist()), dots.get_sizes(), strict=True))
    assert sizes[1, 1] > sizes[3, 4] == sizes[7, 5]
    lines = {line.get_gid(): line for line in axes.lines}
    assert list(lines["mean"].get_ydata()) == [3.0, 3.0]
    assert list(lines["right"].get_xdata()) == list(lines["right"].get_ydata())
    assert axes.get_xlim() == axes.get_ylim() and axes.get_xlim()[1] > 7
    assert figure_to_png(draw_counts([0], [0], theme=DARK)).startswith(b"\x89PNG")
    assert not any(line.get_gid() == "mean" for line in draw_counts([0], [0]).axes[0].lines)


def test_bars_hold_every_image() -> None:
    for images in ({0: 3}, {2: 1, 5: 4}, {number: 2 for number in range(0, 500, 7)}):
        (axes,) = draw_histogram(images).axes
        assert sum(bar.get_height() for bar in axes.patches) == sum(images.values())
        assert len(axes.patches) <= MOST_BARS
    (axes,) = draw_histogram({2: 1, 5: 4}).axes
    assert {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches} == {2: 1, 5: 4}


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        draw_counts([1, 2], [1])
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_histogram({})
