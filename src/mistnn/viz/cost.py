"""What a step costs: time and memory against the size of the problem."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mistnn.viz.style import LIGHT, Theme, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIB = 2**30
SECONDS, MEMORY = "seconds a step", "peak memory in GiB"


class CostPoint(NamedTuple):
    """What a step of one size costs.

    Attributes:
        size: what varies, above 0.
        seconds: median time of a step.
        low: first quartile of the time.
        high: third quartile.
        peak_bytes: most resident memory.
        peak_bytes_before: the same before the first step.
    """

    size: float
    seconds: float
    low: float
    high: float
    peak_bytes: float
    peak_bytes_before: float


def draw_cost(
    rows: Mapping[str, Sequence[CostPoint]], *, width: float = 3.9, height: float = 2.5, theme: Theme = LIGHT
) -> Figure:
    """Time above, memory below, one column for each row of points; all axes but the memory's are logarithmic.

    A band shows the quartiles of the time; a dotted line the memory before the first step. Each quantity has one scale
    in all columns.

    Args:
        rows: label of what varies -> its points, sizes rising.
        width: of a plot, in inches.
        height: of a plot, in inches.
        theme: colours.

    Raises:
        ValueError: if there is no row, or a row has no point.
    """
    if not rows or not all(rows.values()):
        raise ValueError(
            f"every row needs at least one point, got { ({name: len(row) for name, row in rows.items()}) }"
        )
    columns = len(rows)
    figure = new_figure(columns * width, 2 * height, theme)
    grid = figure.subplots(2, columns, squeeze=False, sharex="col", sharey="row")
    for column, (label, points) in enumerate(rows.items()):
        sizes = [point.size for point in points]
        upper, lower = grid[0][column], grid[1][column]
        style = {"color": theme.line, "linewidth": 1.8, "marker": "o", "markersize": 3.5}
        upper.fill_between(
            sizes, [point.low for point in points], [point.high for point in points], color=theme.line, alpha=0.2,
            linewidth=0,
        )  # fmt: skip
        upper.plot(sizes, [point.seconds for point in points], **style)
        lower.plot(sizes, [point.peak_bytes / GIB for point in points], **style)
        before = [point.peak_bytes_before / GIB for point in points]
        lower.plot(sizes, before, color=theme.muted, linewidth=1.1, linestyle=":", label="before the first step")
        for axes, quantity in ((upper, SECONDS), (lower, MEMORY)):
            _style(axes, sizes, axes is upper, theme)
            if column == 0:
                axes.set_ylabel(quantity, fontsize=8, color=theme.muted)
        lower.set_xlabel(label, fontsize=8, color=theme.muted)
        lower.set_ylim(0, 1.25 * max(point.peak_bytes for row in rows.values() for point in row) / GIB)
        if column == 0:
            lower.legend(loc="upper left", fontsize=7.5, frameon=False, labelcolor=theme.muted)
    figure.subplots_adjust(
        left=0.62 / (columns * width), right=1 - 0.14 / (columns * width), bottom=0.46 / (2 * height),
        top=1 - 0.12 / (2 * height), wspace=0.12, hspace=0.12,
    )  # fmt: skip
    return figure


class CandidatePoint(NamedTuple):
    """What a step costs where an object may be at one of so many places.

    Attributes:
        candidates: N.
        seconds: median time of a step; ``None`` where it was not measured.
        peak_bytes: memory it takes beyond that before the first step; ``None`` where it was not measured.
        foretold_bytes: the same by a formula.
    """

    candidates: int
    seconds: float | None
    peak_bytes: float | None
    foretold_bytes: float


def draw_candidates(
    curves: Mapping[str, Sequence[CandidatePoint]],
    *,
    width: float = 3.9,
    height: float = 3.0,
    theme: Theme = LIGHT,
) -> Figure:
    """Memory and time of several systems against the number of candidate places, all axes logarithmic.

    Args:
        curves: system -> its points, N rising. Measured memory is a line with marks, a formula's is dashed.
        width: of a plot, in inches.
        height: of a plot, in inches.
        theme: colours.

    Raises:
        ValueError: if there is no point.
    """
    if not any(curves.values()):
        raise ValueError("there is nothing to draw: give at least one point")
    figure = new_figure(2 * width, height, theme)
    left, right = figure.subplots(1, 2)
    sizes = sorted({point.candidates for points in curves.values() for point in points})
    colours = (theme.line, "#c2410c", "#15803d", "#7c3aed")
    for (system, points), colour in zip(curves.items(), itertools.cycle(colours), strict=False):
        style = {"color": colour, "linewidth": 1.8, "marker": "o", "markersize": 3.5, "label": system}
        spent = [(point.candidates, point.peak_bytes / GIB) for point in points if point.peak_bytes is not None]
        took = [(point.candidates, point.seconds) for point in points if point.seconds is not None]
        for axes, measured in ((left, spent), (right, took)):
            if measured:
                axes.plot(*zip(*measured, strict=True), **style)
        left.plot(
            [point.candidates for point in points], [point.foretold_bytes / GIB for point in points], color=colour,
            linewidth=1.1, linestyle="--",
        )  # fmt: skip
    for axes, quantity in ((left, "GiB a step (dashed: formula)"), (right, SECONDS)):
        _style(axes, sizes, True, theme)
        axes.set_ylabel(quantity, fontsize=8, color=theme.muted)
        axes.set_xlabel("candidate places N", fontsize=8, color=theme.muted)
        axes.tick_params(axis="x", labelrotation=60)
    left.legend(loc="upper left", fontsize=7.5, frameon=False, labelcolor=theme.muted)
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.25, top=0.97, wspace=0.18)
    return figure


def _style(axes: Axes, sizes: Sequence[float], logarithmic: bool, theme: Theme) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_facecolor(theme.paper)
    axes.grid(True, color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.grid)
    axes.tick_params(colors=theme.muted, labelsize=7.5, length=0, which="both")
