"""Finds a linear heat map for each class: as many peaks as an image has objects, all alike.

The search alternates the two halves of Algorithm 1 of MIST for a linear heat map in whitened features. E_K selects as
many peaks in each image as it holds objects of the class. The heat map then becomes the mean of their features, less
that of the best peaks of images without the class: Fisher's linear discriminant between peaks and everything else. The
search starts from several directions, and the best result is kept. This finds a class even if every image holds exactly
one of its objects, where counts alone say nothing. Not in the papers.

Three measures choose the best. Contrast: selected peaks stand out from the others. Correlation: the number of strong
peaks follows the counts. Coverage: the peaks lie in the middle of regions whose area follows the counts
(``regions.py``). Without the last, the gaps between touching objects are taken for them: there are as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mistnn.models.photos.regions import areas_of, clusterings, joined

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
STRONG = 0.3
"""Peaks above this quantile of the selected ones are strong (our choice)."""
CLUSTERED, CLUSTERED_CELLS = 24, 40_000
"""Directions by which the cells are clustered, and cells from which the clusters are learned (our choice)."""
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
        quality: of the search, for each class; see ``_Found``.
    """

    weight: Tensor
    bias: Tensor
    quality: Tensor


class _Found(NamedTuple):
    """What the search has found from one start.

    Attributes:
        quality: the sum of contrast, correlation and coverage. Contrast: the difference of the lowest peak that was
            selected in an image and the highest that was not, in means and standard deviations over the images.
            Correlation: of the number of strong peaks with the counts. Coverage: the share of the windows around
            selected peaks that lies in the regions of the class.
        direction: (directions,), of length 1.
    """

    quality: float
    direction: Tensor


class _Scenes(NamedTuple):
    """Images as the search of one class sees them.

    Attributes:
        maps: (images, rows, columns, directions), whitened.
        inside: (images, rows, columns).
        counts: (images,).
        covered: (images, rows, columns), how much of the window around a cell lies in the regions of the class.
    """

    maps: Tensor
    inside: Tensor
    counts: Tensor
    covered: Tensor

    def every(self, step: int) -> _Scenes:
        """Every so many images."""
        return _Scenes(*(one[::step] for one in self))


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
    maps.clear()  # as large as the padded ones
    random = torch.Generator().manual_seed(seed)
    regions = _regions(padded, inside, counts[used], random)
    weights, qualities = [], []
    for numbers, region in zip(counts[used].T, regions, strict=True):
        covered = F.avg_pool2d(region[:, None], window, 1, window // 2)[:, 0]
        best = _search(_Scenes(padded, inside, numbers, covered), region, window, random)
        chosen = _peaks(padded, inside, numbers, best.direction, window).chosen
        gain = 3 * LOGIT / (chosen @ best.direction).clamp(min=1e-3)
        weights.append(gain * (whitening @ best.direction))
        qualities.append(best.quality)
    weight = torch.stack(weights)
    return Templates(weight, -2 * LOGIT - weight @ mean, torch.tensor(qualities))


def _regions(maps: Tensor, inside: Tensor, counts: Tensor, random: torch.Generator) -> Tensor:
    """The share of the clusterings that put each cell into a region whose area follows the number of objects.

    Args:
        maps: (images, rows, columns, directions), whitened.
        inside: (images, rows, columns).
        counts: (images, classes).

    Returns:
        (classes, images, rows, columns).
    """
    values = [one[within][:, -CLUSTERED:] for one, within in zip(maps, inside, strict=True)]
    cells = torch.cat(values)
    some = cells[torch.randperm(len(cells), generator=random)[:CLUSTERED_CELLS]]
    shares = torch.zeros(counts.shape[1], len(cells))
    found = clusterings(some.numpy(), [one.numpy() for one in values])
    for nearest in found:
        areas, everywhere = areas_of(nearest), np.concatenate(nearest)
        for share, numbers in zip(shares, counts.T, strict=True):
            best = joined(areas, numbers.numpy().astype(float))
            if best.correlation > 0:
                share += torch.from_numpy(np.isin(everywhere, best.clusters)) / len(found)
    regions = torch.zeros(counts.shape[1], *inside.shape)
    regions[:, inside] = shares
    return regions


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


def _search(scenes: _Scenes, region: Tensor, window: int, random: torch.Generator) -> _Found:
    """The best direction of one class; ``region`` is (images, rows, columns)."""
    some = scenes.every(SHARE if len(scenes.counts) >= MANY else 1)
    starts = list(torch.randn(STARTS, scenes.maps.shape[-1], generator=random))
    excess = (scenes.covered - scenes.covered[scenes.inside].mean()).clamp(min=0) * scenes.inside
    starts += [(scenes.maps * weight[..., None]).sum((0, 1, 2)) for weight in (region, excess) if weight.any()]
    first = sorted((_alternated(some, start, window) for start in starts), key=lambda one: -one.quality)
    return max((_alternated(scenes, one.direction, window) for one in first[:KEPT]), key=lambda one: one.quality)


def _alternated(scenes: _Scenes, direction: Tensor, window: int) -> _Found:
    """What alternation leads to from one direction."""
    direction = direction / direction.norm().clamp(min=1e-12)
    maps, inside, counts, covered = scenes
    weight = float((counts == 0).float().mean())
    for turn in range(ROUNDS):
        peaks = _peaks(maps, inside, counts, direction, window)
        new = peaks.chosen - weight * min(1.0, turn / EASY) * peaks.wrong
        before, direction = direction, new / new.norm().clamp(min=1e-12)
        if before @ direction > 0.999:
            break
    peaks = _peaks(maps, inside, counts, direction, window)
    if min(len(peaks.high), len(peaks.low)) < 2:
        return _Found(0.0, direction)
    spread = (peaks.high.var() + peaks.low.var()).clamp(min=1e-12).sqrt()
    contrast = float((peaks.high.mean() - peaks.low.mean()) / spread)
    coverage = float(covered.flatten(1).gather(1, peaks.places)[peaks.selected].mean())
    return _Found(contrast + _correlation(peaks.strong, counts) + coverage, direction)


def _correlation(found: Tensor, counts: Tensor) -> float:
    """0 if one of them is the same in all images."""
    both = torch.stack((found, counts)).double()
    return float(torch.corrcoef(both)[0, 1]) if bool((both.std(1) > 0).all()) else 0.0


class _Peaks(NamedTuple):
    """The peaks of a class in all images.

    Attributes:
        chosen: (directions,), mean features of the selected peaks.
        wrong: (directions,), mean features of the best peak of images without an object; 0 if there is none.
        high: the lowest response that was selected, of each image with objects.
        low: the highest that was not.
        strong: (images,), the number of strong peaks.
        places: (images, most), the cells of the highest peaks, row by row.
        selected: (images, most), which of them are selected.
    """

    chosen: Tensor
    wrong: Tensor
    high: Tensor
    low: Tensor
    strong: Tensor
    places: Tensor
    selected: Tensor


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
    least = torch.quantile(values[selected], STRONG) if selected.any() else torch.tensor(torch.inf)
    return _Peaks(
        flat[images[selected], places[selected]].mean(0) if selected.any() else zero,
        flat[images[wrong], places[wrong]].mean(0) if wrong.any() else zero,
        values[(order == counts[:, None] - 1) & real],
        values[(order == counts[:, None]) & real],
        (scores > least).sum(1),
        places,
        selected,
    )
