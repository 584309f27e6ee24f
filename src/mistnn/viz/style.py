"""The appearance of all figures: colours, line styles, tiles and axes.

Figures are made through matplotlib's object interface, never through ``pyplot``, so drawing has no global state.

Convention: pictures are drawn in the package's frame, x right and y down, with the first pixel spanning 0 to 1 on both
axes. A box or keypoint in pixels is therefore drawn in place, without a half-pixel shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import AbstractPathEffect

Picture = Float[Tensor, "channels height width"]
Pictures = Float[Tensor, "n channels height width"] | Sequence[Tensor]

HEATMAP_COLORS = "inferno"
"""Perceptually uniform: equal steps of the value look equally large, also in greyscale print."""
HEATMAP_GAMMA = 0.5
"""Exponent of the heat map's brightness: below 1, so that the faint maps of an untrained network are visible."""
KEYPOINT_COLOR = "#56c8ff"
DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Mark:
    """How one kind of box is drawn.

    Kinds differ in colour and in line style, for colour-blind readers and greyscale print.

    Attributes:
        name: right, wrong, missed, found or truth; stored as the artist's ``gid``.
        color: of the line and of the label's background.
        line: matplotlib's line style.
        ink: colour of the label's text.
        sign: put before the label.
    """

    name: str
    color: str
    line: str | tuple[float, tuple[float, ...]]
    ink: str = "#ffffff"
    sign: str = ""


# Close to Okabe and Ito's bluish green and vermillion: distinct for all common kinds of colour blindness.
RIGHT = Mark("right", "#1fc98b", "solid", ink="#04251a")
WRONG = Mark("wrong", "#ff5a36", (0.0, (3.0, 1.6)), ink="#2b0a02", sign="✗ ")
MISSED = Mark("missed", "#a9adb5", (0.0, (1.0, 1.4)), ink="#111111")
FOUND = Mark("found", "#56b4e9", "solid", ink="#06202f")
TRUTH = Mark("truth", "#f0c840", "solid", ink="#2a2000")


@dataclass(frozen=True)
class Theme:
    """Colours of everything around the data: paper, text, grid, and the line of a curve."""

    paper: str
    text: str
    muted: str
    grid: str
    line: str


LIGHT = Theme(paper="#ffffff", text="#1d232b", muted="#5d6672", grid="#dfe3e8", line="#0b6fb8")
DARK = Theme(paper="#1b2027", text="#e8ebef", muted="#a0a9b5", grid="#353d48", line="#6cc0ff")


def require(items: Sized, name: str) -> None:
    """Raises ``ValueError`` if there is nothing to draw."""
    if not len(items):
        raise ValueError(f"there is nothing to draw: give at least one {name}")


def check_lengths(items: Sized, name: str, **others: Sized | None) -> None:
    """Raises ``ValueError`` unless optional lists have one entry for each item."""
    for other, entries in others.items():
        if entries is not None and len(entries) != len(items):
            raise ValueError(f"{other} has {len(entries)} entries for {len(items)} {name}: give one for each")


def new_figure(width: float, height: float, theme: Theme = LIGHT) -> Figure:
    """An empty figure of ``width`` x ``height`` inches with its own canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    return figure


def place_axes(figure: Figure, left: float, top: float, width: float, height: float, *, bare: bool = True) -> Axes:
    """New axes at a place in inches from the figure's upper left corner, without ticks and spines if ``bare``."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    if bare:
        axes.set_axis_off()
    return axes


def dress_plot(axes: Axes, theme: Theme, xlabel: str = "", ylabel: str = "") -> None:
    """Gives the axes of a plot their common look: grid, two spines, small muted labels."""
    axes.set_facecolor(theme.paper)
    axes.grid(True, color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.grid)
    axes.tick_params(colors=theme.muted, labelsize=7.5, length=0, which="both")
    for label in (axes.set_xlabel(xlabel), axes.set_ylabel(ylabel)):
        label.set(fontsize=8, color=theme.muted, parse_math=False)


def title_plot(axes: Axes, text: str, theme: Theme) -> None:
    """Writes a title above a plot, literally: a dollar sign starts no formula."""
    axes.set_title(text, fontsize=9, color=theme.text, loc="left", fontweight="bold", parse_math=False)


@dataclass(frozen=True)
class Tiles:
    """A sheet of equal tiles, in inches.

    Attributes:
        width: of a tile.
        height: of a tile.
        gap: between tiles, and around the sheet unless it is a single tile without header.
        header: space above each tile for its title.
        left: space left of the first column for row titles.
        right: space right of the last column, for a colour bar.
    """

    rows: int
    columns: int
    width: float
    height: float
    gap: float = 0.08
    header: float = 0.0
    left: float = 0.0
    right: float = 0.0

    @property
    def margin(self) -> float:
        """Space around the sheet; 0 for a single bare picture, which fills the figure."""
        return 0.0 if self.rows * self.columns == 1 and not self.header else self.gap

    def figure(self) -> Figure:
        """An empty figure that holds exactly the sheet."""
        width = self.columns * self.width + (self.columns - 1) * self.gap + 2 * self.margin + self.left + self.right
        height = self.rows * (self.height + self.header) + (self.rows - 1) * self.gap + 2 * self.margin
        return new_figure(width, height)

    def top(self, row: int) -> float:
        """The upper edge of a row's tiles, below their titles."""
        return self.margin + row * (self.height + self.header + self.gap) + self.header

    def axes(self, figure: Figure, row: int, column: int) -> Axes:
        """The bare axes of one tile."""
        left = self.margin + self.left + column * (self.width + self.gap)
        return place_axes(figure, left, self.top(row), self.width, self.height)


