"""Classical blob detection, a baseline without learning: threshold, distance transform, watershed."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from skimage.segmentation import watershed
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
    ink = _ink(image, config.size, config.ground)
    mask, depth = _depth(ink, config.factor)
    regions = _regions(mask, depth, config.apart)
    scale = np.array(image.shape[:0:-1]) / np.array(ink.shape[::-1])  # (x, y), image pixels per copy pixel
    boxes = []
    large = _areas(regions) >= _least_area(config.least)
    for place in itertools.compress(ndimage.find_objects(regions), large):
        low, high = np.array([(one.start, one.stop) for one in reversed(place)]).T
        boxes.append(np.concatenate(((low + high) / 2 * scale, (high - low) * scale)))
    found = torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32)
    return Detections(found, torch.ones(len(found)), torch.zeros(len(found), dtype=torch.int64))


def _ink(image: Tensor, size: float, ground: Ground) -> np.ndarray:
    """How much each pixel differs from the background, (height, width), where objects are ``SIDE`` pixels wide."""
    return prepare(image[None], PreparationConfig(SIDE / size, ground))[0].amax(0).double().numpy()


def _depth(ink: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of blobs, and their smoothed distances to the nearest edge."""
    mask = ndimage.binary_fill_holes(ink > max(factor * otsu(ink), 1e-6))
    assert mask is not None
    return mask, ndimage.gaussian_filter(np.asarray(ndimage.distance_transform_edt(mask)), SIDE / 15)


def _regions(mask: np.ndarray, depth: np.ndarray, apart: float) -> np.ndarray:
    """The number of the blob of each pixel, from 1; 0 for the background."""
    window = 2 * round(apart * SIDE / 2) + 1
    tops = mask & (depth == ndimage.maximum_filter(depth, size=window))
    seeds, _ = ndimage.label(tops, structure=np.ones((3, 3)))
    return watershed(-depth, seeds, mask=mask)


def _areas(regions: np.ndarray) -> np.ndarray:
    """The number of pixels of each blob."""
    return np.bincount(regions.ravel())[1:]


def _least_area(least: float) -> float:
    return least * np.pi / 4 * SIDE**2


def _counts(image: Tensor, size: float, ground: Ground) -> Iterator[int]:
    """The number of blobs in an image with each setting, in the order of the product of ``FACTORS``, ..."""
    ink = _ink(image, size, ground)
    for factor in FACTORS:
        mask, depth = _depth(ink, factor)
        for apart in APARTS:
            areas = _areas(_regions(mask, depth, apart))
            for least in LEASTS:
                yield int((areas >= _least_area(least)).sum())


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

    found = np.array([list(_counts(image, size, ground)) for image in images])
    errors = np.abs(found - np.array(counts)[:, None]).sum(0)
    tried = list(itertools.product(FACTORS, APARTS, LEASTS))
    return BlobConfig(size, ground, *tried[int(errors.argmin())])
