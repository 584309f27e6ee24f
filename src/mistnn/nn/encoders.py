"""Task networks T_tau for patches: encoders that turn a patch into a code, and the decoder that turns it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.config import Config, at_least
from mistnn.nn.blocks import Normalisation, ResidualBlock, layer_norm

FAINTEST = 0.02
"""Standard deviation of a patch, of values in [0, 1], below which it is not brought up to full contrast (ours)."""


@dataclass(frozen=True)
class EncoderConfig(Config):
    """Which patch encoder.

    Attributes:
        network: "paper" (MIST supplement, section C.1), "released" (the released code's variant) "small" (three
            convolutions) or "levelled" (the small one on patches whose brightness and contrast are evened out first,
            for photographs).
        width: channels of the first level; they double from level to level. Not stated in the paper; 8 in the
            released code. The small network uses width, 2 x width, 2 x width.
        code: numbers in the code of a patch. 0 takes what the network ends in.
    """

    section: ClassVar[str] = "model.encoder"
    network: Literal["paper", "released", "small", "levelled"] = "paper"
    width: Annotated[int, at_least(1)] = 8
    code: Annotated[int, at_least(0)] = 0

    @property
    def patch_unit(self) -> int:
        """The side of a patch must be a multiple of this, for the encoder halves it several times."""
        return 2**3 if self.network in ("small", "levelled") else 2**ResidualEncoder.levels


class ResidualEncoder(nn.Module):
    """The encoder half of the paper's auto-encoder: five levels of three residual blocks and a 2x2 max pooling.

    The released code has a sixth stage of three blocks after the last pooling, begins each stage with a 1x1
    convolution, and normalises after the convolutions.

    Args:
        channels: of the patches.
        size: side of the patches in pixels; at least 32, so that five poolings leave one pixel.
        config: the width of the first level and the code size.
        released: the released code's variant.

    Reference: MIST supplement, section C.1, "MIST auto-encoder network".
    """

    levels = 5
    blocks = 3

    def __init__(self, channels: int, size: int, config: EncoderConfig, released: bool) -> None:
        super().__init__()
        if size % 2**self.levels:
            raise ValueError(
                f"the {config.network} encoder halves a patch {self.levels} times: its size must be a multiple of "
                f"{2**self.levels}, got {size}"
            )
        normalisation: Normalisation = "after" if released else "before"
        layers: list[nn.Module] = []
        inputs = channels
        for level in range(self.levels):
            outputs = config.width * 2**level
            if released:  # every stage changes the width first, by a 1x1 convolution of its own
                layers.append(nn.Conv2d(inputs, outputs, 1))
                inputs = outputs
            for _ in range(self.blocks):
                layers.append(ResidualBlock(inputs, outputs, normalisation))
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        if released:
            layers.append(nn.Conv2d(inputs, inputs, 1))
            layers.extend(ResidualBlock(inputs, inputs, normalisation) for _ in range(self.blocks))
        features = inputs * (size // 2**self.levels) ** 2
        self.layers = nn.Sequential(*layers)
        self.code = nn.Linear(features, config.code) if config.code else nn.Identity()
        self.code_size = config.code or features

    def forward(self, patches: Tensor) -> Tensor:
        """(patches, channels, size, size) to (patches, code)."""
        return self.code(self.layers(patches).flatten(1))


class SmallEncoder(nn.Module):
    """Three 3x3 convolutions, each with ReLU and 2x2 max pooling, and a dense layer: for laptops, not of the paper.

    "levelled": each patch first gets mean 0 and standard deviation 1 over its pixels and channels, the square of
    ``FAINTEST`` being added to its variance: a flat patch stays flat, and its gradient finite. The paper's encoder does
    alike, with layer normalisation.
    """

    def __init__(self, channels: int, size: int, config: EncoderConfig) -> None:
        super().__init__()
        if size % 8:
            raise ValueError(f"the small encoder halves a patch 3 times: its size must be a multiple of 8, got {size}")
        width = config.width
        self.levelled = config.network == "levelled"
        self.convolutions = nn.ModuleList(
            (
                nn.Conv2d(channels, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 3, padding=1),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            )
        )
        self.code_size = config.code or 128
        self.code = nn.Linear(2 * width * (size // 8) ** 2, self.code_size)

    def forward(self, patches: Tensor) -> Tensor:
        """(patches, channels, size, size) to (patches, code)."""
        features = patches
        if self.levelled:
            variance, mean = torch.var_mean(patches, (1, 2, 3), correction=0, keepdim=True)
            features = (patches - mean) / (variance + FAINTEST**2).sqrt()
        for convolution in self.convolutions:
            # The largest first, the ReLU after it: the same numbers and gradients, with a quarter of the ReLU's work.
            features = F.relu(F.max_pool2d(convolution(features), 2))
        return self.code(features.flatten(1))


class SmallDecoder(nn.Module):
    """A dense layer and three transposed convolutions: the code of a patch back to the patch, in (0, 1)."""

    def __init__(self, code: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        if size % 8:
            raise ValueError(f"the small decoder doubles 3 times: the patch size must be a multiple of 8, got {size}")
        self.side, self.width = size // 8, width
        self.entry = nn.Linear(code, 2 * width * self.side**2)
        self.grow = nn.ModuleList(
            (
                nn.ConvTranspose2d(2 * width, 2 * width, 4, stride=2, padding=1),
                nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
                nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
            )
        )
        last = self.grow[2]
        assert isinstance(last, nn.ConvTranspose2d)
        _start_dark(last)

    def forward(self, code: Tensor) -> Tensor:
        """(patches, code) to (patches, channels, size, size)."""
        features = F.relu(self.entry(code)).view(-1, 2 * self.width, self.side, self.side)
        for layer in self.grow[:-1]:
            features = F.relu(layer(features))
        return self.grow[-1](features).sigmoid()


class ResidualDecoder(nn.Module):
    """The decoder half of the paper's auto-encoder: the encoder seen in a mirror.

    A dense layer back to the smallest map; then five levels of a 2x2 transposed convolution of stride 2 and three
    residual blocks, the channels halving from level to level; layer normalisation before each convolution, and a 1x1
    convolution with a sigmoid at the end. The paper states neither the dense layers nor the last convolution; there
    are no skip connections to the encoder.

    Args:
        code: numbers in the code of a patch.
        channels: of the patches.
        size: side of the patches in pixels; a multiple of 32.
        width: channels of the last level, those of the encoder's first (not stated; 8 in the released encoder).

    Reference: MIST supplement, section C.1, "MIST auto-encoder network".
    """

    def __init__(self, code: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        levels, blocks = ResidualEncoder.levels, ResidualEncoder.blocks
        if size % 2**levels:
            raise ValueError(f"the paper's decoder doubles {levels} times: the patch size must be a multiple of 32")
        self.side, self.width = size // 2**levels, width * 2 ** (levels - 1)
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


Encoder = ResidualEncoder | SmallEncoder
Decoder = ResidualDecoder | SmallDecoder


def build_encoder(channels: int, size: int, config: EncoderConfig) -> Encoder:
    """The patch encoder of a configuration, for patches of so many channels and pixels."""
    if config.network in ("small", "levelled"):
        return SmallEncoder(channels, size, config)
    return ResidualEncoder(channels, size, config, released=config.network == "released")


def build_decoder(
    code: int, channels: int, size: int, family: Literal["paper", "released", "small", "levelled"], width: int
) -> Decoder:
    """The decoder that belongs to an encoder of a family; the released code has none, so its encoder gets the small."""
    if family == "paper":
        return ResidualDecoder(code, channels, size, width)
    return SmallDecoder(code, channels, size, width)


def _start_dark(last: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Patches start nearly empty: most of a scene is background, and a grey start would have to be unlearned first."""
    assert last.bias is not None
    nn.init.constant_(last.bias, -2.0)
