"""Heat-map networks H_eta: fully convolutional, from an image to one score per pixel.

The scores are raw; ``mistnn.ops.heatmap.local_spatial_softmax`` turns them into a heat map. No network depends on the
other images of the batch.

By default, the initial network measures energy: the average of random ReLU features with mirror-symmetric kernels. The
initial heat map then responds to objects and not to empty background, from where no task gradient leads back. It has no
preferred direction, which training on its own keypoints would amplify. The papers don't state the initial weights.
Borders are padded with the nearest pixel, since zeros would create corners, which the local softmax sharpens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.config import Config, at_least
from mistnn.errors import MistError
from mistnn.nn.blocks import Normalisation, ResidualBlock
from mistnn.nn.convolution import Convolution


@dataclass(frozen=True)
class HeatmapConfig(Config):
    """The heat-map network.

    Attributes:
        network: "paper" (MIST supplement, section A), "released" (the released code: unpadded convolutions on a
            mirrored border, normalisation after each), "half" (ours: blocks at half resolution, each position scores
            its four pixels; a quarter of the cost per block, and a block sees twice as far) or "small" (ours, older:
            the same with a narrower first and last layer).
        channels: width of every block (paper: 32).
        blocks: the number of residual blocks (paper: 4).
        normalisation: of the "paper", "half" and "small" networks (the paper names none). With "none", a score depends
            on its neighbourhood only, so large images can be processed in tiles.
        start: initial weights. "energy": see the module. "contrast": the same for differences between neighbouring
            pixels, for photographs, whose empty background is not black. "random": PyTorch's default.
    """

    section: ClassVar[str] = "model.heatmap"
    network: Literal["paper", "released", "half", "small"] = "paper"
    channels: Annotated[int, at_least(1)] = 32
    blocks: Annotated[int, at_least(0)] = 4
    normalisation: Normalisation = "none"
    start: Literal["energy", "contrast", "random"] = "energy"


class PaperHeatmapNetwork(nn.Module):
    """Four residual blocks of two 3x3 convolutions with 32 channels and ReLU, no downsampling.

    The paper (MIST supplement, section A) does not state the first and last convolution; here they are 3x3 and 1x1.
    """

    def __init__(self, channels: int, config: HeatmapConfig, outputs: int = 1) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, config.channels, 3, padding=1, padding_mode="replicate")
        self.blocks = _residual_blocks(config)
        self.score = nn.Conv2d(config.channels, outputs, 1)
        self.margin = 1 + 2 * config.blocks

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to scores (batch, height, width)."""
        return self.maps(images).squeeze(1)

    def maps(self, images: Tensor, stride: int = 1) -> Tensor:
        """(batch, channels, height, width) to scores (batch, outputs, height / stride, width / stride).

        A stride above 1 averages the features of each stride x stride square before they are scored.
        """
        features = self.blocks(F.relu(self.entry(images)))
        return _score(self.score, features if stride == 1 else F.avg_pool2d(features, stride))