def fit_size(picture: Tensor, inches: float) -> tuple[float, float]:
    """Width and height of a tile with the shape of a picture, ``inches`` on its longer side."""
    height, width = picture.shape[-2:]
    return inches * width / max(height, width), inches * height / max(height, width)


def to_array(picture: Tensor) -> np.ndarray:
    """(channels, height, width) to (height, width, 3), or (height, width) for one channel; ``ValueError`` on others."""
    if picture.ndim != 3 or picture.shape[0] not in (1, 3):
        raise ValueError(f"a picture must be (1 or 3, height, width), got {tuple(picture.shape)}")
    values = picture.detach().to("cpu", torch.float32).nan_to_num(0.0).clamp(0.0, 1.0).numpy()
    return values[0] if values.shape[0] == 1 else np.moveaxis(values, 0, -1)


def show_picture(axes: Axes, picture: Tensor) -> None:
    """Draws a (channels, height, width) picture in the package's frame, each pixel as a square."""
    height, width = picture.shape[-2:]
    axes.imshow(to_array(picture), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))


def title_tile(axes: Axes, text: str, *, bold: bool = False) -> None:
    """Writes a title above a tile, literally: a dollar sign starts no formula."""
    weight = "bold" if bold else "normal"
    axes.set_title(text, fontsize=8.5, color=LIGHT.text, pad=3, fontweight=weight, parse_math=False)


def dark_rim(width: float, alpha: float = 0.6) -> list[AbstractPathEffect]:
    """A dark outline that keeps lines and marks visible on bright pixels."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=width, foreground="#000000", alpha=alpha)]


def add_box(axes: Axes, box: Float[Tensor, " 4"], mark: Mark, label: str = "", inches: float = 1.9) -> Rectangle:
    """Draws one box, (centre x, centre y, width, height) in pixels, with its label at the upper left corner.

    Args:
        axes: of a picture drawn by ``show_picture``.
        mark: the kind of box.
        label: empty for none.
        inches: the size of the tile, which scales lines and text.
    """
    from matplotlib import patches

    x, y, width, height = (float(value) for value in box)
    left, top = x - width / 2, y - height / 2
    scale = math.sqrt(inches / 1.9)
    line = {"edgecolor": mark.color, "linestyle": mark.line, "linewidth": 1.7 * scale}
    rectangle = patches.Rectangle((left, top), width, height, fill=False, gid=mark.name, **line)
    rectangle.set_path_effects(dark_rim(3.0 * scale, 0.55))
    axes.add_patch(rectangle)
    if label:
        _add_label(axes, (left, top, left + width), mark, label, scale)
    return rectangle


def add_judged_boxes(
    axes: Axes,
    boxes: Float[Tensor, "n 4"],
    right: Tensor | None,
    missed: Float[Tensor, "missed 4"] | None,
    labels: Sequence[str],
    inches: float,
) -> None:
    """Draws detections, right or wrong, and missed objects; the first detection is drawn last, on top.

    Args:
        axes: of a picture drawn by ``show_picture``.
        right: whether each detection is right; ``None`` for no judgement.
        missed: boxes of the missed objects; ``None`` for none.
        labels: one per detection; empty for none.
        inches: the size of the tile.
    """
    for box in () if missed is None else missed:
        add_box(axes, box, MISSED, inches=inches)
    for index in reversed(range(len(boxes))):
        mark = FOUND if right is None else RIGHT if bool(right[index]) else WRONG
        add_box(axes, boxes[index], mark, labels[index] if labels else "", inches)


def _add_label(axes: Axes, span: tuple[float, float, float], mark: Mark, label: str, scale: float) -> None:
    """The label of a box, kept inside the picture: above the box, or below its upper edge if there is no space."""
    left, top, right = span
    picture_width, picture_height = axes.get_xlim()[1], axes.get_ylim()[0]
    at_right = left > 0.7 * picture_width
    axes.text(
        min(right, picture_width) if at_right else max(left, 0.0),
        max(top, 0.0),
        mark.sign + label,
        color=mark.ink,
        fontsize=8.0 * scale,
        fontweight="bold",
        ha="right" if at_right else "left",
        va="top" if top < 0.11 * picture_height else "bottom",
        bbox={"boxstyle": "square,pad=0.18", "facecolor": mark.color, "edgecolor": "none"},
        clip_on=True,
        parse_math=False,
        gid=f"{mark.name}-label",
    )
