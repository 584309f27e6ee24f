"""The networks that read house numbers: CNN, ST-CNN Single and ST-CNN Multi, five softmaxes on one descriptor.

The supplement prints a CNN of five convolutions ("printed"). The main paper, and [2], which it follows, count eleven
hidden layers. The convolutions of [2] have 48, 64, 128, 160 and four times 192 filters, with a pooling after every
second one: exactly the printed ones, if two parts of the line were lost. So the default is "eleven": eight convolutions
and three dense layers. At 64 px it ends in 4 x 4 x 192 = 3072 values, the width of the dense layers.

Not stated, and chosen here: the mean of an image is subtracted first, as in [2], so that a transformer samples the mean
colour outside the image; dropout follows the pooling; initial weights are those of He et al. (2015), scaled down by the
factor by which dropout scales activations up (activations would otherwise grow 30-fold, and training would not recover
from its first steps); the last layer's weights have standard deviation ``LAST``, so that all classes start equally
likely.

Reference: S003, section 1.4; [2] Goodfellow et al. (2014), section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from mistnn.models.stn.classifier import Classified, Classifier, initialise
from mistnn.models.stn.config import CONVOLUTIONS, NumberReaderConfig
from mistnn.nn.localisation import FullyConnectedLocalisation
from mistnn.nn.spatial_transformer import SpatialTransformer, Warp
from mistnn.records import Batch

PLACES, SIGNS = 5, 11
"""Number of softmaxes, and classes of each: ten digits, and no digit."""
NOTHING = 10
"""The class of a place after the last digit."""
KERNEL, PADDING = 5, 2

TRANSFORMERS: Mapping[str, int] = MappingProxyType({"none": 0, "single": 1, "multi": 4})
"""How many of the first convolutions have a spatial transformer in front."""
LOCALISATION_WIDTH = 32
LAST = 0.01
"""Initial standard deviation of the last layer's weights; not stated."""


class NumberReader(Classifier):
    """CNN, ST-CNN Single or ST-CNN Multi (S003, section 1.4)."""

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
            # ReLU and max-pooling commute; pooling first leaves a quarter of the values for the ReLU.
            pooling = [nn.MaxPool2d(2)] if pooled else []
            dropout = [nn.Dropout(config.dropout)] if place else []
            convolution = _scaled(nn.Conv2d(channels, filters, KERNEL, padding=PADDING), config.dropout * (place > 1))
            self.convolutions.append(nn.Sequential(convolution, *pooling, nn.ReLU(), *dropout))
            channels, side = filters, side // 2 if pooled else side
        dense: list[nn.Module] = [nn.Flatten()]
        inputs = channels * side**2
        for _ in range(3):
            layer = _scaled(nn.Linear(inputs, config.units), config.dropout)
            dense += [layer, nn.ReLU(), nn.Dropout(config.dropout)]
            inputs = config.units
        self.dense = nn.Sequential(*dense)
        # One layer of 55 units equals five parallel layers of 11.
        self.last = nn.Linear(inputs, PLACES * SIGNS)
        nn.init.normal_(self.last.weight, std=LAST)
        nn.init.zeros_(self.last.bias)

    def forward(self, images: Tensor) -> Classified:
        """See ``Classifier.forward``."""
        self.check_images(images, 3)
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
        return Classified(logits, tuple(warps))

    def target(self, batch: Batch) -> Tensor:
        """The digits of each image in their order, then ``NOTHING``: (batch, 5)."""
        assert batch.labels is not None
        result = batch.images.new_full((len(batch.labels), PLACES), NOTHING, dtype=torch.int64)
        for row, labels in zip(result, batch.labels, strict=True):
            row[: len(labels)] = labels
        return result


def _scaled(layer: nn.Conv2d | nn.Linear, dropped: float) -> nn.Module:
    """Initial weights that preserve the scale of activations of which dropout zeroes a share and scales up the rest."""
    initialise(layer)
    with torch.no_grad():
        layer.weight.mul_(math.sqrt(1 - dropped))
    return layer


def _localisation(config: NumberReaderConfig, channels: int, side: int) -> nn.Module:
    outputs, width = config.transform.parameters, LOCALISATION_WIDTH
    if config.where == "multi":
        return initialise(FullyConnectedLocalisation(channels * side**2, outputs, width, layers=2))
    return initialise(
        nn.Sequential(
            nn.Conv2d(channels, width, KERNEL, padding=PADDING),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(width, width, KERNEL, padding=PADDING),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * (side // 2) ** 2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, outputs),
        )
    )
