"""ConnComp: a pixel is foreground if it differs from the background by tau; each connected component is an object."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mistnn.models.conncomp.config import ConnCompConfig
from mistnn.nn.finder import Finder
from mistnn.ops.components import component_boxes
from mistnn.records import Detections, Explanation


class ConnComp(Finder):
    """A threshold tau, initially 1: then only pixels as far as possible from the background are foreground."""

    def __init__(self, config: ConnCompConfig) -> None:
        super().__init__()
        self.config = config
        # It has no gradient, but as a parameter it is stored, moved and counted like those of the networks.
        self.tau = nn.Parameter(torch.tensor(1.0), requires_grad=False)

    @property
    def counts_itself(self) -> bool:
        """Always: every component is an object."""
        return True

    def most(self, height: int, width: int) -> int:
        """The number of pixels that don't touch each other."""
        return (height * width + 1) // 2

    def limit(self, height: int, width: int) -> int:
        """As ``most``."""
        return self.most(height, width)

    def difference(self, images: Tensor) -> Tensor:
        """The distance of each pixel from the background, (batch, height, width), summed over the channels."""
        if self.config.background == "median":
            images = images - images.flatten(2).median(2).values[..., None, None]
        return images.abs().sum(1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(batch, channels, height, width) to the boxes of each image, (found, 4)."""
        return component_boxes(self.difference(images) >= self.tau)

    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """See ``Finder.explain``: the largest boxes, at most ``k``; without ``k`` all of them."""
        found = []
        pixels = images.shape[-1] * images.shape[-2]
        for boxes, count in zip(self(images), self.counts_for(images, pixels if k is None else k), strict=True):
            largest = boxes[:, 2:].prod(1).argsort(descending=True, stable=True)[:count]
            found.append(Detections(boxes[largest], torch.ones_like(boxes[largest, 0])))
        return Explanation(found, None)
