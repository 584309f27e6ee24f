"""Zha18: landmarks as a structural representation (Zhang et al., CVPR 2018), a baseline of MIST's Table 1.

A landmark is the mean place of a channel of an hourglass. From the places alone, and a short descriptor at each, a
second hourglass redraws the whole image. What makes places of them are three soft constraints: each channel
concentrates, the channels keep apart, and they follow the image when it is warped. Each landmark is one part of one
kind of object, in each image: nothing lets two landmarks share several objects that look alike.

Lengths in this module are shares of the image's side, as in the paper, except in the boxes it reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.models.rivals.common import best_of, check_size
from mistnn.models.rivals.hourglass import Hourglass
from mistnn.nn.schedule import check_rates
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.landmarks import Landmarks, concentration, landmarks_of, separation
from mistnn.ops.losses import reconstruction_loss
from mistnn.ops.splines import control_grid, thin_plate_spline
from mistnn.records import Batch, Explanation


@dataclass(frozen=True)
class Zha18Config:
    """The network; values of the official 80 x 80 setting.

    Attributes:
        k: K, how many landmarks; one more channel is the background. It can't be changed later.
        channels: of the images, 1 or 3.
        widths: channels of the hourglass that finds landmarks at each resolution, the finest first.
        feature_widths: the same of the one whose features describe them.
        drawing_widths: the same of the one that draws the image.
        descriptor: numbers that describe what is at a landmark, and the background.
        features: channels of the map that the descriptors are pooled from.
        heat_levels: how many heat maps a landmark is drawn as, each wider than the one before by the square root of 2.
        heat_width: standard deviation of the narrowest, as a share of the image's side.
        box_size: side in pixels of the box that is reported around a landmark: the method has none.
    """

    k: int = 9
    channels: int = 1
    widths: tuple[int, ...] = (32, 64, 64, 64)
    feature_widths: tuple[int, ...] = (64, 128, 256, 512)
    drawing_widths: tuple[int, ...] = (64, 128, 256, 512)
    descriptor: int = 8
    features: int = 32
    heat_levels: int = 5
    heat_width: float = 0.125
    box_size: float = 20.0

    def __post_init__(self) -> None:
        """Refuses values that no network can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        for name in ("k", "descriptor", "features", "heat_levels"):
            if getattr(self, name) < 1:
                raise MistError(f"model.{name}={getattr(self, name)} must be 1 or more")
        if self.channels not in (1, 3):
            raise MistError(f"model.channels={self.channels} must be 1 (grey) or 3 (colour)")
        for name in ("widths", "feature_widths", "drawing_widths"):
            widths = getattr(self, name)
            if len(widths) < 2 or min(widths) < 1:
                raise MistError(f"model.{name}={widths} must be two or more numbers of channels, e.g. 32 64 64 64")
        check_size("heat_width", self.heat_width)
        check_size("box_size", self.box_size)

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: the method redraws."""
        return ()


class Warp(NamedTuple):
    """A map of the unit square for each image: where a place of the warped image comes from in the image.

    Attributes:
        linear: (batch, 2, 2), turn and zoom about the centre.
        shift: (batch, 2), after it.
        targets: (batch, points, 2), where the control points of the spline go, after both.
        control: (points, 2).
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
        """The images, looked up bilinearly; beyond the border the nearest pixel."""
        batch, _, height, width = images.shape
        x = (torch.arange(width, device=images.device) + 0.5) / width
        y = (torch.arange(height, device=images.device) + 0.5) / height
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(images.dtype)
        grid = self(places.reshape(1, -1, 2).expand(batch, -1, -1)).reshape(batch, height, width, 2)
        return F.grid_sample(images, grid * 2 - 1, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class Zha18StepConfig:
    """The objective's weights and the schedule; values of the official 80 x 80 setting.

    Attributes:
        rate: learning rate of Adam; a tenth of it after a third of ``decay_steps``, a hundredth after two thirds.
        weight_decay: of Adam.
        decay_steps: length of the schedule, in iterations (300,000 officially).
        reconstruction: weight of the squared error summed over pixels; ten times as much in the second third, a
            hundred times in the last.
        concentration: weight; like the separation, the mean over the image and its warped copy.
        separation: weight.
        bandwidth: of the separation, as a share of the image's side.
        equivariance: weight of the squared distances, in half sides of the image.
        grid: control points of the spline along each side, in the middles of as many equal parts.
        bend: standard deviation of their displacements, as a share of the image's side.
        shift: largest displacement along x and y, as a share of the image's side.
        turn: standard deviation of the angle, in degrees.
        zoom: the factor's logarithm has the standard deviation log(zoom).
    """

    rate: float = 1e-3
    weight_decay: float = 1e-6
    decay_steps: int = 300_000
    reconstruction: float = 0.1
    concentration: float = 100.0
    separation: float = 20.0
    bandwidth: float = 0.08
    equivariance: float = 1e4
    grid: int = 7
    bend: float = 0.05
    shift: float = 0.15
    turn: float = 10.0
    zoom: float = 1.25

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        check_rates(1.0, self.decay_steps, rate=self.rate)
        names = ("weight_decay", "reconstruction", "concentration", "separation", "equivariance")
        for name in (*names, "bend", "shift", "turn"):
            if not 0 <= getattr(self, name) < math.inf:
                raise MistError(f"step.{name}={getattr(self, name)} must be a finite number, 0 or more")
        if not 0 < self.bandwidth < math.inf:
            raise MistError(f"step.bandwidth={self.bandwidth} must be a finite share of the image's side above 0")
        if not 1 <= self.zoom < math.inf:
            raise MistError(f"step.zoom={self.zoom} must be a finite factor of 1 or more")
        if self.grid < 2:
            raise MistError(f"step.grid={self.grid} must be 2 or more control points along each side")

    def warp(self, batch: int, like: Tensor) -> Warp:
        """A random warp for each image, drawn on the CPU from torch's global generator."""
        control = (control_grid(self.grid, self.grid) * (self.grid - 1) + 0.5) / self.grid
        moved = torch.randn(batch, self.grid**2, 2) * self.bend
        angle = torch.randn(batch) * math.radians(self.turn)
        zoom = torch.exp(torch.randn(batch) * math.log(self.zoom))
        rows = (torch.stack((angle.cos(), -angle.sin()), -1), torch.stack((angle.sin(), angle.cos()), -1))
        linear = torch.stack(rows, dim=1) * zoom[:, None, None]
        shift = (torch.rand(batch, 2) * 2 - 1) * self.shift
        return Warp(linear.to(like), shift.to(like), (control + moved).to(like), control.to(like))


class Zha18(nn.Module):
    """Hourglass to landmarks, descriptors at them, hourglass back to the image."""

    def __init__(self, config: Zha18Config) -> None:
        super().__init__()
        self.config = config
        places, levels = config.k + 1, config.heat_levels
        self.landmark_network = Hourglass(config.channels, places, config.widths)
        self.feature_network = Hourglass(config.channels, config.features, config.feature_widths)
        self.describe = nn.Parameter(torch.randn(places, config.features, config.descriptor) / config.features**0.5)
        self.undescribe = nn.Parameter(torch.randn(places, config.descriptor, config.descriptor))
        self.drawing_network = Hourglass(levels * (places + config.descriptor), config.channels, config.drawing_widths)

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: the method redraws."""
        return self.config.class_names

    @property
    def reconstructs(self) -> bool:
        """Always."""
        return True

    def most(self, height: int, width: int) -> int:
        """K, whatever the size."""
        return self.config.k

    def landmarks(self, images: Tensor) -> Landmarks:
        """(batch, channels, height, width) to K landmarks an image."""
        return landmarks_of(self.landmark_network(images))

    def forward(self, images: Tensor) -> tuple[Landmarks, Tensor]:
        """Landmarks, and the images redrawn from the landmarks and their descriptors."""
        found = self.landmarks(images)
        weights = found.maps / found.maps.sum((-2, -1), keepdim=True).clamp(min=torch.finfo(found.maps.dtype).tiny)
        pooled = torch.einsum("bkhw,bfhw->bkf", weights, self.feature_network(images))
        descriptors = torch.einsum("bkf,kfd->bkd", pooled, self.describe)
        colours = torch.einsum("bkd,kde->bke", F.leaky_relu(descriptors, 0.2), self.undescribe)
        return found, self._draw(found.places, colours, images)

    def _draw(self, places: Tensor, colours: Tensor, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        x = (torch.arange(width, device=places.device) + 0.5) / width
        y = (torch.arange(height, device=places.device) + 0.5) / height
        squared = (x - places[..., :1]).square().unsqueeze(-2) + (y - places[..., 1:]).square().unsqueeze(-1)
        drawn = []
        for level in range(self.config.heat_levels):
            std = self.config.heat_width * math.sqrt(2) ** level
            heat = torch.exp(-squared / (2 * std**2)) / (2 * math.pi * std**2)
            heat = torch.cat((heat, torch.ones_like(heat[:, :1])), dim=1)  # the background is everywhere alike
            heat = heat / heat.sum(1, keepdim=True)
            drawn += [heat, torch.einsum("bkhw,bkd->bdhw", heat, colours)]
        picture: Tensor = self.drawing_network(torch.cat(drawn, dim=1))
        return picture.sigmoid()

    @torch.no_grad()
    def explain(self, images: Tensor, k: int) -> Explanation:
        """A box around each landmark, the most concentrated first; the K best of them."""
        landmarks, rebuilt = self(images)
        points = landmarks.places * landmarks.places.new_tensor((images.shape[-1], images.shape[-2]))
        boxes = boxes_at(points, self.config.box_size)
        scores = torch.exp(-landmarks.variances.sum(-1))
        return Explanation(best_of(boxes, scores, None, k), rebuilt)


class Zha18Step:
    """One batch: redraw it, and constrain the landmarks on it and on a warped copy."""

    def __init__(self, model: Zha18, config: Zha18StepConfig) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.Adam(model.parameters(), lr=config.rate, weight_decay=config.weight_decay, foreach=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Trains on one batch; returns the scalars to log."""
        config, model = self.config, self.model
        images = batch.images.contiguous(memory_format=torch.channels_last)
        third = phase(iteration, config.decay_steps)
        found, rebuilt = model(images)
        warp = config.warp(len(images), images)
        warped = model.landmarks(warp.image(images))
        spread = concentration(found.variances) + concentration(warped.variances)
        crowd = separation(found.places, config.bandwidth) + separation(warped.places, config.bandwidth)
        losses = {
            "reconstruction": reconstruction_loss(images, rebuilt),
            "concentration": spread / 2,
            "separation": crowd / 2,
            "equivariance": (2 * (warp(warped.places) - found.places)).square().sum((1, 2)),
        }
        weights = {name: getattr(config, name) for name in losses}
        weights["reconstruction"] *= 10.0**third
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum(0).mean()
        optimizer = self.optimizers["all"]
        for group in optimizer.param_groups:
            group["lr"] = config.rate * 0.1**third
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return {"task": total.detach(), **{name: loss.detach().mean() for name, loss in losses.items()}}


def phase(iteration: int, steps: int) -> int:
    """0, 1 or 2: in which third of the schedule an iteration lies; the last one goes on."""
    ends = (steps / 3, 2 * steps / 3)
    return sum(iteration >= end for end in ends)
