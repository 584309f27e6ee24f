"""Classical blob detection, a baseline without learning: threshold, distance transform, watershed."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from mistnn.data.folder.object_size import otsu
from mistnn.nn.preparation import Ground, PreparationConfig, prepare
from mistnn.records import Detections

SIDE = 30.0
"""Width in pixels to which objects are resized first."""
FACTORS, APARTS, LEASTS = (0.6, 0.8, 1.0, 1.2), (0.5, 0.75, 1.0), (0.1, 0.25, 0.5)
"""The values that ``choose_blobs`` tries."""


@dataclass(frozen=True)
class BlobConfig:
    """What counts as a blob.

    Attributes:
        size: width of an object, in pixels of the image.
        ground: how the background is subtracted, see ``PreparationConfig``.
        factor: a pixel above this multiple of Otsu's threshold belongs to a blob.
        apart: least distance between the centres of two blobs, in sizes.
        least: smallest area, as a share of a disc of that size.
    """

    size: float
    ground: Ground
    factor: float = 1.0
    apart: float = 0.75
    least: float = 0.25


def find_blobs(image: Float[Tensor, "channels height width"], config: BlobConfig) -> Detections:
    """The blobs of an image in [0, 1]: one class, all scores 1, boxes in pixels of the image.

    Regions that differ from the background by more than the threshold are filled, then split along the valleys of
    the distance to the nearest edge.
    """
    prepared = prepare(image[None], PreparationConfig(SIDE / config.size, config.ground))[0]
    ink = prepared.amax(0).double().numpy()
    mask = ndimage.binary_fill_holes(ink > max(config.factor * otsu(ink), 1e-6))
    assert mask is not None
    depth = ndimage.gaussian_filter(np.asarray(ndimage.distance_transform_edt(mask)), SIDE / 15)
    window = 2 * round(config.apart * SIDE / 2) + 1
    tops = mask & (depth == ndimage.maximum_filter(depth, size=window))
    seeds = np.zeros(ink.shape, dtype=np.int32)
    count = ndimage.label(tops, structure=np.ones((3, 3)), output=seeds)
    scale = np.array(image.shape[:0:-1]) / np.array(ink.shape[::-1])  # (x, y), image pixels per copy pixel
    boxes = []
    if count:
        regions = watershed(depth, seeds, mask)
        least = config.least * np.pi / 4 * SIDE**2
        for number, place in enumerate(ndimage.find_objects(regions), 1):
            if place is not None and (regions[place] == number).sum() >= least:
                low, high = np.array([(one.start, one.stop) for one in reversed(place)]).T
                boxes.append(np.concatenate(((low + high) / 2 * scale, (high - low) * scale)))
    found = torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32)
    return Detections(found, torch.ones(len(found)), torch.zeros(len(found), dtype=torch.int64))


def watershed(
    depth: Float[np.ndarray, "height width"],
    seeds: Int[np.ndarray, "height width"],
    mask: Bool[np.ndarray, "height width"],
) -> Int[np.ndarray, "height width"]:
    """Grows seeds over a mask, deepest pixel first, so that they meet in the valleys between them.

    Args:
        depth: of each pixel inside its blob.
        seeds: the number of each seed at its pixels, 0 elsewhere; so is the result for the pixels that it reached.
        mask: where seeds may grow, from a pixel to its four neighbours.
    """
    regions = np.where(mask, seeds, 0)
    edge = [(-depth[row, column], row, column) for row, column in np.argwhere(regions > 0).tolist()]
    heapq.heapify(edge)
    height, width = regions.shape
    while edge:
        _, row, column = heapq.heappop(edge)
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            y, x = row + down, column + right
            if 0 <= y < height and 0 <= x < width and mask[y, x] and not regions[y, x]:
                regions[y, x] = regions[row, column]
                heapq.heappush(edge, (-depth[y, x], y, x))
    return regions


def choose_blobs(images: Sequence[Tensor], counts: Sequence[int], size: float, ground: Ground) -> BlobConfig:
    """The settings with the least mean absolute count error on some images; no boxes are used.

    Args:
        images: of the training split, (channels, height, width) in [0, 1].
        counts: the number of objects in each.
        size, ground: see ``BlobConfig``.

    Raises:
        ValueError: if there is no image, or not one count for each.
    """
    if not images or len(images) != len(counts):
        raise ValueError(
            f"got {len(images)} images and {len(counts)} counts: give one count for each, and at least one"
        )

    def error(config: BlobConfig) -> int:
        return sum(abs(len(find_blobs(one, config).boxes) - k) for one, k in zip(images, counts, strict=True))

    return min((BlobConfig(size, ground, *tried) for tried in itertools.product(FACTORS, APARTS, LEASTS)), key=error)
