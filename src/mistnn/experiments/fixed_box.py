"""The measures of house numbers: Table 4 of the earlier MIST version (S001), and a guess that sees no image.

House numbers are all placed alike. Boxes that are the same in every image show what a system gains by looking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mistnn.data.base import Truth
from mistnn.data.corners import centred
from mistnn.records import Detections

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Table 4 (S001); an IoU of 0 measures the classes alone."""

GUESSED_FROM = 1000
"""The largest number of training images from which the guess is made."""


def precision_metrics(
    found: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor]
) -> dict[str, float]:
    """Average precision at the thresholds of Table 4: ``ap00``, ``ap50``, ``ap60`` ... ``ap90``."""
    from mistnn.metrics import average_precision

    values = average_precision(found, boxes, labels, THRESHOLDS)
    named = zip(THRESHOLDS, values, strict=True)
    return {f"ap{round(100 * threshold):02d}": value for threshold, value in named if not math.isnan(value)}


def fixed_boxes(known: Sequence[Truth]) -> Detections:
    """The same boxes for every image: the mean first, second ... box from the left, all of the most frequent class.

    Args:
        known: the digits of training images, the same number in each.

    Returns:
        That number of boxes, each with score 1. Of equally frequent classes the lowest is taken.
    """
    ordered = [one.corners[np.argsort(one.corners[:, 0] + one.corners[:, 2], kind="stable")] for one in known]
    boxes = torch.from_numpy(centred(np.stack(ordered).mean(0))).float()
    label = int(np.bincount([label for one in known for label in one.labels]).argmax())
    return Detections(boxes, torch.ones(len(boxes)), torch.full((len(boxes),), label))


def fixed_box_metrics(data: Any, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, float]:
    """What ``fixed_boxes`` of the training images reach: ``fixed_iou50``, ``fixed_ap00``, ``fixed_ap50`` ...

    Args:
        data: the images.
        boxes: the true boxes of each measured image.
        labels: their classes.
    """
    from mistnn.metrics import iou50

    guess = fixed_boxes(data.truths("train", GUESSED_FROM))
    guesses = [guess] * len(boxes)
    found = {"iou50": iou50(guesses, boxes), **precision_metrics(guesses, boxes, labels)}
    return {f"fixed_{name}": value for name, value in found.items()}
