"""The classifiers of the spatial transformer paper: FCN and CNN, with or without spatial transformers before them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.stn.fourier_convolution import FourierConvolution
from mistnn.nn.blocks import PooledConvolution, halve
from mistnn.nn.localisation import ConvolutionalLocalisation, FullyConnectedLocalisation
from mistnn.nn.spatial_transformer import (
    ParallelTransformers,
    SpatialTransformer,
    TransformConfig,
    Warp,
)

Family = Literal["fcn", "cnn"]
FIRST_KERNEL, SECOND_KERNEL, POOL = 9, 7, 2
"""Of the CNN (S003, section 1.3)."""


@dataclass(frozen=True)
class StnConfig:
    """A classifier and what stands before it.

    Attributes:
        network: "fcn", two hidden dense layers; or "cnn", a 9 x 9 and a 7 x 7 convolution, each with 2 x 2 max-pooling.
        width: units of each hidden layer, filters of each convolution.
        transformers: spatial transformers in parallel, each with a localisation network of its own; 0 for none.
        transform: what they do.
        halve: what they read is halved by averages before it is classified (S003: on RTS and TC).
        channels: of the images.
        side: of the images, in pixels; the transformers' output too.
        classes: how many.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S003, section 1.3.
    """

    network: Family = "cnn"
    width: int = 87
    transformers: int = 0
    transform: TransformConfig = field(default_factory=TransformConfig)
    halve: bool = False
    channels: int = 1
    side: int = 42
    classes: int = 10

    def __post_init__(self) -> None:
        """Refuses values that no network can have."""
        if self.network not in get_args(Family):
            raise MistError(f"model.network={self.network!r} is unknown: use {' or '.join(get_args(Family))}")
        for name, least in (("width", 1), ("transformers", 0), ("channels", 1), ("side", 1), ("classes", 2)):
            if getattr(self, name) < least:
                raise MistError(f"model.{name}={getattr(self, name)} is too small: give {least} or more")
        if self.halve and not self.transformers:
            raise MistError("model.halve halves what spatial transformers read: give model.transformers, or no halve")
        if self.network == "cnn" and self.map_side < 1:
            raise MistError(
                f"model.side={self.side} leaves the CNN nothing to classify: after {FIRST_KERNEL} x {FIRST_KERNEL} and "
                f"{SECOND_KERNEL} x {SECOND_KERNEL} convolutions it needs 24 px, 48 with model.halve"
            )

    @property
    def seen_side(self) -> int:
        """Side of what the classifier sees."""
        return self.side // 2 if self.halve else self.side

    @property
    def map_side(self) -> int:
        """Side of the CNN's last map."""
        first = (self.seen_side - FIRST_KERNEL + 1) // POOL
        return (first - SECOND_KERNEL + 1) // POOL


class Classified(NamedTuple):
    """What a classifier makes of images.

    Attributes:
        logits: (batch, classes).
        hidden: the activations of the two hidden layers, after the pooling of a CNN.
        seen: (batch, channels, side, side), what was classified: what the transformers read, or the images.
        warps: what each transformer did.
    """

    logits: Tensor
    hidden: tuple[Tensor, Tensor]
    seen: Tensor
    warps: tuple[Warp, ...]


class StnClassifier(nn.Module):
    """FCN, CNN, ST-FCN or ST-CNN; also the encoder of co-localisation.

    Reference: S003, sections 1.1 and 1.3.
    """

    def __init__(self, config: StnConfig) -> None:
        super().__init__()
        self.config = config
        side, width = config.side, config.width
        self.transformers = None
        if config.transformers:
            localisations = [_localisation(config) for _ in range(config.transformers)]
            self.transformers = ParallelTransformers(
                [SpatialTransformer(network, config.transform, (side, side)) for network in localisations]
            )
        channels = config.channels * max(1, config.transformers)
        if config.network == "fcn":
            seen = channels * config.seen_side**2
            self.first: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(seen, width), nn.ReLU())
            self.second: nn.Module = nn.Sequential(nn.Linear(width, width), nn.ReLU())
            self.last: nn.Module = nn.Linear(width, config.classes)
        else:
            # A maximum of values and 0 is the same in either order: pooling first leaves a quarter to compare with 0.
            self.first = nn.Sequential(PooledConvolution(channels, width, FIRST_KERNEL), nn.ReLU())
            self.second = nn.Sequential(FourierConvolution(width, width, SECOND_KERNEL), nn.MaxPool2d(POOL), nn.ReLU())
            self.last = nn.Sequential(nn.Flatten(), nn.Linear(width * config.map_side**2, config.classes))
        for part in (self.first, self.second, self.last):
            start(part)

    def forward(self, images: Tensor) -> Classified:
        """(batch, channels, side, side) to what each image is taken for.

        Raises:
            MistError: on images of another size.
        """
        wanted = (self.config.channels, self.config.side, self.config.side)
        if images.dim() != 4 or images.shape[1:] != wanted:
            raise MistError(
                f"this network reads images of (batch, {wanted[0]}, {wanted[1]}, {wanted[2]}), got "
                f"{tuple(images.shape)}: crop or pad them"
            )
        warps, seen = self.look(images)
        first = self.first(seen)
        second = self.second(first)
        return Classified(self.last(second), (first, second), seen, warps)

    def look(self, images: Tensor) -> tuple[tuple[Warp, ...], Tensor]:
        """What each transformer does with the images, and what the classifier then sees."""
        if self.transformers is None:
            return (), images
        warps = self.transformers.warps(images)
        seen = torch.cat([warp.features for warp in warps], dim=1)
        return warps, halve(seen) if self.config.halve else seen


def count_parameters(network: nn.Module) -> int:
    """Learnable numbers."""
    return sum(part.numel() for part in network.parameters() if part.requires_grad)


def _localisation(config: StnConfig) -> nn.Module:
    outputs = config.transform.parameters
    if config.network == "fcn":
        return start(FullyConnectedLocalisation(config.channels * config.side**2, outputs))
    return start(ConvolutionalLocalisation(config.channels, (config.side, config.side), outputs))


def start(network: nn.Module) -> nn.Module:
    """Weights that keep the size of activations, as He et al. (2015) have them; the paper says "randomly"."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network
