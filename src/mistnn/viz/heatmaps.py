"""Heat maps, alone and over the time of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.viz.style import (
    HEATMAP_COLORS,
    HEATMAP_GAMMA,
    KEYPOINT_COLOR,
    LIGHT,
    Picture,
    Theme,
    Tiles,
    show_picture,
    tiles_for,
    title_tile,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SingleHeatmap = Float[Tensor, "rows columns"]
Keypoints = Float[Tensor, "k 2"]
HeatmapAtStep = tuple[int, Tensor, Tensor | None]
"""(training step, heat map (rows, columns), keypoints (k, 2) in pixels of the image or None)."""


def heatmap_peak(heatmaps: Sequence[Tensor]) -> float:
    """The brightest value of several heat maps, 1 if nothing in them is above zero: the end of a shared scale."""
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
) -> AxesImage:
    """Draws a heat map stretched over an image of ``size`` (width, height), with the keypoints in its pixels."""
    from matplotlib import patheffects
    from matplotlib.colors import PowerNorm

    width, height = size
    values = heatmap.detach().to("cpu", torch.float32).nan_to_num(0.0).clamp(min=0.0).numpy()
    drawn = axes.imshow(
        values,
        cmap=HEATMAP_COLORS,
        norm=PowerNorm(gamma, vmin=0.0, vmax=peak),
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    axes.set(xlim=(0, width), ylim=(height, 0))
    if keypoints is not None and len(keypoints):
        points = keypoints.detach().to("cpu", torch.float32).numpy()
        rings = axes.scatter(
            points[:, 0], points[:, 1], s=130 * inches, facecolors="none", edgecolors=KEYPOINT_COLOR, linewidths=1.3
        )
        rings.set_gid("keypoints")
        rings.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground="#000000", alpha=0.6)])
    return drawn


def draw_heatmap(
    heatmap: SingleHeatmap,
    keypoints: Keypoints | None = None,
    *,
    size: tuple[int, int] | None = None,
    peak: float | None = None,
    gamma: float = HEATMAP_GAMMA,
    inches: float = 1.9,
) -> Figure:
    """One heat map that fills the figure to the edge, with a ring around each keypoint.

    Args:
        heatmap: dark is low, bright is high, see ``gamma``.
        keypoints: (x, y) in pixels of the image the map belongs to.
        size: (width, height) of that image; the map's own if None.
        peak: the value drawn brightest; the map's own largest if None.
        gamma: exponent of the brightness; 1 keeps it in proportion to the value, less lifts faint values.
        inches: the longer side.
    """
    tiles = tiles_for([heatmap], 1, inches=inches)
    figure = tiles.figure()
    used = (heatmap.shape[1], heatmap.shape[0]) if size is None else size
    highest = heatmap_peak([heatmap]) if peak is None else peak
    show_heatmap(tiles.axes(figure, 0, 0), heatmap, keypoints, used, highest, inches, gamma)
    return figure


def draw_heatmap_history(
    image: Picture,
    history: Sequence[HeatmapAtStep],
    *,
    columns: int | None = None,
    inches: float = 1.7,
    theme: Theme = LIGHT,
) -> Figure:
    """An image followed by its heat map at several steps of training, all on one brightness scale.

    Convention: keypoints are (x, y) in pixels of the image; a map smaller than the image is stretched over it.

    Args:
        image: shown first.
        history: (step, heat map, keypoints or None), in the order to draw.
        columns: tiles to a row, the image included; one row if None.
        inches: the longer side of a tile.
        theme: colours around the pictures.

    Raises:
        ValueError: if the history is empty.

    Reference: S001, Figure 7 (c): heat maps of one image during training.
    """
    if not history:
        raise ValueError("the history of heat maps is empty: give at least one (step, heatmap, keypoints)")
    count = len(history) + 1
    sheet = tiles_for([image] * count, count if columns is None else columns, inches=inches, header=0.24)
    tiles = Tiles(sheet.rows, sheet.columns, sheet.width, sheet.height, header=0.24, right=0.5)
    figure = tiles.figure(theme)
    axes = tiles.axes(figure, 0, 0)
    show_picture(axes, image)
    title_tile(axes, "image", theme)
    size = (image.shape[-1], image.shape[-2])
    peak = heatmap_peak([heatmap for _, heatmap, _ in history])
    drawn = None
    for index, (step, heatmap, keypoints) in enumerate(history, start=1):
        axes = tiles.axes(figure, *divmod(index, tiles.columns))
        drawn = show_heatmap(axes, heatmap, keypoints, size, peak, inches)
        title_tile(axes, f"step {step:,}", theme)
    if drawn is not None:
        _add_scale(figure, tiles, drawn, peak, theme)
    return figure


def _add_scale(figure: Figure, tiles: Tiles, drawn: AxesImage, peak: float, theme: Theme) -> None:
    """The colour bar of the shared scale, beside the first row."""
    width, height = figure.get_size_inches()
    left = width - tiles.margin - tiles.right + 0.06
    bottom = height - tiles.margin - tiles.header - tiles.height
    axes = figure.add_axes((left / width, bottom / height, 0.09 / width, tiles.height / height))
    bar = figure.colorbar(drawn, cax=axes, ticks=[0.0, peak / 4, peak])
    bar.ax.set_yticklabels([f"{value:.2g}" for value in (0.0, peak / 4, peak)])
    bar.ax.tick_params(labelsize=7, colors=theme.muted, length=2)
    bar.outline.set_visible(False)
