"""Reconstruction errors, compared with those of a black image and of the mean image."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.metrics.detection import ratio

_RANGE_SLACK = 1e-4
"""How far rounding, for example in a resize, may carry a pixel beyond [0, 1]."""

_Images = Float[Tensor, "batch channels height width"]


class ReconstructionErrors(NamedTuple):
    """Root mean square errors per pixel, for values in [0, 1].

    Attributes:
        rmse: of the reconstructions.
        rmse_black: of a black image, for comparison.
        rmse_mean: of the mean of all images, for comparison.
        r2: 1 - (rmse / rmse_mean)^2, the share of the variance explained; NaN if the images do not vary.
    """

    rmse: float
    rmse_black: float
    rmse_mean: float
    r2: float


class ReconstructionSums(NamedTuple):
    """Sums over images that determine the errors. Adding field by field joins two sets of images."""

    squared_error: Float[Tensor, ""]
    squared: Float[Tensor, ""]
    image: Float[Tensor, "channels height width"]
    images: int

    def errors(self) -> ReconstructionErrors:
        """The errors over all images; NaN if there are none."""
        pixels = self.images * self.image.numel()
        if not pixels:
            return ReconstructionErrors(*[math.nan] * 4)
        # Deviation from the mean image. Rounding may make it slightly negative if all images are equal.
        spread = max(float(self.squared - self.image.square().sum() / self.images), 0.0)
        error, squared = float(self.squared_error), float(self.squared)
        varies = spread > 1e-12 * max(squared, 1.0)
        return ReconstructionErrors(
            rmse=math.sqrt(error / pixels),
            rmse_black=math.sqrt(squared / pixels),
            rmse_mean=math.sqrt(spread / pixels),
            r2=1 - ratio(error, spread if varies else 0.0),
        )


def empty_sums(shape: tuple[int, int, int]) -> ReconstructionSums:
    """The sums of no image."""
    zero = torch.zeros((), dtype=torch.float64)
    return ReconstructionSums(zero, zero.clone(), torch.zeros(shape, dtype=torch.float64), 0)


def reconstruction_sums(reconstructions: _Images, images: _Images) -> ReconstructionSums:
    """Sums of one batch, in float64; see ``reconstruction_errors``."""
    if reconstructions.shape != images.shape or images.ndim != 4:
        raise ValueError(
            f"reconstructions and images must both be (batch, channels, height, width), got "
            f"{tuple(reconstructions.shape)} and {tuple(images.shape)}"
        )
    if images.numel() and (images.min() < -_RANGE_SLACK or images.max() > 1 + _RANGE_SLACK):
        raise ValueError(
            f"images must have values in [0, 1], got {float(images.min()):.4g} to {float(images.max()):.4g}"
        )
    target = images.detach().double()
    return ReconstructionSums(
        squared_error=(reconstructions.detach().double() - target).square().sum(),
        squared=target.square().sum(),
        image=target.sum(0),
        images=len(images),
    )


def reconstruction_errors(reconstructions: _Images, images: _Images) -> ReconstructionErrors:
    """Compares reconstructions, which may leave [0, 1], with their images.

    Convention: values in [0, 1]; squares are averaged over images, channels and pixels before the root is taken.

    Raises:
        ValueError: if the shapes differ or an image leaves [0, 1].

    Reference:
        MIST (CVPR 2021), Table 1, the root mean square error.
    """
    return reconstruction_sums(reconstructions, images).errors()
