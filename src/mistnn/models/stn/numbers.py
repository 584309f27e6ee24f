"""The networks that read house numbers: CNN, ST-CNN Single and ST-CNN Multi, five softmaxes on one descriptor.

The CNN that the supplement prints has five convolutions. Its main paper, and [2], which it follows, count eleven hidden
layers. The convolutions of [2] have 48, 64, 128, 160 and four times 192 filters, with a halving at every second one:
just what is printed, if two pieces of the line were lost. So "eleven" (eight convolutions, three dense layers) is the
default; at 64 px it ends in 4 x 4 x 192 = 3072 numbers, the very width of the dense layers. "printed" has the layers as
they stand.

Not stated, and chosen here: an image loses its mean first, as in [2], so that what a transformer reads outside is of
the mean colour; dropout stands after the pooling; weights begin as He et al. (2015) have them, smaller by what dropout
adds to the size of activations, which else grow 30-fold, and the first steps are the last ones; the last layer begins
with weights of ``LAST``, so that at first every class is as likely.

Reference: S003, section 1.4; [2] Goodfellow et al. (2014), section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.stn.network import start
from mistnn.nn.localisation import FullyConnectedLocalisation
from mistnn.nn.spatial_transformer import SpatialTransformer, TransformConfig, Warp
from mistnn.records import Batch

PLACES, SIGNS = 5, 11
"""Softmaxes, and what each tells apart: ten digits, and no digit."""
NOTHING = 10
"""The class of a place behind the last digit."""
KERNEL, PADDING = 5, 2

Layers = Literal["eleven", "printed"]
Where = Literal["none", "single", "multi"]

CONVOLUTIONS: Mapping[str, tuple[tuple[int, bool], ...]] = MappingProxyType(
    {
        "eleven": (
            (48, True), (64, False), (128, True), (160, False), (192, True), (192, False), (192, True), (192, False),
        ),
        "printed": ((48, True), (64, False), (128, True), (192, True), (192, False)),
    }
)  # fmt: skip
"""Filters of each convolution, and whether a 2 x 2 max-pooling follows it."""
TRANSFORMERS: Mapping[str, int] = MappingProxyType({"none": 0, "single": 1, "multi": 4})
"""How many of the first convolutions have a spatial transformer before them."""
LOCALISATION_WIDTH = 32
LAST = 0.01
"""Standard deviation of the last layer's weights at birth; not stated."""


@dataclass(frozen=True)
class NumberReaderConfig:
    """A network that reads a whole number.

    Attributes:
        where: spatial transformers: "none"; "single", one before the first convolution; or "multi", one before each
            of the first four.
        layers: "eleven" hidden layers, or as "printed" in the supplement; see the module.
        units: of each of the three dense layers.
        transform: what the transformers do; affine in the paper.
        dropout: of every layer but the first convolution and the localisation networks.
        side: of the images, in pixels; 64 or 128 in the paper.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S003, section 1.4.
    """

    where: Where = "none"
    layers: Layers = "eleven"
    units: int = 3072
    transform: TransformConfig = field(default_factory=TransformConfig)
    dropout: float = 0.5
    side: int = 64

    def __post_init__(self) -> None:
        """Refuses values that no network can have."""
        if self.where not in get_args(Where):
            raise MistError(f"model.where={self.where!r} is unknown: use {', '.join(get_args(Where))}")
        if self.layers not in get_args(Layers):
            raise MistError(f"model.layers={self.layers!r} is unknown: use {' or '.join(get_args(Layers))}")
        if self.units < 1:
            raise MistError(f"model.units={self.units} is too small: give 1 or more")
        if not 0 <= self.dropout < 1:
            raise MistError(f"model.dropout={self.dropout} must be a share from 0 to below 1")
        # Of a padded 5 x 5 kernel on a map of one pixel, PyTorch's bfloat16 gradient on processors is unset memory.
        least = 2 * 2 ** sum(pooled for _, pooled in CONVOLUTIONS[self.layers])
        if self.side < least:
            raise MistError(f"model.side={self.side} is halved until nothing is left: give {least} px or more")


