"""Gabor noise: images that are sums of small oriented waves at random places, which are known exactly.

Sparse convolution: each impulse adds one Gabor kernel, an envelope exp(-pi a^2 r^2) times a wave. The task is to find
the impulses in the image.

Convention: x right, y down, pixel centres at +0.5. Impulses have real-valued positions, and a kernel is evaluated at
its exact offset from each pixel centre. An orientation is the direction in which the wave oscillates, in radians from x
towards y, so clockwise on the screen; the stripes are perpendicular to it, and orientations pi apart are equal. All
kernels have phase 0: the kernel is strongest at the impulse, which makes its place identifiable.

Two backgrounds:

* "grey": the kernel of the paper by Lagae et al., envelope x cos, from -1 to 1; the image is 0.5 + gain x sum, clipped
  to [0, 1]. A model that adds patches in (0, 1) to zeros can't express it: it would have to subtract the 0.5 and use
  signed patches.
* "black": the kernel is raised, envelope x (1 + cos) / 2, from 0 to 1; the image is gain x sum, clipped to 1. Where it
  is not clipped, it is exactly a sum of non-negative patches on zeros. In return the noise has a mean and additional
  low frequencies, the spectrum of the bare envelope.

Reproducible as ``mistnn.data.digits.scenes``: impulses depend on (configuration, split, index) alone and are the same
on all machines; pixels are the same up to the rounding of a matrix product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64

from mistnn.config import above, at_least
from mistnn.data.base import GeneratedImages, ImagesConfig
from mistnn.errors import MistError
from mistnn.interfaces import Known, Split
from mistnn.records import Sample

Ground = Literal["black", "grey"]
Weights = Literal["positive", "signs"]

GREY_LEVEL = 0.5  #: Value of the grey background (not stated; the middle of the range).
NYQUIST = 0.5  #: The highest frequency that pixels can represent, in cycles per pixel.

_TRIES = 100  # Random positions tried for one impulse before the image is started again.
_RESTARTS = 500
_PROBES = 4  # Images placed when the data set is opened, to reject impossible configurations early ...
_PROBE_RESTARTS = 25  # ... with far fewer restarts than an image has, so that no image fails later.


@dataclass(frozen=True)
class GaborConfig(ImagesConfig):
    """Gabor noise. The paper names the process and the kernel; all numbers here are our choice.

    With the defaults a kernel is a bright bar between two weaker ones, and each pixel is in two boxes on average.

    Attributes:
        canvas: side of the image, in pixels.
        counts: possible numbers of impulses in an image, equally likely; MIST needs the number, its K.
        density: impulses per square pixel of a Poisson process. The number of impulses then varies between images,
            ``counts`` is not used, and ``min_distance`` must be 0. With density 0, ``counts`` is used.
        frequency: lowest and highest frequency F of the wave, in cycles per pixel, uniformly distributed.
        orientation: lowest and highest orientation w of the wave, in radians, uniformly distributed.
        orientation_set: orientations in radians, equally likely, instead of the range; empty for the range.
        bandwidth: a of the envelope exp(-pi a^2 r^2), in 1 / pixel. Its standard deviation is 0.4 / a pixels.
        box_size: side in pixels of the square around the impulse outside which the kernel is cut off. The envelope
            should be small there: with the defaults it is 0.043 in the middle of a side.
        weights: "positive", all 1; or "signs", 1 or -1 equally likely, on grey only.
        min_distance: smallest distance between two impulses, in pixels (random positions are tried one after the other,
            as in the hard layout of ``ScenesConfig``); 0 for none, as in a pure Poisson process, where impulses may
            coincide.
        margin: smallest distance of an impulse from the border of the image, in pixels. Half of ``box_size`` keeps all
            kernels inside; with 0, kernels near the border are cut.
        ground: "black" or "grey", see the top of this module. Black is the default, since the sum of patches of
            equation 8 is then the model that generated the image.
        gain: height of a kernel's peak above the background in the image. The default clips almost no pixel on black,
            but 4 % of them on grey, where 0.4 clips 0.2 %; see ``GaborNoise.clipped``.

    Reference: MIST (CVPR 2021), section 5.1 and figure 4, which leave all numbers, the background and the sign of the
        weights open; Lagae et al., Procedural noise using sparse Gabor convolution, 2009.
    """

    kind: ClassVar[str] = "gabor"
    canvas: Annotated[int, at_least(1)] = 80
    counts: tuple[Annotated[int, at_least(0)], ...] = (30,)
    density: Annotated[float, at_least(0)] = 0.0
    frequency: tuple[float, float] = (0.15, 0.15)
    orientation: tuple[float, float] = (0.0, math.pi)
    orientation_set: tuple[float, ...] = ()
    bandwidth: Annotated[float, above(0)] = 0.1
    box_size: Annotated[float, above(0)] = 20.0
    weights: Weights = "positive"
    min_distance: Annotated[float, at_least(0)] = 6.0
    margin: Annotated[float, at_least(0)] = 10.0
    ground: Ground = "black"
    gain: Annotated[float, above(0)] = 0.6

    def check(self) -> None:
        """Checks ranges, and fields that depend on each other."""
        if not self.counts:
            raise MistError("data.counts=() must name at least one number of impulses")
        if len(self.frequency) != 2 or not 0 <= self.frequency[0] <= self.frequency[1] <= NYQUIST:
            raise MistError(
                f"data.frequency={self.frequency} must be two numbers, lower first, of 0 to {NYQUIST} cycles per pixel"
            )
        if len(self.orientation) != 2 or self.orientation[0] > self.orientation[1]:
            raise MistError(f"data.orientation={self.orientation} must be two angles, the lower first")
        if 2 * self.margin >= self.canvas:
            raise MistError(f"data.margin={self.margin} must be less than half of data.canvas={self.canvas}")
        if self.density and self.min_distance:
            raise MistError(
                f"data.density={self.density} sets a Poisson process, whose impulses keep no distance: use "
                f"data.min_distance=0 (it is {self.min_distance}), or data.density=0 and data.counts"
            )
        if self.ground == "black" and self.weights == "signs":
            raise MistError("data.weights='signs' would go below black: use data.ground=grey, or data.weights=positive")

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known(
            size=(self.canvas, self.canvas),
            counts=() if self.density else self.counts,  # a Poisson process has no largest number
            background=GREY_LEVEL if self.ground == "grey" else 0.0,
        )

    def open(self, split: Split, length: int | None = None) -> GaborNoise:
        """One split, see ``GaborNoise``."""
        return GaborNoise(self, split, length)

    def at(self, root: str | None) -> GaborConfig:
        """The same configuration: the images need no files."""
        return self


class Impulses(NamedTuple):
    """The impulses of one image, which determine its pixels."""

    positions: Float64[np.ndarray, "n 2"]  #: x and y of each, in pixels.
    weights: Float64[np.ndarray, " n"]  #: Factors of the kernels.
    orientations: Float64[np.ndarray, " n"]  #: w, in radians.
    frequencies: Float64[np.ndarray, " n"]  #: F, in cycles per pixel.


def gabor_kernel(
    offsets: Float[np.ndarray, "*points 2"],
    frequency: float,
    orientation: float,
    bandwidth: float,
    ground: Ground = "grey",
    magnitude: float = 1.0,
) -> Float[np.ndarray, "*points"]:
    """K exp(-pi a^2 (x^2 + y^2)) cos(2 pi F (x cos w + y sin w)), not cut off.

    Convention: on "black", (1 + cos) / 2 replaces cos, so that no value is negative. The peak, at 0, is K on both, the
    ``magnitude``. ``offsets`` are x and y from the impulse, in pixels; for F, w and a see ``GaborConfig``.

    Reference: Lagae et al. 2009, the Gabor kernel; the raised kernel is ours.
    """
    x, y = offsets[..., 0], offsets[..., 1]
    envelope = magnitude * np.exp(-math.pi * bandwidth**2 * (x**2 + y**2))
    wave = np.cos(math.tau * frequency * (x * math.cos(orientation) + y * math.sin(orientation)))
    # For a single point, numpy returns a scalar.
    return np.asarray(envelope * (wave if ground == "grey" else (1 + wave) / 2))


def gabor_noise(
    impulses: Impulses, bandwidth: float, box_size: float, height: int, width: int, ground: Ground = "grey"
) -> Float64[np.ndarray, "{height} {width}"]:
    """Sparse convolution: the sum over impulses of weight x kernel, each cut off outside its box.

    Convention: a kernel covers the pixels whose centres are at most ``box_size / 2`` from the impulse in x and in y.
    The result is the plain sum, without background and gain; see ``tone``. Impulses may lie outside the image.
    A cut kernel is the real part of a factor in x times one in y, so the sum over impulses is a matrix product.

    Reference: Lagae et al. 2009, sparse Gabor convolution noise.
    """
    along_x = impulses.frequencies * np.cos(impulses.orientations)
    along_y = impulses.frequencies * np.sin(impulses.orientations)
    blob_x, wave_x = _factors(impulses.positions[:, 0], along_x, bandwidth, box_size, width)
    blob_y, wave_y = _factors(impulses.positions[:, 1], along_y, bandwidth, box_size, height)
    weights = impulses.weights[:, None]
    waves = np.real((weights * wave_y).T @ wave_x)
    return waves if ground == "grey" else (waves + (weights * blob_y).T @ blob_x) / 2


def _factors(
    centres: np.ndarray, frequencies: np.ndarray, bandwidth: float, box_size: float, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, one row per impulse: the envelope, and the envelope times exp(2 pi i F x)."""
    offsets = np.arange(pixels) + 0.5 - centres[:, None]
    envelope = np.exp(-math.pi * bandwidth**2 * offsets**2) * (np.abs(offsets) <= box_size / 2)
    return envelope, envelope * np.exp(1j * math.tau * frequencies[:, None] * offsets)


