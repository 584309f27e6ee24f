"""Estimates the size of the objects in photographs from pretrained features and counts.

The cells of some images are clustered by their features. Clusters whose area follows the number of objects are joined
(``models.photos.regions``). The area for each object is that of a box. The estimate is the geometric mean of those of
several clusterings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from mistnn.data import SizeSuggestion
from mistnn.data.folder.images import FolderImage, evenly, load_image
from mistnn.models.photos.regions import areas_of, clusterings, joined
from mistnn.nn.preparation import PreparationConfig, prepare
from mistnn.nn.pyramid import Pyramid, PyramidConfig, resample

IMAGES = 96
"""Images from which the size is estimated, evenly spaced (our choice)."""
CELLS = 40_000
"""Cells that are clustered (our choice)."""
DIRECTIONS = 24
"""Principal components of the features that are kept (our choice)."""
LEAST_CORRELATION = 0.2
"""If no area follows the counts better than this, there is no estimate (our choice)."""
FEWEST = 8
"""With fewer images there is no estimate (our choice)."""
LEAST_CELLS = 7
"""Objects of fewer cells are measured again on the grid of half the stride (our choice)."""


_Maps: TypeAlias = dict[int, tuple[torch.Tensor, float]]
"""Of an image: stride of a map of features -> the map, and where its first cell lies."""


def photo_size(
    images: Sequence[FolderImage], preparation: PreparationConfig, network: PyramidConfig
) -> SizeSuggestion | None:
    """The typical side of an object in pixels of the images before preparation.

    Args:
        images: with counts; a sample of them is used.
        preparation: how images are prepared for the network; sizes are measured after it.
        network: computes the features; its strides are not used.

    Returns:
        ``None`` if nothing in the images follows the counts, for example because all counts are equal.
    """
    known = evenly([image for image in images if image.counts is not None], IMAGES)
    counts = np.array([sum(image.counts or ()) for image in known], dtype=float)
    if len(known) < FEWEST or counts.std() == 0:
        return None
    prepared = [prepare(load_image(image, 3)[None], preparation) for image in known]
    maps = _maps(network, (8, 16, 32), prepared)
    for stride in (16, 8, 4):
        if stride == 4:  # not above: few objects are so small, and these maps are large
            maps = _maps(network, (4, 8), prepared)
        sizes = [[-(-side // stride) for side in image.shape[-2:]] for image in prepared]
        found = _size([_features(*one, stride) for one in zip(maps, sizes, strict=True)], counts, stride)
        if found is None:
            return None
        if found[0] >= LEAST_CELLS * stride:
            break
    size, correlation = found[0] / preparation.zoom, found[1]
    return SizeSuggestion(
        size,
        f"what follows the counts best in {len(known)} images, correlation {correlation:.2f}, has for each object the "
        f"area of a square of {size:.0f} px",
    )


def _maps(network: PyramidConfig, strides: tuple[int, ...], images: Sequence[torch.Tensor]) -> list[_Maps]:
    """The features of each image."""
    pyramid = Pyramid(PyramidConfig(network.network, network.weights, strides))
    pyramid.load_pretrained()
    return [
        {
            step: (one, first)
            for one, step, first in zip(pyramid.unpack(pyramid(image)), pyramid.strides, pyramid.firsts, strict=True)
        }
        for image in images
    ]


def _features(maps: _Maps, size: Sequence[int], stride: int) -> torch.Tensor:
    """(cells, channels): those of the stride and of twice the stride."""
    both = [
        resample(one, step, first, stride, size) for step, (one, first) in maps.items() if step in (stride, 2 * stride)
    ]
    return torch.cat(both, 1)[0].flatten(1).T


def _size(features: Sequence[torch.Tensor], counts: np.ndarray, stride: int) -> tuple[float, float] | None:
    """The side of an object in pixels, and the correlation of the area with the counts."""
    everything = torch.cat(list(features))
    mean, deviation = everything.mean(0), everything.std(0).clamp(min=1e-6)
    random = torch.Generator().manual_seed(0)
    some = everything[torch.randperm(len(everything), generator=random)[:CELLS]]
    normal = (some - mean) / deviation
    directions = torch.linalg.eigh(normal.T @ normal).eigenvectors[:, -DIRECTIONS:]
    reduced = [((one - mean) / deviation @ directions).numpy() for one in features]
    sizes, correlations = [], []
    for nearest in clusterings((normal @ directions).numpy(), reduced):
        found = joined(areas_of(nearest), counts)
        sizes.append(stride * math.sqrt((found.area * counts).sum() / (counts**2).sum()))
        correlations.append(found.correlation)
    if np.median(correlations) < LEAST_CORRELATION:
        return None
    return float(np.exp(np.mean(np.log(sizes)))), float(np.median(correlations))
