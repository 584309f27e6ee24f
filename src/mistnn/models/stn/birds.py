"""The network that tells birds apart: several spatial transformers as attention, each with a stream of its own.

Not stated, and chosen here: ReLU after the two hidden weight layers of the localisation network; how the fixed layer
downscales (means of squares); the colours' normalisation, which stands before the transformers, so that what they read
outside is of the mean colour. "Tile the image plane": the centres of equal tiles, columns first; four windows at half
the scale are the quarters, two are the left and the right half in the middle of the height.

Reference: S003, section 1.5 and figure 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.stn.describers import STRIDE, Describer, DescriberConfig
from mistnn.models.stn.network import start
from mistnn.models.stn.numbers import Told
from mistnn.nn.spatial_transformer import SpatialTransformer, TransformConfig, Warp

REDUCED, HIDDEN = 128, 128
"""Channels after the 1 x 1 convolution, and units after it."""


@dataclass(frozen=True)
class BirdsConfig:
    """A network of several streams.

    Attributes:
        number: of spatial transformers and streams; 2 or 4 in the paper.
        transform: "translation" at half the scale, or, tried in the paper with like results, "attention" and "affine".
            All begin at ``transform.scale``.
        backbone: of each stream and of the localisation network, none of which share weights.
        side: of the images, in pixels; 224 or 448 in the paper.
        crop: of what each transformer reads, in pixels, and of the image that the localisation network sees.
        classes: how many.
        dropout: before the last layer. Not stated in S003; a summary of the paper has 0.7.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S003, section 1.5.
    """

    number: int = 2
    transform: TransformConfig = field(default_factory=lambda: TransformConfig("translation"))
    backbone: DescriberConfig = field(default_factory=DescriberConfig)
    side: int = 224
    crop: int = 224
    classes: int = 200
    dropout: float = 0.7

    def __post_init__(self) -> None:
        """Refuses values that no network can have."""
        for name, least in (("number", 1), ("classes", 2)):
            if getattr(self, name) < least:
                raise MistError(f"model.{name}={getattr(self, name)} is too small: give {least} or more")
        if self.crop < STRIDE or self.crop % STRIDE:
            raise MistError(f"model.crop={self.crop} must be a multiple of the {STRIDE} px of a cell of the features")
        if self.side < self.crop or self.side % self.crop:
            raise MistError(f"model.side={self.side} must be one or more times model.crop={self.crop}")
        if not 0 <= self.dropout < 1:
            raise MistError(f"model.dropout={self.dropout} must be a share from 0 to below 1")
        tiled(self.transform, self.number)


class BirdClassifier(nn.Module):
    """N spatial transformers with one localisation network, N streams, one softmax.

    Building it reads no weights: ``load_pretrained`` does.

    Reference: S003, section 1.5.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BirdsConfig) -> None:
        super().__init__()
        self.config = config
        looks = Describer(config.backbone)
        first = tiled(config.transform, config.number)
        localisation = _localisation(config, looks, first.numel())
        self.transformer = SpatialTransformer(
            localisation, config.transform, (config.crop, config.crop), config.number, first
        )
        self.streams = nn.ModuleList(Describer(config.backbone) for _ in range(config.number))
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(looks.channels * config.number, config.classes)
        for name, value in zip(("mean", "std"), looks.colours, strict=True):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Told:
        """(batch, 3, side, side) in [0, 1] to the class of each; a ``Warp`` for each transformer.

        Raises:
            MistError: on images of another size.
        """
        side, number = self.config.side, self.config.number
        if images.dim() != 4 or images.shape[1:] != (3, side, side):
            raise MistError(
                f"this network reads images of (batch, 3, {side}, {side}), got {tuple(images.shape)}: crop them so "
                "(data.side)"
            )
        warp = self.transformer.warp((images - self.mean) / self.std)
        crops = warp.features.unflatten(1, (number, 3)).unbind(1)
        grids = warp.grid.unflatten(0, (-1, number)).unbind(1)
        warps = [Warp(crop, warp.parameters[:, [place]], grids[place]) for place, crop in enumerate(crops)]
        described = [stream(crop).mean(dim=(-2, -1)) for stream, crop in zip(self.streams, crops, strict=True)]
        return Told(self.last(self.dropout(torch.cat(described, dim=1))), tuple(warps))

    def load_pretrained(self) -> None:
        """Reads the weights that the configuration names, into every stream and the localisation network.

        Raises:
            MistError: see ``Describer.load_pretrained``.
        """
        for part in self.modules():
            if isinstance(part, Describer):
                part.load_pretrained()


def tiled(transform: TransformConfig, number: int) -> Tensor:
    """(number, parameters), windows at ``transform.scale`` whose centres are those of equal tiles of the image.

    Raises:
        MistError: if the transform has no window.
    """
    columns = math.ceil(math.sqrt(number))
    rows = math.ceil(number / columns)
    scale, made = transform.scale, []
    for place in range(number):
        row, column = divmod(place, columns)
        x, y = (2 * column + 1) / columns - 1, (2 * row + 1) / rows - 1
        windows = {"translation": (x, y), "attention": (scale, x, y), "affine": (scale, 0.0, x, 0.0, scale, y)}
        if transform.kind not in windows:
            raise MistError(
                f"model.transform.kind={transform.kind!r} can't begin as tiles of the image: use {', '.join(windows)}"
            )
        made.append(windows[transform.kind])
    return torch.tensor(made, dtype=torch.float64)


def _localisation(config: BirdsConfig, looks: Describer, outputs: int) -> nn.Module:
    times, cells = config.side // config.crop, config.crop // STRIDE
    added = (
        nn.Conv2d(looks.channels, REDUCED, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(REDUCED * cells**2, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, outputs),
    )
    return nn.Sequential(nn.AvgPool2d(times) if times > 1 else nn.Identity(), looks, *map(start, added))
