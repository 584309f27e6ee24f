"""Detection rates at an IoU of 50 %, without and with the class: "IOU 50%" and "Both" in the MIST tables.

All rates are shares of the objects, 0-1; NaN if there are no objects. ``pad_scenes`` describes the arguments and raises
``ValueError`` if they don't fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from mistnn.metrics.scenes import Scenes, pad_scenes
from mistnn.ops.matching import UNMATCHED, greedy_match, optimal_match
from mistnn.records import Detections

IOU_THRESHOLD = 0.5
"""A pair matches if its IoU is above this (MIST, CVPR 2021, section 5.2: "over 50%")."""


def ratio(part: int | float, whole: int | float) -> float:
    """``part / whole``; NaN, not 0, if ``whole`` is 0, because the result is undefined."""
    return part / whole if whole else math.nan


def matched_objects(scenes: Scenes, same_label: bool = False, optimal: bool = False) -> Int[Tensor, " batch"]:
    """Number of objects per image that are matched one-to-one with detections at an IoU above ``IOU_THRESHOLD``.

    Args:
        same_label: match only pairs of the same class.
        optimal: maximise the number of matches instead of matching greedily by IoU.
    """
    rule = optimal_match if optimal else greedy_match
    return (rule(scenes.iou, IOU_THRESHOLD, scenes.same_label() if same_label else None) != UNMATCHED).sum(-1)


def iou50(detections: Sequence[Detections], boxes: Sequence[Tensor]) -> float:
    """Share of objects that were detected, in whatever class.

    Convention: greedy one-to-one matching by IoU, strictly above 0.5; each detection and each object is used once.

    Reference:
        MIST (CVPR 2021), Table 2, row "IOU 50%". The released code counts each object that any detection covers, so
        one detection may count for several objects; here it counts for one.
    """
    scenes = pad_scenes(detections, boxes)
    return ratio(int(matched_objects(scenes).sum()), scenes.objects)


def both(detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> float:
    """Share of objects that were detected and correctly classified; needs labels.

    Convention: greedy one-to-one matching by IoU, strictly above 0.5, among the pairs of the same class. The matching
    is independent of ``iou50``: a detection of the wrong class does not block the correct one. So ``both`` counts the
    objects that have their own correct detection, and never exceeds ``classified``.

    Reference:
        MIST (CVPR 2021), Table 2, row "Both". The released code has the same rule except that it visits the objects in
        stored order and accepts an IoU of exactly 0.5.
    """
    scenes = pad_scenes(detections, boxes, labels)
    return ratio(int(matched_objects(scenes, same_label=True).sum()), scenes.objects)


def greedy_optimal_gap(detections: Sequence[Detections], boxes: Sequence[Tensor]) -> float:
    """How much ``iou50`` would gain from optimal instead of greedy matching."""
    scenes = pad_scenes(detections, boxes)
    gained = matched_objects(scenes, optimal=True) - matched_objects(scenes)
    return ratio(int(gained.sum()), scenes.objects)
