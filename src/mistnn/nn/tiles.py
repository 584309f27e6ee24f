"""The score map of images that are too large to pass through a network at once, computed in overlapping tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

MAX_PIXELS = 1 << 20
"""Most pixels that go through the network at once. The paper's heat-map network (four residual blocks, 32 channels,
float32) takes 530 bytes a pixel in inference, measured on a CPU with torch 2.15: 0.56 GB for this many. Softmax and
top-K, on the whole image in any case, take 36 a pixel with one scale, 3.6 GB for an image of 10,000 x 10,000, and more
with several."""

ALIGNMENT = 16
"""Tiles start at multiples of this, so that a network that works at a half to a sixteenth of the resolution samples a
tile at the very places where it samples the image."""


class Span(NamedTuple):
    """One tile along one axis: the network sees ``start:stop``; the scores of ``inner_start:inner_stop`` are kept."""

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
    score_map: Callable[[Tensor], Tensor],
    images: Float[Tensor, "batch channels height width"],
    margin: int,
    max_pixels: int = MAX_PIXELS,
) -> Float[Tensor, "batch height width"]:
    """The score map of images that are too large to pass through the network at once.

    Convention: a tile is square unless the image is narrower than it. Both margins included, it has at most
    ``max_pixels`` pixels, or more where that is too few for the margins. Up to rounding, the result equals the score
    map of the whole image if the network is purely convolutional. A network that normalises over the whole image
    normalises each tile on its own instead, and scores may jump at seams.

    Args:
        score_map: from images to their scores, (batch, height, width).
        images: of any size.
        margin: the distance in pixels up to which the score of a pixel depends on its surroundings.
        max_pixels: of each image that pass through the network at once.
    """
    height, width = images.shape[-2:]
    # A strip narrower than a square tile gets longer tiles: what counts is the area.
    side = math.isqrt(max_pixels)
    rows = list(spans(height, max(side, max_pixels // width), margin))
    columns = list(spans(width, max(side, max_pixels // height), margin))
    scores = images.new_empty(images.shape[0], height, width, dtype=torch.float32)
    for row in rows:
        for column in columns:
            seen = score_map(images[..., row.start : row.stop, column.start : column.stop])
            kept = seen[
                :,
                row.inner_start - row.start : row.inner_stop - row.start,
                column.inner_start - column.start : column.inner_stop - column.start,
            ]
            scores[:, row.inner_start : row.inner_stop, column.inner_start : column.inner_stop] = kept
    return scores
