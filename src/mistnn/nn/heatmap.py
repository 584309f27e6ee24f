"""Heat-map networks H_eta: fully convolutional, an image in, one score a pixel out.

The scores are raw; ``mistnn.ops.heatmap.local_spatial_softmax`` turns them into a heat map. None of the networks looks
at the batch, so an image's scores don't depend on its batch mates.

By default they start as a measure of energy: random ReLU features of the neighbourhood, averaged, from kernels that are
the same seen in a mirror. The first heat map then fires where something is to be seen, and not on empty ground, from
where no task gradient leads back; and it leans to no side, which training on its own keypoints would make worse. The
papers don't say how the weights start. Borders are continued by the nearest pixel: zeros would make corners of their
own, which the local softmax sharpens.
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


@dataclass(frozen=True)
class HeatmapConfig(Config):
    """Which heat-map network.

    Attributes:
        network: "paper" (MIST supplement, section A), "released" (the released code: unpadded convolutions on a
            mirrored border, normalisation after each) or "small" (half resolution inside, about ten times cheaper).
        channels: width of every block (paper: 32).
        blocks: number of residual blocks (paper: 4).
        normalisation: of the "paper" and the "small" network. The paper names none here. With "none" a score depends on
            its neighbourhood alone, so a large image can be read in tiles.
        start: of the weights. "energy": the first heat map fires where something is to be seen and leans to no side;
            "contrast": the same of what differs from its neighbours, for photographs, whose empty ground is not black;
            "random": PyTorch's own start, which may look anywhere.
    """

    section: ClassVar[str] = "model.heatmap"
    network: Literal["paper", "released", "small"] = "paper"
    channels: Annotated[int, at_least(1)] = 32
    blocks: Annotated[int, at_least(0)] = 4
    normalisation: Normalisation = "none"
    start: Literal["energy", "contrast", "random"] = "energy"


class PaperHeatmapNetwork(nn.Module):
    """Four residual blocks of two 3x3 convolutions with 32 channels and ReLU, no downsampling.

    The paper does not say how the first and the last convolution look; here 3x3 in and 1x1 out.

    Reference: MIST supplement, section A, "Standard architecture".
    """

    def __init__(self, channels: int, config: HeatmapConfig, outputs: int = 1) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, config.channels, 3, padding=1, padding_mode="replicate")
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(config.channels, config.channels, config.normalisation, padding="replicate")
                for _ in range(config.blocks)
            )
        )
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

    Its input batch normalisation is left out: on batch statistics, as there, an image's result depends on its mates.
    """

    def __init__(self, channels: int, config: HeatmapConfig) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, config.channels, 1)
        self.blocks = nn.ModuleList(_UnpaddedBlock(config.channels) for _ in range(config.blocks))
        self.score = nn.Conv2d(config.channels, 1, 1)
        self.margin = 2 * config.blocks

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to scores (batch, height, width)."""
        reach = self.margin
        # A border can only mirror what is there: images no larger than the border repeat their last row and column.
        mode = "reflect" if min(images.shape[-2:]) > reach else "replicate"
        features = self.entry(F.pad(images, (reach, reach, reach, reach), mode=mode))
        for block in self.blocks:
            features = block(features)
        return _score(self.score, features).squeeze(1)


class _UnpaddedBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3)
        self.second = nn.Conv2d(channels, channels, 3)
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(features)))
        return F.relu(features[..., 2:-2, 2:-2] + self.norm(self.second(hidden)))


class SmallHeatmapNetwork(nn.Module):
    """Residual blocks at half resolution, each giving the scores of four pixels: for laptops, not of the paper."""

    def __init__(self, channels: int, config: HeatmapConfig) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, config.channels, 4, stride=2, padding=1, padding_mode="replicate")
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(config.channels, config.channels, config.normalisation, padding="replicate")
                for _ in range(config.blocks)
            )
        )
        self.score = nn.Conv2d(config.channels, 4, 1)
        self.margin = 4 + 4 * config.blocks

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to scores (batch, height, width)."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
        scores = _score(self.score, self.blocks(F.relu(self.entry(padded))))
        return F.pixel_shuffle(scores, 2)[:, 0, :height, :width]


def _score(layer: nn.Conv2d, features: Tensor) -> Tensor:
    # The softmax multiplies differences of scores by its strength: in bfloat16 near scores would become ties.
    with torch.autocast(features.device.type, enabled=False):
        return layer(features.to(layer.weight.dtype))


HeatmapNetwork = PaperHeatmapNetwork | ReleasedHeatmapNetwork | SmallHeatmapNetwork


def build_heatmap_network(channels: int, config: HeatmapConfig) -> HeatmapNetwork:
    """The heat-map network of a configuration, for images of so many channels, its weights as above."""
    network = _NETWORKS[config.network](channels, config)
    if config.start != "random":
        _start_as_energy(network)
    if config.start == "contrast":
        _blind_to_flat_ground(network.entry)
    return network


_NETWORKS = {"paper": PaperHeatmapNetwork, "released": ReleasedHeatmapNetwork, "small": SmallHeatmapNetwork}


def _mirror(kernels: Tensor) -> None:
    """Makes each kernel equal to its mirror images and transpose, and keeps the mean square of the weights."""
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
        # The small network has four scores: alike, so that none of the four pixels is preferred.
        weight.copy_(weight.abs().mean(0, keepdim=True).expand_as(weight) / network.score.in_channels)


def _blind_to_flat_ground(entry: nn.Conv2d) -> None:
    """Makes the weights of each kernel sum to 0 over its pixels: where all pixels are alike nothing is answered.

    Raises:
        MistError: if the kernels have one pixel only.
    """
    if entry.weight[0, 0].numel() == 1:
        raise MistError("heatmap.start=contrast needs an entry that compares pixels: use the network paper or small")
    with torch.no_grad():
        before = entry.weight.square().mean().sqrt()
        entry.weight.sub_(entry.weight.mean((2, 3), keepdim=True))
        entry.weight.mul_(before / entry.weight.square().mean().sqrt())
