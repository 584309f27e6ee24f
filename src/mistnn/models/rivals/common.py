"""What the rivals share: the interface for training, and the choice of the best boxes."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.nn.finder import Finder
from mistnn.ops.selection import masked_class_proportions
from mistnn.records import Batch, Detections


class Rival(Finder, abc.ABC):
    """A finder whose loss has a gradient for all of its weights, including those that choose the places."""

    @abc.abstractmethod
    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """The loss of each image, (batch,), as "task", and other values to log."""


def masked_losses(probabilities: Tensor, mask: Tensor, wanted: Tensor, k: int) -> dict[str, Tensor]:
    """Equation 12 of each image: the squared distance between the class proportions under a mask and in the labels.

    Args:
        probabilities: (batch, n, classes).
        mask: (batch, n), of SOFT top-K.
        wanted: (batch, classes), the counts.
        k: K of the mask.
    """
    target = wanted / wanted.sum(1, keepdim=True).clamp(min=1)
    proportions = masked_class_proportions(probabilities, mask, k)
    return {"task": (target - proportions).square().sum(1), "mask_peak": mask.amax(1)}


def counts_of(batch: Batch) -> Tensor:
    """The class counts of a batch, (batch, classes).

    Raises:
        MistError: if there are none.
    """
    if batch.counts is None:
        raise MistError("this model has classes: its training images need class counts, and these have none")
    return batch.counts


def best_of(boxes: Tensor, scores: Tensor, labels: Tensor | None, k: int) -> Detections:
    """The k best boxes of one image, best first.

    Args:
        boxes: (n, 4).
        scores: (n,).
        labels: (n,), or ``None``.
        k: how many; all if there are fewer.
    """
    best = scores.argsort(descending=True, stable=True)[:k]
    return Detections(boxes[best], scores[best], None if labels is None else labels[best])


def centres(rows: int, columns: int, spacing: int, like: Tensor) -> Tensor:
    """The centres of the squares of a regular grid, row by row: (rows x columns, 2), x and y, typed as ``like``."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return (torch.stack((x, y), dim=-1).reshape(-1, 2).to(like) + 0.5) * spacing
