"""Supervised: MIST's networks taught with the true places and the class of each object, an upper bound.

The paper does not define it. Here: the heat map learns G of the true centres (equation 7), the classifier the cross
entropy of each object's class on its patch; nothing is lifted. With a decoder and no classes, the auto-encoder learns
equation 8 on the true patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.models.mist.network import Mist
from mistnn.nn.mixed_precision import Precision, check_precision, half_precision
from mistnn.nn.schedule import check_rates, cosine_share
from mistnn.nn.task import relative_reconstruction_loss
from mistnn.ops.heatmap import ideal_heatmaps
from mistnn.ops.losses import heatmap_loss
from mistnn.records import Batch


@dataclass(frozen=True)
class SupervisedStepConfig:
    """Choices of the upper bound; none is stated in the paper.

    Attributes:
        spread: standard deviation in pixels of the Gaussian in place of each 1 of G, see ``StepConfig``.
        task_rate: learning rate of Adam for tau.
        heatmap_rate: learning rate of Adam for eta.
        decay: the learning rates fall to this share along half a cosine over ``decay_steps``; 1 for constant rates.
        decay_steps: length of that fall, in iterations.
        precision: of the heat-map network's convolutions; "auto" computes in bfloat16 where that is faster.
    """

    spread: float = 0.0
    task_rate: float = 1e-3
    heatmap_rate: float = 2e-4
    decay: float = 1.0
    decay_steps: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if not 0 <= self.spread < math.inf:
            raise MistError(f"step.spread={self.spread} must be a finite number of pixels, 0 or more")
        check_precision(self.precision)
        check_rates(self.decay, self.decay_steps, task_rate=self.task_rate, heatmap_rate=self.heatmap_rate)


class SupervisedStep:
    """One batch of the upper bound."""

    def __init__(self, model: Mist, config: SupervisedStepConfig) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "task": torch.optim.Adam(model.task_network.parameters(), lr=config.task_rate, foreach=True),
            "heatmap": torch.optim.Adam(model.heatmap_network.parameters(), lr=config.heatmap_rate, foreach=True),
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains both networks on the truth; returns the scalars to log."""
        self._schedule(iteration)
        model, images = self.model, batch.images.contiguous(memory_format=torch.channels_last)
        keypoints = self.true_keypoints(batch)
        task = model.task_network(model.cut(images, keypoints))
        losses: dict[str, Tensor] = {}
        if task.logits is not None:
            if batch.labels is None:
                raise MistError("the supervised bound needs the class of each object, and these images have none")
            losses["classification"] = F.cross_entropy(task.logits.flatten(0, 1), torch.cat(batch.labels))
        if task.decoded is not None:
            losses["reconstruction"] = relative_reconstruction_loss(
                images, model.rebuild(task.decoded, keypoints, images)
            ).mean()
        with half_precision(self.config.precision, images.device):
            heatmaps = model.heatmaps(images)
        ideal = ideal_heatmaps(keypoints, model.config.scales, *images.shape[-2:], spread=self.config.spread)
        heat = heatmap_loss(heatmaps, ideal).mean()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        (sum(losses.values(), heat)).backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return {name: value.detach() for name, value in {**losses, "heatmap": heat}.items()}

    def true_keypoints(self, batch: Batch) -> Tensor:
        """(batch, objects, 3): true centres, and the true scale as far as the model has it.

        A model of one scale cuts patches of one size in prediction, so it is taught on these: on patches of the true
        size it would learn to read what it never gets to see.
        """
        keypoints = self.model.keypoints_of(self.true_boxes(batch))
        scales = self.model.config.scales
        return torch.cat((keypoints[..., :2], keypoints[..., 2:].clamp(scales[0], scales[-1])), dim=-1)

    @staticmethod
    def true_boxes(batch: Batch) -> Tensor:
        """(batch, objects, 4); all images must have the same number of objects, and one at least."""
        if batch.boxes is None:
            raise MistError("the supervised bound needs the true boxes, and these images have none")
        if len({len(boxes) for boxes in batch.boxes}) > 1 or not len(batch.boxes[0]):
            raise MistError("the supervised bound needs the same number of objects, 1 or more, in every image")
        return torch.stack(batch.boxes)

    def _schedule(self, iteration: int) -> None:
        config = self.config
        share = cosine_share(iteration, config.decay, config.decay_steps)
        rates = {"task": config.task_rate, "heatmap": config.heatmap_rate}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[name] * share
