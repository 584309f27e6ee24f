"""Images explained by a model: detections, reconstruction, and each part or object separately."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mistnn.ops.matching import UNMATCHED
from mistnn.viz.style import (
    LIGHT,
    MISSED,
    RIGHT,
    WRONG,
    Mark,
    Tiles,
    add_judged_boxes,
    dark_rim,
    fit_size,
    new_figure,
    place_axes,
    require,
    show_picture,
    title_tile,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Marks = Literal["boxes", "points"]

MAX_PATCHES = 9
"""Maximum number of patches shown below an image: the K of the paper's scenes."""

_IMAGE = 1.6  # the longer side of an image with parts, in inches
_EDGE, _GAP, _BETWEEN, _SEAM = 0.08, 0.06, 0.26, 0.03
_HEADER, _NAMES, _LEFT = 0.24, 0.18, 0.2
_LARGEST_PATCH = 0.45  # of a tile


class Explained(NamedTuple):
    """An image and a model's explanation of it.

    Attributes:
        image: in [0, 1].
        reconstruction: the sum of the decoded patches.
        found: the detected boxes, in pixels.
        truth: the true boxes.
        match: for each detected box the index of its true one, or ``UNMATCHED``, by the caller's rule.
        upper: small pictures for the upper row below the image.
        lower: one per picture in ``upper``, drawn right below it.
        names: one short text above each pair; empty for none.
    """

    image: Float[Tensor, "channels height width"]
    reconstruction: Float[Tensor, "channels height width"]
    found: Float[Tensor, "k 4"]
    truth: Float[Tensor, "objects 4"]
    match: Int[Tensor, " k"]
    upper: Float[Tensor, "n channels size size"]
    lower: Float[Tensor, "n channels size size"]
    names: tuple[str, ...] = ()

    @property
    def right(self) -> Bool[Tensor, " k"]:
        """Whether each detected box is matched."""
        return self.match != UNMATCHED

    @property
    def missed(self) -> Float[Tensor, "missed 4"]:
        """The true boxes without a match."""
        missed = torch.ones(len(self.truth), dtype=torch.bool)
        missed[self.match[self.right]] = False
        return self.truth[missed]


def draw_parts(
    examples: Sequence[Explained], *, marks: Marks = "boxes", rows: tuple[str, str] = ("before", "after")
) -> Figure:
    """Examples side by side: image, detections, reconstruction; below them pairs of small pictures.

    Right detections are green, wrong ones red, missed objects grey. "boxes" draws each detected box with its number,
    which is also above its patch. "points" draws centres: a ring for a right detection, with a line to its true place,
    a cross for a wrong one, and a square for a missed place.

    Args:
        examples: one or more, all with images of one shape.
        marks: how places are drawn.
        rows: titles of the two rows of small pictures.

    Reference: MIST (CVPR 2021), figures 3 and 4.
    """
    require(examples, "example")
    width, height = fit_size(examples[0].image, _IMAGE)
    across = 3 * width + 2 * _GAP
    count = min(MAX_PATCHES, max(len(example.upper) for example in examples))
    patch = min(_LARGEST_PATCH * width, (across - (count - 1) * _GAP) / max(count, 1))
    named = any(example.names for example in examples)
    top = _EDGE + _HEADER + height + (_NAMES + 0.06 if named else 2 * _GAP)
    whole = 2 * _EDGE + _LEFT + len(examples) * across + (len(examples) - 1) * _BETWEEN
    figure = new_figure(whole, top + (2 * patch + _SEAM if count else 0) + _EDGE)
    for number, example in enumerate(examples):
        left = _EDGE + _LEFT + number * (across + _BETWEEN)
        tiles = [place_axes(figure, left + i * (width + _GAP), _EDGE + _HEADER, width, height) for i in range(3)]
        pictures = (example.image, example.image, example.reconstruction)
        for axes, picture, title in zip(tiles, pictures, ("input", "detections", "synthesis"), strict=True):
            show_picture(axes, picture)
            if marks == "boxes" or axes is not tiles[1]:
                title_tile(axes, title)
        if marks == "boxes":
            numbers = [str(number) for number in range(1, len(example.found) + 1)]
            add_judged_boxes(tiles[1], example.found, example.right, example.missed, numbers, _IMAGE)
        else:
            _add_points(tiles[1], example)
        for index in range(min(count, len(example.upper))):
            place = left + index * (patch + _GAP)
            upper = place_axes(figure, place, top, patch, patch)
            lower = place_axes(figure, place, top + patch + _SEAM, patch, patch)
            show_picture(upper, example.upper[index])
            show_picture(lower, example.lower[index])
            if example.names:
                title_tile(upper, example.names[index])
    for row, name in enumerate(rows if count else ()):
        _title_row(figure, name, _EDGE + _LEFT - 0.05, top + row * (patch + _SEAM) + patch / 2)
    return figure


def draw_syntheses(examples: Sequence[Explained]) -> Figure:
    """One column per example, all of one shape: the image with its detections, and below it the reconstruction.

    Reference: MIST supplement, figure 8.
    """
    require(examples, "example")
    tiles = Tiles(2, len(examples), *fit_size(examples[0].image, 1.7), left=_LEFT)
    figure = tiles.figure()
    for column, example in enumerate(examples):
        upper, lower = tiles.axes(figure, 0, column), tiles.axes(figure, 1, column)
        show_picture(upper, example.image)
        show_picture(lower, example.reconstruction)
        add_judged_boxes(upper, example.found, example.right, example.missed, (), 1.7)
    for row, name in enumerate(("detections", "synthesis")):
        _title_row(figure, name, tiles.margin + _LEFT - 0.05, tiles.top(row) + tiles.height / 2)
    return figure


