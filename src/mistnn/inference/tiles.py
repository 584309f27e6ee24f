"""Detection in images of any size: the score map is computed in overlapping tiles, the rest on the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.records import Detections, Explanation

MAX_PIXELS = 1 << 20
"""Most pixels that go through the network at once. The paper's heat-map network (four residual blocks, 32 channels,
float32) takes 530 bytes a pixel in inference, measured on a CPU with torch 2.15: 0.56 GB for this many. Softmax and
top-K, on the whole image in any case, take 36 a pixel with one scale, 3.6 GB for an image of 10,000 x 10,000, and more
with several."""

ALIGNMENT = 16
"""Tiles start at multiples of this, so that a network that works at a half to a sixteenth of the resolution samples a
tile at the very places where it samples the image."""


@runtime_checkable
class DetectorConfig(Protocol):
    """What prediction reads of a network's configuration."""

    @property
    def channels(self) -> int:
        """Channels of the images, 1 or 3."""
        ...

    @property
    def k(self) -> int:
        """How many objects to find unless told otherwise."""
        ...


class Finder(Protocol):
    """A network that finds objects in images."""

    @property
    def config(self) -> DetectorConfig:
        """Its configuration."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class; empty for a model without classes."""
        ...


@runtime_checkable
class Detector(Finder, Protocol):
    """A network that finds objects in images of any size."""

    @property
    def margin(self) -> int:
        """How many pixels around it the score of a pixel depends on."""
        ...

    @property
    def tileable(self) -> bool:
        """Whether tiles that overlap by the margin give exactly the scores of the whole image."""
        ...

    def detect(self, images: Tensor, k: int | None = None) -> list[Detections]:
        """The K objects of each image of a batch."""
        ...

    def score_map(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to raw scores (batch, height, width)."""
        ...

    def heatmaps(self, images: Tensor, score_map: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The heat maps of whole images, (batch, scales, height, width), with scores from the function given."""
        ...

    def detect_from_heatmaps(self, images: Tensor, heatmaps: Tensor, k: int | None = None) -> list[Detections]:
        """As ``detect``, with the heat maps computed before."""
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """A network that may be able to draw an image again as the sum of its parts."""

    @property
    def reconstructs(self) -> bool:
        """Whether this one can."""
        ...

    def keypoints_of(self, boxes: Tensor) -> Tensor:
        """(batch, k, 4) boxes to the keypoints they stand for."""
        ...

    def reconstruct(self, images: Tensor, keypoints: Tensor) -> Tensor:
        """(batch, channels, height, width), the sum of the parts at the keypoints."""
        ...


@runtime_checkable
class WholeImageModel(Finder, Protocol):
    """A network that takes images in one piece only: the systems that MIST is measured against."""

    @property
    def reconstructs(self) -> bool:
        """Whether ``explain`` redraws."""
        ...

    def most(self, height: int, width: int) -> int:
        """How many objects it can find in an image of this size."""
        ...

    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """The K objects of each image, and the images redrawn."""
        ...


@runtime_checkable
class RefusingModel(Protocol):
    """A network that some sizes of images are not for."""

    def refusal(self, height: int, width: int) -> str | None:
        """Why an image of this size can't be seen, with the image as the subject; ``None`` if it can."""
        ...


@runtime_checkable
class DrawingModel(WholeImageModel, RefusingModel, Protocol):
    """A network that finds objects by drawing the image: it may say itself how many there are."""

    @property
    def counts_itself(self) -> bool:
        """Whether it does."""
        ...

    @property
    def needs_counts(self) -> bool:
        """Whether it must be told."""
        ...


@runtime_checkable
class PreparingModel(Protocol):
    """A network that wants images prepared, or that can tell how many objects there are."""

    @property
    def zoom(self) -> float:
        """The factor by which ``prepare`` resizes: boxes are that much larger than in the image given."""
        ...

    @property
    def threshold(self) -> float:
        """Where no K is told, boxes that score less are left out."""
        ...

    @property
    def prepares(self) -> bool:
        """Whether ``prepare`` changes anything."""
        ...

    def prepare(self, images: Tensor) -> Tensor:
        """Images as they come to what the network sees."""
        ...


class Span(NamedTuple):
    """One tile along one axis.

    Attributes:
        start: first pixel that the network sees.
        stop: the pixel after the last one that it sees.
        inner_start: first pixel whose score is kept.
        inner_stop: the pixel after the last one whose score is kept.
    """

    start: int
    stop: int
    inner_start: int
    inner_stop: int


def spans(length: int, size: int, margin: int) -> Iterator[Span]:
    """Covers an axis with tiles whose kept parts follow each other without gap or overlap.

    Args:
        length: pixels along the axis.
        size: most pixels that the network sees at once, as long as that leaves ``ALIGNMENT`` of them to keep.
        margin: pixels seen beyond the kept part, where the image has them.
    """
    margin = math.ceil(margin / ALIGNMENT) * ALIGNMENT
    inner = max(1, (size - 2 * margin) // ALIGNMENT) * ALIGNMENT
    if length <= size:
        inner = max(length, 1)
    for first in range(0, length, inner):
        last = min(first + inner, length)
        yield Span(max(0, first - margin), min(length, last + margin), first, last)


def tiled_score_map(
    model: Detector, images: Float[Tensor, "batch channels height width"], max_pixels: int = MAX_PIXELS
) -> Float[Tensor, "batch height width"]:
    """The score map of images that are too large to go through the network in one piece.

    Convention: a tile is square unless the image is narrower than it; both margins counted, it has at most
    ``max_pixels`` pixels (more only where these are too few for the margins). The result equals the score map of the
    whole image, up to rounding, if ``model.tileable``; a network that normalises over the whole image normalises each
    tile on its own instead, and scores may jump at seams.
    """
    height, width = images.shape[-2:]
    # A strip narrower than a square tile gets longer tiles: what counts is the area.
    side = math.isqrt(max_pixels)
    rows = list(spans(height, max(side, max_pixels // width), model.margin))
    columns = list(spans(width, max(side, max_pixels // height), model.margin))
    scores = images.new_empty(images.shape[0], height, width, dtype=torch.float32)
    for row in rows:
        for column in columns:
            seen = model.score_map(images[..., row.start : row.stop, column.start : column.stop])
            kept = seen[
                :,
                row.inner_start - row.start : row.inner_stop - row.start,
                column.inner_start - column.start : column.inner_stop - column.start,
            ]
            scores[:, row.inner_start : row.inner_stop, column.inner_start : column.inner_stop] = kept
    return scores


def detect(
    model: Detector, images: Float[Tensor, "batch channels height width"], k: int, max_pixels: int = MAX_PIXELS
) -> list[Detections]:
    """The K objects of each image; images above ``max_pixels`` are tiled."""
    if images.shape[-2] * images.shape[-1] <= max_pixels:
        return model.detect(images, k)
    heatmaps = model.heatmaps(images, lambda seen: tiled_score_map(model, seen, max_pixels))
    return model.detect_from_heatmaps(images, heatmaps, k)
