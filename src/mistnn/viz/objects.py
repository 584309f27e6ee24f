"""Images drawn from their objects: boxes with depth order, the picture, and each object by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from mistnn.viz.style import LIGHT, MISSED, RIGHT, WRONG, Theme, Tiles, add_box, show_picture, title_tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_OBJECTS = 9
"""Objects shown by themselves, the nearest first; the most in the paper's scenes."""


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


def draw_objects(examples: Sequence[DrawnObjects], *, inches: float = 1.5, theme: Theme = LIGHT) -> Figure:
    """A row for each image: input, boxes numbered by depth (1 is nearest), the picture, and each object.

    Right boxes are green, wrong ones red, missed ones grey.

    Args:
        examples: all with images of one shape.
        inches: the longer side of an image.
        theme: colours around the pictures.

    Raises:
        ValueError: if there is no example.
    """
    if not examples:
        raise ValueError("there is nothing to draw: give at least one example")
    shown = min(MOST_OBJECTS, max(len(example.objects) for example in examples))
    rows, columns = examples[0].image.shape[-2:]
    longer = max(rows, columns)
    tiles = Tiles(len(examples), 3 + shown, inches * columns / longer, inches * rows / longer, header=0.24)
    figure = tiles.figure(theme)
    for row, example in enumerate(examples):
        pictures = {"input": example.image, "objects": example.image, "drawn": example.rebuilt}
        axes = {}
        for column, (title, picture) in enumerate(pictures.items()):
            axes[title] = tiles.axes(figure, row, column)
            show_picture(axes[title], picture)
            title_tile(axes[title], title, theme)
        for box in example.missed:
            add_box(axes["objects"], box, MISSED, inches=inches)
        for index in reversed(range(len(example.boxes))):  # the nearest last, so that it lies on top
            mark = RIGHT if bool(example.right[index]) else WRONG
            add_box(axes["objects"], example.boxes[index], mark, str(index + 1), inches)
        for index, picture in enumerate(example.objects[:shown]):
            tile = tiles.axes(figure, row, 3 + index)
            show_picture(tile, picture)
            title_tile(tile, str(index + 1), theme)
    return figure
