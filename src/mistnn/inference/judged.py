"""Images with what a model found in them and which of it is right, for figures and pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mistnn.devices import device_of
from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.records import Detections, Sample
from mistnn.viz import draw_scenes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERLAP = 0.5
"""A detection is right above this IoU (MIST, section 5.2)."""


class JudgedScene(NamedTuple):
    """An image in [0, 1] and what a model found in it.

    Attributes:
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
    eligible = None if found.labels is None or labels is None else found.labels[:, None] == labels[None, :]
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
    """Runs a ``Finder`` on samples with boxes and judges its detections by overlap; K is each sample's true count."""
    judged = []
    model.eval()
    for sample in samples:
        assert sample.boxes is not None
        with torch.inference_mode():
            explained = model.explain(sample.image[None].to(device_of(model)), len(sample.boxes))
        found, rebuilt = explained.detections[0].cpu(), None
        if explained.reconstruction is not None and not model.class_names:
            rebuilt = explained.reconstruction[0].clamp(0, 1).cpu()
        labels = sample.labels if model.class_names else None
        correct = right_by_overlap(found, sample.boxes, labels)
        judged.append(JudgedScene(sample.image, found, sample.boxes, labels, correct, rebuilt))
    return judged


def draw_judged(
    scenes: Sequence[JudgedScene],
    class_names: Sequence[str],
    columns: int = 1,
    titles: Sequence[str] | None = None,
    inches: float = 1.9,
) -> Figure:
    """Scenes with their boxes, see ``draw_scenes``. All of them, or none, have true boxes, labels and a judgement."""
    boxes, labels, correct = (
        [getattr(scene, name) for scene in scenes if getattr(scene, name) is not None] or None
        for name in ("boxes", "labels", "correct")
    )
    images, found = [scene.image for scene in scenes], [scene.detections for scene in scenes]
    return draw_scenes(
        images, found, boxes, labels, class_names, columns, correct=correct, titles=titles, inches=inches
    )