def _title_row(figure: Figure, text: str, right: float, middle: float) -> None:
    """An upright title that ends at ``right``, with its middle at ``middle``, in inches from the upper left corner."""
    across, down = figure.get_size_inches()
    style = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 8.5, "color": LIGHT.text}
    figure.text(right / across, 1 - middle / down, text, **style)


def _add_points(axes: Axes, example: Explained) -> None:
    found, right, missed = example.found, example.right, example.missed
    partners = example.truth[example.match[right]]
    _scatter(axes, missed, MISSED)
    rim = dark_rim(2.6)
    for start, end in zip(found[right, :2].tolist(), partners[:, :2].tolist(), strict=True):
        (line,) = axes.plot(*zip(start, end, strict=True), color=RIGHT.color, linewidth=1.0)
        line.set_path_effects(rim)
    _scatter(axes, found[~right], WRONG)
    _scatter(axes, found[right], RIGHT)
    height, width = example.image.shape[-2:]
    axes.set(xlim=(0, width), ylim=(height, 0))
    # The title is the legend: each entry in its own colour.
    entries = ((RIGHT, int(right.sum())), (WRONG, int((~right).sum())), (MISSED, len(missed)))
    for (mark, number), (place, side) in zip(entries, ((0.0, "left"), (0.5, "center"), (1.0, "right")), strict=True):
        style = {"fontsize": 7.2, "color": LIGHT.muted if mark is MISSED else mark.color, "transform": axes.transAxes}
        axes.text(place, 1.0 + 3 / 72 / _IMAGE, f"{number} {mark.name}", ha=side, va="baseline", **style)


def _scatter(axes: Axes, points: Tensor, mark: Mark) -> None:
    x, y = points[:, 0].numpy(), points[:, 1].numpy()
    if mark is WRONG:
        drawn = axes.scatter(x, y, s=11 * _IMAGE, marker="x", linewidths=1.2, color=mark.color)
    else:
        shape, size, line = ("s", 10 * _IMAGE, 0.9) if mark is MISSED else ("o", 14 * _IMAGE, 1.2)
        drawn = axes.scatter(x, y, s=size, marker=shape, facecolors="none", edgecolors=mark.color, linewidths=line)
    drawn.set_gid(mark.name)
    drawn.set_path_effects(dark_rim(1.8 if mark is MISSED else 2.6))


MOST_OBJECTS = 20
"""Maximum number of objects shown separately, nearest first: the most in the paper's scenes. A title says how many are
left out."""

_SCENE, TITLE = 2.4, 0.24
"""The longer side of an image with objects, and the space above a picture, in inches."""


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


def draw_objects(examples: Sequence[DrawnObjects]) -> Figure:
    """One row per image: input, boxes numbered by depth (1 is nearest), reconstruction, and each object separately.

    Right boxes are green, wrong ones red, missed ones grey. The objects are shown at half size, in two rows. All images
    have one shape.
    """
    require(examples, "example")
    width, height = fit_size(examples[0].image, _SCENE)
    most = min(MOST_OBJECTS, max(len(example.objects) for example in examples))
    sheet = Tiles(len(examples), 3, width, height, header=TITLE)
    small = (height - sheet.gap - TITLE) / 2
    sheet = dataclasses.replace(sheet, right=math.ceil(most / 2) * (small + sheet.gap))
    figure = sheet.figure()
    for row, example in enumerate(examples):
        _draw_scene(figure, sheet, row, example)
        shown = example.objects[:MOST_OBJECTS]
        for index, picture in enumerate(shown):
            line, place = divmod(index, math.ceil(len(shown) / 2))
            left = sheet.margin + sheet.columns * (sheet.width + sheet.gap) + place * (small + sheet.gap)
            axes = place_axes(figure, left, sheet.top(row) + line * (small + sheet.gap + TITLE), small, small)
            show_picture(axes, picture)
            title_tile(axes, _title(index, len(example.objects)))
    return figure


def _draw_scene(figure: Figure, sheet: Tiles, row: int, example: DrawnObjects) -> None:
    """The three pictures of one image."""
    pictures = {"input": example.image, "objects": example.image, "drawn": example.reconstruction}
    axes = {}
    for column, (title, picture) in enumerate(pictures.items()):
        axes[title] = sheet.axes(figure, row, column)
        show_picture(axes[title], picture)
        title_tile(axes[title], title)
    numbers = [str(number) for number in range(1, len(example.boxes) + 1)]
    add_judged_boxes(axes["objects"], example.boxes, example.right, example.missed, numbers, _SCENE)


def _title(index: int, objects: int) -> str:
    """The number of an object; for the last one shown, also how many are left out."""
    if index == 0:
        return "1, nearest" if objects > 1 else "1"
    left_out = objects - MOST_OBJECTS
    return f"{index + 1}, {left_out} more" if index == MOST_OBJECTS - 1 and left_out > 0 else str(index + 1)
