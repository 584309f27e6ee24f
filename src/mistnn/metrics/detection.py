"""Were the objects found, and found as what they are: IoU 50 % and Both of the MIST tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from mistnn.metrics.scenes import Scenes, pad_scenes
from mistnn.ops.matching import UNMATCHED, greedy_match, optimal_match
from mistnn.records import Detections

IOU_THRESHOLD = 0.5
"""A pair matches when its IoU is over this (MIST, CVPR 2021, section 5.2: "over 50%")."""


def share(part: int | float, whole: int | float) -> float:
    """``part / whole``, and NaN where there is nothing to share: a result that doesn't exist is not 0."""
    return part / whole if whole else math.nan


def matched_objects(scenes: Scenes, same_label: bool = False, optimal: bool = False) -> Int[Tensor, " batch"]:
    """How many objects of each image are matched one-to-one with detections at an IoU over ``IOU_THRESHOLD``.

    Args:
        scenes: detections and truth.
        same_label: match only pairs of one class.
        optimal: match as many as possible instead of greedily by IoU.
    """
    rule = optimal_match if optimal else greedy_match
    return (rule(scenes.iou, IOU_THRESHOLD, scenes.same_label() if same_label else None) != UNMATCHED).sum(-1)


def iou50(detections: Sequence[Detections], boxes: Sequence[Tensor]) -> float:
    """Share of the objects that were found, whatever class they were given.

    Convention: greedy one-to-one matching by IoU, strictly over 0.5; each detection and each object is used once.

    Args:
        detections: one an image.
        boxes: the true boxes of each image.

    Returns:
        Matched objects over all objects, 0-1; NaN if there are no objects.

    Raises:
        ValueError: see ``pad_scenes``.

    Reference:
        MIST (CVPR 2021), Table 2, row "IOU 50%". The released code counts the objects that any detection covers, so
        one detection may count for several objects; here it counts for one.
    """
    scenes = pad_scenes(detections, boxes)
    return share(int(matched_objects(scenes).sum()), scenes.objects)


def both(detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> float:
    """Share of the objects that were found and given the right class.

    Convention: greedy one-to-one matching by IoU, strictly over 0.5, among the pairs whose classes agree. The match is
    made anew, not taken from ``iou50``: a detection of the wrong class doesn't stand in the way of the right one. So
    ``both`` counts the objects that have a right detection of their own, and never exceeds ``classified``.

    Args:
        detections: one an image, with labels.
        boxes: the true boxes of each image.
        labels: the true classes of each image.

    Returns:
        Matched objects over all objects, 0-1; NaN if there are no objects.

    Raises:
        ValueError: if the detections carry no labels; see also ``pad_scenes``.

    Reference:
        MIST (CVPR 2021), Table 2, row "Both". The released code has the same rule but for the order: it walks over
        the objects as they are stored, and accepts an IoU of exactly 0.5.
    """
    scenes = pad_scenes(detections, boxes, labels)
    return share(int(matched_objects(scenes, same_label=True).sum()), scenes.objects)


def greedy_optimal_gap(detections: Sequence[Detections], boxes: Sequence[Tensor]) -> float:
    """Share of the objects that ``iou50`` would gain if as many as possible were matched instead of greedily.

    Returns:
        Difference over all objects, 0-1; NaN if there are no objects.

    Raises:
        ValueError: see ``pad_scenes``.
    """
    scenes = pad_scenes(detections, boxes)
    gained = matched_objects(scenes, optimal=True) - matched_objects(scenes)
    return share(int(gained.sum()), scenes.objects)
