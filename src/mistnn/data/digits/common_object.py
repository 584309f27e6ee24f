"""Images that all hold a digit of one class, which is not given: the data of co-localisation.

Convention: as in ``mistnn.data.digits.cluttered``. The digit's frame is at a whole pixel, entirely on the canvas, all
places equally likely. The object to find is that frame, 28 px for MNIST.

There is one small set of images, the same for all splits: training and evaluation use the same images, and neither
classes nor boxes are used in training. Digits come from MNIST's test split, so that an encoder that was trained to
classify digits has seen none of them; the paper doesn't state this. Clutter is cut from training digits.

Reference: S003, section 1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch

from mistnn.config import at_least, between
from mistnn.data.base import GeneratedImages, ImagesConfig, first_sample
from mistnn.data.digits.cluttered import Overlap, check_room, compose, draw_clutter, draw_places
from mistnn.data.digits.source import DigitSource, SourceName, load_source
from mistnn.data.random_numbers import CounterRandom
from mistnn.interfaces import Known, Split
from mistnn.records import Batch, Sample

_STREAM = 3  # of the random numbers: 0 to 2 are the splits of ``mistnn.data.digits.distorted``


@dataclass(frozen=True)
class CommonObjectConfig(ImagesConfig):
    """Images with a common object.

    Attributes:
        digit: the class of the common digit.
        pieces: pieces of clutter in an image: 0 for T, 16 for TC.
        canvas: side of an image, in pixels.
        source: "mnist", or "embedded": scikit-learn's small digits, which need no download.
        root: the folder that holds MNIST; see ``mistnn.data.digits.source``.
        clutter: what a piece does to the pixels below it: "insert" replaces them, so that it can hide part of the
            digit, as in TC of the paper's classification; "maximum" keeps the brighter. The paper says "add" here.

    Reference: S003, section 1.2.
    """

    kind: ClassVar[str] = "common-object"
    digit: Annotated[int, between(0, 9)] = 8
    pieces: Annotated[int, at_least(0)] = 0
    images: Annotated[int, at_least(2, "one image has nothing in common with itself alone")] = 100
    canvas: Annotated[int, at_least(1)] = 84
    source: SourceName = "mnist"
    root: str | None = None
    clutter: Overlap = "insert"

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known((self.canvas, self.canvas), counts=(1,), background=None if self.pieces else 0.0)

    def open(self, split: Split, length: int | None = None) -> CommonObjects:
        """The images, see ``CommonObjects``."""
        return CommonObjects(self, split, length)


class CommonObjects(GeneratedImages[CommonObjectConfig]):
    """Images with an object in common.

    Each sample has an image (1, canvas, canvas) in [0, 1], the box of the digit's frame and its class.
    """

    def __init__(self, config: CommonObjectConfig, split: Split, length: int | None) -> None:
        super().__init__(replace(config, root=None), split, length)
        self.length = config.images if length is None else min(length, config.images)
        source = load_source(config.source, "test", config.root)
        check_room(config.canvas, source.images.shape[-1])
        others = load_source(config.source, "train", config.root) if config.pieces else None
        self._whole = _make(config, source, others)

    def __getitem__(self, index: int) -> Sample:
        """One image."""
        return first_sample(self.batch([index]))

    def batch(self, indices: Sequence[int]) -> Batch:
        """Several images."""
        self.check_indices(indices)
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
    images = torch.from_numpy(compose(source.images, rows, places, config.canvas, clutter, cut_from, config.clutter))
    middle = torch.from_numpy(places).to(torch.float32) + side / 2
    return images[:, None], torch.cat((middle, torch.full_like(middle, side)), dim=1)
