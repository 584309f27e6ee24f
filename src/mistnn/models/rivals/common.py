"""What the rivals share: the interface for training, and the choice of the best boxes."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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

    Convention: probabilities are (batch, n, classes), the mask of SOFT top-K (batch, n), ``wanted`` (batch, classes).
    """
    target = wanted / wanted.sum(1, keepdim=True).clamp(min=1)
    proportions = masked_class_proportions(probabilities, mask, k)
    return {"task": (target - proportions).square().sum(1), "mask_peak": mask.amax(1)}


def best_of(boxes: Tensor, scores: Tensor, labels: Tensor | None, counts: Sequence[int]) -> list[Detections]:
    """The boxes of each image with the best scores, as many as its count, best first."""
    orders = scores.argsort(dim=1, descending=True, stable=True)
    return [
        Detections(boxes[index, best], scores[index, best], None if labels is None else labels[index, best])
        for index, best in enumerate(order[:count] for order, count in zip(orders, counts, strict=True))
    ]


def centres(maps: Tensor, spacing: int) -> Tensor:
    """The centres of squares of ``spacing`` positions on maps (..., height, width), row by row: (n, 2), x and y."""
    rows, columns = (torch.arange(side // spacing) for side in maps.shape[-2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack((x, y), dim=-1).reshape(-1, 2).to(maps) + 0.5) * spacing
