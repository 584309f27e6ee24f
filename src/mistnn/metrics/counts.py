"""Classification independent of location, by counts ("Classif." in the MIST tables).

``predicted`` holds detections per class in each image, ``true`` objects per class. All functions raise ``ValueError``
if the shapes differ. Shares are from 0 to 1, and NaN if there are no objects.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from mistnn.metrics.detection import ratio


def accounted_for(
    predicted: Int[Tensor, "*batch classes"], true: Int[Tensor, "*batch classes"]
) -> Int[Tensor, "*batch"]:
    """Objects per image that the predicted histogram accounts for: sum over classes of the smaller count."""
    _check_shapes(predicted, true)
    return torch.minimum(predicted, true).sum(-1)


def missed_paper(
    predicted: Int[Tensor, "*batch classes"], true: Int[Tensor, "*batch classes"]
) -> Int[Tensor, "*batch"]:
    """Objects per image that the released code counts as missed: the deficit per class, class 0 ignored."""
    _check_shapes(predicted, true)
    return (true - predicted).clamp(min=0)[..., 1:].sum(-1)


def _check_shapes(predicted: Tensor, true: Tensor) -> None:
    if predicted.shape != true.shape:
        raise ValueError(f"histograms must have one shape, got {tuple(predicted.shape)} and {tuple(true.shape)}")


def classified(predicted: Int[Tensor, "*batch classes"], true: Int[Tensor, "*batch classes"]) -> float:
    """Share of objects whose class was counted: sum over classes of min(true, predicted), divided by all objects.

    Surplus detections do not lower it.

    Reference:
        MIST (CVPR 2021), Table 2, row "Classif."; the paper does not state its rule. This is the strict reading: nine
        zeros classified as ones score 0.
    """
    return ratio(int(accounted_for(predicted, true).sum()), int(true.sum()))


def classified_paper(predicted: Int[Tensor, "*batch classes"], true: Int[Tensor, "*batch classes"]) -> float:
    """The rule of the released code, for comparison only: use ``classified``, which is never above it.

    It is 1 - (objects lacking per class) / (all objects). Class 0 is left out of the numerator but not of the
    denominator, although no class stands for the background. Missed zeros therefore cost nothing: nine zeros
    classified as ones score 1.

    Reference:
        Released code of MIST, evaluation of the digits. It divides by the number of detections, which equals the
        number of objects there; this function divides by the number of objects.
    """
    objects = int(true.sum())
    return ratio(objects - int(missed_paper(predicted, true).sum()), objects)
