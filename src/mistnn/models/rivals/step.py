"""The training steps: one gradient for all weights of a rival, and the objective of Zha18."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.models.rivals.common import Rival
from mistnn.models.rivals.config import RivalStepConfig, Zha18StepConfig
from mistnn.models.rivals.zha18 import Zha18
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.ops.landmarks import concentration, separation
from mistnn.ops.losses import reconstruction_loss
from mistnn.ops.splines import control_grid, thin_plate_spline
from mistnn.records import Batch


class RivalStep:
    """One gradient of the task loss for all weights; one Adam for the task network, one for all others."""

    def __init__(self, model: Rival, config: RivalStepConfig) -> None:
        known_steps(config.decay, config.decay_steps)
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        trained = {name: part for name, part in model.named_parameters() if part.requires_grad}  # no frozen backbone
        task = [part for name, part in trained.items() if name.startswith("task_network.")]
        places = [part for name, part in trained.items() if not name.startswith("task_network.")]
        adams = {"task": (task, config.rate), "places": (places, config.places_rate)}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(parts, lr=rate, foreach=True) for name, (parts, rate) in adams.items() if parts
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        config = self.config
        share = cosine_share(iteration, config.decay, config.decay_steps)
        set_rates(self.optimizers, {"task": config.rate * share, "places": config.places_rate * share})
        images = batch.images.contiguous(memory_format=torch.channels_last)
        losses = self.model.losses(batch._replace(images=images))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        losses["task"].mean().backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return {name: value.detach().mean() for name, value in losses.items()}


class Warp(NamedTuple):
    """A map of the unit square for each image, from a place in the warped image to its source in the image.

    Attributes:
        linear: (batch, 2, 2), rotation and scale about the centre.
        shift: (batch, 2), applied after it.
        targets: (batch, points, 2), where the control points of the spline go, after both.
        control: (points, 2), the control points.
    """

    linear: Tensor
    shift: Tensor
    targets: Tensor
    control: Tensor

    def __call__(self, places: Tensor) -> Tensor:
        """(batch, n, 2) to (batch, n, 2)."""
        moved = (places - 0.5) @ self.linear.transpose(1, 2) + 0.5 + self.shift.unsqueeze(1)
        return thin_plate_spline(self.control, self.targets, moved)

    def image(self, images: Tensor) -> Tensor:
        """The warped images, sampled bilinearly; beyond the border the nearest pixel."""
        batch, _, height, width = images.shape
        y, x = ((torch.arange(side, device=images.device) + 0.5) / side for side in (height, width))
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(images.dtype)
        grid = self(places.reshape(1, -1, 2).expand(batch, -1, -1)).reshape(batch, height, width, 2)
        return F.grid_sample(images, grid * 2 - 1, padding_mode="border", align_corners=False)


def random_warp(config: Zha18StepConfig, batch: int, like: Tensor) -> Warp:
    """A random warp for each image, drawn on the CPU from torch's global generator, typed as ``like``."""
    control = (control_grid(config.grid, config.grid) * (config.grid - 1) + 0.5) / config.grid
    moved = torch.randn(batch, config.grid**2, 2) * config.bend
    angle = torch.randn(batch) * math.radians(config.turn)
    zoom = torch.exp(torch.randn(batch) * math.log(config.zoom))
    rows = (torch.stack((angle.cos(), -angle.sin()), -1), torch.stack((angle.sin(), angle.cos()), -1))
    linear = torch.stack(rows, dim=1) * zoom[:, None, None]
    shift = (torch.rand(batch, 2) * 2 - 1) * config.shift
    return Warp(linear.to(like), shift.to(like), (control + moved).to(like), control.to(like))


class Zha18Step:
    """Reconstructs each image, and constrains the landmarks on it and on a warped copy."""

    def __init__(self, model: Zha18, config: Zha18StepConfig) -> None:
        if config.decay_steps is None:
            raise MistError("step.decay_steps is needed, the length of the schedule: give the number of training steps")
        self.model = model.to(memory_format=torch.channels_last)
        self.config, self.decay_steps = config, config.decay_steps
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.Adam(model.parameters(), lr=config.rate, weight_decay=config.weight_decay, foreach=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        config, model, optimizer = self.config, self.model, self.optimizers["all"]
        images = batch.images.contiguous(memory_format=torch.channels_last)
        third = phase(iteration, self.decay_steps)
        found, rebuilt = model(images)
        warp = random_warp(config, len(images), images)
        warped = model.landmarks(warp.image(images))
        spread = concentration(found.variances) + concentration(warped.variances)
        crowd = separation(found.places, config.bandwidth) + separation(warped.places, config.bandwidth)
        losses = {
            "reconstruction": reconstruction_loss(images, rebuilt) / 2,  # official: 1/2 (x - u)^2
            "concentration": spread / 2,
            "separation": crowd / 2,
            "equivariance": (2 * (warp(warped.places) - found.places)).square().sum((1, 2)),
        }
        weights = {name: getattr(config, name) for name in losses}
        weights["reconstruction"] *= 10.0**third
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum(0).mean()
        set_rates(self.optimizers, {"all": config.rate * 0.1**third})
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return {"task": total.detach(), **{name: loss.detach().mean() for name, loss in losses.items()}}


def phase(iteration: int, steps: int) -> int:
    """The third of a schedule to which an iteration belongs: 0, 1 or 2; iterations after the end belong to the last."""
    ends = (steps / 3, 2 * steps / 3)
    return sum(iteration >= end for end in ends)
