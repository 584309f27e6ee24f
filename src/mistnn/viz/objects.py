"""Images explained by objects: boxes with depth order, the reconstruction, and each object separately."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from mistnn.viz.style import (
    LIGHT,
    MISSED,
    RIGHT,
    WRONG,
    Theme,
    Tiles,
    add_box,
    fit_size,
    place_axes,
    require,
    show_picture,
    title_tile,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_OBJECTS = 20
"""Maximum number of objects shown separately, nearest first: the most in the paper's scenes. A title says how many are
left out."""

TITLE = 0.24
"""Space above a picture, in inches."""


class DrawnObjects(NamedTuple):
    """An image and the objects from which a model reconstructed it, nearest first.

    Attributes:
        image: in [0, 1].
        reconstruction: the picture of all objects.
        boxes: of the objects, in pixels.
        right: whether each object matches a true one.
        missed: true boxes without a match.
        objects: each object separately, on black.
    """

    image: Float[Tensor, "channels height width"]
    reconstruction: Float[Tensor, "channels height width"]
    boxes: Float[Tensor, "n 4"]
    right: Bool[Tensor, " n"]
    missed: Float[Tensor, "missed 4"]
    objects: Float[Tensor, "n channels size size"]


def draw_objects(examples: Sequence[DrawnObjects], *, inches: float = 2.4, theme: Theme = LIGHT) -> Figure:
    """One row per image: input, boxes numbered by depth (1 is nearest), reconstruction, and each object separately.

    Right boxes are green, wrong ones red, missed ones grey. The objects are shown at half size, in two rows.

    Args:
        examples: all with images of one shape.
        inches: the longer side of an image.

    Raises:
        ValueError: if there is no example.
    """
    require(examples, "example")
    width, height = fit_size(examples[0].image, inches)
    most = min(MOST_OBJECTS, max(len(example.objects) for example in examples))
    sheet = Tiles(len(examples), 3, width, height, header=TITLE)
    small = (height - sheet.gap - TITLE) / 2
    sheet = dataclasses.replace(sheet, right=math.ceil(most / 2) * (small + sheet.gap))
    figure = sheet.figure(theme)
    for row, example in enumerate(examples):
        _draw_scene(figure, sheet, row, example, inches, theme)
        shown = example.objects[:MOST_OBJECTS]
        for index, picture in enumerate(shown):
            line, place = divmod(index, math.ceil(len(shown) / 2))
            left = sheet.margin + sheet.columns * (sheet.width + sheet.gap) + place * (small + sheet.gap)
            axes = place_axes(figure, left, sheet.top(row) + line * (small + sheet.gap + TITLE), small, small)
            show_picture(axes, picture)
            title_tile(axes, _title(index, len(example.objects)), theme)
    return figure


def _draw_scene(figure: Figure, sheet: Tiles, row: int, example: DrawnObjects, inches: float, theme: Theme) -> None:
    """The three pictures of one image."""
    pictures = {"input": example.image, "objects": example.image, "drawn": example.reconstruction}
    axes = {}
    for column, (title, picture) in enumerate(pictures.items()):
        axes[title] = sheet.axes(figure, row, column)
        show_picture(axes[title], picture)
        title_tile(axes[title], title, theme)
    for box in example.missed:
        add_box(axes["objects"], box, MISSED, inches=inches)
    for index in reversed(range(len(example.boxes))):  # nearest last, so that it is on top
        mark = RIGHT if bool(example.right[index]) else WRONG
        add_box(axes["objects"], example.boxes[index], mark, str(index + 1), inches)


def _title(index: int, objects: int) -> str:
    """The number of an object; for the last one shown, also how many are left out."""
    if index == 0:
        return "1, nearest" if objects > 1 else "1"
    left_out = objects - MOST_OBJECTS
    return f"{index + 1}, {left_out} more" if index == MOST_OBJECTS - 1 and left_out > 0 else str(index + 1)
