"""One place for how every picture looks: colours, line styles, tiles, and how a figure becomes a file.

Nothing here touches ``pyplot``: figures are made through the object interface, so drawing has no global state.

Convention: pictures are drawn in the package's frame, x right and y down, the first pixel spanning 0 to 1 on both
axes, so a box or keypoint in pixels is drawn where it stands without a half-pixel shift.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

Picture = Float[Tensor, "channels height width"]
Pictures = Float[Tensor, "n channels height width"] | Sequence[Tensor]

HEATMAP_COLORS = "inferno"
"""Perceptually even: equal steps of the value look equally far apart, also in grey print."""
HEATMAP_GAMMA = 0.5
"""Exponent of the heat-map brightness: below 1 so that the faint maps of an untrained network can be seen."""
KEYPOINT_COLOR = "#56c8ff"
DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Mark:
    """How one kind of box is drawn.

    Kinds differ by colour and by line, so that colour-blind readers and grey prints tell them apart too.

    Attributes:
        name: written to the artist's ``gid``: right, wrong, missed, found or truth.
        color: of the line and of the label's chip.
        line: matplotlib's line style.
        ink: colour of the text on the chip.
        sign: put before the label.
    """

    name: str
    color: str
    line: str | tuple[float, tuple[float, ...]]
    ink: str = "#ffffff"
    sign: str = ""


# Colours near Okabe and Ito's bluish green and vermillion: far apart for every common kind of colour blindness.
RIGHT = Mark("right", "#1fc98b", "solid", ink="#04251a")
WRONG = Mark("wrong", "#ff5a36", (0.0, (3.0, 1.6)), ink="#2b0a02", sign="✗ ")
MISSED = Mark("missed", "#a9adb5", (0.0, (1.0, 1.4)), ink="#111111")
FOUND = Mark("found", "#56b4e9", "solid", ink="#06202f")
TRUTH = Mark("truth", "#f0c840", "solid", ink="#2a2000")


@dataclass(frozen=True)
class Theme:
    """Colours of what surrounds the data: paper, text, grid, and the line of a curve."""

    paper: str
    text: str
    muted: str
    grid: str
    line: str


LIGHT = Theme(paper="#ffffff", text="#1d232b", muted="#5d6672", grid="#dfe3e8", line="#0b6fb8")
DARK = Theme(paper="#1b2027", text="#e8ebef", muted="#a0a9b5", grid="#353d48", line="#6cc0ff")


def new_figure(width: float, height: float, theme: Theme = LIGHT) -> Figure:
    """An empty figure of ``width`` x ``height`` inches with its own canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    return figure


@dataclass(frozen=True)
class Tiles:
    """Measures of a sheet of equal tiles, in inches.

    Attributes:
        rows: of tiles.
        columns: of tiles.
        width: of a tile.
        height: of a tile.
        gap: between tiles and, if there is more than one tile or a header, around the sheet.
        header: room above every tile for its title.
        left: room left of the first column for row titles.
        right: room right of the last column, for a colour bar.
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
        """Room around the sheet: none around a single bare picture, so that it fills the figure."""
        return 0.0 if self.rows * self.columns == 1 and not self.header else self.gap

    def figure(self, theme: Theme = LIGHT) -> Figure:
        """An empty figure that holds the sheet exactly."""
        width = self.columns * self.width + (self.columns - 1) * self.gap + 2 * self.margin + self.left + self.right
        height = self.rows * (self.height + self.header) + (self.rows - 1) * self.gap + 2 * self.margin
        return new_figure(width, height, theme)

    def axes(self, figure: Figure, row: int, column: int) -> Axes:
        """The bare axes of one tile."""
        width, height = figure.get_size_inches()
        left = self.margin + self.left + column * (self.width + self.gap)
        top = self.margin + row * (self.height + self.header + self.gap) + self.header
        bounds = (left / width, 1 - (top + self.height) / height, self.width / width, self.height / height)
        axes = figure.add_axes(bounds)
        axes.set_axis_off()
        return axes


def tiles_for(
    pictures: Sequence[Tensor], columns: int, rows: int | None = None, *, inches: float = 1.9, header: float = 0.0
) -> Tiles:
    """A sheet whose tiles have the shape of the first picture.

    Args:
        pictures: (channels, height, width) or (height, width) each.
        columns: at most so many tiles to a row; fewer pictures make a narrower sheet.
        rows: as many as the pictures need if None.
        inches: the longer side of a tile.
        header: room above every tile, in inches.

    Raises:
        ValueError: if there is no picture or ``columns`` is below 1.
    """
    if not pictures:
        raise ValueError("there is nothing to draw: give at least one picture")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    height, width = pictures[0].shape[-2:]
    longest = max(height, width)
    used = min(columns, len(pictures))
    return Tiles(
        rows=math.ceil(len(pictures) / used) if rows is None else rows,
        columns=used,
        width=inches * width / longest,
        height=inches * height / longest,
        header=header,
    )


def to_array(picture: Tensor) -> np.ndarray:
    """(channels, height, width) in [0, 1] as (height, width, 3), or (height, width) where there is one channel.

    Raises:
        ValueError: if the picture has not 1 or 3 channels.
    """
    if picture.ndim != 3 or picture.shape[0] not in (1, 3):
        raise ValueError(f"a picture must be (1 or 3, height, width), got {tuple(picture.shape)}")
    values = picture.detach().to("cpu", torch.float32).nan_to_num(0.0).clamp(0.0, 1.0).numpy()
    return values[0] if values.shape[0] == 1 else np.moveaxis(values, 0, -1)


def show_picture(axes: Axes, picture: Tensor) -> None:
    """Draws a (channels, height, width) picture in the package's frame, pixels as squares."""
    height, width = picture.shape[-2:]
    axes.imshow(to_array(picture), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))


