"""Was the right number of objects found."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class CountErrors(NamedTuple):
    """Errors of counts over several images.

    Attributes:
        total: mean over images of abs(predicted - true number of objects), in objects.
        per_class: the same for each class.
        accuracy: share of the images whose number of objects is exactly right, 0-1.
    """

    total: float
    per_class: Float[Tensor, " classes"]
    accuracy: float


def count_errors(predicted: Int[Tensor, "batch classes"], true: Int[Tensor, "batch classes"]) -> CountErrors:
    """Compares the counts of several images.

    Convention: one column a class. For counts without classes give one column, (images, 1).

    Args:
        predicted: how many objects of each class were found in every image.
        true: how many it holds.

    Raises:
        ValueError: if there is no image, or if the shapes differ or are not (images, classes).
    """
    if predicted.shape != true.shape or predicted.ndim != 2 or not len(predicted):
        raise ValueError(
            f"counts must both be (images, classes) with at least one image, got {tuple(predicted.shape)} and "
            f"{tuple(true.shape)}"
        )
    off = (predicted.sum(1) - true.sum(1)).abs().double()
    return CountErrors(
        total=float(off.mean()),
        per_class=(predicted - true).abs().double().mean(0),
        accuracy=float((off == 0).double().mean()),
    )
