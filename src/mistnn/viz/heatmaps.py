"""Heat maps, alone and below the training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.viz.curves import ABOVE, BELOW, LEFT, RIGHT, Curve, draw_curve
from mistnn.viz.style import (
    HEATMAP_COLORS,
    HEATMAP_GAMMA,
    KEYPOINT_COLOR,
    LIGHT,
    Picture,
    dark_rim,
    fit_size,
    new_figure,
    place_axes,
    require,
    show_picture,
    title_plot,
    title_tile,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SingleHeatmap = Float[Tensor, "rows columns"]
Keypoints = Float[Tensor, "k 2"]
HeatmapAtStep = tuple[int, Tensor, Tensor | None]
"""(training step, heat map (rows, columns), keypoints (k, 2) in pixels of the image or None)."""


def heatmap_peak(heatmaps: Sequence[Tensor]) -> float:
    """The upper end of a shared brightness scale: the largest value of all maps, or 1 if none is above 0."""
    peak = max((float(heatmap.detach().nan_to_num(0.0).max()) for heatmap in heatmaps), default=0.0)
    return peak if peak > 0 else 1.0


def show_heatmap(
    axes: Axes,
    heatmap: Tensor,
    keypoints: Tensor | None,
    size: tuple[int, int],
    peak: float,
    inches: float,
    gamma: float = HEATMAP_GAMMA,
) -> None:
    """Draws a heat map stretched over an image of ``size`` (width, height), with keypoints in the image's pixels."""
    from matplotlib.colors import PowerNorm

    width, height = size
    values = heatmap.detach().to("cpu", torch.float32).nan_to_num(0.0).clamp(min=0.0).numpy()
    norm, extent = PowerNorm(gamma, vmin=0.0, vmax=peak), (0, width, height, 0)
    axes.imshow(values, cmap=HEATMAP_COLORS, norm=norm, extent=extent, interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))
    if keypoints is not None and len(keypoints):
        points = keypoints.detach().to("cpu", torch.float32).numpy()
        rings = axes.scatter(
            points[:, 0], points[:, 1], s=130 * inches, facecolors="none", edgecolors=KEYPOINT_COLOR, linewidths=1.3
        )
        rings.set_gid("keypoints")
        rings.set_path_effects(dark_rim(2.4))


def draw_heatmap(
    heatmap: SingleHeatmap,
    keypoints: Keypoints | None = None,
    *,
    size: tuple[int, int] | None = None,
    peak: float | None = None,
    gamma: float = HEATMAP_GAMMA,
    inches: float = 1.9,
) -> Figure:
    """One heat map that fills the figure, with a ring around each keypoint.

    Args:
        heatmap: low values dark, high values bright; see ``gamma``.
        keypoints: (x, y) in pixels of the map's image.
        size: (width, height) of that image; ``None`` for the map's own size.
        peak: the value drawn brightest; ``None`` for the map's largest value.
        gamma: exponent of the brightness; 1 is proportional to the value, less brightens faint values.
        inches: the longer side.
    """
    figure = new_figure(*fit_size(heatmap, inches))
    used = (heatmap.shape[1], heatmap.shape[0]) if size is None else size
    highest = heatmap_peak([heatmap]) if peak is None else peak
    axes = place_axes(figure, 0, 0, *fit_size(heatmap, inches))
    show_heatmap(axes, heatmap, keypoints, used, highest, inches, gamma)
    return figure


_WIDTH, _HEIGHT = 9.2, 2.4  # of the figure, and of a curve with its labels, in inches
_GAP, _HEADER = 0.08, 0.24
_WIDE, _WIDE_COLUMNS = 0.5, 3  # an image at most this high for its width is wide, and so many stand in a row


def draw_evolution(
    curves: Mapping[str, Curve],
    image: Picture | None = None,
    history: Sequence[HeatmapAtStep] = (),
    own_scale: bool = False,
) -> Figure:
    """Curves side by side; below them an image and its heat map at several steps.

    Args:
        curves: title -> curve.
        image: the image of the heat maps.
        history: (step, heat map, keypoints or None), in drawing order; empty for curves only.
        own_scale: whether each heat map is as bright as its own peak; else all share one brightness scale.

    Raises:
        ValueError: if there is no curve, or a history without its image.

    Reference: MIST (CVPR 2021), figure 7.
    """
    require(curves, "curve")
    if history and image is None:
        raise ValueError(f"there are {len(history)} heat maps and no image: give the image they belong to")
    count, columns, side, tall = len(history) + 1, 1, 0.0, 0.0
    if history and image is not None:
        share = image.shape[-2] / image.shape[-1]
        columns = count if share > _WIDE else min(count, _WIDE_COLUMNS)
        side = (_WIDTH - (columns + 1) * _GAP) / columns
        tall = side * share
    rows = -(-count // columns) if history else 0
    figure = new_figure(_WIDTH, _HEIGHT + rows * (tall + _HEADER + _GAP))
    room = _WIDTH / len(curves)
    for index, (title, curve) in enumerate(curves.items()):
        size = (room - LEFT - RIGHT, _HEIGHT - BELOW - ABOVE)
        axes = place_axes(figure, index * room + LEFT, ABOVE, *size, bare=False)
        draw_curve(axes, curve, LIGHT)
        title_plot(axes, title, LIGHT)
    if not history or image is None:
        return figure
    corners = [(i % columns * (side + _GAP), i // columns * (tall + _HEADER + _GAP)) for i in range(count)]
    tiles = [place_axes(figure, _GAP + x, _HEIGHT + _HEADER + y, side, tall) for x, y in corners]
    show_picture(tiles[0], image)
    title_tile(tiles[0], "image")
    peak = heatmap_peak([heatmap for _, heatmap, _ in history])
    for axes, (step, heatmap, keypoints) in zip(tiles[1:], history, strict=True):
        brightest = heatmap_peak([heatmap]) if own_scale else peak
        show_heatmap(axes, heatmap, keypoints, (image.shape[-1], image.shape[-2]), brightest, side)
        title_tile(axes, f"step {step:,}")
    return figure
