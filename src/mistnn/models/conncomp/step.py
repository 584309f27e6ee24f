"""The grid search of ConnComp: after each batch, tau is the best value on all training images so far."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mistnn.errors import MistError
from mistnn.models.conncomp.config import ConnCompStepConfig
from mistnn.models.conncomp.network import ConnComp
from mistnn.ops.components import component_boxes
from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.records import Batch

IOUS, POINTS = tuple(tenth / 10 for tenth in range(1, 10)), 11
"""The IoU thresholds and the number of recall points of SPAIR's AP."""


class ConnCompStep:
    """Evaluates each value of the grid on a batch. There are no gradients and no optimizers."""

    def __init__(self, model: ConnComp, config: ConnCompStepConfig) -> None:
        self.model = model
        self.config = config
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.grid = torch.linspace(config.low, config.high, config.values)
        # Buffers of the model, so that checkpoints keep the tallies, but not part of its weights. They are always read
        # from the model, because moving it to a device replaces them.
        sizes = {"hits": (config.values, len(IOUS)), "found": (config.values,), "objects": ()}
        for name, size in sizes.items():
            model.register_buffer(f"tally_{name}", torch.zeros(size), persistent=False)

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Evaluates the grid on one batch; returns the scalars to log.

        Raises:
            MistError: if the images have no boxes, or no image so far holds an object.
        """
        if batch.boxes is None:
            raise MistError("ConnComp needs the true boxes of training images to choose tau, and these have none")
        difference = self.model.difference(batch.images)
        hits, counted, objects = self.tallies()
        objects += sum(len(boxes) for boxes in batch.boxes)
        highest = float(difference.max())
        for index, tau in enumerate(self.grid.tolist()):
            if tau > highest:
                break  # no pixel differs by that much
            found = component_boxes(difference >= tau)
            counted[index] += sum(map(len, found))
            # The padding boxes are empty and overlap nothing.
            iou = box_iou(pad_sequence(found, True).double(), pad_sequence(batch.boxes, True).double())
            for place, threshold in enumerate(IOUS):
                hits[index, place] += (greedy_match(iou, threshold) != UNMATCHED).sum()
        precision = self.average_precision()
        best = int(precision.argmax())  # the smallest of equal values
        self.model.tau.fill_(float(self.grid[best]))
        return {"tau": self.model.tau.detach().clone(), "ap": precision[best]}

    def tallies(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over all images: correct boxes by tau and IoU threshold, boxes found by tau, and true boxes."""
        hits, found, objects = (self.model.get_buffer(f"tally_{name}") for name in ("hits", "found", "objects"))
        return hits, found, objects

    def average_precision(self) -> Tensor:
        """SPAIR's AP of each value of the grid, over all images so far.

        All components have the same score, so the curve has one point. The recall points up to its recall have its
        precision, the others 0.
        """
        hits, found, objects = self.tallies()
        if not objects:
            raise MistError(
                "no training image so far holds an object, so tau can't be chosen: give images with objects "
                "(data.counts), or a larger --train.batch-size"
            )
        recall, precision = hits / objects, hits / found.clamp(min=1)[:, None]
        points = torch.linspace(0, 1, POINTS, device=hits.device)
        reached = (points <= recall[..., None] + 1e-6) & (hits > 0)[..., None]
        return (reached.double().mean(-1) * precision).mean(-1)
