"""The power spectrum of Gabor noise, from the paper's equation: the oracle of ``tests/data/test_gabor.py``."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from mistnn.data.gabor import Ground


def analytic_power_spectrum(
    frequencies: Float[np.ndarray, "*points 2"],
    density: float,
    frequency: float,
    orientation: float,
    bandwidth: float,
    ground: Ground = "grey",
    mean_square_weight: float = 1.0,
) -> Float[np.ndarray, "*points"]:
    """Power spectrum of the noise of a Poisson process on the whole plane, without background and gain.

    It is density x E[weight^2] x the squared Fourier transform of the kernel. On grey that transform is 1 / (2 a^2)
    times the sum of two Gaussians, exp(-pi (f -+ F)^2 / a^2); on black it is the mean of that and of the bare
    envelope's, exp(-pi f^2 / a^2) / a^2. For several orientations, average their spectra.

    Convention: f is in cycles per pixel. The spectrum is that of the noise minus its mean, and its integral over all f
    is the variance of a pixel. The cut at the box is not included.

    Args:
        frequencies: f in x and y at which the spectrum is evaluated.
        density: impulses per square pixel.
        frequency: F, in cycles per pixel.
        orientation: w, in radians.
        bandwidth: a, in 1 / pixel.
        ground: selects the kernel, see ``gabor_kernel``.
        mean_square_weight: mean of the squared weights, 1 for both choices of ``GaborConfig``.

    Returns:
        In square pixels.

    Reference: Lagae et al. 2009, power spectrum of the noise: the sum of the two Gaussians' squares. Their product,
        which is kept here, matters only if F is small compared to a.
    """
    wave = frequency * np.array([math.cos(orientation), math.sin(orientation)])

    def gaussian(middle: np.ndarray) -> np.ndarray:
        return np.exp(-math.pi * ((frequencies - middle) ** 2).sum(-1) / bandwidth**2) / bandwidth**2

    transform = (gaussian(wave) + gaussian(-wave)) / 2
    if ground == "black":
        transform = (transform + gaussian(np.zeros(2))) / 2
    return np.asarray(density * mean_square_weight * transform**2)
