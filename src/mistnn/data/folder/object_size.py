"""Estimates the size of the objects in some images from their pixels and, if known, their counts.

Pixels that differ from an image's most common colour are ink. For each size of a geometric range, squares of that size
are placed greedily where they hold most ink, at least half their side apart. The size whose squares fit the ink best is
the estimate. The procedure is deterministic and learns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

LONGEST_SIDE = 400  #: Larger images are shrunk to this longest side, in pixels (our choice).
SMALLEST, LARGEST = 3, 24
"""Sides of the squares in pixels of the shrunk image, which is halved for larger squares (our choice)."""
STEPS_PER_OCTAVE = 6  #: Sizes per factor of two: steps of 12 % (our choice).
LARGEST_SHARE = 0.9  #: Largest square, as a share of the shorter side of an image (our choice).
EMPTY_WEIGHT = 0.8
"""Weight of empty area in the squares relative to ink outside them, since objects are not solid squares (our choice, on
discs, rings, digits and training images of blood cells; at 1 digits come out 10 % smaller, at 0.7 red cells 10 %
larger)."""
MOST_SQUARES = 60  #: Largest number of squares in an image without a count (our choice).
FALLBACK_SHARE = 0.25  #: Size if nothing differs from the background, as a share of the shorter side (our choice).
ROUND = 2 / math.sqrt(math.pi)
"""Diameter of the disc with the area of a unit square: a square fits a disc best at equal area."""

_LEVELS = 64  # Of grey, to find the most common one.


class SizeSuggestion(NamedTuple):
    """An estimated size."""

    size: float  #: Typical diameter of an object, in pixels of the given images.
    why: str  #: The reason, in one line for the user.


def suggest_object_size(
    images: Collection[Float[Tensor, "channels _ _"]], counts: Sequence[int] | None = None
) -> SizeSuggestion:
    """Estimates the typical diameter of the objects.

    With counts, there are as many squares as objects, and the best size maximises ink inside / (ink + 0.8 x empty area
    inside). Without counts, squares are added while their contrast with the surroundings is at least half that of the
    first, and the best size maximises mean contrast x share of the ink inside. Thin rings and strokes then look like
    many small objects: counts help. Scores are averaged over images.

    Args:
        images: (channels, height, width), in [0, 1]; sizes may differ. Images are used one at a time; 12 are enough.
        counts: objects in each image, over all classes; images without objects are skipped.

    Raises:
        ValueError: if there is no image, or not one count for each.
    """
    if len(images) == 0:
        raise ValueError("no image to suggest an object size from: give at least one")
    if counts is not None and len(counts) != len(images):
        raise ValueError(f"{len(counts)} counts for {len(images)} images: give one for each, or none")
    numbers: list[int | None] = [None] * len(images) if counts is None else list(counts)
    totals: dict[int, float] = {}  # step of the geometric range -> sum over images
    used, shortest = 0, math.inf
    for image, number in zip(images, numbers, strict=True):
        shortest = min(shortest, *image.shape[-2:])
        if number is None or number > 0:
            used += 1
            for step, score in _scores(image, number).items():
                totals[step] = totals.get(step, 0.0) + score
    if not totals or max(totals.values()) <= 0:
        size = FALLBACK_SHARE * shortest
        return SizeSuggestion(
            size, "nothing stands out from the background, or no image holds an object: a quarter of the image side"
        )
    step = max(totals, key=lambda step: totals[step])
    side = 2.0 ** (step / STEPS_PER_OCTAVE)
    many = f"{used} images" if used > 1 else "1 image"
    if counts is None:
        why = f"squares of {side:.0f} px have the highest contrast with their surroundings, in {many} without counts"
    else:
        share = totals[step] / used
        why = f"one square of {side:.0f} px per object fits the foreground best ({share:.0%}), in {many}"
    return SizeSuggestion(side * ROUND, f"{why}; a disc of the same area has a diameter of {side * ROUND:.0f} px")


def _scores(image: Tensor, number: int | None) -> dict[int, float]:
    """How well each size fits an image: step of the geometric range in pixels of the image -> score."""
    longest, shortest = max(image.shape[-2:]), min(image.shape[-2:])
    if longest > LONGEST_SIDE:
        size = [max(1, round(side * (LONGEST_SIDE / longest))) for side in image.shape[-2:]]
        image = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    ink = _ink(image.detach().to("cpu", torch.float64).numpy())
    scores: dict[int, float] = {}
    factor = longest / max(ink.shape)  # pixels of the image per pixel of the shrunk one
    step = math.ceil(STEPS_PER_OCTAVE * math.log2(SMALLEST * factor))
    while (side := 2.0 ** (step / STEPS_PER_OCTAVE)) <= LARGEST_SHARE * shortest:
        if round(side / factor) > LARGEST:
            ink, factor = _halved(ink), 2 * factor
        square = round(side / factor)
        if square > min(ink.shape):
            break
        scores[step] = _fit(ink, square, number)
        step += 1
    return scores


def _halved(ink: np.ndarray) -> np.ndarray:
    height, width = (2 * (side // 2) for side in ink.shape)
    return ink[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))


def _ink(image: Float64[np.ndarray, "channels height width"]) -> Float64[np.ndarray, "height width"]:
    """1 where a pixel differs from the most common colour by more than Otsu's threshold, 0 elsewhere."""
    grey = image.mean(axis=0)
    histogram, edges = np.histogram(grey, bins=_LEVELS, range=(0.0, 1.0))
    peak = int(np.convolve(histogram, np.ones(3), mode="same").argmax())
    common = np.abs(grey - (edges[peak] + edges[peak + 1]) / 2) <= 1.5 / _LEVELS
    if not common.any():
        return np.zeros_like(grey)
    distance = np.sqrt(((image - image[:, common].mean(axis=1)[:, None, None]) ** 2).sum(axis=0))
    return (distance > otsu(distance)).astype(np.float64)


