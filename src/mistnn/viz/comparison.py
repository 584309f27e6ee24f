"""Pictures compared: several systems side by side, and the error of a reconstruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from mistnn.viz.style import LIGHT, Theme, Tiles, show_picture, title_tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_comparison(
    rows: Sequence[Mapping[str, Float[Tensor, "channels _ _"]]],
    *,
    inches: float = 1.35,
    theme: Theme = LIGHT,
) -> Figure:
    """A sheet with one row per image and one column per system.

    Args:
        rows: title of the tile -> picture, clipped to [0, 1]; equally many in each row.
        inches: the longer side of a picture.

    Raises:
        ValueError: if there is no row, or the rows differ in length.
    """
    if not rows or len({len(row) for row in rows}) > 1 or not rows[0]:
        raise ValueError(f"give rows of as many pictures each, got {[len(row) for row in rows]}")
    tiles = Tiles(rows=len(rows), columns=len(rows[0]), width=inches, height=inches, header=0.24)
    figure = tiles.figure(theme)
    for number, row in enumerate(rows):
        for column, (title, picture) in enumerate(row.items()):
            axes = tiles.axes(figure, number, column)
            show_picture(axes, picture.clamp(0, 1))
            title_tile(axes, title, theme, bold=number == 0)
    return figure


def residual(image: Tensor, reconstruction: Tensor) -> Tensor:
    """The absolute error of a reconstruction, averaged over the channels: (height, width)."""
    return (image - reconstruction).abs().mean(dim=0)
