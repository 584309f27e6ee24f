"""Images that all hold a digit of one class, which nobody names: the data of co-localisation.

Convention: as ``mistnn.data.digits.cluttered``: the digit's frame at a whole pixel, wholly on the canvas, every place
equally likely; its box is that frame, 28 px for MNIST, which is what is to be found.

The images are one small set, the same whichever split is asked for: what is optimised is what is measured, and neither
classes nor boxes are used on the way. They are made of MNIST's test digits, so that an encoder that was trained to tell
digits apart has seen none of them; the paper doesn't say which it took. Clutter is cut from training digits.

Reference: S003, section 1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from mistnn.data.digits.cluttered import check_room, compose, draw_clutter, draw_places
from mistnn.data.digits.distorted import CLASSES
from mistnn.data.digits.source import DigitSource, SourceName, Split, check_split, load_source
from mistnn.data.random_numbers import CounterRandom
from mistnn.errors import MistError
from mistnn.records import Batch, Sample

_STREAM = 3  # of the random numbers: 0 to 2 are those of the splits of ``mistnn.data.digits.distorted``


@dataclass(frozen=True)
class CommonObjectConfig:
    """Which images.

    Attributes:
        digit: the class that all of them hold.
        pieces: of clutter in an image: 0 for T, 16 for TC.
        images: how many.
        canvas: side of an image, in pixels.
        source: "mnist", or "embedded": scikit-learn's small digits, which need no download.
        seed: chooses the images; two seeds share none.
        root: the folder that holds MNIST; see ``mistnn.data.digits.source``.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S003, section 1.2.
    """

    digit: int = 8
    pieces: int = 0
    images: int = 100
    canvas: int = 84
    source: SourceName = "mnist"
    seed: int = 0
    root: str | None = None

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.source not in get_args(SourceName):
            raise MistError(f"data.source={self.source!r} is unknown: use mnist or embedded")
        if not 0 <= self.digit < CLASSES:
            raise MistError(f"data.digit={self.digit} is no digit: give one from 0 to {CLASSES - 1}")
        if self.pieces < 0:
            raise MistError(f"data.pieces={self.pieces} is negative: give 0 for no clutter")
        if self.images < 2:
            raise MistError(f"data.images={self.images} leaves nothing in common: give 2 or more")
        if self.canvas < 1:
            raise MistError(f"data.canvas={self.canvas} is no image side: use at least 1 pixel")
        if self.seed < 0:
            raise MistError(f"data.seed={self.seed} is negative: use 0 or more")


class CommonObjects(Dataset[Sample]):
    """A map-style data set of images with an object in common.

    Each sample has an image (1, canvas, canvas) in [0, 1], the box of the digit's frame and its class.

    Args:
        config: which.
        split: of no effect, see the top of the module.
        length: at most this many of the images; all of them if ``None``.

    Raises:
        MistError: if MNIST is missing or broken, or the canvas is too small for a digit.
    """

    def __init__(self, config: CommonObjectConfig, split: Split, length: int | None) -> None:
        """Loads the digits and makes the images."""
        check_split(split)
        if length is not None and length < 1:
            raise MistError(f"a data set of length {length} holds no image: use 1 or more")
        self.config = replace(config, root=None)
        self.class_names: tuple[str, ...] = ()
        source = load_source(config.source, "test", config.root)
        check_room(config.canvas, source.images.shape[-1])
        others = load_source(config.source, "train", config.root) if config.pieces else None
        self._whole = _make(config, source, others)
        self._length = config.images if length is None else min(length, config.images)

    def __len__(self) -> int:
        """The number of images."""
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """One image.

        Raises:
            IndexError: if the index is negative or beyond the length.
        """
        made = self.batch([index])
        assert made.boxes is not None and made.labels is not None
        return Sample(made.images[0], boxes=made.boxes[0], labels=made.labels[0])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Several images.

        Raises:
            IndexError: if an index is negative or beyond the length.
        """
        wrong = [index for index in indices if not 0 <= index < len(self)]
        if wrong:
            raise IndexError(f"image {wrong[0]} is outside a data set of {len(self)} images")
        images, boxes = (part[list(indices)] for part in self._whole)
        label = torch.full((len(indices), 1), self.config.digit)
        return Batch(images, boxes=list(boxes[:, None]), labels=list(label))


def _make(
    config: CommonObjectConfig, source: DigitSource, others: DigitSource | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """All images, and the boxes of the digits' frames."""
    random, indices, side = CounterRandom(config.seed, _STREAM), np.arange(config.images), source.images.shape[-1]
    of_class = np.flatnonzero(source.labels == config.digit)
    rows = of_class[random.integers(indices, 0, 1, len(of_class))[:, 0]]
    places = draw_places(random, indices, 1, config.canvas, side)
    clutter, cut_from = None, None
    if others is not None:
        cut_from = others.images
        clutter = draw_clutter(random, indices, None, 3, config.pieces, config.canvas, side, len(cut_from))
    images = torch.from_numpy(compose(source.images, rows, places, config.canvas, clutter, cut_from))[:, None]
    middle = torch.from_numpy(places).to(torch.float32) + side / 2
    return images, torch.cat((middle, torch.full_like(middle, side)), dim=1)
