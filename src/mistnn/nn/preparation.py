"""What is done to images before a network sees them: resizing, and taking the ground away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.config import Config, above

BRIGHT = 0.995
"""The share of the values that lies below 1 after the ground was taken away."""
LIGHT, DARK = 0.95, 0.05
"""Where a light ground and a dark one stand among a channel's values: objects may cover most of an image."""
Ground = Literal["black", "median", "light", "dark"]


@dataclass(frozen=True)
class PreparationConfig(Config):
    """What is done to every image, in this order. None of it is in the papers, whose digits are light on black.

    Attributes:
        zoom: images are resized by this factor, so that objects get the size that the network has boxes for.
        ground: what is taken away from each channel. "black" leaves the values. "median": the distance from its median
            over the image, so that objects of any colour become light on a black ground, if they cover less than half
            of it. "light": the distance below all but the lightest 5 % of the values, for darker objects that may
            cover most of an image; "dark": above all but the darkest 5 %. The distances are brightened until 995 of
            1,000 lie below 1.
    """

    section: ClassVar[str] = "preparation"
    zoom: Annotated[float, above(0, "0.5 halves the sides")] = 1.0
    ground: Ground = "black"

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
    if config.ground == "median":
        values = (values - values.median(2, keepdim=True).values).abs()
    else:
        ranked = values.sort(2).values
        place = round((LIGHT if config.ground == "light" else DARK) * (ranked.shape[2] - 1))
        above = values - ranked[..., place : place + 1]
        values = (-above if config.ground == "light" else above).clamp(min=0)
    ranked = values.flatten(1).sort(1).values
    bright = ranked[:, min(ranked.shape[1] - 1, math.ceil(BRIGHT * ranked.shape[1]))]
    scaled = values / bright.clamp(min=torch.finfo(values.dtype).eps)[:, None, None]
    return scaled.clamp(0, 1).view_as(images)
