"""The records every layer shares: array shapes, samples, batches and detections.

This is the leaf of the package: it imports nothing of it.

Convention (see ``mistnn.ops.coordinates``): x points right and y down, the centre of the first pixel is at
(0.5, 0.5), and a box is (centre x, centre y, width, height) in pixels of the image it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
Heatmap = Float[Tensor, "batch height width"]
Heatmaps = Float[Tensor, "batch scales height width"]
Points = Float[Tensor, "batch k 2"]
Keypoints = Float[Tensor, "batch k 3"]
Boxes = Float[Tensor, "batch k 4"]
Patches = Float[Tensor, "batch k channels size size"]


class Sample(NamedTuple):
    """One image with whatever is known about it. A missing annotation is ``None``, never a fake zero.

    Attributes:
        image: (channels, height, width), values in [0, 1].
        counts: (classes,), how many objects of each class the image holds. This is all that MIST trains on.
        boxes: (objects, 4), used to evaluate, never to train MIST.
        labels: (objects,), the class of each box, in the order of ``boxes``.
        presence: (classes,), whether each class is there, where that is known and the counts are not.
        size: height and width of what is seen, where the image is padded at the right and at the bottom.
    """

    image: Float[Tensor, "channels height width"]
    counts: Int[Tensor, " classes"] | None = None
    boxes: Float[Tensor, "objects 4"] | None = None
    labels: Int[Tensor, " objects"] | None = None
    presence: Bool[Tensor, " classes"] | None = None
    size: Int[Tensor, " 2"] | None = None


class Batch(NamedTuple):
    """Several samples of one size. Boxes and labels stay lists: images may hold different numbers of objects."""

    images: Float[Tensor, "batch channels height width"]
    counts: Int[Tensor, "batch classes"] | None = None
    boxes: list[Tensor] | None = None
    labels: list[Tensor] | None = None
    presence: Bool[Tensor, "batch classes"] | None = None
    sizes: Int[Tensor, "batch 2"] | None = None


class Detections(NamedTuple):
    """What was found in one image, the best first.

    Attributes:
        boxes: (found, 4), centre x, centre y, width, height in pixels.
        scores: (found,), in [0, 1].
        labels: (found,), or ``None`` where the model has no classes.
    """

    boxes: Float[Tensor, "found 4"]
    scores: Float[Tensor, " found"]
    labels: Int[Tensor, " found"] | None = None


class Explanation(NamedTuple):
    """What a model makes of images.

    Attributes:
        detections: one an image.
        reconstruction: (batch, channels, height, width), or ``None`` where the model doesn't reconstruct.
    """

    detections: list[Detections]
    reconstruction: Float[Tensor, "batch channels height width"] | None


def collate(samples: Sequence[Sample]) -> Batch:
    """Joins samples of one size into a batch.

    Args:
        samples: at least one; an annotation must be present in all of them or in none.

    Raises:
        ValueError: if there is no sample, if the image shapes differ, or if only some carry an annotation.
    """
    if not samples:
        raise ValueError("collate needs at least one sample, got none")
    shapes = {tuple(sample.image.shape) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(f"the images of a batch must have one shape, got {sorted(shapes)}")
    for name in ("counts", "boxes", "labels", "presence", "size"):
        present = [getattr(sample, name) is not None for sample in samples]
        if any(present) and not all(present):
            raise ValueError(f"{sum(present)} of {len(samples)} samples carry {name}: all of them must, or none")
    first = samples[0]
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        counts=None
        if first.counts is None
        else torch.stack([sample.counts for sample in samples if sample.counts is not None]),
        boxes=None if first.boxes is None else [sample.boxes for sample in samples if sample.boxes is not None],
        labels=None if first.labels is None else [sample.labels for sample in samples if sample.labels is not None],
        presence=None
        if first.presence is None
        else torch.stack([sample.presence for sample in samples if sample.presence is not None]),
        sizes=None
        if first.size is None
        else torch.stack([sample.size for sample in samples if sample.size is not None]),
    )
