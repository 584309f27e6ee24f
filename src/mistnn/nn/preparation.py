"""Preparation of images for a network: range of values, resizing and background subtraction."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.config import Config, above, between
from mistnn.errors import MistError

BRIGHT = Fraction(995, 1000)
"""The share of the values that lies below 1 after background subtraction (ours)."""
FLAT = 1e-5
"""An image whose values differ less than this, two thirds of a step of 16 bits, is not stretched: they differ by
rounding."""
LIGHT, DARK = 0.95, 0.05
"""Quantiles of a channel's values that stand for a light and a dark background; objects may cover most of an image."""
MOST_DENOMINATOR = 1 << 16
"""Of the fraction that stands for a factor in an export: exact enough for sides up to 30,000 pixels."""
Ground = Literal["black", "median", "light", "dark"]


@dataclass(frozen=True)
class PreparationConfig(Config):
    """Preparation of each image: values, size, background. The papers have none; their digits are light on black.

    Attributes:
        zoom: factor by which images are resized, so that objects match the boxes of the network.
        ground: the background that is subtracted from each channel. "black": none. "median": values become their
            distance from the median, for objects of any colour that cover less than half of an image. "light": their
            distance below the 95 % quantile, for darker objects, which may cover most of an image. "dark": their
            distance above the 5 % quantile. Distances are then scaled so that 99.5 % lie below 1.
        lowest, highest: the values that become 0 and 1; values beyond them are clipped. For images that use few of the
            values that their format has, such as those of a camera with 12 bits in files of 16 bits.
    """

    section: ClassVar[str] = "preparation"
    zoom: Annotated[float, above(0, "0.5 halves the sides")] = 1.0
    ground: Ground = "black"
    lowest: Annotated[float, between(0, 1)] = 0.0
    highest: Annotated[float, between(0, 1)] = 1.0

    def check(self) -> None:
        """See ``Config.check``."""
        if self.lowest >= self.highest:
            raise MistError(f"preparation.lowest={self.lowest} must be below preparation.highest={self.highest}")

    @property
    def changes(self) -> bool:
        """Whether images are changed."""
        return self != PreparationConfig()

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after resizing, each at least 1."""
        return zoomed(height, width, self.zoom)


def zoomed(height: int, width: int, zoom: float) -> tuple[int, int]:
    """Height and width of an image resized by a factor, each at least 1."""
    return whole(height, zoom), whole(width, zoom)


def whole(length: int, factor: float, divisor: float = 1.0) -> int:
    """A length times a factor, by a divisor, rounded, at least 1; see ``rounded``."""
    size: Any = torch.sym_max(1, rounded(length, factor, divisor))
    return size


def rounded(number: int, factor: float, divisor: float = 1.0) -> int:
    """A whole number times a factor, by a divisor, rounded half to even.

    An export keeps the size of the image variable: the number is then a symbol, and no format of exports can round its
    product with a float. Whole numbers give the same result for every size of an image.
    """
    if isinstance(number, int):
        return round(number * factor / divisor)
    ratio = (Fraction(factor) / Fraction(divisor)).limit_denominator(MOST_DENOMINATOR)
    above, below = ratio.numerator, ratio.denominator
    doubled = 2 * number * above + below
    nearest = doubled // (2 * below)
    if below % 2 == 0:  # only then are there halves; 1 is subtracted from an odd number above a half
        nearest = nearest - nearest % 2 * (1 - (doubled % (2 * below) + 2 * below - 1) // (2 * below))
    return nearest


def resized(images: Tensor, zoom: float) -> Tensor:
    """Images in [0, 1], resized by a factor."""
    if zoom == 1:
        return images
    size = zoomed(images.shape[-2], images.shape[-1], zoom)
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def prepare(images: Tensor, config: PreparationConfig) -> Tensor:
    """(batch, channels, height, width) in [0, 1] to the same, stretched, resized and on a black background."""
    if (config.lowest, config.highest) != (0, 1):
        images = ((images - config.lowest) / (config.highest - config.lowest)).clamp(0, 1)
    images = resized(images, config.zoom)
    if config.ground == "black":
        return images
    values = images.flatten(2)
    ranked = values.sort(2).values
    if config.ground == "median":
        middle = (ranked.shape[2] - 1) // 2
        values = (values - ranked[..., middle : middle + 1]).abs()
    else:
        place = rounded(ranked.shape[2] - 1, LIGHT if config.ground == "light" else DARK)
        above = values - ranked[..., place : place + 1]
        values = (-above if config.ground == "light" else above).clamp(min=0)
    ranked = values.flatten(1).sort(1).values
    beyond = (BRIGHT.numerator * ranked.shape[1] + BRIGHT.denominator - 1) // BRIGHT.denominator  # rounded up
    bright = ranked[:, torch.sym_min(ranked.shape[1] - 1, beyond)]
    scaled = values / bright.clamp(min=FLAT)[:, None, None]
    return scaled.clamp(0, 1).view_as(images)
