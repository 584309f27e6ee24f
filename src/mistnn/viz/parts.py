"""Images explained by their parts: what was found, the sum of what was redrawn, and each part before and after."""

from __future__ import annotations

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
    Theme,
    Tiles,
    add_box,
    new_figure,
    show_picture,
    title_tile,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Marks = Literal["boxes", "points"]

MAX_PATCHES = 9
"""Patches shown below an image; the K of the paper's scenes."""

_EDGE, _GAP, _BETWEEN, _SEAM = 0.08, 0.06, 0.26, 0.03
_HEADER, _NAMES, _LEFT = 0.24, 0.18, 0.2
_LARGEST_PATCH = 0.45  # of a tile


class Explained(NamedTuple):
    """An image and what a model made of it.

    Attributes:
        image: in [0, 1].
        rebuilt: the sum of its redrawn patches.
        found: the boxes that were found, in pixels.
        truth: the true boxes.
        match: for each found box the index of its true one, or ``UNMATCHED``, by the caller's rule.
        upper: small pictures for the upper row below the image.
        lower: one for each of them, drawn right below it.
        names: one short text above each pair; none if empty.
    """

    image: Float[Tensor, "channels height width"]
    rebuilt: Float[Tensor, "channels height width"]
    found: Float[Tensor, "k 4"]
    truth: Float[Tensor, "objects 4"]
    match: Int[Tensor, " k"]
    upper: Float[Tensor, "n channels size size"]
    lower: Float[Tensor, "n channels size size"]
    names: tuple[str, ...] = ()

    @property
    def missed(self) -> Bool[Tensor, " objects"]:
        """Which true boxes have no found one."""
        missed = torch.ones(len(self.truth), dtype=torch.bool)
        missed[self.match[self.match != UNMATCHED]] = False
        return missed


def draw_parts(
    examples: Sequence[Explained],
    *,
    marks: Marks = "boxes",
    rows: tuple[str, str] = ("before", "after"),
    inches: float = 1.6,
    theme: Theme = LIGHT,
) -> Figure:
    """Examples side by side: image, what was found in it, synthesis; below them pairs of small pictures.

    Right ones are green, wrong ones red, missed ones grey. "boxes" draws a found box with its number, the same as above
    its patch; "points" draws the centres: rings for right ones, each with a line to its true place, crosses for
    wrong ones, and squares for missed places.

    Args:
        examples: all with images of one shape.
        marks: how places are drawn.
        rows: what the two rows of small pictures show.
        inches: the longer side of an image.
        theme: colours around the pictures.

    Raises:
        ValueError: if there is no example.

    Reference: MIST (CVPR 2021), figures 3 and 4.
    """
    if not examples:
        raise ValueError("there is nothing to draw: give at least one example")
    rows_of, columns_of = examples[0].image.shape[-2:]
    height, width = (inches * side / max(rows_of, columns_of) for side in (rows_of, columns_of))
    across = 3 * width + 2 * _GAP
    count = min(MAX_PATCHES, max(len(example.upper) for example in examples))
    patch = min(_LARGEST_PATCH * width, (across - (count - 1) * _GAP) / max(count, 1))
    named = any(example.names for example in examples)
    top = _EDGE + _HEADER + height + (_NAMES + 0.06 if named else 2 * _GAP)
    sheet = _Sheet(
        2 * _EDGE + _LEFT + len(examples) * across + (len(examples) - 1) * _BETWEEN,
        top + (2 * patch + _SEAM if count else 0) + _EDGE,
        theme,
    )
    for number, example in enumerate(examples):
        left = _EDGE + _LEFT + number * (across + _BETWEEN)
        tiles = [sheet.axes(left + i * (width + _GAP), _EDGE + _HEADER, width, height) for i in range(3)]
        for axes, picture in zip(tiles, (example.image, example.image, example.rebuilt), strict=True):
            show_picture(axes, picture)
        for axes, title in zip(tiles, ("input", "detections", "synthesis"), strict=True):
            if marks == "boxes" or axes is not tiles[1]:
                title_tile(axes, title, theme)
        if marks == "boxes":
            _add_boxes(tiles[1], example, inches, numbered=True)
        else:
            _add_points(tiles[1], example, inches, theme)
        for index in range(min(count, len(example.upper))):
            at = left + index * (patch + _GAP)
            upper, lower = sheet.axes(at, top, patch, patch), sheet.axes(at, top + patch + _SEAM, patch, patch)
            show_picture(upper, example.upper[index])
            show_picture(lower, example.lower[index])
            if example.names:
                title_tile(upper, example.names[index], theme)
    for row, name in enumerate(rows if count else ()):
        sheet.side_text(name, _EDGE + _LEFT - 0.05, top + row * (patch + _SEAM) + patch / 2)
    return sheet.figure


