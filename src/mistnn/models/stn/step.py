"""The training steps: stochastic gradient descent of a classifier, and of a localiser by equation 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.stn.classifier import Classifier, wrong
from mistnn.models.stn.colocalise import Colocaliser
from mistnn.models.stn.config import ColocaliseStepConfig, StnStepConfig
from mistnn.nn.mixed_precision import half_precision
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.nn.spatial_transformer import SpatialTransformer, parameter_groups
from mistnn.ops.losses import common_object_loss
from mistnn.ops.transforms import share_outside
from mistnn.records import Batch

OUTSIDE_EVERY = 7
"""The logged share outside is computed from every 7th grid, since logged values are means over many steps anyway (ours;
a prime, so that each of two or four transforms of an image has its turn)."""
CLIP, MOMENTUM = 1.0, 0.9
"""Co-localisation (ours): the norm to which gradients are clipped, initially up to 60 times larger; the momentum."""


def stepped_share(iteration: int, decay: float, decay_steps: int, drops: int = 2) -> float:
    """The factor on a rate that falls to ``decay``, by drops that cut ``decay_steps`` iterations in equal parts."""
    fallen = min(drops, iteration * (drops + 1) // max(1, decay_steps))
    return decay ** (fallen / drops)


class StnStep:
    """One step of descent on the cross-entropy of the classes."""

    def __init__(self, model: Classifier, config: StnStepConfig) -> None:
        self.model = model.to(memory_format=model.memory_format)
        self.config = config
        self.decay_steps = known_steps(config.decay, config.decay_steps)
        groups = [{"params": list(model.parameters()), "lr": config.rate}]
        if any(isinstance(part, SpatialTransformer) for part in model.modules()):
            groups = parameter_groups(model, config.rate, config.localisation_share)
        self._shares = [group["lr"] / config.rate for group in groups]
        descent = torch.optim.SGD(
            groups, lr=config.rate, momentum=config.momentum, weight_decay=config.weight_decay, foreach=True
        )
        self.optimizers: dict[str, torch.optim.Optimizer] = {"all": descent}

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        config, optimizer = self.config, self.optimizers["all"]
        share = stepped_share(iteration, config.decay, self.decay_steps, config.drops)
        set_rates(self.optimizers, {"all": [config.rate * own * share for own in self._shares]})
        target = self.model.target(batch)
        images = batch.images.contiguous(memory_format=self.model.memory_format)
        with half_precision(config.precision, images.device):
            done = self.model(images)
        logits = done.logits.float().flatten(0, -2)
        # Summed over the places of a number, whose likelihood is the product of theirs.
        loss = nn.functional.cross_entropy(logits, target.flatten(), reduction="sum") / len(images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        logged = {"loss": loss.detach(), "error": wrong(done.logits.detach(), target).float().mean()}
        for number, warp in enumerate(done.warps, 1):
            logged[f"outside_{number}"] = share_outside(warp.grid[::OUTSIDE_EVERY]).mean()
        return logged


def open_at(openness: Sequence[tuple[float, float]], progress: float) -> float:
    """How far windows are open at a share of the training; see ``ColocaliseStepConfig.openness``."""
    before = (0.0, openness[0][1])
    for after in openness:
        if progress < after[0]:
            way = (progress - before[0]) / (after[0] - before[0])
            return before[1] + way * (after[1] - before[1])
        before = after
    return before[1]


class ColocaliseStep:
    """One step of descent on equation 1, over all pairs of images of a batch, against a random crop of each image."""

    def __init__(self, model: Colocaliser, config: ColocaliseStepConfig) -> None:
        if config.decay_steps is None:
            raise MistError("step.decay_steps is needed, the length of the schedule: give the number of training steps")
        self.model = model.to(memory_format=torch.channels_last)
        self.config, self.decay_steps = config, config.decay_steps
        self.weights = list(model.transformer.parameters())
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.SGD(self.weights, lr=config.rate, momentum=MOMENTUM, foreach=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        config, model, optimizer = self.config, self.model, self.optimizers["all"]
        set_rates(self.optimizers, {"all": config.rate * cosine_share(iteration, config.decay, self.decay_steps)})
        model.window.resize(open_at(config.openness, iteration / self.decay_steps))
        images = batch.images.contiguous(memory_format=torch.channels_last)
        model.train()
        model.encoder.eval()
        with half_precision(config.precision, images.device):
            window = model(images)
            scales = window.parameters[:, 0, 0]
            # Random crops only need a gradient while sizes are trained; the encoder's takes half of the time.
            with torch.set_grad_enabled(model.window.trains_sizes):
                random = self._describe(model.random_crops(images, scales))
            found = self._describe(window.features)
        loss = common_object_loss(found, random, config.margin).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, CLIP, foreach=True)
        optimizer.step()
        model.window.centre(window.features, scales)
        return {"loss": loss.detach(), "window": scales.detach().mean()}

    def _describe(self, crops: Tensor) -> Tensor:
        return self.model.describe(crops.contiguous(memory_format=torch.channels_last))
