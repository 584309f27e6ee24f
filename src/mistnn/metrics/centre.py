"""Precision, recall and F1 by the centres of detections, for images whose boxes have no fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mistnn.metrics.detection import ratio
from mistnn.metrics.scenes import Scenes, pad_scenes
from mistnn.ops.matching import UNMATCHED, greedy_match
from mistnn.records import Detections


class CentreScores(NamedTuple):
    """Scores from 0 to 1; NaN where the denominator is 0 (no detections, no objects, neither)."""

    precision: float
    recall: float
    f1: float


class CentreTally(NamedTuple):
    """Numbers of correct detections, detections and objects, summed over images."""

    hits: int
    found: int
    objects: int

    def scores(self) -> CentreScores:
        """Precision, recall and F1 of all images together."""
        return CentreScores(
            precision=ratio(self.hits, self.found),
            recall=ratio(self.hits, self.objects),
            f1=ratio(2 * self.hits, self.found + self.objects),
        )


def centre_tally(scenes: Scenes, background: int | None = None) -> CentreTally:
    """Counts correct detections, detections and objects; see ``centre_scores``."""
    found_labels, true_labels = scenes.labels()
    is_found, is_true = scenes.is_found, scenes.is_true
    if background is not None:
        is_found, is_true = is_found & (found_labels != background), is_true & (true_labels != background)
    offset = (scenes.found[..., None, :2] - scenes.true[..., None, :, :2]).abs()
    distance = (offset / (scenes.true[..., None, :, 2:] / 2)).amax(-1)  # NaN for a box without size: never inside
    inside = (distance <= 1) & is_found.unsqueeze(-1) & is_true.unsqueeze(-2) & scenes.same_label()
    match = greedy_match(-distance, -torch.inf, inside)
    return CentreTally(int((match != UNMATCHED).sum()), int(is_found.sum()), int(is_true.sum()))


def centre_scores(
    detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor], background: int | None = None
) -> CentreScores:
    """Precision, recall and F1; a detection is correct if its centre lies in a box of the same class.

    Convention: the distance of a detection (x, y) from a box (cx, cy, w, h) is max(abs(x - cx) / (w / 2),
    abs(y - cy) / (h / 2)). A centre is inside at a distance of at most 1, border included. Matching is greedy and
    one-to-one, nearest pairs first.

    Args:
        detections: one record per image, with labels.
        boxes: the true boxes of each image.
        labels: the true classes of each image.
        background: a class that means "no object"; its detections and boxes are ignored. ``None`` if there is none.

    Raises:
        ValueError: if the detections have no labels; see also ``pad_scenes``.

    Reference:
        MIST (CVPR 2021), Table 4. The released code assigns to each object, in stored order, the nearest detection
        left; nearest pairs first do not depend on that order. Its background is class 0.
    """
    return centre_tally(pad_scenes(detections, boxes, labels), background).scores()
