"""The records that all layers share: array shapes, samples, batches and detections.

A leaf of the package: it imports nothing from it.

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
    """One image and its annotations. A missing annotation is ``None``, never a fake zero.

    Attributes:
        image: (channels, height, width), values in [0, 1].
        counts: (classes,), the number of objects of each class. MIST trains on nothing else.
        boxes: (objects, 4), used to evaluate MIST, never to train it.
        labels: (objects,), the class of each box, in the order of ``boxes``.
        presence: (classes,), whether the image shows each class, for data without counts.
        size: height and width of the visible part, for an image that is padded on the right and at the bottom.
    """

    image: Float[Tensor, "channels height width"]
    counts: Int[Tensor, " classes"] | None = None
    boxes: Float[Tensor, "objects 4"] | None = None
    labels: Int[Tensor, " objects"] | None = None
    presence: Bool[Tensor, " classes"] | None = None
    size: Int[Tensor, " 2"] | None = None


class Batch(NamedTuple):
    """Several samples of one size. Boxes and labels stay lists, because the numbers of objects differ."""

    images: Float[Tensor, "batch channels height width"]
    counts: Int[Tensor, "batch classes"] | None = None
    boxes: list[Tensor] | None = None
    labels: list[Tensor] | None = None
    presence: Bool[Tensor, "batch classes"] | None = None
    sizes: Int[Tensor, "batch 2"] | None = None


class Detections(NamedTuple):
    """The objects detected in one image, in order of decreasing score.

    Attributes:
        boxes: (found, 4), centre x, centre y, width, height in pixels.
        scores: (found,), in [0, 1].
        labels: (found,), or ``None`` for a model without classes.
        unlike: how much the whole image differs from the training images: 1 is as much as the most different one of
            the validation images. ``None`` if the model can't say.
    """

    boxes: Float[Tensor, "found 4"]
    scores: Float[Tensor, " found"]
    labels: Int[Tensor, " found"] | None = None
    unlike: float | None = None

    def cpu(self) -> Detections:
        """The same on the CPU."""
        labels = None if self.labels is None else self.labels.cpu()
        return Detections(self.boxes.cpu(), self.scores.cpu(), labels, self.unlike)

    def first(self, count: int) -> Detections:
        """The best ``count`` of them."""
        labels = None if self.labels is None else self.labels[:count]
        return Detections(self.boxes[:count], self.scores[:count], labels, self.unlike)

    def where(self, kept: Bool[Tensor, " found"]) -> Detections:
        """Those for which the mask is true."""
        labels = None if self.labels is None else self.labels[kept]
        return Detections(self.boxes[kept], self.scores[kept], labels, self.unlike)


class Explanation(NamedTuple):
    """A model's detections and reconstruction of a batch of images.

    Attributes:
        detections: one record per image.
        reconstruction: (batch, channels, height, width), or ``None`` for a model that does not reconstruct.
    """

    detections: list[Detections]
    reconstruction: Float[Tensor, "batch channels height width"] | None


def collate(samples: Sequence[Sample]) -> Batch:
    """Joins samples of one size into a batch.

    Args:
        samples: at least one. An annotation must be present in all of them or in none.

    Raises:
        ValueError: if there is no sample, if the image shapes differ, or if only some samples have an annotation.
    """
    if not samples:
        raise ValueError("collate needs at least one sample, got none")
    shapes = {tuple(sample.image.shape) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(f"the images of a batch must have one shape, got {sorted(shapes)}")
    fields: list[list[Tensor] | None] = []
    for name, values in zip(Sample._fields, zip(*samples, strict=True), strict=True):
        present = [value for value in values if value is not None]
        if present and len(present) < len(samples):
            raise ValueError(f"{len(present)} of {len(samples)} samples carry {name}: all of them must, or none")
        fields.append(present or None)
    images, counts, boxes, labels, presence, sizes = fields
    assert images is not None
    counts, presence, sizes = (None if part is None else torch.stack(part) for part in (counts, presence, sizes))
    return Batch(torch.stack(images), counts, boxes, labels, presence, sizes)
