"""What the rivals share: the fields of the task network, and one training step with one gradient for all weights."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.schedule import check_rates, cosine_share
from mistnn.records import Batch, Detections


class Rival(nn.Module, abc.ABC):
    """A network whose loss has a gradient for all of its weights, the places it looks at included."""

    @abc.abstractmethod
    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """The loss of each image, (batch,), as "task", and its terms."""

    @abc.abstractmethod
    def most(self, height: int, width: int) -> int:
        """How many objects it can find in an image of this size: as many as it has places for."""


@dataclass(frozen=True)
class RivalStepConfig:
    """Choices of the rivals' training; none is stated in the MIST paper.

    Attributes:
        rate: learning rate of Adam for the task network.
        places_rate: learning rate of Adam for whatever chooses the places.
        decay: the rates fall to this share along half a cosine over ``decay_steps``; 1 for constant rates.
        decay_steps: length of that fall, in iterations.
    """

    rate: float = 1e-3
    places_rate: float = 1e-3
    decay: float = 1.0
    decay_steps: int = 0

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        check_rates(self.decay, self.decay_steps, rate=self.rate, places_rate=self.places_rate)


class RivalStep:
    """One batch: one gradient of the task loss for everything."""

    def __init__(self, model: Rival, config: RivalStepConfig) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        trained = {name: part for name, part in model.named_parameters() if part.requires_grad}  # no frozen backbone
        task = [part for name, part in trained.items() if name.startswith("task_network.")]
        places = [part for name, part in trained.items() if not name.startswith("task_network.")]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "task": torch.optim.Adam(task, lr=config.rate, foreach=True)
        }
        if places:
            self.optimizers["places"] = torch.optim.Adam(places, lr=config.places_rate, foreach=True)

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        share = cosine_share(iteration, self.config.decay, self.config.decay_steps)
        rates = {"task": self.config.rate, "places": self.config.places_rate}
        images = batch.images.contiguous(memory_format=torch.channels_last)
        losses = self.model.losses(batch._replace(images=images))
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[name] * share
            optimizer.zero_grad(set_to_none=True)
        losses["task"].mean().backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return {name: value.detach().mean() for name, value in losses.items()}


def best_of(boxes: Tensor, scores: Tensor, labels: Tensor | None, k: int) -> list[Detections]:
    """The k best boxes of each image, the best first.

    Args:
        boxes: (batch, n, 4).
        scores: (batch, n).
        labels: (batch, n), or ``None``.
        k: how many; all if there are fewer.
    """
    found = []
    for index in range(len(boxes)):
        best = scores[index].argsort(descending=True, stable=True)[:k]
        label = None if labels is None else labels[index, best]
        found.append(Detections(boxes[index, best], scores[index, best], label))
    return found


def check_patches(class_names: tuple[str, ...], patch_size: int, decoder: int, encoder: EncoderConfig) -> None:
    """Refuses a task network that can't be, or has no task.

    Raises:
        MistError: naming the field, its value and the mend.
    """
    if not all(class_names) or len(set(class_names)) < len(class_names):
        raise MistError(f"model.class_names={class_names} must be distinct names, none of them empty")
    if patch_size < 1 or patch_size % encoder.patch_unit:
        raise MistError(f"model.patch_size={patch_size} must be a multiple of {encoder.patch_unit} for this encoder")
    if decoder < 0:
        raise MistError(f"model.decoder={decoder} must be a width of 1 or more, or 0 for no decoder")
    if not class_names and not decoder:
        raise MistError("there is nothing to learn: name classes, or set model.decoder to the width of a decoder")


def check_size(name: str, value: float) -> None:
    """Refuses a size in pixels that is none."""
    if not 0 < value < math.inf:
        raise MistError(f"model.{name}={value} must be a finite number above 0")
