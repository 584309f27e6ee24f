"""The classifier of birds: several spatial transformers as attention, each with its own stream.

Not stated, and chosen here: ReLU after the two hidden weight layers of the localisation network; the fixed layer
downscales by averaging squares; colours are normalised before the transformers, so that these sample the mean colour
outside the image. "Tile the image plane" means the centres of equal tiles, columns first: four windows at half the
scale are the quarters, two are the left and the right half at mid height.

Reference: S003, section 1.5 and figure 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mistnn.models.stn.classifier import Classified, Classifier, initialise
from mistnn.models.stn.config import STRIDE, BirdsConfig
from mistnn.models.stn.describers import Describer
from mistnn.nn.spatial_transformer import SpatialTransformer, TransformConfig, Warp

REDUCED, HIDDEN = 128, 128
"""Channels after the 1 x 1 convolution, and units after it."""


class BirdClassifier(Classifier):
    """N spatial transformers with one localisation network, N streams, one softmax; building it reads no weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: BirdsConfig) -> None:
        super().__init__()
        self.config = config
        describer = Describer(config.backbone)
        first = tiled(config.transform, config.number)
        localisation = _localisation(config, describer, first.numel())
        self.transformer = SpatialTransformer(
            localisation, config.transform, (config.crop, config.crop), config.number, first
        )
        self.streams = nn.ModuleList(Describer(config.backbone) for _ in range(config.number))
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(describer.channels * config.number, config.classes)
        for name, value in zip(("mean", "std"), describer.colours, strict=True):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Classified:
        """See ``Classifier.forward``; images in [0, 1], one ``Warp`` for each transformer."""
        self.check_images(images, 3)
        number = self.config.number
        warp = self.transformer.warp((images - self.mean) / self.std)
        crops = warp.features.unflatten(1, (number, 3)).unbind(1)
        grids = warp.grid.unflatten(0, (-1, number)).unbind(1)
        warps = [Warp(crop, warp.parameters[:, [place]], grids[place]) for place, crop in enumerate(crops)]
        described = [stream(crop).mean(dim=(-2, -1)) for stream, crop in zip(self.streams, crops, strict=True)]
        return Classified(self.last(self.dropout(torch.cat(described, dim=1))), tuple(warps))

    def load_pretrained(self) -> None:
        """See ``Describer.load_pretrained``: for every stream and the localisation network."""
        for part in self.modules():
            if isinstance(part, Describer):
                part.load_pretrained()


def tiled(transform: TransformConfig, number: int) -> Tensor:
    """Windows at ``transform.scale``, centred in equal tiles of the image: (number, parameters), float64."""
    columns = math.ceil(math.sqrt(number))
    rows = math.ceil(number / columns)
    scale, made = transform.scale, []
    for place in range(number):
        row, column = divmod(place, columns)
        x, y = (2 * column + 1) / columns - 1, (2 * row + 1) / rows - 1
        windows = {"translation": (x, y), "attention": (scale, x, y), "affine": (scale, 0.0, x, 0.0, scale, y)}
        made.append(windows[transform.kind])
    return torch.tensor(made, dtype=torch.float64)


def _localisation(config: BirdsConfig, describer: Describer, outputs: int) -> nn.Module:
    factor, cells = config.side // config.crop, config.crop // STRIDE
    added = (
        nn.Conv2d(describer.channels, REDUCED, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(REDUCED * cells**2, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, outputs),
    )
    return nn.Sequential(nn.AvgPool2d(factor) if factor > 1 else nn.Identity(), describer, *map(initialise, added))
