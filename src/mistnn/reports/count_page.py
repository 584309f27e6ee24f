"""A page about counting: predicted counts and, where they are known, true counts. Pictures first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mistnn.inference import Predictor
from mistnn.inference.judged import JudgedScene, draw_judged
from mistnn.records import Detections
from mistnn.reports.page import Picture, Tile, in_both_themes, render
from mistnn.viz import draw_counts, draw_heatmap, draw_histogram, figure_to_png

INCHES = 3.0  #: Longer side of a picture with boxes: at 160 dots per inch, twice the size that the page shows.
MOST_ROWS = 500  #: Maximum number of rows in the table of images; counts.csv has all of them.
LONGEST_SIDE = 480  #: Maximum height and width in pixels of an image on a page.


class Example(NamedTuple):
    """An image and its predictions.

    Attributes:
        name: of the file.
        words: the predicted counts.
        verdict: the comparison with the true counts; empty if they are unknown.
        good: whether the counts are correct; ``None`` if unknown.
    """

    name: str
    scene: JudgedScene
    words: str
    verdict: str = ""
    good: bool | None = None
    heatmap: Float[Tensor, "rows columns"] | None = None


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
        notes: remarks, one line each.
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
    return render(
        "counting.html.j2",
        title=page.title,
        page=page,
        compared=[_compared(name, one) for name, one in page.compared.items()],
        histograms=[_histogram(name, images) for name, images in page.histograms.items()],
        examples={heading: [_example(one, page) for one in some] for heading, some in page.examples.items() if some},
        legend=_legend(page),
        heatmaps=[_with_heatmap(example, page) for example in page.heatmaps if example.heatmap is not None],
    )


def _compared(name: str, one: Compared) -> Tile:
    errors = [abs(a - b) for a, b in zip(one.true, one.counted, strict=True)]
    words = f"mean absolute error {sum(errors) / len(errors):.2f}"
    picture = in_both_themes(
        lambda theme: draw_counts(one.true, one.counted, one.mean, theme=theme),
        f"Predicted against true counts of {name}: {words}.",
    )
    return Tile((picture,), name, f"{words}; exactly right in {errors.count(0):,} of {len(errors):,} images")


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


def shrunk(scene: JudgedScene) -> JudgedScene:
    """The image, and its boxes, shrunk to ``LONGEST_SIDE``."""
    factor, size = _smaller(scene.image)
    if factor >= 1:
        return scene
    found = scene.detections
    return scene._replace(
        image=F.interpolate(scene.image[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1),
        detections=found._replace(boxes=found.boxes * factor),
        boxes=None if scene.boxes is None else scene.boxes * factor,
    )


def heatmap_of(predictor: Predictor, image: Tensor) -> Float[Tensor, "rows columns"] | None:
    """The heat map of an image, (channels, height, width), shrunk to ``LONGEST_SIDE``.

    ``None`` for a model without heat maps, and for an image so large that it would be processed in tiles.
    """
    with torch.inference_mode():
        seen = predictor.model.prepare(image[None].to(predictor.device))
        if seen.shape[-2] * seen.shape[-1] > predictor.max_pixels:
            return None
        found = predictor.model.shown_heatmap(seen)
    if found is None:
        return None
    heatmap = found[0].cpu()
    factor, size = _smaller(heatmap)
    # Peaks are one or two pixels wide: a mean would dim them, so each cell shows its maximum.
    return heatmap if factor >= 1 else F.adaptive_max_pool2d(heatmap[None], size)[0]


def _smaller(image: Tensor) -> tuple[float, tuple[int, int]]:
    """The factor that shrinks (..., height, width) to ``LONGEST_SIDE``, and the height and width that it gives."""
    height, width = image.shape[-2:]
    factor = LONGEST_SIDE / max(height, width)
    return factor, (max(1, round(height * factor)), max(1, round(width * factor)))


def in_words(counts: Sequence[int], names: Sequence[str]) -> str:
    """Counts in words, such as ``12 RBC, 1 WBC``; ``nothing`` if all are 0."""
    return ", ".join(f"{count} {name}" for count, name in zip(counts, names, strict=True) if count) or "nothing"


def compared_in_words(counted: Sequence[int], true: Sequence[int], names: Sequence[str]) -> str:
    """The difference between predicted and true counts, in words."""
    parts = [
        f"{name}: {abs(own - wanted)} too {'many' if own > wanted else 'few'}"
        for name, own, wanted in zip(names, counted, true, strict=True)
        if own != wanted
    ]
    return ", ".join(parts) or "all correct"


def commonest(found: Sequence[Detections], class_names: Sequence[str]) -> str:
    """The most frequent of several classes, whose boxes need no name; "" for a single class."""
    labels = Counter(int(label) for one in found if one.labels is not None for label in one.labels)
    return class_names[labels.most_common(1)[0][0]] if labels and len(class_names) > 1 else ""
