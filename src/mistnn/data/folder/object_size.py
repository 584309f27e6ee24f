"""How large the objects of some images are, guessed from their pixels and, where known, their numbers.

What differs from an image's most common colour is called ink. For every size of a geometric range, squares of that
size are put, one after the other, where they hold most ink, never closer than half their side. The size whose squares
fit the ink best is that of the objects. Everything is deterministic and nothing is learnt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

LONGEST_SIDE = 400
"""Images are shrunk until no side is longer, in pixels (our choice)."""
SMALLEST, LARGEST = 3, 24
"""Sides of the squares in pixels of the copy they are tried on; copies are halved for larger ones (our choice)."""
STEPS_PER_OCTAVE = 6
"""Sizes tried between one and its double: steps of 12 % (our choice)."""
LARGEST_SHARE = 0.9
"""No square is larger than this share of the shorter side of an image (our choice)."""
EMPTY_WEIGHT = 0.8
"""What empty area in the squares counts beside ink outside them: letters are no solid squares (our choice, on discs,
rings, digits and training images of blood cells; at 1 digits come out a tenth smaller, at 0.7 red cells a tenth
larger)."""
MOST_SQUARES = 60
"""Squares in an image whose number of objects is unknown (our choice)."""
FALLBACK_SHARE = 0.25
"""Size where nothing differs from the background, as a share of the shorter side (our choice)."""
ROUND = 2 / math.sqrt(math.pi)
"""Diameter of the disc that has the area of a square of side 1: squares fit a disc best at its area."""

_LEVELS = 64  # Of grey, to find the most common one.


class SizeSuggestion(NamedTuple):
    """A guess and where it comes from.

    Attributes:
        size: typical diameter of an object, in pixels of the images as they were given.
        why: one line for the user.
    """

    size: float
    why: str


def suggest_object_size(
    images: Sequence[Float[Tensor, "channels _ _"]], counts: Sequence[int] | None = None
) -> SizeSuggestion:
    """Guesses the typical diameter of the objects.

    With counts there are as many squares as objects, and the best size has the largest ink inside / (ink + 0.8 x
    empty area inside). Without, squares are added as long as one stands out from its surroundings at least half
    as much as the first, and the best size has the largest (how much they stand out) x (share of the ink inside). Thin
    rings and strokes are then seen as many small objects: counts help. Several images are averaged.

    Args:
        images: (channels, height, width), in [0, 1]; they may differ in size, and are used one after the other. A dozen
            is enough.
        counts: objects in each image, of all classes together; images without objects are passed over.

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
            size, "nothing stands out from the background, or no image holds an object: a quarter of an image's side"
        )
    step = max(totals, key=lambda step: totals[step])
    side = 2.0 ** (step / STEPS_PER_OCTAVE)
    many = f"{used} images" if used > 1 else "1 image"
    if counts is None:
        why = f"squares of {side:.0f} px stand out best from their surroundings, in {many} without counts"
    else:
        share = totals[step] / used
        why = f"squares of {side:.0f} px, as many as objects, fit what is not background best ({share:.0%})"
        why += f", in {many}"
    return SizeSuggestion(side * ROUND, f"{why}; a disc of that area is {side * ROUND:.0f} px wide")


def _scores(image: Tensor, number: int | None) -> dict[int, float]:
    """How well each size fits an image: step of the geometric range (in pixels of the image) -> score."""
    longest, shortest = max(image.shape[-2:]), min(image.shape[-2:])
    if longest > LONGEST_SIDE:
        image = _shrunk(image, LONGEST_SIDE / longest)
    ink = _ink(image.detach().to("cpu", torch.float64).numpy())
    scores: dict[int, float] = {}
    factor = longest / max(ink.shape)  # pixels of the image to one of the copy
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


def _shrunk(image: Tensor, factor: float) -> Tensor:
    size = [max(1, round(side * factor)) for side in image.shape[-2:]]
    resized = torch.nn.functional.interpolate(
        image[None].float(), size=size, mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0]


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
    """The threshold that leaves the least variance within the two groups.

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
        # Equal windows, such as those within one large spot: the one with most ink around it.
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
    """Sum over the square of ``side`` pixels around each pixel; nothing lies outside the image."""
    before, after = side // 2 + 1, side - 1 - side // 2
    sums = np.pad(values, ((before, after), (before, after))).cumsum(axis=0).cumsum(axis=1)
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]


def _places(values: np.ndarray, most: int, apart: int, least: float) -> list[tuple[int, int]]:
    """The largest values above ``least``, no two within ``apart`` pixels of each other in both x and y."""
    left, places = values.copy(), []
    for _ in range(most):
        row, column = divmod(int(left.argmax()), left.shape[1])
        if left[row, column] <= least:
            break
        places.append((row, column))
        left[max(0, row - apart) : row + apart + 1, max(0, column - apart) : column + apart + 1] = -np.inf
    return places
