"""The training step of the classifiers: stochastic gradient descent as the paper has it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.stn.birds import BirdClassifier
from mistnn.models.stn.network import StnClassifier
from mistnn.models.stn.numbers import NumberReader, sequence_of
from mistnn.nn.mixed_precision import Precision, check_precision, half_precision
from mistnn.nn.schedule import check_rates
from mistnn.nn.spatial_transformer import SpatialTransformer, parameter_groups
from mistnn.ops.transforms import share_outside
from mistnn.records import Batch

OUTSIDE_EVERY = 7
"""One grid of so many is asked for its share outside, for the log, which is a mean over many steps anyway (ours; a
prime, so that each of two or four transforms of an image has its turn)."""


@dataclass(frozen=True)
class StnStepConfig:
    """How a classifier is trained.

    Attributes:
        rate: learning rate at first (S003, section 1.3).
        momentum: of the descent (none is stated; without it the first drop at a fifteenth of the paper's length comes
            before anything is learnt).
        weight_decay: of the descent (S003: none).
        localisation_share: learning rate of the localisation networks, as a share of ``rate`` (S003 names another than
            1 for house numbers only, 0.1).
        decay: the rate falls to this share in ``drops`` equal steps; 0.01 are the paper's two of a factor of ten; 1 for
            a constant rate.
        decay_steps: length of the schedule, in iterations.
        drops: how often the rate falls, at equal distances: 2, after a third and after two thirds (S003: 150k
            iterations, every 50k); 4 on house numbers (400k, every 80k).
        precision: of the networks, "auto" computes them in bfloat16 where that is faster; grids and sampling stay in
            float32.
    """

    rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    localisation_share: float = 1.0
    decay: float = 0.01
    decay_steps: int = 150_000
    drops: int = 2
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        check_rates(self.decay, self.decay_steps, rate=self.rate)
        if self.drops < 1:
            raise MistError(f"step.drops={self.drops} is too small: give 1 or more, or --step.decay 1")
        if not 0 <= self.momentum < 1:
            raise MistError(f"step.momentum={self.momentum} must be from 0 to below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise MistError(f"step.weight_decay={self.weight_decay} must be finite and 0 or more")
        if not 0 <= self.localisation_share < math.inf:
            raise MistError(f"step.localisation_share={self.localisation_share} must be finite and 0 or more")
        check_precision(self.precision)


def stepped_share(iteration: int, decay: float, decay_steps: int, drops: int = 2) -> float:
    """The share of its first value that the rate has: steps down at equal distances, then constant.

    Args:
        iteration: from 0.
        decay: the last share.
        decay_steps: length of the schedule, in iterations.
        drops: how many steps; each of the ``drops`` + 1 pieces of the schedule is as long.
    """
    fallen = min(drops, iteration * (drops + 1) // max(1, decay_steps))
    return decay ** (fallen / drops)


def target_of(batch: Batch) -> Tensor:
    """What each image is to be taken for: its digit, the sum of its digits, or its bird.

    Convention: the class of a digit is its value, so that all are the counts times the values.
    """
    assert batch.counts is not None
    # No matrix product: CUDA has none of whole numbers.
    return (batch.counts * torch.arange(batch.counts.shape[1], device=batch.counts.device)).sum(1)


def wrong(logits: Tensor, target: Tensor) -> Tensor:
    """(batch,), whether an image is taken for another: of a number, whether any of its places is.

    Args:
        logits: (batch, classes) or (batch, places, classes).
        target: (batch,) or (batch, places).
    """
    return (logits.argmax(-1) != target).reshape(len(target), -1).any(1)


class StnStep:
    """One batch: one step against the cross entropy of the classes."""

    def __init__(self, model: StnClassifier | NumberReader | BirdClassifier, config: StnStepConfig) -> None:
        convolves = not isinstance(model, StnClassifier) or model.config.network == "cnn"
        self._layout = torch.channels_last if convolves else torch.contiguous_format
        self.model = model.to(memory_format=self._layout)
        self.config = config
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
        share = stepped_share(iteration, config.decay, config.decay_steps, config.drops)
        for group, own in zip(optimizer.param_groups, self._shares, strict=True):
            group["lr"] = config.rate * own * share
        target = sequence_of(batch) if isinstance(self.model, NumberReader) else target_of(batch)
        images = batch.images.contiguous(memory_format=self._layout)
        with half_precision(config.precision, images.device):
            done = self.model(images)
        logits = done.logits.float().flatten(0, -2)
        # Of several softmaxes the sum: the likelihood of a whole number is the product of theirs.
        loss = torch.nn.functional.cross_entropy(logits, target.flatten(), reduction="sum") / len(images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        logged = {"loss": loss.detach(), "error": wrong(done.logits.detach(), target).float().mean()}
        for number, warp in enumerate(done.warps, 1):
            logged[f"outside_{number}"] = share_outside(warp.grid[::OUTSIDE_EVERY]).mean()
        return logged