class Told(NamedTuple):
    """What a network says of images.

    Attributes:
        logits: (batch, 5, 11) of a reader of numbers, (batch, classes) of a classifier of birds.
        warps: what each spatial transformer did.
    """

    logits: Tensor
    warps: tuple[Warp, ...]


class NumberReader(nn.Module):
    """CNN, ST-CNN Single or ST-CNN Multi.

    Reference: S003, section 1.4.
    """

    def __init__(self, config: NumberReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.transformers = nn.ModuleList()
        self.convolutions = nn.ModuleList()
        channels, side = 3, config.side
        for place, (filters, pooled) in enumerate(CONVOLUTIONS[config.layers]):
            if place < TRANSFORMERS[config.where]:
                localisation = _localisation(config, channels, side)
                self.transformers.append(SpatialTransformer(localisation, config.transform, (side, side)))
            # A maximum of values and 0 is the same in either order: pooling first leaves a quarter to compare with 0.
            pooling = [nn.MaxPool2d(2)] if pooled else []
            dropout = [nn.Dropout(config.dropout)] if place else []
            convolution = _begun(nn.Conv2d(channels, filters, KERNEL, padding=PADDING), config.dropout * (place > 1))
            self.convolutions.append(nn.Sequential(convolution, *pooling, nn.ReLU(), *dropout))
            channels, side = filters, side // 2 if pooled else side
        dense: list[nn.Module] = [nn.Flatten()]
        inputs = channels * side**2
        for _ in range(3):
            layer = _begun(nn.Linear(inputs, config.units), config.dropout)
            dense += [layer, nn.ReLU(), nn.Dropout(config.dropout)]
            inputs = config.units
        self.dense = nn.Sequential(*dense)
        # Five layers of 11 beside each other are one of 55.
        self.last = nn.Linear(inputs, PLACES * SIGNS)
        nn.init.normal_(self.last.weight, std=LAST)
        nn.init.zeros_(self.last.bias)

    def forward(self, images: Tensor) -> Told:
        """(batch, 3, side, side) to what stands at each of the five places.

        Raises:
            MistError: on images of another size.
        """
        side = self.config.side
        if images.dim() != 4 or images.shape[1:] != (3, side, side):
            raise MistError(
                f"this network reads images of (batch, 3, {side}, {side}), got {tuple(images.shape)}: crop them so "
                "(data.side)"
            )
        features = images - images.mean(dim=(1, 2, 3), keepdim=True)
        warps: list[Warp] = []
        for place, convolution in enumerate(self.convolutions):
            if place < len(self.transformers):
                transformer = self.transformers[place]
                assert isinstance(transformer, SpatialTransformer)
                warps.append(transformer.warp(features))
                features = warps[-1].features
            features = convolution(features)
        logits = self.last(self.dense(features)).unflatten(1, (PLACES, SIGNS))
        return Told(logits, tuple(warps))


def sequence_of(batch: Batch) -> Tensor:
    """(batch, 5), the digits of each image in their order, and ``NOTHING`` behind the last one."""
    assert batch.labels is not None
    result = batch.images.new_full((len(batch.labels), PLACES), NOTHING, dtype=torch.int64)
    for row, labels in zip(result, batch.labels, strict=True):
        row[: len(labels)] = labels
    return result


def _begun(layer: nn.Conv2d | nn.Linear, dropped: float) -> nn.Module:
    """A layer whose activations are as large as what it reads, a share of which is dropped and the rest enlarged."""
    start(layer)
    with torch.no_grad():
        layer.weight.mul_(math.sqrt(1 - dropped))
    return layer


def _localisation(config: NumberReaderConfig, channels: int, side: int) -> nn.Module:
    outputs, width = config.transform.parameters, LOCALISATION_WIDTH
    if config.where == "multi":
        return start(FullyConnectedLocalisation(channels * side**2, outputs, width, layers=2))
    half = side // 2
    return start(
        nn.Sequential(
            nn.Conv2d(channels, width, KERNEL, padding=PADDING),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(width, width, KERNEL, padding=PADDING),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * half**2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, outputs),
        )
    )