def otsu(values: np.ndarray) -> float:
    """The threshold that minimises the variance within the two groups.

    Reference: Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    weights, edges = np.histogram(values, bins=128, range=(0.0, max(float(values.max()), 1e-6)))
    middles = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(weights)[:-1], np.cumsum(weights * middles)[:-1]
    above, total = len(values.ravel()) - below, float((weights * middles).sum())
    between = (total * below / len(values.ravel()) - sums) ** 2 / np.maximum(below * above, 1)
    return float(edges[int(between.argmax()) + 1])


def _fit(ink: np.ndarray, side: int, number: int | None) -> float:
    """How well squares of one side fit the ink, 0-1."""
    inside = _window_sums(ink, side) / side**2
    if number is None:
        room = _window_sums(np.ones_like(ink), 2 * side) - side**2
        around = (_window_sums(ink, 2 * side) - inside * side**2) / np.maximum(room, 1)
        values = inside - around
        places = _places(values, MOST_SQUARES, side // 2, float(values.max()) / 2)
    else:
        # Ties, such as windows inside one large spot: prefer the one with most ink around it.
        values = inside + 1e-3 * _window_sums(inside, side) / side**2
        places = _places(values, number, side // 2, 1e-6)
    if not places:
        return 0.0
    covered = np.zeros(ink.shape, dtype=bool)
    for row, column in places:
        top, left = row - side // 2, column - side // 2
        covered[max(0, top) : top + side, max(0, left) : left + side] = True
    held, total = float(ink[covered].sum()), max(float(ink.sum()), 1.0)
    if number is None:
        return held / total * float(np.mean([values[place] for place in places]))
    return held / (total + EMPTY_WEIGHT * (float(covered.sum()) - held))


def _window_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sums over the square of ``side`` pixels around each pixel; 0 outside the image."""
    before, after = side // 2 + 1, side - 1 - side // 2
    sums = np.pad(values, ((before, after), (before, after))).cumsum(axis=0).cumsum(axis=1)
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]


def _places(values: np.ndarray, most: int, apart: int, least: float) -> list[tuple[int, int]]:
    """The largest values above ``least``, no two within ``apart`` pixels of each other in x and in y."""
    left, places = values.copy(), []
    for _ in range(most):
        row, column = divmod(int(left.argmax()), left.shape[1])
        if left[row, column] <= least:
            break
        places.append((row, column))
        left[max(0, row - apart) : row + apart + 1, max(0, column - apart) : column + apart + 1] = -np.inf
    return places
