"""The grid search of ConnComp: after each batch, tau is the value that was best on all training images so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mistnn.errors import MistError
from mistnn.models.conncomp.network import ConnComp
from mistnn.ops.components import component_boxes
from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.records import Batch

IOUS = tuple(tenth / 10 for tenth in range(1, 10))
"""The IoU thresholds whose average precision is compared: those of SPAIR's AP."""

POINTS = 11
"""Its recall points."""


@dataclass(frozen=True)
class ConnCompStepConfig:
    """The grid; values of the released code.

    Attributes:
        low: smallest tau.
        high: largest tau; the sum over three channels in [0, 1] is at most 3.
        values: how many, at equal distances, both ends included.
    """

    low: float = 0.01
    high: float = 3.0
    values: int = 100

    def __post_init__(self) -> None:
        """Refuses values that no grid can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if not 0 < self.low < self.high < math.inf:
            raise MistError(f"step.low={self.low} and step.high={self.high} must be above 0, the smaller first")
        if self.values < 2:
            raise MistError(f"step.values={self.values} must be 2 or more")


class ConnCompStep:
    """One batch: each value of the grid is tried on it. Nothing has a gradient, so there is no optimiser."""

    def __init__(self, model: ConnComp, config: ConnCompStepConfig) -> None:
        self.model = model
        self.config = config
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.grid = torch.linspace(config.low, config.high, config.values)
        # In the model, so that a checkpoint keeps what the images so far have shown; but no part of its weights. Always
        # asked of the model, which has others once it is moved to a device.
        sizes = {"hits": (config.values, len(IOUS)), "found": (config.values,), "objects": ()}
        for name, size in sizes.items():
            model.register_buffer(f"tally_{name}", torch.zeros(size), persistent=False)

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Tries the grid on one batch; returns the scalars to log.

        Raises:
            MistError: if the images have no boxes, or none of them so far holds an object.
        """
        if batch.boxes is None:
            raise MistError("ConnComp chooses tau by the true boxes of training images, and these have none")
        difference = self.model.difference(batch.images)
        hits, counted, objects = self.tallies()
        objects += sum(len(boxes) for boxes in batch.boxes)
        highest = float(difference.max())
        for index, tau in enumerate(self.grid.tolist()):
            if tau > highest:
                break  # nothing differs by so much, so nothing is found
            found = component_boxes(difference >= tau)
            counted[index] += sum(map(len, found))
            # Padded with boxes of no size, which overlap nothing.
            iou = box_iou(pad_sequence(found, True).double(), pad_sequence(batch.boxes, True).double())
            for place, threshold in enumerate(IOUS):
                hits[index, place] += (greedy_match(iou, threshold) != UNMATCHED).sum()
        precision = self.average_precision()
        best = int(precision.argmax())  # the smallest of equal ones
        self.model.tau.fill_(float(self.grid[best]))
        return {"tau": self.model.tau.detach().clone(), "ap": precision[best]}

    def tallies(self) -> tuple[Tensor, Tensor, Tensor]:
        """Over all images so far: right boxes by value and IoU, boxes found by value, and the true ones."""
        hits, found, objects = (self.model.get_buffer(f"tally_{name}") for name in ("hits", "found", "objects"))
        return hits, found, objects

    def average_precision(self) -> Tensor:
        """SPAIR's AP of each value of the grid, over all images so far.

        All components have one score, so the curve has one point, at this precision and recall: of the recall points up
        to there each has this precision, the others none.
        """
        hits, found, objects = self.tallies()
        if not objects:
            raise MistError(
                "none of the training images so far holds an object, so no tau is better than another: give images "
                "with objects (data.counts), or a larger --train.batch-size"
            )
        recall, precision = hits / objects, hits / found.clamp(min=1)[:, None]
        points = torch.linspace(0, 1, POINTS, device=hits.device)
        reached = (points <= recall[..., None] + 1e-6) & (hits > 0)[..., None]
        return (reached.double().mean(-1) * precision).mean(-1)
