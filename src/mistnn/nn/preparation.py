"""What is done to images before a network sees them: resizing, and taking the ground away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.errors import MistError

BRIGHT = 0.995
"""The share of the values that lies below 1 after the ground was taken away."""


@dataclass(frozen=True)
class PreparationConfig:
    """What is done to every image, in this order. None of it is in the papers, whose digits are light on black.

    Attributes:
        zoom: images are resized by this factor, so that objects get the size that the network has boxes for.
        ground: "black" leaves the values; "median" takes each channel's distance from its median over the image, and
            brightens it until 995 of 1,000 values lie below 1: objects of any colour become light on a black ground.
    """

    zoom: float = 1.0
    ground: Literal["black", "median"] = "black"

    def __post_init__(self) -> None:
        """Refuses values that no image can be prepared with.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if not 0 < self.zoom < math.inf:
            raise MistError(f"preparation.zoom={self.zoom} must be a finite factor above 0; 0.5 halves the side")
        if self.ground not in ("black", "median"):
            raise MistError(f"preparation.ground={self.ground!r} is unknown: use black or median")

    @property
    def changes(self) -> bool:
        """Whether anything is done."""
        return self != PreparationConfig()

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after it was resized, each at least 1."""
        return max(1, round(height * self.zoom)), max(1, round(width * self.zoom))


def prepare(images: Tensor, config: PreparationConfig) -> Tensor:
    """(batch, channels, height, width) in [0, 1] to the same, resized and on a black ground."""
    if config.zoom != 1:
        size = config.size(images.shape[-2], images.shape[-1])
        images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
    if config.ground == "black":
        return images
    values = images.flatten(2)
    values = (values - values.median(2, keepdim=True).values).abs()
    ranked = values.flatten(1).sort(1).values
    bright = ranked[:, min(ranked.shape[1] - 1, math.ceil(BRIGHT * ranked.shape[1]))]
    scaled = values / bright.clamp(min=torch.finfo(values.dtype).eps)[:, None, None]
    return scaled.clamp(0, 1).view_as(images)
