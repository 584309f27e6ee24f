"""Small pictures: the patches that were cut out, and images beside their reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from mistnn.viz.style import (
    HEATMAP_COLORS,
    LIGHT,
    RIGHT,
    WRONG,
    Pictures,
    Theme,
    Tiles,
    show_picture,
    tiles_for,
    title_tile,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PatchStack = Float[Tensor, "n channels size size"]


def draw_patches(
    patches: PatchStack,
    labels: Sequence[str] | None = None,
    columns: int = 12,
    *,
    after: PatchStack | None = None,
    correct: Sequence[bool] | None = None,
    inches: float = 0.8,
    theme: Theme = LIGHT,
) -> Figure:
    """The patches a network cut out, each under its label; with ``after``, its reconstruction right below it.

    Args:
        patches: in [0, 1].
        labels: one text for each patch.
        columns: patches to a row.
        after: what the auto-encoder made of each patch.
        correct: colours the titles: right green, wrong red with a cross.
        inches: the side of a patch.
        theme: colours around the pictures.

    Raises:
        ValueError: if there is no patch, or a list is not as long as the patches.

    Reference: S002, Figure 3, bottom row (patches and how the auto-encoder changes them).
    """
    for name, entries in (("labels", labels), ("after", after), ("correct", correct)):
        if entries is not None and len(entries) != len(patches):
            raise ValueError(f"{name} has {len(entries)} entries for {len(patches)} patches: give one for each")
    sheet = tiles_for(list(patches), columns)
    header = 0.0 if labels is None else 0.22
    # A patch and its reconstruction share one tile, so that pairs stand closer than rows.
    seam = 0.02
    stacked = inches if after is None else 2 * inches + seam
    tiles = Tiles(sheet.rows, sheet.columns, inches, stacked, gap=0.06, header=header)
    figure = tiles.figure(theme)
    for index, patch in enumerate(patches):
        axes = tiles.axes(figure, *divmod(index, tiles.columns))
        if after is not None:
            left, bottom, width, height = axes.get_position().bounds
            half = height * inches / tiles.height
            lower = figure.add_axes((left, bottom, width, half))
            lower.set_axis_off()
            show_picture(lower, after[index])
            axes.set_position((left, bottom + height - half, width, half))
        show_picture(axes, patch)
        if labels is not None:
            wrong = correct is not None and not correct[index]
            title_tile(axes, (WRONG.sign if wrong else "") + labels[index], theme, bold=correct is not None)
            if correct is not None:
                axes.title.set_color(WRONG.color if wrong else RIGHT.color)
    return figure


def residual(image: Tensor, rebuilt: Tensor) -> Tensor:
    """What the reconstruction left over, (height, width): the distance to the image, averaged over the channels."""
    return (image - rebuilt).abs().mean(dim=0)


def draw_reconstructions(
    images: Pictures, rebuilt: Pictures, columns: int = 4, *, inches: float = 1.7, theme: Theme = LIGHT
) -> Figure:
    """Images in the first row, their reconstructions below, and below those what is left over (bright: large).

    Args:
        images: (channels, height, width) each, in [0, 1].
        rebuilt: of the same shapes.
        columns: at most so many images are drawn.
        inches: the longer side of a picture.
        theme: colours around the pictures.

    Raises:
        ValueError: if there is no image, or not one reconstruction for each.
    """
    pictures, copies = list(images), list(rebuilt)
    if len(pictures) != len(copies):
        raise ValueError(f"got {len(copies)} reconstructions for {len(pictures)} images: give one for each")
    sheet = tiles_for(pictures, columns, rows=3, inches=inches)
    tiles = Tiles(3, sheet.columns, sheet.width, sheet.height, left=0.75)
    figure = tiles.figure(theme)
    for column in range(tiles.columns):
        for row, picture in enumerate((pictures[column], copies[column])):
            show_picture(tiles.axes(figure, row, column), picture)
        axes = tiles.axes(figure, 2, column)
        axes.imshow(
            residual(pictures[column], copies[column]).detach().cpu().numpy(),
            cmap=HEATMAP_COLORS,
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
    width, height = figure.get_size_inches()
    for row, name in enumerate(("image", "rebuilt", "left over")):
        middle = tiles.margin + row * (tiles.height + tiles.gap) + tiles.height / 2
        figure.text(
            (tiles.margin + 0.68) / width, 1 - middle / height, name, ha="right", va="center", fontsize=8.5,
            color=theme.text,
        )  # fmt: skip
    return figure
