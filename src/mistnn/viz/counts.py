"""Counts: predicted against true, and their histogram."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mistnn.viz.style import LIGHT, Theme, dress_plot, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 24
"""Maximum number of bars in a histogram; wider ranges are binned."""


def draw_counts(
    true: Sequence[int], counted: Sequence[int], mean: float | None = None, *, theme: Theme = LIGHT
) -> Figure:
    """Predicted against true counts, one dot per image; coinciding dots are drawn larger.

    Args:
        true: count of each image.
        counted: predicted count of each image.
        mean: mean count of the training images, the best guess without looking; drawn as a dotted line.

    Raises:
        ValueError: if there is no image, or the lists differ in length.
    """
    if not true or len(true) != len(counted):
        raise ValueError(f"as many true as predicted numbers are needed, at least one: {len(true)} and {len(counted)}")
    figure = new_figure(2.3, 2.3, theme)
    axes = figure.add_axes((0.19, 0.18, 0.78, 0.79))
    top = max(*true, *counted, mean or 0, 1) * 1.06 + 0.5
    low = -0.04 * top
    _dress(axes, theme, "true number in an image", "counted")
    axes.set(xlim=(low, top), ylim=(low, top), aspect="equal")
    axes.plot((0, top), (0, top), color=theme.muted, linewidth=1.0, gid="right")
    if mean is not None:
        axes.axhline(mean, color=theme.muted, linewidth=1.2, linestyle=(0.0, (1.0, 1.8)), gid="mean")
        # At the end of the line, where few dots are.
        axes.text(top, mean, "the mean ", ha="right", va="bottom", fontsize=7, color=theme.muted)
    places = Counter(zip(true, counted, strict=True))
    x, y = zip(*places, strict=True)
    sizes = [16 * math.sqrt(number) for number in places.values()]
    axes.scatter(x, y, s=sizes, color=theme.line, alpha=0.65, linewidths=0, zorder=3, gid="images")
    return figure


def draw_histogram(images: Mapping[int, int], *, theme: Theme = LIGHT) -> Figure:
    """Histogram of objects in an image, from number of objects -> images; ``ValueError`` without any image."""
    if not any(images.values()):
        raise ValueError("there is nothing to draw: give at least one image")
    low, high = min(images), max(images)
    step = math.ceil((high - low + 1) / MOST_BARS)
    bars: Counter[int] = Counter()
    for objects, number in images.items():
        bars[(objects - low) // step] += number
    figure = new_figure(2.3, 1.7, theme)
    axes = figure.add_axes((0.2, 0.25, 0.78, 0.72))
    _dress(axes, theme, "objects counted in an image", "images")
    middles = [low + place * step + (step - 1) / 2 for place in bars]
    axes.bar(middles, list(bars.values()), width=0.86 * step, color=theme.line, linewidth=0)
    axes.set_xlim(low - 0.7 * step, max(high, low + 2) + 0.7 * step)
    return figure


def _dress(axes: Axes, theme: Theme, xlabel: str, ylabel: str) -> None:
    from matplotlib.ticker import MaxNLocator

    dress_plot(axes, theme, xlabel, ylabel)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
