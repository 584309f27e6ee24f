"""Errors of object counts."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class CountErrors(NamedTuple):
    """Count errors over several images.

    Attributes:
        total: mean absolute error of the number of objects in an image.
        per_class: the same for each class.
        accuracy: share of images whose number of objects is exactly right, 0-1.
    """

    total: float
    per_class: Float[Tensor, " classes"]
    accuracy: float


def count_errors(predicted: Int[Tensor, "batch classes"], true: Int[Tensor, "batch classes"]) -> CountErrors:
    """Compares predicted with true counts.

    Convention: one column per class; (images, 1) for counts without classes.

    Args:
        predicted: detected objects of each class in each image.
        true: objects of each class in each image.

    Raises:
        ValueError: if there is no image, or if the shapes differ or are not (images, classes).
    """
    if predicted.shape != true.shape or predicted.ndim != 2 or not len(predicted):
        raise ValueError(
            f"counts must both be (images, classes) with at least one image, got {tuple(predicted.shape)} and "
            f"{tuple(true.shape)}"
        )
    error = (predicted.sum(1) - true.sum(1)).abs().double()
    return CountErrors(
        total=float(error.mean()),
        per_class=(predicted - true).abs().double().mean(0),
        accuracy=float((error == 0).double().mean()),
    )
