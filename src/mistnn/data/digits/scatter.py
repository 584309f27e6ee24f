"""Scattered digits, composed on the fly: the images on which SPAIR and AIR are compared.

Digits lie anywhere, and may overlap a little. ``ScatterConfig()`` is SPAIR's 48 x 48 image of digits of 14 x 14,
``ScatterConfig(canvas=50, counts=(0, 1, 2), side=28, tight=True, overlap=0)`` that of AIR: two whole frames of 28
pixels would not fit beside each other, but their ink does.

Convention: x right, y down. A digit is put at a whole pixel, so its true box (centre x, centre y, width, height) is
exact: its frame, or, if ``tight``, the box around its ink. Where ink overlaps, the maximum counts; ink covers the
background by its brightness: background + (1 - background) * ink.

Reproducible: image ``index`` of a split depends on (configuration, split, index) alone, as in
``mistnn.data.digits.scenes``.

Reference: SPAIR (AAAI 2019), section 5.1 and its released code; AIR (NeurIPS 2016), section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from mistnn.config import at_least, below
from mistnn.data.base import DIGIT_NAMES, GeneratedImages, ImagesConfig
from mistnn.data.digits.scenes import resizer
from mistnn.data.digits.source import DigitSource, SourceName, load_source
from mistnn.data.random_numbers import darts
from mistnn.errors import MistError
from mistnn.interfaces import Known, Split
from mistnn.records import Sample

CLASSES = 10
SHOWN = 0.5  #: A box that a crop cuts is kept if at least this share of it is in the crop (not stated; our choice).

_TRIES = 100  # Random positions tried for one digit before the image is started again.
_RESTARTS = 1000
_PROBES = 8  # Images placed when the data set is opened, to reject impossible configurations early ...
_PROBE_RESTARTS = 50  # ... with far fewer restarts than an image has, so that no image fails later during a run.


@dataclass(frozen=True)
class ScatterConfig(ImagesConfig):
    """Scattered digits. The defaults are SPAIR's, with five digits.

    Attributes:
        source: "mnist", or "embedded": scikit-learn's small digits, which need no download.
        canvas: side of the image, in pixels (48; 84 for the transfer to larger images).
        counts: possible numbers of digits in an image, equally likely (SPAIR: 1, 3, 5, 7 or 9).
        side: side of a digit's frame, in pixels (14).
        overlap: largest number of pixels that the boxes of two digits may share (98, half a frame).
        tight: whether a digit is cut to the box around its ink, which is then its box.
        crop: side of the random crop of each training image, in pixels (48 of 84 for the transfer); ``None`` for the
            whole image. Validation and test images are not cropped.
        ground: brightness of the background, from 0 (black) to 1.
        picture: path of a picture of ``canvas`` x ``canvas`` pixels that is shown in grey as the background instead.
        root: the folder that holds MNIST; see ``mistnn.data.digits.source``.
    """

    kind: ClassVar[str] = "scatter"
    source: SourceName = "mnist"
    canvas: int = 48
    counts: tuple[Annotated[int, at_least(0)], ...] = (5,)
    side: int = 14
    overlap: Annotated[int, at_least(0, "0 keeps the digits apart")] = 98
    tight: bool = False
    crop: int | None = None
    ground: Annotated[float, at_least(0), below(1, "ink is white")] = 0.0
    picture: str | None = None
    root: str | None = None

    def check(self) -> None:
        """Checks counts, sizes and the background."""
        if not self.counts:
            raise MistError("data.counts=() must name at least one number of digits")
        for name, value in (("side", self.side), ("crop", self.crop)):
            if value is not None and not 1 <= value <= self.canvas:
                raise MistError(f"data.{name}={value} must be from 1 to data.canvas={self.canvas} pixels")
        if self.picture is not None and self.ground:
            raise MistError("data.picture and data.ground both set the background: give one of them")

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known(
            size=(self.canvas, self.canvas),
            counts=self.counts,
            class_names=DIGIT_NAMES,
            training_size=None if self.crop is None else (self.crop, self.crop),
            background=self.ground if self.picture is None else None,
        )

    def open(self, split: Split, length: int | None = None) -> Scatter:
        """One split, see ``Scatter``."""
        return Scatter(self, split, length)


class Scattering(NamedTuple):
    """The composition of an image, without pixels: one row per digit."""

    rows: Int64[np.ndarray, " n"]  #: The digit's row in the source.
    corners: Int64[np.ndarray, "n 2"]  #: (n, 2), x and y of the top-left corner of its box, whole pixels.
    shown: tuple[int, int]  #: (x, y) of the top-left corner of the crop.


class Scatter(GeneratedImages[ScatterConfig]):
    """Scattered digits.

    Each sample has an image (1, side, side) in [0, 1], the counts (10,), the boxes (n, 4) and the labels (n,).

    Args:
        digits: other digits instead of ``config.source``.
    """

    def __init__(
        self, config: ScatterConfig, split: Split, length: int | None, digits: DigitSource | None = None
    ) -> None:
        super().__init__(config, split, length)
        self._crop = config.crop if split == "train" else None
        self.side = config.canvas if self._crop is None else self._crop  # of the images of this split
        self._digits = load_source(config.source, split, config.root) if digits is None else digits
        self._frames = resized(self._digits.images, config.side)
        whole = np.broadcast_to(np.array([0, 0, config.side, config.side]), (len(self._frames), 4))
        self._boxes = ink_boxes(self._frames) if config.tight else whole
        self._ground = config.ground if config.picture is None else read_ground(config.picture, config.canvas)
        random = np.random.default_rng(config.seed)
        for _ in range(_PROBES):
            self._place(self._choose(max(config.counts), random), random, _PROBE_RESTARTS)

    def __getitem__(self, index: int) -> Sample:
        """Composes one image."""
        config, scattering = self.config, self.scattering(index)
        ink = np.zeros((config.canvas, config.canvas), dtype=np.uint8)
        boxes = self._boxes[scattering.rows]
        placed = zip(scattering.rows.tolist(), scattering.corners.tolist(), boxes.tolist(), strict=True)
        for row, (x, y), (left, top, width, height) in placed:
            place = ink[y : y + height, x : x + width]
            np.maximum(place, self._frames[row, top : top + height, left : left + width], out=place)
        places = np.hstack((scattering.corners + boxes[:, 2:] / 2, boxes[:, 2:])).astype(np.float32)
        image = torch.from_numpy(ink).to(torch.float32).div_(255)
        if config.picture is not None or config.ground:
            image = self._ground + (1 - self._ground) * image
        labels = self._digits.labels[scattering.rows]
        if self._crop is not None:
            image, places, labels = self._cut(image, places, labels, scattering.shown)
        return Sample(
            image=image[None],
            counts=torch.from_numpy(np.bincount(labels, minlength=CLASSES)),
            boxes=torch.from_numpy(places),
            labels=torch.from_numpy(labels),
        )

    def scattering(self, index: int) -> Scattering:
        """Draws the digits of an image, and their places."""
        config, random = self.config, self._generator(self.check_index(index))
        rows = self._choose(config.counts[int(random.integers(len(config.counts)))], random)
        corners = self._place(rows, random, _RESTARTS)
        x, y = (0, 0) if self._crop is None else random.integers(config.canvas - self.side + 1, size=2).tolist()
        return Scattering(rows, corners, (x, y))

    def inked(self, index: int) -> Float32[torch.Tensor, "n 4"]:
        """The box around the ink of each digit of an uncropped image, in the order of its boxes."""
        rows, corners, _ = self.scattering(index)
        ink = ink_boxes(self._frames[rows]) if len(rows) else np.zeros((0, 4), dtype=np.int64)
        middle = corners + ink[:, :2] - self._boxes[rows, :2] + ink[:, 2:] / 2
        return torch.from_numpy(np.hstack((middle, ink[:, 2:])).astype(np.float32))

    def _choose(self, count: int, random: np.random.Generator) -> np.ndarray:
        return (random.random(count) * len(self._frames)).astype(np.int64)

    def _place(self, rows: np.ndarray, random: np.random.Generator, restarts: int) -> np.ndarray:
        """Corners of boxes with limited overlap: random positions are tried digit by digit, and again when stuck."""
        config, sizes = self.config, self._boxes[rows, 2:].tolist()
        for _ in range(restarts):
            corners = _attempt(sizes, config.canvas, config.overlap, random)
            if corners is not None:
                return np.array(corners, dtype=np.int64).reshape(-1, 2)
        raise MistError(
            f"data.counts: {len(rows)} digits of {config.side} pixels, with data.overlap={config.overlap}, do not fit "
            f"into data.canvas={config.canvas}: use fewer or smaller digits, more overlap or a larger canvas"
        )

    def _cut(
        self, image: torch.Tensor, boxes: np.ndarray, labels: np.ndarray, shown: tuple[int, int]
    ) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """The crop of an image, and the boxes in it, clipped to it."""
        x, y = shown
        low, high = boxes[:, :2] - boxes[:, 2:] / 2 - shown, boxes[:, :2] + boxes[:, 2:] / 2 - shown
        low, high = low.clip(0, self.side), high.clip(0, self.side)
        remain = (high - low).prod(1) >= SHOWN * boxes[:, 2:].prod(1)
        cut = np.hstack(((low + high) / 2, high - low)).astype(np.float32)
        return image[y : y + self.side, x : x + self.side].contiguous(), cut[remain], labels[remain]


def resized(images: UInt8[np.ndarray, "n size size"], side: int) -> UInt8[np.ndarray, "n side side"]:
    """Digits at another size, antialiased; see ``mistnn.data.digits.scenes.resizer``."""
    size = images.shape[1]
    if size == side:
        return images
    weights = resizer(size, side)
    result = np.empty((len(images), side, side), dtype=np.uint8)
    for start in range(0, len(images), 1000):  # in parts: all in float32 would take hundreds of MB
        some = images[start : start + 1000].astype(np.float32)
        result[start : start + 1000] = weights @ some @ weights.T + 0.5  # the cast truncates
    return result


def ink_boxes(frames: UInt8[np.ndarray, "n side side"]) -> Int64[np.ndarray, "n 4"]:
    """(left, top, width, height) of the box around the ink of each frame; the whole frame if there is none."""
    side = frames.shape[1]
    edges = []
    for axis in (1, 2):  # columns, then rows
        inked = np.asarray(frames.any(axis=axis))
        first = inked.argmax(1)
        edges.append((first, side - inked[:, ::-1].argmax(1) - first))
    (left, width), (top, height) = edges
    return np.stack([left, top, width, height], axis=1).astype(np.int64)


def read_ground(path: str, canvas: int) -> Float32[torch.Tensor, "height width"]:
    """The picture behind the digits, in grey, values in [0, 1]; raises ``MistError`` if it can't be used."""
    from PIL import Image

    try:
        with Image.open(Path(path).expanduser()) as picture:
            width, height = picture.size
            pixels = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise MistError(f"data.picture={path} can't be read as a picture: {error}") from error
    if (height, width) != (canvas, canvas):
        raise MistError(f"data.picture={path} has {width} x {height} pixels, but data.canvas={canvas}: make them equal")
    return torch.from_numpy(pixels)


def _attempt(
    sizes: list[list[int]], canvas: int, overlap: int, random: np.random.Generator
) -> list[tuple[int, int]] | None:
    """Uses plain numbers, not arrays: for a few digits this is several times faster."""
    placed: list[tuple[int, int, int, int]] = []
    thrown = darts(random, 2, 16)
    for width, height in sizes:
        for _ in range(_TRIES):
            u, v = next(thrown)
            x, y = math.floor(u * (canvas - width + 1)), math.floor(v * (canvas - height + 1))
            for left, top, right, bottom in placed:
                across, down = min(x + width, right) - max(x, left), min(y + height, bottom) - max(y, top)
                if across > 0 and down > 0 and across * down > overlap:
                    break
            else:
                placed.append((x, y, x + width, y + height))
                break
        else:
            return None
    return [(x, y) for x, y, _, _ in placed]
