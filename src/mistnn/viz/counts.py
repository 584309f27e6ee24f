"""Counts: predicted against true, and how often each number comes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mistnn.viz.style import LIGHT, Theme, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 24
"""Bars of a histogram; wider ranges are put into bins of several numbers."""


def draw_counts(
    true: Sequence[int], counted: Sequence[int], mean: float | None = None, *, side: float = 2.3, theme: Theme = LIGHT
) -> Figure:
    """Counted against true numbers, a dot an image; where several fall together the dot is larger.

    Args:
        true: of each image.
        counted: of each image.
        mean: of the training images, the number that guessing without looking would give: a dotted line.
        side: of the figure in inches.
        theme: colours.

    Raises:
        ValueError: without an image, or if the lists differ in length.
    """
    if not true or len(true) != len(counted):
        raise ValueError(f"as many true as predicted numbers are needed, at least one: {len(true)} and {len(counted)}")
    figure = new_figure(side, side, theme)
    axes = figure.add_axes((0.19, 0.18, 0.78, 0.79))
    top = max(*true, *counted, mean or 0, 1) * 1.06 + 0.5
    low = -0.04 * top
    _dress(axes, theme)
    axes.set(xlim=(low, top), ylim=(low, top), aspect="equal")
    (ideal,) = axes.plot((0, top), (0, top), color=theme.muted, linewidth=1.0)
    ideal.set_gid("right")
    if mean is not None:
        guess = axes.axhline(mean, color=theme.muted, linewidth=1.2, linestyle=(0.0, (1.0, 1.8)))
        guess.set_gid("mean")
        # Beside the end of the line, where few dots are.
        axes.text(top, mean, "the mean ", ha="right", va="bottom", fontsize=7, color=theme.muted)
    places = Counter(zip(true, counted, strict=True))
    drawn = axes.scatter(
        [x for x, _ in places], [y for _, y in places], s=[16 * math.sqrt(many) for many in places.values()],
        color=theme.line, alpha=0.65, linewidths=0, zorder=3,
    )  # fmt: skip
    drawn.set_gid("images")
    axes.set_xlabel("true number in an image", fontsize=8, color=theme.muted)
    axes.set_ylabel("counted", fontsize=8, color=theme.muted)
    return figure


def draw_histogram(
    images: Mapping[int, int], *, width: float = 2.3, height: float = 1.7, theme: Theme = LIGHT
) -> Figure:
    """How many images hold how many objects.

    Args:
        images: number of objects -> how many images.
        width: of the figure in inches.
        height: of the figure in inches.
        theme: colours.

    Raises:
        ValueError: without an image.
    """
    if not any(images.values()):
        raise ValueError("there is nothing to draw: give at least one image")
    low, high = min(images), max(images)
    step = math.ceil((high - low + 1) / MOST_BARS)
    bars: Counter[int] = Counter()
    for number, many in images.items():
        bars[(number - low) // step] += many
    figure = new_figure(width, height, theme)
    axes = figure.add_axes((0.2, 0.25, 0.78, 0.72))
    _dress(axes, theme)
    middles = [low + place * step + (step - 1) / 2 for place in bars]
    axes.bar(middles, list(bars.values()), width=0.86 * step, color=theme.line, linewidth=0)
    axes.set_xlim(low - 0.7 * step, max(high, low + 2) + 0.7 * step)
    axes.set_xlabel("objects counted in an image", fontsize=8, color=theme.muted)
    axes.set_ylabel("images", fontsize=8, color=theme.muted)
    return figure


def _dress(axes: Axes, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor(theme.paper)
    axes.grid(True, color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.grid)
    axes.tick_params(colors=theme.muted, labelsize=7.5, length=0, which="both")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
