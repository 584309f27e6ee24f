"""Was the right number of each class seen, wherever it was seen: Classif. of the MIST tables."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from mistnn.metrics.detection import share


def class_histogram(labels: Int[Tensor, "*batch n"], classes: int) -> Int[Tensor, "*batch {classes}"]:
    """Counts how often each class occurs.

    Args:
        labels: classes, 0 to ``classes - 1``.
        classes: the length of the histogram.

    Raises:
        ValueError: if a label is outside.
    """
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.numel():
        raise ValueError(f"labels must be 0 to {classes - 1}, got {int(outside[0])}")
    zeros = torch.zeros(*labels.shape[:-1], classes, dtype=torch.int64, device=labels.device)
    return zeros.scatter_add(-1, labels.long(), torch.ones_like(labels, dtype=torch.int64))


def agreeing(predicted: Int[Tensor, "*batch classes"], true: Int[Tensor, "*batch classes"]) -> Int[Tensor, "*batch"]:
    """Objects of each image that the predicted histogram accounts for: sum over classes of the smaller count.

    Raises:
        ValueError: if the shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"histograms must have one shape, got {tuple(predicted.shape)} and {tuple(true.shape)}")
    return torch.minimum(predicted, true).sum(-1)


def missed_paper(
    predicted: Int[Tensor, "*batch classes"], true: Int[Tensor, "*batch classes"]
) -> Int[Tensor, "*batch"]:
    """Objects that the released code calls missed: those lacking of each class, class 0 left out.

    Raises:
        ValueError: if the shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"histograms must have one shape, got {tuple(predicted.shape)} and {tuple(true.shape)}")
    return (true - predicted).clamp(min=0)[..., 1:].sum(-1)


def classified(predicted: Int[Tensor, "*batch classes"], true: Int[Tensor, "*batch classes"]) -> float:
    """Share of the objects whose class was counted: sum over classes of min(true, predicted) over the objects.

    Args:
        predicted: how many detections of each class every image has.
        true: how many objects of each class it holds.

    Returns:
        0-1, 1 where nothing is lacking; detections beyond the true number don't lower it. NaN if there are no objects.

    Raises:
        ValueError: if the shapes differ.

    Reference:
        MIST (CVPR 2021), Table 2, row "Classif."; the paper doesn't state its rule. This is the strict reading: nine
        zeros called ones give 0.
    """
    return share(int(agreeing(predicted, true).sum()), int(true.sum()))


def classified_paper(predicted: Int[Tensor, "*batch classes"], true: Int[Tensor, "*batch classes"]) -> float:
    """The rule of the released code, for comparison only: use ``classified``.

    It is 1 minus (objects lacking of each class) / (all objects), and it leaves class 0 out of the numerator but not
    out of the denominator, although no class stands for the background. Missed zeros therefore cost nothing: nine
    zeros called ones give 1.

    Returns:
        0-1, never below ``classified``. NaN if there are no objects.

    Raises:
        ValueError: if the shapes differ.

    Reference:
        Released code of MIST, evaluation of the digits. It divides by the number of detections, which is that of the
        objects there; here the number of objects is meant.
    """
    objects = int(true.sum())
    return share(objects - int(missed_paper(predicted, true).sum()), objects)