def title_tile(axes: Axes, text: str, theme: Theme = LIGHT, *, bold: bool = False) -> None:
    """Writes a title above a tile. The text is taken literally: a dollar sign starts no formula."""
    weight = "bold" if bold else "normal"
    title = axes.set_title(text, fontsize=8.5, color=theme.text, pad=3, fontweight=weight)
    title.set_parse_math(False)


def add_box(axes: Axes, box: Float[Tensor, " 4"], mark: Mark, label: str = "", inches: float = 1.9) -> Rectangle:
    """Draws one box, with its label on a chip at the box's upper left corner.

    Args:
        axes: of a picture drawn by ``show_picture``.
        box: (centre x, centre y, width, height) in pixels.
        mark: what kind of box it is.
        label: no chip if empty.
        inches: the size of the tile, which scales lines and text.
    """
    from matplotlib import patches, patheffects

    x, y, width, height = (float(value) for value in box)
    left, top = x - width / 2, y - height / 2
    scale = math.sqrt(inches / 1.9)
    rectangle = patches.Rectangle(
        (left, top), width, height, fill=False, edgecolor=mark.color, linestyle=mark.line, linewidth=1.7 * scale
    )
    rectangle.set_gid(mark.name)
    # A dark rim keeps the line visible on bright strokes.
    rectangle.set_path_effects([patheffects.withStroke(linewidth=3.0 * scale, foreground="#000000", alpha=0.55)])
    axes.add_patch(rectangle)
    if label:
        _add_chip(axes, (left, top, left + width), mark, label, scale)
    return rectangle


def _add_chip(axes: Axes, span: tuple[float, float, float], mark: Mark, label: str, scale: float) -> None:
    """The label of a box, kept inside the picture: above the box, or below its upper edge where there is no room."""
    left, top, right = span
    picture_width = axes.get_xlim()[1]
    picture_height = axes.get_ylim()[0]
    at_right = left > 0.7 * picture_width
    inside = top < 0.11 * picture_height
    chip = axes.text(
        min(right, picture_width) if at_right else max(left, 0.0),
        max(top, 0.0),
        mark.sign + label,
        color=mark.ink,
        fontsize=8.0 * scale,
        fontweight="bold",
        ha="right" if at_right else "left",
        va="top" if inside else "bottom",
        bbox={"boxstyle": "square,pad=0.18", "facecolor": mark.color, "edgecolor": "none"},
        clip_on=True,
        parse_math=False,
    )
    chip.set_gid(f"{mark.name}-label")


def picture_to_png(picture: Picture, scale: int = 1) -> bytes:
    """A bare picture as PNG, every pixel a square of ``scale`` x ``scale``.

    Raises:
        ValueError: if ``scale`` is below 1 or the picture has not 1 or 3 channels.
    """
    from PIL import Image

    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    values = np.rint(to_array(picture) * 255).astype(np.uint8)
    image = Image.fromarray(values)
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@contextmanager
def _saving() -> Iterator[None]:
    """Settings that only count while a figure is written: real letters in a PDF instead of outlines."""
    import matplotlib

    with matplotlib.rc_context({"pdf.fonttype": 42, "savefig.bbox": None, "savefig.dpi": "figure"}):
        yield


def figure_to_png(figure: Figure) -> bytes:
    """The figure as PNG. The same figure gives the same bytes: no date and no program version is written."""
    buffer = io.BytesIO()
    with _saving():
        figure.savefig(buffer, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def save_figure(figure: Figure, path_stem: Path) -> tuple[Path, Path]:
    """Writes the figure as ``path_stem.png`` and ``path_stem.pdf``; folders that are missing are made.

    Args:
        figure: any figure.
        path_stem: the path without an ending; a dot in the name stays part of the name.

    Returns:
        The two paths, PNG first.
    """
    path_stem.parent.mkdir(parents=True, exist_ok=True)
    png = path_stem.with_name(path_stem.name + ".png")
    pdf = path_stem.with_name(path_stem.name + ".pdf")
    png.write_bytes(figure_to_png(figure))
    with _saving():
        # matplotlib would write the time and its own version: equal figures would be unequal files.
        metadata = {"CreationDate": None, "Producer": None, "Creator": None}
        figure.savefig(pdf, format="pdf", metadata=metadata, facecolor=figure.get_facecolor())
    return png, pdf
