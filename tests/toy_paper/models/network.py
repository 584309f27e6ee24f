"""The network of the toy paper."""

from __future__ import annotations

import torch
from mistnn.models.toy.config import BrightestConfig
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.nn.finder import Finder
from mistnn.ops.coordinates import boxes_at
from mistnn.ops.topk import top_k
from mistnn.records import Detections, Explanation


class Brightest(Finder):
    """A blur of learnable strength; objects are at its K best local maxima."""

    def __init__(self, config: BrightestConfig) -> None:
        super().__init__()
        self.config = config
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to a heat map (batch, height, width)."""
        blurred = F.avg_pool2d(images.mean(1, keepdim=True), self.config.window, 1, self.config.window // 2)
        return (self.gain * blurred).squeeze(1).clamp(0, 1)

    @torch.no_grad()
    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        """The K best local maxima."""
        assert not isinstance(k, Tensor)
        best = top_k(self(images), self.config.k if k is None else k, self.config.window)
        boxes = boxes_at(best.points, torch.full_like(best.responses, self.config.box_size))
        return Explanation([Detections(*pair) for pair in zip(boxes, best.responses, strict=True)], None)
