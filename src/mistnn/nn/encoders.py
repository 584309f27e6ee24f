"""Encoders from patches to codes, and decoders from codes to patches: the parts of the task network T_tau."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.config import Config, at_least
from mistnn.nn.blocks import Normalisation, ResidualBlock, layer_norm

Family = Literal["paper", "released", "small", "levelled"]
SMALL_LEVELS = 3
"""How often the small networks halve or double a patch."""
FAINTEST = 0.02
"""The standard deviation of a patch, with values in [0, 1], below which its contrast is not fully normalised (ours)."""


@dataclass(frozen=True)
class EncoderConfig(Config):
    """The patch encoder.

    Attributes:
        network: "paper" (MIST supplement, section C.1), "released" (the released code's variant), "small" (three
            convolutions) or "levelled" (the small one on patches with normalised brightness and contrast, for
            photographs).
        width: channels of the first level; they double with each level (not stated; 8 in the released code). The small
            network uses width, 2 x width, 2 x width.
        code: the length of a patch's code; 0 for the number of features at the end of the network.
    """

    section: ClassVar[str] = "model.encoder"
    network: Family = "paper"
    width: Annotated[int, at_least(1)] = 8
    code: Annotated[int, at_least(0)] = 0

    @property
    def patch_unit(self) -> int:
        """The side of a patch must be a multiple of this, since the encoder halves it several times."""
        return 2**SMALL_LEVELS if self.network in ("small", "levelled") else 2**ResidualEncoder.levels


class ResidualEncoder(nn.Module):
    """The encoder half of the auto-encoder (MIST supplement, section C.1): five levels of three residual blocks.

    Each level ends in a 2x2 max pooling. The released variant has a sixth stage of three blocks after the last pooling,
    begins each stage with a 1x1 convolution, and normalises after the convolutions.
    """

    levels = 5
    blocks = 3

    def __init__(self, channels: int, size: int, config: EncoderConfig) -> None:
        super().__init__()
        side = _side(size, self.levels)
        released = config.network == "released"
        normalisation: Normalisation = "after" if released else "before"
        layers: list[nn.Module] = []
        inputs = channels
        for level in range(self.levels):
            outputs = config.width * 2**level
            if released:  # a 1x1 convolution changes the width
                layers.append(nn.Conv2d(inputs, outputs, 1))
                inputs = outputs
            for _ in range(self.blocks):
                layers.append(ResidualBlock(inputs, outputs, normalisation))
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        if released:
            layers.append(nn.Conv2d(inputs, inputs, 1))
            layers.extend(ResidualBlock(inputs, inputs, normalisation) for _ in range(self.blocks))
        features = inputs * side**2
        self.layers = nn.Sequential(*layers)
        self.code = nn.Linear(features, config.code) if config.code else nn.Identity()
        self.code_size = config.code or features

    def forward(self, patches: Tensor) -> Tensor:
        """(patches, channels, size, size) to (patches, code)."""
        return self.code(self.layers(patches).flatten(1))


class SmallEncoder(nn.Module):
    """Three 3x3 convolutions, each with ReLU and 2x2 max pooling, and a dense layer. For laptops; not in the paper.

    "levelled": each patch is first normalised to mean 0 and standard deviation 1 over its pixels and channels. The
    square of ``FAINTEST`` is added to its variance, so a flat patch stays flat and its gradient finite. The layer
    normalisation of the paper's encoder has a similar effect.
    """

    def __init__(self, channels: int, size: int, config: EncoderConfig) -> None:
        super().__init__()
        side, width = _side(size, SMALL_LEVELS), config.width
        self.levelled = config.network == "levelled"
        widths = pairwise((channels, width, 2 * width, 2 * width))
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in widths)
        self.code_size = config.code or 128
        self.code = nn.Linear(2 * width * side**2, self.code_size)

    def forward(self, patches: Tensor) -> Tensor:
        """(patches, channels, size, size) to (patches, code)."""
        features = patches
        if self.levelled:
            variance, mean = torch.var_mean(patches, (1, 2, 3), correction=0, keepdim=True)
            features = (patches - mean) / (variance + FAINTEST**2).sqrt()
        for convolution in self.convolutions:
            # Pooling before the ReLU gives the same values and gradients at a quarter of the ReLU's cost.
            features = F.relu(F.max_pool2d(convolution(features), 2))
        return self.code(features.flatten(1))


class SmallDecoder(nn.Module):
    """A dense layer and three transposed convolutions, from a code to a patch with values in (0, 1)."""

    def __init__(self, code: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.side, self.width = _side(size, SMALL_LEVELS), width
        self.entry = nn.Linear(code, 2 * width * self.side**2)
        widths = pairwise((2 * width, 2 * width, width, channels))
        layers = [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1) for before, after in widths]
        _start_dark(layers[-1])
        self.grow = nn.ModuleList(layers)

    def forward(self, code: Tensor) -> Tensor:
        """(patches, code) to (patches, channels, size, size)."""
        features = F.relu(self.entry(code)).view(-1, 2 * self.width, self.side, self.side)
        for layer in self.grow[:-1]:
            features = F.relu(layer(features))
        return self.grow[-1](features).sigmoid()


class ResidualDecoder(nn.Module):
    """The decoder half of the auto-encoder (MIST supplement, section C.1): the mirror image of the encoder.

    A dense layer restores the smallest map. Each of five levels has a 2x2 transposed convolution of stride 2 and three
    residual blocks, and halves the channels, down to ``width``. Layer normalisation precedes each convolution; a 1x1
    convolution and a sigmoid end the network. The paper states neither the dense layer, nor the last convolution, nor
    the width (8 in the released encoder). There are no skip connections from the encoder.
    """

    def __init__(self, code: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        levels, blocks = ResidualEncoder.levels, ResidualEncoder.blocks
        self.side, self.width = _side(size, levels), width * 2 ** (levels - 1)
        features = self.width * self.side**2
        self.entry = nn.Identity() if code == features else nn.Linear(code, features)
        layers: list[nn.Module] = []
        inputs = self.width
        for level in reversed(range(levels)):
            outputs = width * 2**level
            layers += [layer_norm(inputs), nn.ConvTranspose2d(inputs, outputs, 2, stride=2), nn.ReLU()]
            layers.extend(ResidualBlock(outputs, outputs, "before") for _ in range(blocks))
            inputs = outputs
        last = nn.Conv2d(inputs, channels, 1)
        _start_dark(last)
        self.layers = nn.Sequential(*layers, layer_norm(inputs), last)

    def forward(self, code: Tensor) -> Tensor:
        """(patches, code) to (patches, channels, size, size)."""
        return self.layers(self.entry(code).view(-1, self.width, self.side, self.side)).sigmoid()


def build_encoder(channels: int, size: int, config: EncoderConfig) -> ResidualEncoder | SmallEncoder:
    """The patch encoder of a configuration, for square patches of a number of channels and a side in pixels."""
    return (SmallEncoder if config.network in ("small", "levelled") else ResidualEncoder)(channels, size, config)


def build_decoder(code: int, channels: int, size: int, family: Family, width: int) -> ResidualDecoder | SmallDecoder:
    """The decoder for a family of encoders: the paper's, or the small one for all others."""
    return (ResidualDecoder if family == "paper" else SmallDecoder)(code, channels, size, width)


def _side(size: int, levels: int) -> int:
    """The side of the smallest map of a network that halves or doubles patches."""
    if size % 2**levels:
        raise ValueError(
            f"this network halves or doubles a patch {levels} times: its size must be a multiple of {2**levels}, "
            f"got {size}"
        )
    return size // 2**levels


def _start_dark(last: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Makes initial patches nearly black, since most of a scene is background."""
    assert last.bias is not None
    nn.init.constant_(last.bias, -2.0)
