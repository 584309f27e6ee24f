"""Cost of a training step: time and memory against the size of the problem."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mistnn.viz.style import LIGHT, Theme, dress_plot, new_figure, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIB = 2**30
SECONDS, MEMORY = "seconds a step", "peak memory in GiB"
_MEASURED = {"linewidth": 1.8, "marker": "o", "markersize": 3.5}


class CostPoint(NamedTuple):
    """The cost of a step at one problem size.

    Attributes:
        size: the quantity that varies, above 0.
        seconds: median time of a step.
        low: first quartile of the time.
        high: third quartile of the time.
        peak_bytes: peak resident memory.
        peak_bytes_before: the same before the first step.
    """

    size: float
    seconds: float
    low: float
    high: float
    peak_bytes: float
    peak_bytes_before: float


def draw_cost(rows: Mapping[str, Sequence[CostPoint]]) -> Figure:
    """Time above, memory below, one column per series; all axes except memory are logarithmic.

    A band shows the quartiles of the time, a dotted line the memory before the first step. Both quantities have one
    scale in all columns.

    Args:
        rows: name of the quantity that varies -> its points, in order of increasing size.

    Raises:
        ValueError: if there is no series, or a series has no point.
    """
    if not rows or not all(rows.values()):
        raise ValueError(
            f"every row needs at least one point, got { ({name: len(row) for name, row in rows.items()}) }"
        )
    columns, theme = len(rows), LIGHT
    width, height = 3.9 * columns, 5.0
    figure = new_figure(width, height)
    grid = figure.subplots(2, columns, squeeze=False, sharex="col", sharey="row")
    for column, (label, points) in enumerate(rows.items()):
        sizes, seconds, low, high, peak, before = zip(*points, strict=True)
        upper, lower = grid[0][column], grid[1][column]
        upper.fill_between(sizes, low, high, color=theme.line, alpha=0.2, linewidth=0)
        upper.plot(sizes, seconds, color=theme.line, **_MEASURED)
        lower.plot(sizes, [value / GIB for value in peak], color=theme.line, **_MEASURED)
        before = [value / GIB for value in before]
        lower.plot(sizes, before, color=theme.muted, linewidth=1.1, linestyle=":", label="before the first step")
        first = column == 0
        _dress(upper, sizes, theme, "", SECONDS if first else "")
        _dress(lower, sizes, theme, label, MEMORY if first else "", logarithmic=False)
        lower.set_ylim(0, 1.25 * max(point.peak_bytes for row in rows.values() for point in row) / GIB)
        if first:
            lower.legend(loc="upper left", fontsize=7.5, frameon=False, labelcolor=theme.muted)
    figure.subplots_adjust(
        left=0.62 / width, right=1 - 0.14 / width, bottom=0.46 / height, top=1 - 0.12 / height, wspace=0.12, hspace=0.12
    )
    return figure


class CandidatePoint(NamedTuple):
    """The cost of a step with N candidate places for an object.

    Attributes:
        candidates: N.
        seconds: median time of a step; ``None`` if not measured.
        peak_bytes: memory beyond that before the first step; ``None`` if not measured.
        formula_bytes: the same by a formula.
    """

    candidates: int
    seconds: float | None
    peak_bytes: float | None
    formula_bytes: float


def draw_candidates(curves: Mapping[str, Sequence[CandidatePoint]]) -> Figure:
    """Memory and time of several systems against the number of candidate places, all axes logarithmic.

    Args:
        curves: system -> its points, in order of increasing N. Measured memory is a line with marks, a formula's is
            dashed.

    Raises:
        ValueError: if there is no point.
    """
    sizes = sorted({point.candidates for points in curves.values() for point in points})
    require(sizes, "point")
    theme, figure = LIGHT, new_figure(7.8, 3.0)
    left, right = figure.subplots(1, 2)
    colours = (theme.line, "#c2410c", "#15803d", "#7c3aed")
    for (system, points), colour in zip(curves.items(), itertools.cycle(colours), strict=False):
        memory = [(point.candidates, point.peak_bytes / GIB) for point in points if point.peak_bytes is not None]
        time = [(point.candidates, point.seconds) for point in points if point.seconds is not None]
        for axes, measured in ((left, memory), (right, time)):
            if measured:
                axes.plot(*zip(*measured, strict=True), color=colour, label=system, **_MEASURED)
        formula = [point.formula_bytes / GIB for point in points]
        left.plot([point.candidates for point in points], formula, color=colour, linewidth=1.1, linestyle="--")
    for axes, quantity in ((left, "GiB a step (dashed: formula)"), (right, SECONDS)):
        _dress(axes, sizes, theme, "candidate places N", quantity)
        axes.tick_params(axis="x", labelrotation=60)
    left.legend(loc="upper left", fontsize=7.5, frameon=False, labelcolor=theme.muted)
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.25, top=0.97, wspace=0.18)
    return figure


def _dress(
    axes: Axes, sizes: Sequence[float], theme: Theme, xlabel: str, ylabel: str, *, logarithmic: bool = True
) -> None:
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
    dress_plot(axes, theme, xlabel, ylabel)
