"""Detections and ground truth of several images as padded arrays, on which the metrics operate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mistnn.ops.matching import box_iou
from mistnn.records import Detections

_NO_LABEL_FOUND, _NO_LABEL_TRUE = -1, -2
"""Labels of padding. They differ, so that padding never matches padding."""

_PADDED_IOU = -1.0
"""IoU of padding: below all thresholds, including 0."""


class Scenes(NamedTuple):
    """Detections and ground truth of several images, padded to a common length, on the CPU and in float64.

    float64, because an IoU is compared with round thresholds: rounding must not move two boxes that overlap by exactly
    one half to the other side.

    Attributes:
        found: detected boxes.
        scores: scores of the detections, -inf for padding.
        found_labels: classes of the detections; ``None`` if these or the true classes are unknown.
        is_found: False where ``found`` is padding.
        true: true boxes.
        true_labels: classes of the true boxes; ``None`` together with ``found_labels``.
        is_true: False where ``true`` is padding.
        iou: overlap of each detection with each object of its image, -1 where either is padding.
    """

    found: Float[Tensor, "batch n 4"]
    scores: Float[Tensor, "batch n"]
    found_labels: Int[Tensor, "batch n"] | None
    is_found: Bool[Tensor, "batch n"]
    true: Float[Tensor, "batch m 4"]
    true_labels: Int[Tensor, "batch m"] | None
    is_true: Bool[Tensor, "batch m"]
    iou: Float[Tensor, "batch n m"]

    @property
    def objects(self) -> int:
        """The number of objects in all images."""
        return int(self.is_true.sum())

    def same_label(self) -> Bool[Tensor, "batch n m"]:
        """Whether a detection and an object have the same class."""
        found, true = self.labels()
        return found.unsqueeze(-1) == true.unsqueeze(-2)

    def labels(self) -> tuple[Int[Tensor, "batch n"], Int[Tensor, "batch m"]]:
        """The classes of the detections and of the objects; ``ValueError`` if they are unknown."""
        if self.found_labels is None or self.true_labels is None:
            raise ValueError("this metric needs labels of all detections and of all objects, got None for some")
        return self.found_labels, self.true_labels

    def histograms(self) -> tuple[Int[Tensor, "batch classes"], Int[Tensor, "batch classes"]]:
        """Numbers of detections and of objects per class in each image, up to the largest class present."""
        both = self.labels()
        # Padding is negative: it goes to an extra first column, which is dropped.
        columns = 2 + max([int(labels.max()) for labels in both if labels.numel()], default=-1)
        found, true = (
            torch.zeros(len(labels), max(columns, 1), dtype=torch.int64).scatter_add_(
                1, labels.clamp(min=-1) + 1, torch.ones_like(labels)
            )[:, 1:]
            for labels in both
        )
        return found, true


def pad_scenes(
    detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor] | None = None
) -> Scenes:
    """Checks detections and ground truth of several images and pads them to a common length.

    Args:
        detections: one record per image; either all or none have labels.
        boxes: the true boxes of each image, (objects, 4).
        labels: the true classes of each image, (objects,), or ``None`` if unknown.

    Raises:
        ValueError: if there is no image, if the numbers of images, boxes, scores and labels disagree, if a box does not
            have 4 numbers, if a box or score is not finite, or if a label is negative.
    """
    if not detections:
        raise ValueError("metrics need at least one image, got none")
    for name, given in (("boxes", boxes), ("labels", labels)):
        if given is not None and len(given) != len(detections):
            raise ValueError(f"{len(detections)} images have detections, but {len(given)} have true {name}")
    found_given = [each.labels for each in detections if each.labels is not None]
    if len(found_given) not in (0, len(detections)):
        raise ValueError(f"{len(found_given)} of {len(detections)} detections carry labels: all of them must, or none")

    found, is_found = _padded([each.boxes for each in detections], "detected boxes", 4)
    true, is_true = _padded(boxes, "true boxes", 4)
    scores, has_score = _padded([each.scores for each in detections], "detection scores")
    _same_lengths(is_found, has_score, "detected boxes", "scores")
    found_labels = true_labels = None
    if labels is not None and found_given:
        found_labels = _padded_labels(found_given, is_found, "detected", _NO_LABEL_FOUND)
        true_labels = _padded_labels(labels, is_true, "true", _NO_LABEL_TRUE)
    real = is_found.unsqueeze(-1) & is_true.unsqueeze(-2)
    return Scenes(
        found=found,
        scores=scores.masked_fill(~is_found, -torch.inf),
        found_labels=found_labels,
        is_found=is_found,
        true=true,
        true_labels=true_labels,
        is_true=is_true,
        iou=torch.where(real, box_iou(found, true), _PADDED_IOU),
    )


def _padded(parts: Sequence[Tensor], name: str, columns: int | None = None) -> tuple[Tensor, Tensor]:
    """Stacks arrays of different lengths, padded with zeros; the second result is False for padding."""
    tail = () if columns is None else (columns,)
    for image, part in enumerate(parts):
        if part.shape[1:] != tail or part.ndim != 1 + len(tail):
            wanted = f"(n, {columns})" if columns else "(n,)"
            raise ValueError(f"{name} of image {image} must have the shape {wanted}, got {tuple(part.shape)}")
    stacked = torch.nn.utils.rnn.pad_sequence([part.detach().cpu().double() for part in parts], batch_first=True)
    lengths = torch.tensor([len(part) for part in parts])
    bad = ~stacked.isfinite().reshape(len(parts), -1).all(1)
    if bad.any():
        raise ValueError(f"{name} of image {int(bad.nonzero()[0])} are not finite: the model may have diverged")
    return stacked, torch.arange(stacked.shape[1]) < lengths.unsqueeze(1)


def _padded_labels(parts: Sequence[Tensor], real: Tensor, name: str, padding: int) -> Tensor:
    """Stacks labels of different lengths, padded with ``padding``."""
    stacked, has_label = _padded(parts, f"{name} labels")
    _same_lengths(real, has_label, f"{name} boxes", "labels")
    if (stacked < 0).any():
        raise ValueError(f"{name} labels must be 0 or more, got {int(stacked.min())}")
    return stacked.long().masked_fill(~real, padding)


def _same_lengths(first: Tensor, second: Tensor, first_name: str, second_name: str) -> None:
    """Raises unless each image has equally many of both."""
    for image, (one, other) in enumerate(zip(first.sum(1).tolist(), second.sum(1).tolist(), strict=True)):
        if one != other:
            raise ValueError(f"image {image} has {one} {first_name} but {other} {second_name}")
