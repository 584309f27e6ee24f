"""Images drawn from their objects: boxes with depth order, the picture, and each object by itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from mistnn.viz.style import LIGHT, MISSED, RIGHT, WRONG, Theme, Tiles, add_box, show_picture, title_tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_OBJECTS = 20
"""Objects shown by themselves, the nearest first; the most in the paper's scenes. How many more there are is told."""

SIDE_BY_SIDE = 3
"""The image, its boxes, the picture."""

TITLE = 0.24
"""Room above a picture, in inches."""


class DrawnObjects(NamedTuple):
    """An image, and the objects that a model drew it from, the nearest first.

    Attributes:
        image: in [0, 1].
        rebuilt: the picture of all objects.
        boxes: of the objects, in pixels.
        right: which of them stand for a true one.
        missed: true boxes that none stands for.
        objects: each object by itself, on black.
    """

    image: Float[Tensor, "channels height width"]
    rebuilt: Float[Tensor, "channels height width"]
    boxes: Float[Tensor, "n 4"]
    right: Bool[Tensor, " n"]
    missed: Float[Tensor, "missed 4"]
    objects: Float[Tensor, "n channels size size"]


def draw_objects(examples: Sequence[DrawnObjects], *, inches: float = 2.4, theme: Theme = LIGHT) -> Figure:
    """A row for each image: input, boxes numbered by depth (1 is nearest), the picture, and beside it each object.

    Right boxes are green, wrong ones red, missed ones grey. The objects are half as large, in two rows.

    Args:
        examples: all with images of one shape.
        inches: the longer side of an image.
        theme: colours around the pictures.

    Raises:
        ValueError: if there is no example.
    """
    if not examples:
        raise ValueError("there is nothing to draw: give at least one example")
    rows, columns = examples[0].image.shape[-2:]
    width, height = inches * columns / max(rows, columns), inches * rows / max(rows, columns)
    most = min(MOST_OBJECTS, max(len(example.objects) for example in examples))
    sheet = Tiles(len(examples), SIDE_BY_SIDE, width, height, header=TITLE)
    small = (height - sheet.gap - TITLE) / 2
    sheet = dataclasses.replace(sheet, right=math.ceil(most / 2) * (small + sheet.gap))
    figure = sheet.figure(theme)
    for row, example in enumerate(examples):
        _draw_scene(figure, sheet, row, example, inches, theme)
        shown = example.objects[:MOST_OBJECTS]
        across = math.ceil(len(shown) / 2)
        for index, picture in enumerate(shown):
            tile = _object_axes(figure, sheet, row, divmod(index, across), small)
            show_picture(tile, picture)
            title_tile(tile, _title(index, len(example.objects)), theme)
    return figure


def _draw_scene(figure: Figure, sheet: Tiles, row: int, example: DrawnObjects, inches: float, theme: Theme) -> None:
    """The three pictures of one image."""
    pictures = {"input": example.image, "objects": example.image, "drawn": example.rebuilt}
    axes = {}
    for column, (title, picture) in enumerate(pictures.items()):
        axes[title] = sheet.axes(figure, row, column)
        show_picture(axes[title], picture)
        title_tile(axes[title], title, theme)
    for box in example.missed:
        add_box(axes["objects"], box, MISSED, inches=inches)
    for index in reversed(range(len(example.boxes))):  # the nearest last, so that it lies on top
        mark = RIGHT if bool(example.right[index]) else WRONG
        add_box(axes["objects"], example.boxes[index], mark, str(index + 1), inches)


def _object_axes(figure: Figure, sheet: Tiles, row: int, place: tuple[int, int], side: float) -> Axes:
    """Bare axes for an object at (line, column) right of an image's pictures."""
    width, height = figure.get_size_inches()
    left = sheet.margin + sheet.columns * (sheet.width + sheet.gap) + place[1] * (side + sheet.gap)
    top = sheet.margin + row * (sheet.height + sheet.header + sheet.gap) + sheet.header
    top += place[0] * (side + sheet.gap + TITLE)
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    axes.set_axis_off()
    return axes


def _title(index: int, objects: int) -> str:
    """The number of an object; of the last that is shown, also how many are not."""
    if index == 0:
        return "1, nearest" if objects > 1 else "1"
    left_out = objects - MOST_OBJECTS
    return f"{index + 1}, {left_out} more" if index == MOST_OBJECTS - 1 and left_out > 0 else str(index + 1)
