"""Average precision over IoU thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mistnn.metrics.scenes import Scenes, pad_scenes
from mistnn.records import Detections

COCO_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""The IoU thresholds that COCO averages over."""


class Ranking(NamedTuple):
    """All that average precision needs to know of a set of images. Concatenating these arrays joins two sets.

    Attributes:
        scores: the score of each detection.
        labels: the class of each detection, 0 if classes are ignored.
        hits: whether each detection is correct at each threshold.
        true_labels: the class of each object, 0 if classes are ignored.
    """

    scores: Float[Tensor, " found"]
    labels: Int[Tensor, " found"]
    hits: Bool[Tensor, "found thresholds"]
    true_labels: Int[Tensor, " objects"]


def check_parameters(thresholds: Sequence[float], points: int | None) -> tuple[float, ...]:
    """Checks the parameters of ``average_precision`` and returns the thresholds."""
    if not thresholds or not all(0 <= threshold <= 1 for threshold in thresholds):
        raise ValueError(f"IoU thresholds must be in [0, 1] and at least one, got {tuple(thresholds)}")
    if points is not None and points < 2:
        raise ValueError(f"points must be 2 or more, or None for all points of the curve, got {points}")
    return tuple(thresholds)


def rank(scenes: Scenes, thresholds: Sequence[float], class_aware: bool = True, strict: bool = False) -> Ranking:
    """Decides for each detection whether it is correct at each threshold.

    The detections of an image choose in order of decreasing score (equal scores: in their stored order). Each takes
    the free object with the highest IoU if that IoU is at least the threshold, or above it if ``strict``.
    """
    order = scenes.scores.argsort(dim=-1, descending=True, stable=True)  # padding, at -inf, comes last
    iou = torch.where(scenes.same_label(), scenes.iou, -1.0) if class_aware else scenes.iou
    images, count, objects = iou.shape
    iou = iou.gather(1, order.unsqueeze(-1).expand(-1, -1, objects))
    limits = torch.tensor(tuple(thresholds), dtype=iou.dtype).unsqueeze(-1)
    free = torch.ones(images, len(limits), objects, dtype=torch.bool)
    hits = torch.zeros(images, count, len(limits), dtype=torch.bool)
    for place in range(count if objects else 0):
        offered = iou[:, place].unsqueeze(1).masked_fill(~free, -1.0)
        best, taken = offered.max(-1, keepdim=True)
        hit = best > limits if strict else best >= limits
        free &= ~(hit & (torch.arange(objects) == taken))
        hits[:, place] = hit.squeeze(-1)
    real = scenes.is_found.gather(1, order)
    if class_aware:
        found_labels, true_labels = scenes.labels()
    else:
        found_labels, true_labels = (torch.zeros_like(mask, dtype=torch.int64) for mask in (real, scenes.is_true))
    return Ranking(
        scores=scenes.scores.gather(1, order)[real],
        labels=found_labels.gather(1, order)[real],
        hits=hits[real],
        true_labels=true_labels[scenes.is_true],
    )


def mean_area(ranking: Ranking, points: int | None = None) -> Float[Tensor, " thresholds"]:
    """Average precision at each threshold: the mean over the classes that have objects, NaN if none has."""
    parts = []
    for label in ranking.true_labels.unique():
        own = ranking.labels == label
        objects = int((ranking.true_labels == label).sum())
        parts.append(_area(ranking.scores[own], ranking.hits[own], objects, points))
    if not parts:
        return torch.full(ranking.hits.shape[1:], torch.nan, dtype=torch.float64)
    return torch.stack(parts).mean(0)


def _area(scores: Tensor, hits: Tensor, objects: int, points: int | None) -> Tensor:
    """Area under the envelope of one class's precision-recall curve, for each threshold."""
    if not len(scores):
        return torch.zeros(hits.shape[1], dtype=torch.float64, device=hits.device)
    scores, order = scores.sort(descending=True)
    # Detections of equal score enter together, so the result depends neither on their order nor on the images'.
    last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    right = hits[order].double().cumsum(0)[last]
    found = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=hits.device)[last].unsqueeze(1)
    recall = right / objects
    envelope = (right / found).flip(0).cummax(0).values.flip(0)
    if points is None:
        return (recall.diff(dim=0, prepend=torch.zeros_like(recall[:1])) * envelope).sum(0)
    # Built like the grid of pycocotools, so that a recall on a grid point falls on the same side.
    grid = torch.arange(points, dtype=torch.float64, device=hits.device) * (1 / (points - 1))
    grid[-1] = 1
    index = torch.searchsorted(recall.T.contiguous(), grid.expand(hits.shape[1], -1).contiguous())
    reached = torch.cat([envelope, torch.zeros_like(envelope[:1])])
    return reached.T.gather(1, index).mean(1)


def average_precision(
    detections: Sequence[Detections],
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor] | None = None,
    thresholds: Sequence[float] = (0.5,),
    class_aware: bool = True,
    points: int | None = None,
    strict: bool = False,
) -> tuple[float, ...]:
    """Average precision (AP) at each IoU threshold: the area under the precision-recall curve; NaN without objects.

    Convention: the precision at a recall is the best precision at that recall or a higher one. Detections of equal
    score enter the curve together. A detection is correct at an IoU of *at least* the threshold, as in COCO
    (``iou50`` requires more than 0.5). At threshold 0 all pairs in an image are allowed, overlapping or not, so
    class-aware AP at 0 measures classification alone.

    Args:
        thresholds: IoU thresholds in [0, 1].
        class_aware: averages AP over the classes that have objects, and needs labels; otherwise classes are ignored.
        points: ``None`` sums over all points of the curve; 101 averages over 101 evenly spaced recalls, as in COCO.
        strict: a detection is correct only at an IoU *above* the threshold.

    Raises:
        ValueError: if a threshold is outside [0, 1], if ``points`` is below 2, or if ``class_aware`` and labels are
            missing; see also ``pad_scenes``, which describes the other arguments.

    Reference:
        Earlier MIST version (arXiv), Table 4, where IoU = 0 is "pure" classification; neither paper defines its AP.
    """
    limits = check_parameters(thresholds, points)
    return tuple(mean_area(rank(pad_scenes(detections, boxes, labels), limits, class_aware, strict), points).tolist())
