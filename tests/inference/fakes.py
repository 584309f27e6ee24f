"""A finder that needs no training: it finds the brightest spots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.interfaces import ModelConfig
from mistnn.nn.finder import TiledFinder
from mistnn.records import Detections, Explanation


@dataclass(frozen=True)
class FakeConfig(ModelConfig):
    kind: ClassVar[str] = "fake"
    channels: int = 1
    k: int = 2
    class_names: tuple[str, ...] = ("even", "odd")

    def build(self) -> FakeDetector:
        return FakeDetector(self.channels, self.k, self.class_names)


class FakeDetector(TiledFinder):
    """The K brightest pixels after two 3x3 convolutions; class 1 where the pixel's column is odd."""

    margin = 2
    tiles_are_exact = True

    def __init__(self, channels: int = 1, k: int = 2, class_names: tuple[str, ...] = ("even", "odd")) -> None:
        super().__init__()
        self.config = FakeConfig(channels, k, class_names)
        self.first = nn.Conv2d(channels, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 1, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.1, 0.4, generator=generator)
        self.seen: list[tuple[int, ...]] = []

    def score_map(self, images: Tensor) -> Tensor:
        assert not self.training and torch.is_inference_mode_enabled()
        self.seen.append(tuple(images.shape))
        return self.second(F.relu(self.first(images)))[:, 0]

    def heatmaps(self, images: Tensor, score_map: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        scores = (self.score_map if score_map is None else score_map)(images)
        return (scores - scores.amax(dim=(1, 2), keepdim=True)).exp()[:, None]

    def explain(self, images: Tensor, k: int | Tensor | None = None) -> Explanation:
        return Explanation(self.detect(images, k), None)

    def detect_from_heatmaps(self, images: Tensor, heatmaps: Tensor, k: int | None = None) -> list[Detections]:
        scores, site = heatmaps.flatten(1).topk(self.config.k if k is None else k)
        x, y = site % images.shape[-1], site // images.shape[-1]
        boxes = torch.stack((x + 0.5, y + 0.5, torch.full_like(x, 4) * 1.0, torch.full_like(x, 4) * 1.0), dim=-1)
        labels = x % 2 if self.class_names else None
        return [
            Detections(boxes[index], scores[index], None if labels is None else labels[index])
            for index in range(len(images))
        ]


class CountingDetector(FakeDetector):
    """Counts the pixels that are as bright as the brightest: one spot, or K on an even image."""

    threshold = 0.999
