"""How well images are reconstructed, beside what a black image and the mean image reach."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.metrics.detection import share

_RANGE_SLACK = 1e-4
"""How far beyond [0, 1] rounding, for example of a resize, may carry a pixel."""


class ReconstructionErrors(NamedTuple):
    """Root mean square errors per pixel, on values 0-1.

    Attributes:
        rmse: of the reconstructions.
        rmse_black: of an all-black image, for comparison.
        rmse_mean: of the mean of all the images, for comparison.
        r2: 1 - (rmse / rmse_mean)^2, the share of the variance explained; NaN if the images don't vary.
    """

    rmse: float
    rmse_black: float
    rmse_mean: float
    r2: float


class ReconstructionSums(NamedTuple):
    """Sums over images from which the errors follow. The sums of two sets of images are added field by field."""

    squared_error: Float[Tensor, ""]
    squared: Float[Tensor, ""]
    image: Float[Tensor, "channels height width"]
    images: int

    def errors(self) -> ReconstructionErrors:
        """The errors over all images; NaN if there are none."""
        pixels = self.images * self.image.numel()
        if not pixels:
            return ReconstructionErrors(math.nan, math.nan, math.nan, math.nan)
        # Spread around the mean image. Rounding may leave a tiny negative number where all images are equal.
        spread = max(float(self.squared - self.image.square().sum() / self.images), 0.0)
        error, squared = float(self.squared_error), float(self.squared)
        varies = spread > 1e-12 * max(squared, 1.0)
        return ReconstructionErrors(
            rmse=math.sqrt(error / pixels),
            rmse_black=math.sqrt(squared / pixels),
            rmse_mean=math.sqrt(spread / pixels),
            r2=1 - share(error, spread if varies else 0.0),
        )


def reconstruction_sums(
    reconstructions: Float[Tensor, "batch channels height width"], images: Float[Tensor, "batch channels height width"]
) -> ReconstructionSums:
    """Sums of one batch, in float64; see ``reconstruction_errors``."""
    if reconstructions.shape != images.shape or images.ndim != 4:
        raise ValueError(
            f"reconstructions and images must both be (batch, channels, height, width), got "
            f"{tuple(reconstructions.shape)} and {tuple(images.shape)}"
        )
    if images.numel() and (images.min() < -_RANGE_SLACK or images.max() > 1 + _RANGE_SLACK):
        raise ValueError(
            f"images must have values in [0, 1], got {images.min().item():.4g} to {images.max().item():.4g}"
        )
    target = images.detach().double()
    return ReconstructionSums(
        squared_error=(reconstructions.detach().double() - target).square().sum(),
        squared=target.square().sum(),
        image=target.sum(0),
        images=len(images),
    )


def reconstruction_errors(
    reconstructions: Float[Tensor, "batch channels height width"], images: Float[Tensor, "batch channels height width"]
) -> ReconstructionErrors:
    """Compares reconstructions with their images.

    Convention: values in [0, 1]; the mean of the squares is over images, channels and pixels, its root is taken last.

    Args:
        reconstructions: what the model made of the images; may leave [0, 1].
        images: what they should be.

    Raises:
        ValueError: if the shapes differ or an image leaves [0, 1].

    Reference:
        MIST (CVPR 2021), Table 1, the root mean square error.
    """
    return reconstruction_sums(reconstructions, images).errors()


def own_mean_r2(
    reconstructions: Float[Tensor, "batch channels height width"], images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, " batch"]:
    """How much of each image's own variation its reconstruction explains.

    ``ReconstructionErrors.r2`` compares with the mean of all the images, so it needs many and says one number for all;
    this compares with one even grey, the image's own.

    Convention: 1 - squared error / squared deviation from the image's mean over channels and pixels together. 1 is
    perfect, 0 as good as the even grey, and below 0 worse.

    Args:
        reconstructions: what the model made of the images; may leave [0, 1].
        images: what they should be.

    Returns:
        A value an image, in float64; NaN for an image of one value.

    Raises:
        ValueError: if the shapes differ.
    """
    if reconstructions.shape != images.shape or images.ndim != 4:
        raise ValueError(
            f"reconstructions and images must both be (batch, channels, height, width), got "
            f"{tuple(reconstructions.shape)} and {tuple(images.shape)}"
        )
    target = images.detach().double().flatten(1)
    error = (reconstructions.detach().double().flatten(1) - target).square().sum(1)
    spread = (target - target.mean(1, keepdim=True)).square().sum(1)
    varies = spread > 1e-12 * target.square().sum(1).clamp(min=1.0)
    return torch.where(varies, 1 - error / torch.where(varies, spread, 1), math.nan)


def empty_sums(shape: tuple[int, int, int]) -> ReconstructionSums:
    """The sums of no image."""
    zero = torch.zeros((), dtype=torch.float64)
    return ReconstructionSums(zero, zero.clone(), torch.zeros(shape, dtype=torch.float64), 0)
