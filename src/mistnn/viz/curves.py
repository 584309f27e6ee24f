"""Numbers over the time of training, as small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from mistnn.viz.style import LIGHT, Theme, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scale = Literal["linear", "amount", "fraction", "log"]

SMOOTH_FROM = 60
"""Curves with at least so many points are drawn thin, with a running mean over 1/20 of the points on top."""


class Curve(NamedTuple):
    """One number over the steps of training.

    Attributes:
        steps: training steps, rising.
        values: one for each step; a value that is not finite leaves a hole.
        scale: fraction fixes the axis to 0-1; amount begins at 0; log is for losses.
        unit: label of the vertical axis.
        axis: label of the horizontal one.
        shaded: a part of the horizontal axis with a ground of its own, both ends included; ``None`` for none.
    """

    steps: Sequence[float]
    values: Sequence[float]
    scale: Scale = "linear"
    unit: str = ""
    axis: str = "training step"
    shaded: tuple[float, float] | None = None


def draw_curves(
    curves: Mapping[str, Curve],
    columns: int = 3,
    *,
    title: bool = True,
    width: float = 3.1,
    height: float = 2.1,
    theme: Theme = LIGHT,
) -> Figure:
    """One small plot for each curve, all with a labelled axis of training steps.

    Args:
        curves: title -> curve.
        columns: plots to a row.
        title: False leaves the titles out, where the page around says them.
        width: of a plot, in inches.
        height: of a plot, in inches.
        theme: colours.

    Raises:
        ValueError: if there is no curve, or steps and values of one differ in number.

    Reference: S002, Figure 7 (losses over the iterations).
    """
    if not curves:
        raise ValueError("there is nothing to draw: give at least one curve")
    for name, curve in curves.items():
        if len(curve.steps) != len(curve.values):
            raise ValueError(f"curve {name!r} has {len(curve.steps)} steps but {len(curve.values)} values")
    used = min(columns, len(curves))
    rows = -(-len(curves) // used)
    figure = new_figure(used * width, rows * height, theme)
    for index, (name, curve) in enumerate(curves.items()):
        row, column = divmod(index, used)
        left, bottom = column * width + 0.62, (rows - 1 - row) * height + 0.48
        bounds = (left, bottom, width - 0.62 - 0.16, height - 0.48 - (0.34 if title else 0.12))
        axes = figure.add_axes(
            (bounds[0] / (used * width), bounds[1] / (rows * height), bounds[2] / (used * width),
             bounds[3] / (rows * height))
        )  # fmt: skip
        draw_curve(axes, curve, theme)
        if title:
            text = axes.set_title(name, fontsize=9, color=theme.text, loc="left", fontweight="bold")
            text.set_parse_math(False)
    return figure


def draw_curve(axes: Axes, curve: Curve, theme: Theme) -> None:
    """Draws one curve on axes of its own, with the labels of both."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    steps, values = np.asarray(curve.steps, dtype=float), np.asarray(curve.values, dtype=float)
    values = np.where(np.isfinite(values), values, np.nan)
    logarithmic = curve.scale == "log" and bool((values > 0).any())
    if logarithmic:
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
        axes.set_ylim(bottom=0)
    if curve.shaded is not None:
        axes.axvspan(*curve.shaded, facecolor=theme.line, alpha=0.12, edgecolor="none", zorder=0)
    axes.set_facecolor(theme.paper)
    axes.grid(True, color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.grid)
    axes.tick_params(colors=theme.muted, labelsize=7.5, length=0, which="both")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if steps.size and np.nanmax(steps) >= 10_000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(curve.axis, fontsize=8, color=theme.muted)
    label = axes.set_ylabel(curve.unit, fontsize=8, color=theme.muted)
    label.set_parse_math(False)


def _set_log_scale(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic axis with plain numbers, and only as many as there is room for."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    decades = np.log10(np.nanmax(values) / np.nanmin(values))
    # Below three powers of ten there is room for 2 and 5 in between, and a short range would have no number without.
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of the ``window`` values that end at each point (fewer at the start), holes left out."""
    window = max(window, 1)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    number = counts[end] - counts[start]
    return np.where(number > 0, (sums[end] - sums[start]) / np.maximum(number, 1), np.nan)
