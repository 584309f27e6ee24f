"""Training curves as small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from mistnn.viz.style import LIGHT, Theme, dress_plot, new_figure, place_axes, require, title_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scale = Literal["linear", "amount", "fraction", "log"]

SMOOTH_FROM = 60
"""Curves with at least this many points are drawn thin, with a running mean over 1/20 of the points on top."""

LEFT, RIGHT, BELOW, ABOVE = 0.62, 0.16, 0.48, 0.34
"""Space around the axes of a curve, in inches."""
LINE = 0.16
"""Of a title, in inches."""


class Curve(NamedTuple):
    """One quantity over the steps of training.

    Attributes:
        steps: training steps, increasing.
        values: one per step; a value that is not finite leaves a gap.
        scale: fraction fixes the axis to 0-1; amount starts at 0; log is for losses.
        unit: label of the vertical axis.
        axis: label of the horizontal axis.
        shaded: range of the horizontal axis with a shaded background, both ends included; ``None`` for none.
    """

    steps: Sequence[float]
    values: Sequence[float]
    scale: Scale = "linear"
    unit: str = ""
    axis: str = "training step"
    shaded: tuple[float, float] | None = None


def draw_curves(curves: Mapping[str, Curve], columns: int = 3, *, title: bool = True, theme: Theme = LIGHT) -> Figure:
    """One small plot per curve.

    Args:
        curves: title, of one line or two -> curve.
        columns: plots per row.
        title: False omits the titles, for pages that state them.

    Raises:
        ValueError: if there is no curve, or a curve has different numbers of steps and values.

    Reference: S002, Figure 7 (losses over the iterations).
    """
    require(curves, "curve")
    for name, curve in curves.items():
        if len(curve.steps) != len(curve.values):
            raise ValueError(f"curve {name!r} has {len(curve.steps)} steps but {len(curve.values)} values")
    second = LINE if title and any("\n" in name for name in curves) else 0.0
    used, width, height = min(columns, len(curves)), 3.1, 2.1 + second
    figure = new_figure(used * width, -(-len(curves) // used) * height, theme)
    above = ABOVE + second if title else 0.12
    for index, (name, curve) in enumerate(curves.items()):
        row, column = divmod(index, used)
        left, top = column * width + LEFT, row * height + above
        axes = place_axes(figure, left, top, width - LEFT - RIGHT, height - BELOW - above, bare=False)
        draw_curve(axes, curve, theme)
        if title:
            title_plot(axes, name, theme)
    return figure


def draw_curve(axes: Axes, curve: Curve, theme: Theme) -> None:
    """Draws one curve with the labels of both axes."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    steps, values = np.asarray(curve.steps, dtype=float), np.asarray(curve.values, dtype=float)
    values = np.where(np.isfinite(values), values, np.nan)
    if curve.scale == "log" and bool((values > 0).any()):
        values = np.where(values > 0, values, np.nan)
        _set_log_scale(axes, values)
    if len(values) >= SMOOTH_FROM:
        axes.plot(steps, values, color=theme.line, linewidth=0.6, alpha=0.35)
        axes.plot(steps, running_mean(values, len(values) // 20), color=theme.line, linewidth=1.8)
    else:
        marker = "o" if len(values) <= 20 else None
        axes.plot(steps, values, color=theme.line, linewidth=1.8, marker=marker, markersize=3)
    if curve.scale == "fraction":
        axes.set_ylim(-0.02, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    if curve.scale == "amount":
        axes.set_ylim(bottom=0, top=1.06 * axes.get_ylim()[1])  # room for the marker of the first value
    if curve.shaded is not None:
        axes.axvspan(*curve.shaded, facecolor=theme.line, alpha=0.12, edgecolor="none", zorder=0)
    dress_plot(axes, theme, curve.axis, curve.unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if steps.size and np.nanmax(steps) >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _set_log_scale(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic axis with plain numbers, as many as fit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    decades = np.log10(np.nanmax(values) / np.nanmin(values))
    # Up to three decades, 2 and 5 fit in between; a short range would have no number without them.
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last ``window`` values at each point (fewer at the start), ignoring gaps."""
    window = max(window, 1)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    number = counts[end] - counts[start]
    return np.where(number > 0, (sums[end] - sums[start]) / np.maximum(number, 1), np.nan)
