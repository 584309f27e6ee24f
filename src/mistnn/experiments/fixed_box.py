"""What house numbers are measured by: Table 4 of the earlier MIST version (S001), and a guess that sees no image.

House numbers lie much alike. Boxes that are the same in every image tell what a system gains by looking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mistnn.data import NumbersConfig, PlacedNumbers, SvhnConfig, SvhnImages
from mistnn.data.corners import centred
from mistnn.data.house_numbers.svhn import Truth
from mistnn.records import Detections

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Table 4 (S001); an IoU of 0 asks for the classes alone."""

GUESSED_FROM = 1000
"""Training images whose boxes the guess is made from, at most."""


def precision_metrics(
    found: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor]
) -> dict[str, float]:
    """Average precision at the thresholds of Table 4: ``ap00``, ``ap50``, ``ap60`` ... ``ap90``; see there."""
    from mistnn.metrics import average_precision

    values = average_precision(found, boxes, labels, THRESHOLDS)
    named = zip(THRESHOLDS, values, strict=True)
    return {f"ap{round(100 * threshold):02d}": value for threshold, value in named if not math.isnan(value)}


def fixed_boxes(known: Sequence[Truth]) -> Detections:
    """The same boxes for every image: the mean first, second ... box from the left, all of the most frequent class.

    Args:
        known: of training images with as many digits each; the lowest of equally frequent classes is taken.

    Returns:
        As many boxes, each of score 1.
    """
    ordered = [one.corners[np.argsort(one.corners[:, 0] + one.corners[:, 2], kind="stable")] for one in known]
    boxes = torch.from_numpy(centred(np.stack(ordered).mean(0))).float()
    label = int(np.bincount([label for one in known for label in one.labels]).argmax())
    return Detections(boxes, torch.ones(len(boxes)), torch.full((len(boxes),), label))


def fixed_box_metrics(
    data: SvhnConfig | NumbersConfig, boxes: Sequence[Tensor], labels: Sequence[Tensor]
) -> dict[str, float]:
    """What ``fixed_boxes`` of the training images reach: ``fixed_iou50``, ``fixed_ap00``, ``fixed_ap50`` ...

    Args:
        data: the images.
        boxes: the true boxes of each measured image.
        labels: their classes.
    """
    from mistnn.metrics import iou50

    training = (
        SvhnImages(data, "train", GUESSED_FROM)
        if isinstance(data, SvhnConfig)
        else PlacedNumbers(data, "train", GUESSED_FROM)
    )
    guess = fixed_boxes([training.truth(index) for index in range(len(training))])
    guesses = [guess] * len(boxes)
    found = {"iou50": iou50(guesses, boxes), **precision_metrics(guesses, boxes, labels)}
    return {f"fixed_{name}": value for name, value in found.items()}