class ReleasedHeatmapNetwork(nn.Module):
    """The released code's network: 1x1 in, four blocks of unpadded convolutions on a mirrored border, 1x1 out.

    Its batch normalisation of the input is omitted: results would depend on the other images of the batch.
    """

    def __init__(self, channels: int, config: HeatmapConfig) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, config.channels, 1)
        self.blocks = nn.ModuleList(_UnpaddedBlock(config.channels) for _ in range(config.blocks))
        self.score = nn.Conv2d(config.channels, 1, 1)
        self.margin = 2 * config.blocks

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to scores (batch, height, width)."""
        # Reflection needs an image larger than the border; smaller ones repeat their last row and column.
        mode = "reflect" if min(images.shape[-2:]) > self.margin else "replicate"
        features = self.entry(F.pad(images, (self.margin,) * 4, mode=mode))
        for block in self.blocks:
            features = block(features)
        return _score(self.score, features).squeeze(1)


class _UnpaddedBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Convolution(channels, channels, 3)
        self.second = Convolution(channels, channels, 3)
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(features)))
        return F.relu(features[..., 2:-2, 2:-2] + self.norm(self.second(hidden)))


class HalfHeatmapNetwork(nn.Module):
    """Residual blocks at half resolution; each position scores its four pixels. Not in the paper.

    The first convolution, 6x6 with stride 2, is computed as a 3x3 convolution of the four pixels of each position
    (pixel unshuffle). The last one, 3x3, gives the four scores, which become pixels again (pixel shuffle). Initially,
    they interpolate one score per position bilinearly, so that the heat map leans to none of the four pixels.
    """

    def __init__(self, channels: int, config: HeatmapConfig) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, config.channels, 6, stride=2, padding=2)
        self.blocks = _residual_blocks(config)
        self.score = Convolution(config.channels, 4, 3, padding=1, padding_mode="replicate")
        self.margin = 6 + 4 * config.blocks

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to scores (batch, height, width)."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (2, 2 + width % 2, 2, 2 + height % 2), mode="replicate")
        fours = F.pixel_unshuffle(padded, 2).contiguous(memory_format=torch.channels_last)
        features = F.conv2d(fours, F.pixel_unshuffle(self.entry.weight, 2), self.entry.bias)
        scores = _score(self.score, self.blocks(F.relu(features, inplace=True)))
        return F.pixel_shuffle(scores, 2)[:, 0, :height, :width]


class SmallHeatmapNetwork(nn.Module):
    """Residual blocks at half resolution; each position scores four pixels. For laptops; not in the paper."""

    def __init__(self, channels: int, config: HeatmapConfig) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, config.channels, 4, stride=2, padding=1, padding_mode="replicate")
        self.blocks = _residual_blocks(config)
        self.score = nn.Conv2d(config.channels, 4, 1)
        self.margin = 4 + 4 * config.blocks

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to scores (batch, height, width)."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
        scores = _score(self.score, self.blocks(F.relu(self.entry(padded))))
        return F.pixel_shuffle(scores, 2)[:, 0, :height, :width]


def _residual_blocks(config: HeatmapConfig) -> nn.Sequential:
    width, style = config.channels, config.normalisation
    return nn.Sequential(*(ResidualBlock(width, width, style, padding="replicate") for _ in range(config.blocks)))


def _score(layer: nn.Conv2d, features: Tensor) -> Tensor:
    # The softmax multiplies differences of scores by its strength; in bfloat16, close scores would become ties.
    with torch.autocast(features.device.type, enabled=False):
        return layer(features.to(layer.weight.dtype))


HeatmapNetwork = PaperHeatmapNetwork | ReleasedHeatmapNetwork | HalfHeatmapNetwork | SmallHeatmapNetwork


def build_heatmap_network(channels: int, config: HeatmapConfig) -> HeatmapNetwork:
    """The heat-map network of a configuration, for images with a number of channels, with its initial weights."""
    network = _NETWORKS[config.network](channels, config)
    if config.start != "random":
        _start_as_energy(network)
    if config.start == "contrast":
        _ignore_flat_background(network.entry)
    return network


_NETWORKS = {
    "paper": PaperHeatmapNetwork,
    "released": ReleasedHeatmapNetwork,
    "half": HalfHeatmapNetwork,
    "small": SmallHeatmapNetwork,
}


def _mirror(kernels: Tensor) -> None:
    """Makes each kernel equal to its mirror images and its transpose; the mean square of the weights is kept."""
    with torch.no_grad():
        before = kernels.square().mean().sqrt()
        mirrored = kernels + kernels.flip(-1)
        mirrored = mirrored + mirrored.flip(-2)
        mirrored = mirrored + mirrored.transpose(-1, -2)
        kernels.copy_(mirrored * before / mirrored.square().mean().sqrt())


def _start_as_energy(network: HeatmapNetwork) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            nn.init.zeros_(module.bias)
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            _mirror(module.weight)
    with torch.no_grad():
        weight = network.score.weight
        # Two networks have four scores. Equal weights avoid a preference among the four pixels.
        equal = weight.abs().mean((0, 2, 3), keepdim=True).expand_as(weight) / network.score.in_channels
        weight.copy_(equal if weight.shape[-1] == 1 else equal * _bilinear().to(weight))


def _bilinear() -> Tensor:
    """The 3x3 kernels that interpolate positions to each one's four pixels, in reading order: (4, 1, 3, 3)."""
    sides = torch.tensor(((0.25, 0.75, 0.0), (0.0, 0.75, 0.25)))  # a pixel is a quarter of a position off its centre
    return torch.einsum("ay,bx->abyx", sides, sides).reshape(4, 1, 3, 3)


def _ignore_flat_background(entry: nn.Conv2d) -> None:
    """Makes the weights of each kernel sum to 0 over its pixels, so that the response to equal pixels is 0."""
    if entry.weight[0, 0].numel() == 1:
        raise MistError(
            "model.heatmap.start=contrast needs a first layer that compares pixels: use network paper, half or small"
        )
    with torch.no_grad():
        before = entry.weight.square().mean().sqrt()
        entry.weight.sub_(entry.weight.mean((2, 3), keepdim=True))
        entry.weight.mul_(before / entry.weight.square().mean().sqrt())
