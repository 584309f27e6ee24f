"""The course of a training: its losses, and the heat map of one image at several steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mistnn.viz.curves import ABOVE, BELOW, LEFT, RIGHT, Curve, draw_curve
from mistnn.viz.heatmaps import HeatmapAtStep, heatmap_peak, show_heatmap
from mistnn.viz.style import (
    LIGHT,
    Picture,
    Theme,
    new_figure,
    place_axes,
    require,
    show_picture,
    title_plot,
    title_tile,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAP, _HEADER = 0.08, 0.24


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
        image: the image of the heat maps.
        history: (step, heat map, keypoints or None), in drawing order; empty for curves only.
        width: of the figure, in inches.
        height: of a curve with its labels, in inches.

    Raises:
        ValueError: if there is no curve, or a history without its image.

    Reference: MIST (CVPR 2021), figure 7.
    """
    require(curves, "curve")
    if history and image is None:
        raise ValueError(f"there are {len(history)} heat maps and no image: give the image they belong to")
    count = len(history) + 1
    side = (width - (count + 1) * _GAP) / count
    figure = new_figure(width, height + (side + _HEADER + _GAP if history else 0.0), theme)
    room = width / len(curves)
    for index, (title, curve) in enumerate(curves.items()):
        size = (room - LEFT - RIGHT, height - BELOW - ABOVE)
        axes = place_axes(figure, index * room + LEFT, ABOVE, *size, bare=False)
        draw_curve(axes, curve, theme)
        title_plot(axes, title, theme)
    if not history or image is None:
        return figure
    tiles = [place_axes(figure, _GAP + i * (side + _GAP), height + _HEADER, side, side) for i in range(count)]
    show_picture(tiles[0], image)
    title_tile(tiles[0], "image", theme)
    peak = heatmap_peak([heatmap for _, heatmap, _ in history])
    for axes, (step, heatmap, keypoints) in zip(tiles[1:], history, strict=True):
        show_heatmap(axes, heatmap, keypoints, (image.shape[-1], image.shape[-2]), peak, side)
        title_tile(axes, f"step {step:,}", theme)
    return figure
