"""Supervised: MIST's networks trained on true positions and the class of each object, as an upper bound.

The paper does not define it. Here the heat map learns G of the true centres (equation 7) and the classifier the cross
entropy of each object's class on its patch, without lifting. With a decoder and no classes, the auto-encoder learns
equation 8 on the true patches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.models.mist.config import SupervisedStepConfig
from mistnn.models.mist.network import Mist
from mistnn.nn.mixed_precision import half_precision
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.nn.task import relative_reconstruction_loss
from mistnn.ops.heatmap import ideal_heatmaps
from mistnn.ops.losses import heatmap_loss
from mistnn.records import Batch


class SupervisedStep:
    """One iteration of the supervised baseline."""

    def __init__(self, model: Mist, config: SupervisedStepConfig) -> None:
        config.check_model(model.config)
        known_steps(config.decay, config.decay_steps)
        self.model, self.config = model.to(memory_format=torch.channels_last), config
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "task": torch.optim.Adam(model.task_network.parameters(), lr=config.task_rate, foreach=True),
            "heatmap": torch.optim.Adam(model.heatmap_network.parameters(), lr=config.heatmap_rate, foreach=True),
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains both networks on the true objects; returns the scalars to log.

        Raises:
            MistError: if boxes or classes are missing, or the images differ in their number of objects.
        """
        config, model = self.config, self.model
        share = cosine_share(iteration, config.decay, config.decay_steps)
        set_rates(self.optimizers, {"task": config.task_rate * share, "heatmap": config.heatmap_rate * share})
        images = batch.images.contiguous(memory_format=torch.channels_last)
        keypoints = self.true_keypoints(batch)
        task = model.task_network(model.cut(images, keypoints))
        losses: dict[str, Tensor] = {}
        if task.logits is not None:
            if batch.labels is None:
                raise MistError("the supervised baseline needs the class of each object, and these images have none")
            losses["classification"] = F.cross_entropy(task.logits.flatten(0, 1), torch.cat(batch.labels))
        if task.decoded is not None:
            rebuilt = model.rebuild(task.decoded, keypoints, images)
            losses["reconstruction"] = relative_reconstruction_loss(images, rebuilt).mean()
        with half_precision(config.precision, images.device):
            heatmaps = model.heatmaps(images)
        ideal = ideal_heatmaps(keypoints, model.config.scales, *images.shape[-2:], spread=config.spread)
        heat = heatmap_loss(heatmaps, ideal).mean()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        (sum(losses.values(), heat)).backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return {name: value.detach() for name, value in {**losses, "heatmap": heat}.items()}

    def true_keypoints(self, batch: Batch) -> Tensor:
        """(batch, objects, 3): the true centres and, within the model's range, the true scales.

        A model with one scale cuts patches of one size in prediction, so it is trained on patches of that size.
        """
        if batch.boxes is None:
            raise MistError("the supervised baseline needs the true boxes, and these images have none")
        if len({len(boxes) for boxes in batch.boxes}) > 1 or not len(batch.boxes[0]):
            raise MistError("the supervised baseline needs the same number of objects, 1 or more, in every image")
        keypoints, scales = self.model.keypoints_of(torch.stack(batch.boxes)), self.model.config.scales
        return torch.cat((keypoints[..., :2], keypoints[..., 2:].clamp(scales[0], scales[-1])), dim=-1)
