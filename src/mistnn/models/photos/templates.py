"""Finds a linear heat map for each class: as many peaks as an image has objects, all alike.

The search alternates the two halves of Algorithm 1 of MIST for a linear heat map in whitened features. E_K selects as
many peaks in each image as it holds objects of the class. The heat map then becomes the mean of their features, less
that of the best peaks of images without the class: Fisher's linear discriminant between peaks and everything else. The
search starts from several random directions. The one whose selected peaks stand out most is kept. This finds a class
even if every image holds exactly one of its objects, where counts alone say nothing. Not in the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

DIRECTIONS = 64
"""Principal components of the features that are kept (our choice)."""
LEAST_DIRECTIONS = 16
"""At most as many are kept as there are images, but not fewer than this (our choice)."""
STARTS = 16
"""Random directions from which the search starts (our choice)."""
SHARE, KEPT = 3, 3
"""All starts see every third image; the best three go on with all of them (our choice)."""
MANY = 60
"""With fewer images, all starts see all of them (our choice)."""
ROUNDS = 15
"""The most alternations (our choice)."""
EASY = 5
"""The peaks of images without the class get their full weight after so many alternations (our choice)."""
ROOM = 500_000
"""Cells of all images together; more images are left out (our choice)."""
LOGIT = 2.0
"""The mean of the heat map before the logistic function at selected peaks; everywhere it is -2 of it (our choice)."""


class Templates(NamedTuple):
    """A linear heat map for each class, before the logistic function.

    Attributes:
        weight: (classes, channels).
        bias: (classes,).
        contrast: (classes,), the difference of the lowest peak that was selected in an image and the highest that was
            not, in means and standard deviations over the images.
    """

    weight: Tensor
    bias: Tensor
    contrast: Tensor


def find_templates(
    features: Callable[[int], Float[Tensor, "channels rows columns"]],
    counts: Int[Tensor, "images classes"],
    window: int,
    seed: int = 0,
) -> Templates:
    """Searches a template for each class.

    Args:
        features: of an image, given its number; sizes may differ. It is called twice for each.
        counts: the number of objects in each image.
        window: side in cells of the window of non-maximum suppression, odd.
        seed: of the random starts.
    """
    used = _within(features, len(counts))
    mean, whitening = _whitening(features, used)
    maps = [torch.einsum("cq,chw->hwq", whitening, features(index) - mean[:, None, None]) for index in used]
    rows, columns = (max(one.shape[axis] for one in maps) for axis in (0, 1))
    padding = [(0, columns - one.shape[1], 0, rows - one.shape[0]) for one in maps]
    padded = torch.stack([F.pad(one, (0, 0, *pad)) for one, pad in zip(maps, padding, strict=True)])
    shapes = [torch.ones(one.shape[:2], dtype=torch.bool) for one in maps]
    inside = torch.stack([F.pad(one, pad) for one, pad in zip(shapes, padding, strict=True)])
    random = torch.Generator().manual_seed(seed)
    found = [_search(padded, inside, one, window, random) for one in counts[used].T]
    weight = torch.stack([gain * (whitening @ direction) for direction, gain, _ in found])
    contrast = torch.tensor([contrast for _, _, contrast in found])
    return Templates(weight, -2 * LOGIT - weight @ mean, contrast)


def _within(features: Callable[[int], Tensor], number: int) -> list[int]:
    """Images, evenly spaced, that have at most ``ROOM`` cells together, if all are like the first."""
    cells = features(0)[0].numel()
    step = max(1.0, number * cells / ROOM)
    return sorted({int(index * step) for index in range(number) if index * step < number})


def _whitening(features: Callable[[int], Tensor], used: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The mean of the features, (channels,), and (channels, directions), which whitens them."""
    total, square, cells = torch.zeros(()), torch.zeros(()), 0
    for index in used:
        flat = features(index).flatten(1).double()
        total, square, cells = total + flat.sum(1), square + flat @ flat.T, cells + flat.shape[1]
    mean = total / cells
    values, vectors = torch.linalg.eigh(square / cells - torch.outer(mean, mean))
    kept = slice(-min(DIRECTIONS, len(values), max(len(used), LEAST_DIRECTIONS)), None)
    return mean.float(), (vectors[:, kept] / values[kept].clamp(min=1e-6).sqrt()).float()


def _search(
    maps: Tensor, inside: Tensor, counts: Tensor, window: int, random: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Direction, gain and contrast of one class.

    Args:
        maps: (images, rows, columns, directions), whitened.
        inside: (images, rows, columns).
        counts: (images,).
    """
    some = slice(None, None, SHARE if len(counts) >= MANY else 1)
    starts = torch.randn(STARTS, maps.shape[-1], generator=random)
    first = [_alternated(maps[some], inside[some], counts[some], one, window) for one in starts]
    best = sorted(first, key=lambda one: -one[0])[:KEPT]
    contrast, direction = max(
        (_alternated(maps, inside, counts, direction, window) for _, direction in best), key=lambda one: one[0]
    )
    chosen = _peaks(maps, inside, counts, direction, window).chosen
    return direction, 3 * LOGIT / (chosen @ direction).clamp(min=1e-3), contrast


def _alternated(maps: Tensor, inside: Tensor, counts: Tensor, direction: Tensor, window: int) -> tuple[float, Tensor]:
    """The contrast and the direction that alternation leads to."""
    direction = direction / direction.norm()
    weight = float((counts == 0).float().mean())
    for turn in range(ROUNDS):
        peaks = _peaks(maps, inside, counts, direction, window)
        new = peaks.chosen - weight * min(1.0, turn / EASY) * peaks.wrong
        before, direction = direction, new / new.norm().clamp(min=1e-12)
        if before @ direction > 0.999:
            break
    peaks = _peaks(maps, inside, counts, direction, window)
    if min(len(peaks.high), len(peaks.low)) < 2:
        return 0.0, direction
    spread = (peaks.high.var() + peaks.low.var()).clamp(min=1e-12).sqrt()
    return float((peaks.high.mean() - peaks.low.mean()) / spread), direction


class _Peaks(NamedTuple):
    """The peaks of a class in all images.

    Attributes:
        chosen: (directions,), mean features of the selected peaks.
        wrong: (directions,), mean features of the best peak of images without an object; 0 if there is none.
        high: the lowest response that was selected, of each image with objects.
        low: the highest that was not.
    """

    chosen: Tensor
    wrong: Tensor
    high: Tensor
    low: Tensor


def _peaks(maps: Tensor, inside: Tensor, counts: Tensor, direction: Tensor, window: int) -> _Peaks:
    """E_K of the linear heat map in all images."""
    response = F.avg_pool2d((maps @ direction)[:, None], 3, 1, 1, count_include_pad=False)
    response = response.masked_fill(~inside[:, None], -torch.inf)
    peak = response >= F.max_pool2d(response, window, 1, window // 2)
    scores = torch.where(peak, response, -torch.inf).flatten(1)
    most = min(int(counts.max()) + 1, scores.shape[1])
    values, places = scores.topk(most, dim=1)
    order, real = torch.arange(most), values.isfinite()
    selected = (order < counts[:, None]) & real
    wrong = (order == 0) & (counts == 0)[:, None] & real
    flat = maps.flatten(1, 2)
    images = torch.arange(len(maps))[:, None].expand_as(places)
    zero = direction.new_zeros(len(direction))
    return _Peaks(
        flat[images[selected], places[selected]].mean(0) if selected.any() else zero,
        flat[images[wrong], places[wrong]].mean(0) if wrong.any() else zero,
        values[(order == counts[:, None] - 1) & real],
        values[(order == counts[:, None]) & real],
    )
