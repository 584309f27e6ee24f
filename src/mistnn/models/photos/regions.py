"""Regions of images that look alike and whose area follows the number of objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.vq import kmeans2, vq

CLUSTERS = 12
"""Number of clusters (our choice)."""
STARTS = 8
"""Clusterings with different starts (our choice)."""


class Joined(NamedTuple):
    """Clusters whose area follows the counts.

    Attributes:
        clusters: their indices.
        area: (images,), their cells in each image.
        correlation: of the area with the counts.
    """

    clusters: tuple[int, ...]
    area: np.ndarray
    correlation: float


def clusterings(some: np.ndarray, images: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Divides the cells of all images by their features, ``STARTS`` times.

    Args:
        some: (cells, channels), the features from which the centres of the clusters are learned.
        images: (cells, channels) of each image.

    Returns:
        For each clustering and image the cluster of each cell.
    """
    found = []
    for start in range(STARTS):
        seed: dict[str, Any] = {"seed": start}  # newer stubs of SciPy know it as rng, older versions don't
        centres, _ = kmeans2(some, CLUSTERS, iter=20, minit="++", **seed)
        found.append([vq(one, centres)[0] for one in images])
    return found


def areas_of(nearest: Sequence[np.ndarray]) -> np.ndarray:
    """The number of cells of each cluster in each image, (images, clusters)."""
    return np.stack([np.bincount(one, minlength=CLUSTERS) for one in nearest]).astype(float)


def joined(areas: np.ndarray, counts: np.ndarray) -> Joined:
    """Joins clusters as long as their area follows the counts.

    The next is always the one with which the correlation is highest. Several areas may follow the counts equally well,
    such as a part of each object and the whole: the largest counts whose correlation is within one standard error of
    the highest.

    Args:
        areas: (images, clusters).
        counts: (images,).
    """
    total, left, path = np.zeros(len(areas)), list(range(areas.shape[1])), []
    chosen: tuple[int, ...] = ()
    while len(left) > 1:  # all clusters together are the whole image
        best = max(left, key=lambda one: (_correlation(total + areas[:, one], counts), one))
        left.remove(best)
        chosen, total = (*chosen, best), total + areas[:, best]
        path.append(Joined(chosen, total, _correlation(total, counts)))
    highest = max(one.correlation for one in path)
    error = (1 - highest**2) / math.sqrt(len(counts))
    return [one for one in path if one.correlation >= highest - error][-1]


def _correlation(area: np.ndarray, counts: np.ndarray) -> float:
    return float(np.corrcoef(area, counts)[0, 1]) if area.std() > 0 and counts.std() > 0 else -1.0
