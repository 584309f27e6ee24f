"""A page about counting: predicted counts and, where they are known, true counts. Pictures first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mistnn.inference.judged import draw_judged
from mistnn.reports.examples import Example
from mistnn.reports.page import Picture, Tile, in_both_themes, render
from mistnn.viz import draw_counts, draw_heatmap, draw_histogram, figure_to_png

INCHES = 3.0
"""Longer side of a picture with boxes: at 160 dots per inch, twice the size that the page shows."""
MOST_ROWS = 500
"""Maximum number of rows in the table of images; counts.csv has all of them."""


class Compared(NamedTuple):
    """Counts of one class: true and predicted in each image, and the mean of the training images."""

    true: Sequence[int]
    counted: Sequence[int]
    mean: float


class Table(NamedTuple):
    """A table as it is shown; the first column names the row, the others are numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class CountPage:
    """The content of the page, as plain text. Sections without content are left out.

    Attributes:
        title: of the page.
        summary: one or two sentences.
        notes: remarks, one line each.
        class_names: names of the labels.
        unnamed: the class whose boxes carry no name, to keep pictures readable; "" for none.
        compared: name -> its counts.
        histograms: name -> number of objects -> number of images.
        examples: heading -> the images below it.
        heatmaps: images with a heat map.
        numbers: the measures.
        found: measures of the positions, where boxes are known.
        images: the counts of each image.
        more: how many images the table leaves out.
        repeat: the command.
        settings: name -> value.
    """

    title: str
    summary: str
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    unnamed: str = ""
    compared: Mapping[str, Compared] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    heatmaps: Sequence[Example] = ()
    numbers: Table | None = None
    found: Table | None = None
    images: Table | None = None
    more: int = 0
    repeat: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def render_counts(page: CountPage) -> str:
    """The page as one string of HTML."""
    examples = {
        heading: [_example(example, page) for example in examples]
        for heading, examples in page.examples.items()
        if examples
    }
    return render(
        "counting.html.j2",
        title=page.title,
        page=page,
        compared=[_compared(name, one) for name, one in page.compared.items()],
        histograms=[_histogram(name, images) for name, images in page.histograms.items()],
        examples=examples,
        legend=_legend(page),
        heatmaps=[_with_heatmap(example, page) for example in page.heatmaps if example.heatmap is not None],
    )


def _compared(name: str, one: Compared) -> Tile:
    error = sum(abs(a - b) for a, b in zip(one.true, one.counted, strict=True)) / len(one.true)
    right = sum(a == b for a, b in zip(one.true, one.counted, strict=True))
    picture = in_both_themes(
        lambda theme: draw_counts(one.true, one.counted, one.mean, theme=theme),
        f"Predicted against true counts of {name}: mean absolute error {error:.2f}.",
    )
    return Tile(
        (picture,), name, f"mean absolute error {error:.2f}; exactly right in {right:,} of {len(one.true):,} images"
    )


def _histogram(name: str, images: Mapping[int, int]) -> Tile:
    total, many = sum(number * times for number, times in images.items()), sum(images.values())
    words = f"{min(images)} to {max(images)} per image, mean {total / many:.1f}, {total:,} in total"
    picture = in_both_themes(
        lambda theme: draw_histogram(images, theme=theme), f"Distribution of the counts of {name}: {words}."
    )
    return Tile((picture,), name, words)


def _legend(page: CountPage) -> list[tuple[str, str]]:
    """Class and text of each entry of the legend."""
    legend = [("found", "counted")]
    if any(example.scene.correct is not None for examples in page.examples.values() for example in examples):
        legend = [("right", "correct"), ("wrong", "nothing of that class there"), ("missed", "missed")]
    return [*legend, ("plain", f"a box without a name: {page.unnamed}")] if page.unnamed else legend


def _example(example: Example, page: CountPage, *more: Picture) -> Tile:
    names = ["" if name == page.unnamed else name for name in page.class_names]
    figure = draw_judged([example.scene], names, inches=INCHES)
    verdict = f"; {example.verdict}" if example.verdict else ""
    picture = Picture(figure_to_png(figure), f"{example.name} with the counted boxes: {example.words}{verdict}.")
    return Tile((picture, *more), example.name, example.words, example.verdict, example.good)


def _with_heatmap(example: Example, page: CountPage) -> Tile:
    assert example.heatmap is not None  # selected by the caller
    height, width = example.scene.image.shape[-2:]
    centres = example.scene.detections.boxes[:, :2]
    figure = draw_heatmap(example.heatmap, centres, size=(width, height), inches=INCHES)
    bright = Picture(figure_to_png(figure), f"Heat map of {example.name}: bright where an object was found.")
    return _example(example, page, bright)


def signed(value: float) -> str:
    """A number with its sign; no sign for what rounds to 0."""
    return "0.00" if math.isclose(value, 0, abs_tol=0.005) else f"{value:+.2f}"
