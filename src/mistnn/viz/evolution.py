"""How a training went: its two losses, and the heat map of one image on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mistnn.viz.curves import Curve, draw_curve
from mistnn.viz.heatmaps import HeatmapAtStep, heatmap_peak, show_heatmap
from mistnn.viz.style import LIGHT, Picture, Theme, Tiles, new_figure, show_picture, title_tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEFT, _RIGHT, _BELOW, _ABOVE = 0.62, 0.16, 0.48, 0.34  # room around a curve, in inches


def draw_evolution(
    curves: Mapping[str, Curve],
    image: Picture | None = None,
    history: Sequence[HeatmapAtStep] = (),
    *,
    width: float = 9.2,
    height: float = 2.4,
    theme: Theme = LIGHT,
) -> Figure:
    """Curves side by side; below them an image and its heat map at several steps, all on one brightness scale.

    Convention: keypoints are (x, y) in pixels of the image.

    Args:
        curves: title -> curve.
        image: whose heat maps they are.
        history: (step, heat map, keypoints or None), in the order to draw; without it the curves stand alone.
        width: of the figure, in inches.
        height: of a curve with its labels, in inches.
        theme: colours around the pictures.

    Raises:
        ValueError: if there is no curve, or a history without its image.

    Reference: MIST (CVPR 2021), figure 7.
    """
    if not curves:
        raise ValueError("there is nothing to draw: give at least one curve")
    if history and image is None:
        raise ValueError(f"there are {len(history)} heat maps and no image: give the image they belong to")
    gap, header = 0.08, 0.24
    count = len(history) + 1
    side = (width - 2 * gap - (count - 1) * gap) / count
    strip = Tiles(1, count, side, side, gap=gap, header=header)
    below = side + header + gap if history else 0.0
    total = height + below
    figure = new_figure(width, total, theme)
    for index, (title, curve) in enumerate(curves.items()):
        room = width / len(curves)
        axes = figure.add_axes(
            (
                (index * room + _LEFT) / width,
                (below + _BELOW) / total,
                (room - _LEFT - _RIGHT) / width,
                (height - _BELOW - _ABOVE) / total,
            )
        )
        draw_curve(axes, curve, theme)
        axes.set_title(title, fontsize=9, color=theme.text, loc="left", fontweight="bold")
    if not history or image is None:
        return figure
    size = (image.shape[-1], image.shape[-2])
    peak = heatmap_peak([heatmap for _, heatmap, _ in history])
    for index in range(count):
        left = gap + index * (side + gap)
        axes = figure.add_axes((left / width, gap / total, strip.width / width, strip.height / total))
        axes.set_axis_off()
        if index == 0:
            show_picture(axes, image)
            title_tile(axes, "image", theme)
            continue
        step, heatmap, keypoints = history[index - 1]
        show_heatmap(axes, heatmap, keypoints, size, peak, side)
        title_tile(axes, f"step {step:,}", theme)
    return figure