def tone(noise: Float[np.ndarray, "*shape"], ground: Ground, gain: float) -> Float[np.ndarray, "*shape"]:
    """Values of the image: 0.5 + gain x noise on grey, gain x noise on black, both clipped to [0, 1]."""
    return np.clip(gain * noise + (GREY_LEVEL if ground == "grey" else 0.0), 0, 1)


class GaborNoise(GeneratedImages[GaborConfig]):
    """Gabor noise.

    Each sample has an image (1, canvas, canvas) in [0, 1] and the boxes (n, 4) around the exact impulses, of side
    ``box_size``. Counts and labels are ``None``: there are no classes.
    """

    def __init__(self, config: GaborConfig, split: Split, length: int | None) -> None:
        super().__init__(config, split, length)
        if config.min_distance:
            random = np.random.default_rng(config.seed)
            for _ in range(_PROBES):
                _place(config, max(config.counts), random, _PROBE_RESTARTS)

    def __getitem__(self, index: int) -> Sample:
        """Generates one image."""
        config = self.config
        impulses = self.impulses(index)
        image = tone(self.noise(impulses), config.ground, config.gain)
        sides = np.full_like(impulses.positions, config.box_size)
        return Sample(
            image=torch.from_numpy(image).to(torch.float32)[None],
            boxes=torch.from_numpy(np.concatenate([impulses.positions, sides], axis=1)).to(torch.float32),
        )

    def impulses(self, index: int) -> Impulses:
        """Draws the impulses of an image, in the order of its boxes."""
        config, random = self.config, self._generator(self.check_index(index))
        if config.density:
            count = int(random.poisson(config.density * (config.canvas - 2 * config.margin) ** 2))
        else:
            count = config.counts[int(random.integers(len(config.counts)))]
        positions = _place(config, count, random, _RESTARTS)
        if config.orientation_set:
            orientations = np.array(config.orientation_set, dtype=np.float64)
            orientations = orientations[random.integers(len(orientations), size=count)]
        else:
            orientations = random.uniform(*config.orientation, size=count)
        frequencies = random.uniform(*config.frequency, size=count)
        weights = random.integers(2, size=count) * 2.0 - 1 if config.weights == "signs" else np.ones(count)
        return Impulses(positions, weights, orientations, frequencies)

    def noise(self, impulses: Impulses) -> Float64[np.ndarray, "height width"]:
        """The sum of the kernels, without background and gain."""
        side, config = self.config.canvas, self.config
        return gabor_noise(impulses, config.bandwidth, config.box_size, side, side, config.ground)

    def clipped(self, index: int) -> float:
        """Share of an image's pixels that clipping to [0, 1] changes: there the image is not the sum of its kernels."""
        room = GREY_LEVEL if self.config.ground == "grey" else 1.0
        return float((np.abs(self.config.gain * self.noise(self.impulses(index))) > room).mean())


def _place(config: GaborConfig, count: int, random: np.random.Generator, restarts: int) -> Float64[np.ndarray, "n 2"]:
    """Positions that keep their distance from each other and from the border."""
    if not config.min_distance:
        return random.uniform(config.margin, config.canvas - config.margin, size=(count, 2))
    for _ in range(restarts):
        positions = _attempt(config, count, random)
        if positions is not None:
            return positions
    raise MistError(
        f"data.counts: {count} impulses, data.min_distance={config.min_distance:g} apart and data.margin="
        f"{config.margin:g} from the border, do not fit into data.canvas={config.canvas}: "
        "use fewer impulses, a smaller distance or margin, or a larger canvas"
    )


def _attempt(config: GaborConfig, count: int, random: np.random.Generator) -> Float64[np.ndarray, "n 2"] | None:
    positions = np.empty((count, 2))
    for placed in range(count):
        for dart in random.uniform(config.margin, config.canvas - config.margin, size=(_TRIES, 2)):
            if (((positions[:placed] - dart) ** 2).sum(axis=1) >= config.min_distance**2).all():
                positions[placed] = dart
                break
        else:
            return None
    return positions