def draw_syntheses(examples: Sequence[Explained], *, inches: float = 1.7, theme: Theme = LIGHT) -> Figure:
    """One column an example: the image with what was found, and below it the synthesis.

    Args:
        examples: all with images of one shape.
        inches: the longer side of an image.
        theme: colours around the pictures.

    Raises:
        ValueError: if there is no example.

    Reference: MIST supplement, figure 8.
    """
    if not examples:
        raise ValueError("there is nothing to draw: give at least one example")
    rows_of, columns_of = examples[0].image.shape[-2:]
    height, width = (inches * side / max(rows_of, columns_of) for side in (rows_of, columns_of))
    tiles = Tiles(2, len(examples), width, height, left=_LEFT)
    figure = tiles.figure(theme)
    for column, example in enumerate(examples):
        upper, lower = tiles.axes(figure, 0, column), tiles.axes(figure, 1, column)
        show_picture(upper, example.image)
        show_picture(lower, example.rebuilt)
        _add_boxes(upper, example, inches, numbered=False)
    across, down = figure.get_size_inches()
    sheet = _Sheet(across, down, theme, figure)
    for row, name in enumerate(("detections", "synthesis")):
        middle = tiles.margin + row * (tiles.height + tiles.gap) + tiles.height / 2
        sheet.side_text(name, tiles.margin + _LEFT - 0.05, middle)
    return figure


class _Sheet:
    """A figure on which things are placed in inches from its upper left corner."""

    def __init__(self, width: float, height: float, theme: Theme, figure: Figure | None = None) -> None:
        self.width, self.height, self.theme = width, height, theme
        self.figure = new_figure(width, height, theme) if figure is None else figure

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Bare axes."""
        bottom = self.height - top - height
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.set_axis_off()
        return axes

    def side_text(self, text: str, right: float, middle: float) -> None:
        """A word that runs upwards, beside a row."""
        self.figure.text(
            right / self.width, 1 - middle / self.height, text, rotation=90, rotation_mode="default", ha="right",
            va="center", fontsize=8.5, color=self.theme.text,
        )  # fmt: skip


def _add_boxes(axes: Axes, example: Explained, inches: float, *, numbered: bool) -> None:
    for box in example.truth[example.missed]:
        add_box(axes, box, MISSED, inches=inches)
    for index in reversed(range(len(example.found))):  # the best last, so that they lie on top
        mark = WRONG if int(example.match[index]) == UNMATCHED else RIGHT
        add_box(axes, example.found[index], mark, str(index + 1) if numbered else "", inches)


def _add_points(axes: Axes, example: Explained, inches: float, theme: Theme) -> None:
    right = example.match != UNMATCHED
    found, truth = example.found[:, :2], example.truth[:, :2]
    partners = truth[example.match[right]]
    _scatter(axes, truth[example.missed], MISSED, inches)
    rim = _rim(2.6)
    for start, end in zip(found[right].tolist(), partners.tolist(), strict=True):
        (line,) = axes.plot(*zip(start, end, strict=True), color=RIGHT.color, linewidth=1.0)
        line.set_path_effects(rim)
    _scatter(axes, found[~right], WRONG, inches)
    _scatter(axes, found[right], RIGHT, inches)
    height, width = example.image.shape[-2:]
    axes.set(xlim=(0, width), ylim=(height, 0))
    entries = ((RIGHT, int(right.sum())), (WRONG, int((~right).sum())), (MISSED, int(example.missed.sum())))
    # The title is the legend: as many words as there is room for, each in its own colour.
    for (mark, number), (place, side) in zip(entries, ((0.0, "left"), (0.5, "center"), (1.0, "right")), strict=True):
        colour = theme.muted if mark is MISSED else mark.color
        axes.text(
            place, 1.0 + 3 / 72 / inches, f"{number} {mark.name}", transform=axes.transAxes, ha=side, va="baseline",
            fontsize=7.2, color=colour,
        )  # fmt: skip


def _rim(width: float) -> list:
    """A dark rim that keeps marks visible on bright pixels."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=width, foreground="#000000", alpha=0.6)]


def _scatter(axes: Axes, points: Tensor, mark: Mark, inches: float) -> None:
    x, y = points[:, 0].numpy(), points[:, 1].numpy()
    if mark is WRONG:
        drawn = axes.scatter(x, y, s=11 * inches, marker="x", linewidths=1.2, color=mark.color)
    else:
        shape, size, line = ("s", 10 * inches, 0.9) if mark is MISSED else ("o", 14 * inches, 1.2)
        drawn = axes.scatter(x, y, s=size, marker=shape, facecolors="none", edgecolors=mark.color, linewidths=line)
    drawn.set_gid(mark.name)
    drawn.set_path_effects(_rim(1.8 if mark is MISSED else 2.6))
