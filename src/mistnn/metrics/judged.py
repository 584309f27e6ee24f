"""Which detections of single images are right, for figures and pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.records import Detections, Sample

OVERLAP = 0.5
"""A detection is right above this IoU (MIST, section 5.2)."""


@dataclass(frozen=True)
class JudgedScene:
    """An image and what a model found in it.

    Attributes:
        image: (channels, height, width), in [0, 1].
        detections: what was found.
        boxes: the true boxes, in pixels; ``None`` if unknown.
        labels: the classes of ``boxes``.
        correct: which detections are right; ``None`` if not judged.
        rebuilt: the image as the model reconstructs it.
    """

    image: Float[Tensor, "channels height width"]
    detections: Detections
    boxes: Float[Tensor, "objects 4"] | None = None
    labels: Int[Tensor, " objects"] | None = None
    correct: Bool[Tensor, " found"] | None = None
    rebuilt: Float[Tensor, "channels height width"] | None = None


def right_by_overlap(found: Detections, boxes: Tensor, labels: Tensor | None) -> Bool[Tensor, " found"]:
    """Detections that overlap a true box of their class by an IoU above ``OVERLAP``, one to one."""
    eligible = None
    if found.labels is not None and labels is not None:
        eligible = found.labels[:, None] == labels[None, :]
    return greedy_match(box_iou(found.boxes, boxes), OVERLAP, eligible) != UNMATCHED


def right_by_centre(found: Detections, boxes: Tensor, labels: Tensor | None) -> Bool[Tensor, " found"]:
    """Detections whose centre lies in a true box of their class, one to one; see ``metrics.centre_scores``."""
    if not len(boxes) or not len(found.boxes):
        return torch.zeros(len(found.boxes), dtype=torch.bool)
    offset = (found.boxes[:, None, :2] - boxes[None, :, :2]).abs()
    distance = (offset / (boxes[None, :, 2:] / 2)).amax(-1)
    inside = distance <= 1
    if labels is not None and found.labels is not None:
        inside = inside & (found.labels[:, None] == labels[None])
    return greedy_match(-distance, -torch.inf, inside) != UNMATCHED


def judge_scenes(model: Any, samples: Sequence[Sample]) -> list[JudgedScene]:
    """Runs a model on single samples and judges its detections by overlap; K is each sample's true count.

    Args:
        model: a ``Finder``.
        samples: with boxes.
    """
    judged = []
    model.eval()
    for sample in samples:
        assert sample.boxes is not None
        with torch.inference_mode():
            explained = model.explain(sample.image[None], len(sample.boxes))
        found, rebuilt = explained.detections[0], None
        if explained.reconstruction is not None and not model.class_names:
            rebuilt = explained.reconstruction[0].clamp(0, 1)
        labels = sample.labels if model.class_names else None
        correct = right_by_overlap(found, sample.boxes, labels)
        judged.append(JudgedScene(sample.image, found, sample.boxes, labels, correct, rebuilt))
    return judged
