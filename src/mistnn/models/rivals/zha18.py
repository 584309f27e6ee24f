"""Zha18: landmarks as a structural representation (Zhang et al., CVPR 2018), a baseline of MIST's Table 1.

A landmark is the mean place of one channel of an hourglass. A second hourglass reconstructs the whole image from the
places and a short descriptor at each. Three soft constraints turn the channels into landmarks: each channel is
concentrated, the channels are separate, and they follow the image when it is warped. Each landmark is one part of one
kind of object in every image. Nothing lets two landmarks share several objects that look alike.

Lengths in this module are shares of the image's side, as in the paper, except in the reported boxes.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.models.rivals.common import best_of
from mistnn.models.rivals.config import Zha18Config
from mistnn.nn.finder import Finder
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.landmarks import Landmarks, landmarks_of
from mistnn.records import Explanation


class Hourglass(nn.Module):
    """Halves the resolution once for each width after the first, then restores it, adding the skip at each level.

    Images may have any size. The border is replicated up to a multiple of ``2 ** (levels - 1)`` pixels, and the result
    is cropped.

    Args:
        inputs: channels of the input.
        outputs: channels of the output, from a 1x1 convolution without normalisation.
        widths: channels at each resolution, finest first.

    Reference: Newell et al. (2016); layout of the 80 x 80 networks of Zhang et al. (2018).
    """

    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.entry = _convolution(inputs, widths[0])
        self.down = nn.ModuleList(_convolution(fine, coarse, stride=2) for fine, coarse in itertools.pairwise(widths))
        self.skips = nn.ModuleList(_convolution(width, width) for width in widths[:-1])
        self.up = nn.ModuleList(_convolution(coarse, fine) for fine, coarse in itertools.pairwise(widths))
        self.exit = nn.Conv2d(widths[0], outputs, 1)
        self.unit = 2 ** (len(widths) - 1)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        height, width = features.shape[-2:]
        padding = (0, -width % self.unit, 0, -height % self.unit)
        hidden = self.entry(F.pad(features, padding, mode="replicate"))
        skipped = []
        for down, skip in zip(self.down, self.skips, strict=True):
            skipped.append(skip(hidden))
            hidden = down(hidden)
        for up, kept in zip(reversed(self.up), reversed(skipped), strict=True):
            hidden = up(F.interpolate(hidden, scale_factor=2.0, mode="nearest")) + kept
        return self.exit(hidden)[..., :height, :width]


class Zha18(Finder):
    """An hourglass to landmarks, their descriptors, and an hourglass back to the image."""

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
    def reconstructs(self) -> bool:
        """Always."""
        return True

    def most(self, height: int, width: int) -> int:
        """K, for images of any size."""
        return self.config.k

    def landmarks(self, images: Tensor) -> Landmarks:
        """The K landmarks of each image, (batch, channels, height, width)."""
        return landmarks_of(self.landmark_network(images))

    def forward(self, images: Tensor) -> tuple[Landmarks, Tensor]:
        """The landmarks, and the images reconstructed from the landmarks and their descriptors."""
        found = self.landmarks(images)
        weights = found.maps / found.maps.sum((-2, -1), keepdim=True).clamp(min=torch.finfo(found.maps.dtype).tiny)
        pooled = torch.einsum("bkhw,bfhw->bkf", weights, self.feature_network(images))
        descriptors = torch.einsum("bkf,kfd->bkd", pooled, self.describe)
        colours = torch.einsum("bkd,kde->bke", F.leaky_relu(descriptors, 0.2), self.undescribe)
        return found, self._draw(found.places, colours, images)

    def _draw(self, places: Tensor, colours: Tensor, images: Tensor) -> Tensor:
        y, x = ((torch.arange(side, device=places.device) + 0.5) / side for side in images.shape[-2:])
        squared = (x - places[..., :1]).square().unsqueeze(-2) + (y - places[..., 1:]).square().unsqueeze(-1)
        drawn = []
        for level in range(self.config.heat_levels):
            std = self.config.heat_width * math.sqrt(2) ** level
            heat = torch.exp(-squared / (2 * std**2)) / self._spread(std, images)
            heat = torch.cat((heat, torch.ones_like(heat[:, :1])), dim=1)  # the background has the same heat everywhere
            heat = heat / heat.sum(1, keepdim=True)
            drawn += [heat, torch.einsum("bkhw,bkd->bdhw", heat, colours)]
        return self.drawing_network(torch.cat(drawn, dim=1)).sigmoid()

    def _spread(self, std: float, images: Tensor) -> float:
        """What a Gaussian is divided by where the background has 1, see ``Zha18Config.heat_scale``."""
        if self.config.heat_scale == "density":
            return 2 * math.pi * std**2
        # The official code divides by the determinant of the covariance, not its root, and by the pixels twice, where
        # the background is divided by them once.
        return 2 * math.pi * std**4 * images.shape[-2] * images.shape[-1]

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: a box around each landmark; the most concentrated landmark has the best score."""
        landmarks, rebuilt = self(images)
        points = landmarks.places * landmarks.places.new_tensor((images.shape[-1], images.shape[-2]))
        boxes = boxes_at(points, self.config.box_size)
        scores = torch.exp(-landmarks.variances.sum(-1))
        return Explanation(best_of(boxes, scores, None, self.counts_for(images, k)), rebuilt)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )
