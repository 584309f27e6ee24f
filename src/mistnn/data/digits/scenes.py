"""Scenes of several digits, composed on the fly: MNIST easy, MNIST hard, three digits, uneven, varying sizes.

Convention: x right, y down. The object is a digit's frame: resized to a whole number of pixels with antialiasing and
put at a whole pixel, so the true box (centre x, centre y, side, side) is exact. Where ink overlaps, the maximum counts.

Reproducible: scene ``index`` of a split depends on (configuration, split, index) alone. Its random numbers come from
numpy's ``SeedSequence(seed, spawn_key=(split, index))`` with split 0, 1, 2 for train, validation, test, so the order of
access, the number of workers and the length don't matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from mistnn.config import at_least, below, between
from mistnn.data.base import DIGIT_NAMES, GeneratedImages, ImagesConfig, first_sample
from mistnn.data.digits.source import DigitSource, SourceName, load_source
from mistnn.data.random_numbers import darts
from mistnn.errors import MistError
from mistnn.interfaces import Known, Split
from mistnn.records import Batch, Sample

Layout = Literal["easy", "hard", "uneven"]

GRID = 3  #: Rows and columns of the easy layout (S002 section 5.1).
JITTER = 1 / 8  #: Standard deviation of the easy layout's offsets, in cells (S002 section 5.1).
NEW_CLUSTER = 0.1  #: Uneven layout: probability that a digit starts a new cluster (not stated; our choice).
RING = 0.15
"""Uneven layout: width of the ring around a neighbour, in sides of the largest frame (not stated; our choice)."""

_TRIES = 100  # Random positions tried for one digit before the scene is started again.
_RESTARTS = 2000
_PROBES = 8  # Scenes placed when the data set is opened, to reject impossible configurations early ...
_PROBE_RESTARTS = 100  # ... with far fewer restarts than a scene has, so that no scene fails later during a run.


@dataclass(frozen=True)
class ScenesConfig(ImagesConfig):
    """Scenes of digits. The defaults are MNIST hard; three digits are ``canvas=48, counts=(3,)``.

    Attributes:
        layout: "hard" places digits of random classes at random, at least ``min_distance`` apart (Poisson-disk: random
            positions are tried one after the other until the exact count is reached; started again when stuck). "easy"
            puts the digits 0 to 8, in reading order, at the cells of a 3 x 3 grid plus Gaussian noise of 1/8 of a cell
            (the choice of the nine digits is ours), kept inside the image; it ignores ``min_distance``. "uneven" is
            like hard, but a digit lands on a narrow ring just outside ``min_distance`` around an earlier digit, and
            anywhere only with a probability of 0.1, so that digits crowd in a part of the image.
        source: "mnist", or "embedded": scikit-learn's small digits, which need no download.
        canvas: side of the image, in pixels.
        counts: possible numbers of digits in an image, equally likely; a repeated number is likelier.
        object_size: smallest and largest side of a digit's frame, in pixels, uniformly distributed.
        min_distance: smallest distance between the centres of two frames, in pixels.
        classes: number of classes; digits 0 to ``classes - 1`` appear.
        root: the folder that holds MNIST; see ``mistnn.data.digits.source``.
        warp: largest deformation of training digits, so that a few digits give as much variation as many: each is
            mapped by the identity plus a 2 x 2 matrix of numbers between ``-warp`` and ``warp``, about the centre of
            its frame, which rotates, shears and scales it. Validation and test digits are unchanged. 0 for none (the
            papers have none; our addition).
        keep: possible numbers of digits that a training scene keeps, equally likely; the kept digits are random and
            stay in place. Validation and test scenes keep all. Empty keeps all (Esl16 needs 0 to 9 to converge: S000
            appendix C.2).

    Reference: S002 section 5.1 (easy, hard), Table 3 (three digits); S000 appendix D (uneven). They give neither the
    sizes nor the distance.
    """

    kind: ClassVar[str] = "scenes"
    layout: Layout = "hard"
    source: SourceName = "mnist"
    canvas: Annotated[int, at_least(1)] = 80
    counts: tuple[Annotated[int, at_least(0)], ...] = (9,)
    object_size: tuple[int, int] = (20, 20)
    min_distance: Annotated[float, at_least(0)] = 16.0
    classes: Annotated[int, between(1, 10, "there are ten digits")] = 10
    root: str | None = None
    warp: Annotated[float, at_least(0), below(0.5, "0.2 is clearly visible")] = 0.0
    keep: tuple[int, ...] = ()

    def check(self) -> None:
        """Checks counts and sizes."""
        if not self.counts:
            raise MistError("data.counts=() must name at least one number of digits")
        if len(self.object_size) != 2 or not 1 <= self.object_size[0] <= self.object_size[1]:
            raise MistError(f"data.object_size={self.object_size} must be two sides, the smaller first, from 1 pixel")
        if self.object_size[1] > self.canvas:
            raise MistError(
                f"data.object_size={self.object_size} does not fit into data.canvas={self.canvas}: enlarge the canvas"
            )
        if self.keep and not 0 <= min(self.keep) <= max(self.keep) <= min(self.counts):
            raise MistError(f"data.keep={self.keep} must be from 0 to the {min(self.counts)} digits of a scene")
        if self.layout == "easy" and set(self.counts) != {GRID * GRID}:
            raise MistError(f"data.counts={self.counts}: the easy layout always holds nine digits, use counts 9")
        if self.layout == "easy" and self.classes < GRID * GRID:
            raise MistError(f"data.classes={self.classes}: the easy layout shows digits 0 to 8, use 9 or 10")

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known((self.canvas, self.canvas), 1, self.counts, DIGIT_NAMES[: self.classes], background=0.0)

    def open(self, split: Split, length: int | None = None) -> Scenes:
        """One split, see ``Scenes``."""
        return Scenes(self, split, length)


class Recipe(NamedTuple):
    """The composition of a scene, without pixels: one row per digit."""

    rows: Int64[np.ndarray, " n"]  #: The digit's row in the source.
    labels: Int64[np.ndarray, " n"]  #: Its class.
    sides: Int64[np.ndarray, " n"]  #: Side of its frame on the canvas, in pixels.
    corners: Int64[np.ndarray, "n 2"]  #: (n, 2), x and y of the frame's top-left corner, whole pixels.
    #: (n, 2, 2), maps from a pixel of the frame to the place where the digit is sampled, both relative to the
    #: centre of the frame; ``None`` for undeformed digits.
    warps: Float64[np.ndarray, "n 2 2"] | None = None


class Scenes(GeneratedImages[ScenesConfig]):
    """Composed scenes.

    Each sample has an image (1, canvas, canvas) in [0, 1], the counts (classes,), the true boxes (n, 4) and the labels
    (n,) in the order of the boxes.

    Args:
        digits: other digits instead of ``config.source``.
    """

    def __init__(
        self, config: ScenesConfig, split: Split, length: int | None, digits: DigitSource | None = None
    ) -> None:
        super().__init__(config, split, length)
        if config.layout != "easy":
            sides, random = [config.object_size[1]] * max(config.counts), np.random.default_rng(config.seed)
            for _ in range(_PROBES):
                _place(config, sides, random, _PROBE_RESTARTS)
        self._digits = load_source(config.source, split, config.root) if digits is None else digits
        # The rows of class c are order[starts[c] : starts[c] + sizes[c]].
        self._order = np.argsort(self._digits.labels, kind="stable")
        self._sizes = np.bincount(self._digits.labels, minlength=10)[: config.classes]
        self._starts = np.cumsum(self._sizes) - self._sizes
        if not self._sizes.all():
            missing = int(np.argmin(self._sizes))
            raise MistError(f"the {split} split holds no digit {missing}: use fewer classes than {config.classes}")
        low, high = config.object_size
        self._resizers = np.zeros((high - low + 1, high, self._digits.images.shape[1]), dtype=np.float32)
        for side in range(low, high + 1):
            self._resizers[side - low, :side] = resizer(self._digits.images.shape[1], side)

    def __getitem__(self, index: int) -> Sample:
        """Composes one scene."""
        return first_sample(self.batch([index]))

    def batch(self, indices: Sequence[int]) -> Batch:
        """Composes several scenes: as ``collate`` of single ones, but all digits are resized and warped at once."""
        recipes = [self.recipe(index) for index in indices]
        frames = self._frames(_joined(recipes))
        side, classes = self.config.canvas, self.config.classes
        canvases = np.zeros((len(recipes), side, side), dtype=np.uint8)
        counts = np.zeros((len(recipes), classes), dtype=np.int64)
        boxes, first = [], 0
        for number, recipe in enumerate(recipes):
            some = frames[first : first + len(recipe.sides)]
            first += len(some)
            for frame, width, (x, y) in zip(some, recipe.sides.tolist(), recipe.corners.tolist(), strict=True):
                place = canvases[number, y : y + width, x : x + width]
                np.maximum(place, frame[:width, :width], out=place)
            counts[number] = np.bincount(recipe.labels, minlength=classes)
            sides = recipe.sides[:, None]
            boxes.append(np.hstack((recipe.corners + sides / 2, sides, sides)).astype(np.float32))
        return Batch(
            images=torch.from_numpy(canvases).to(torch.float32).div_(255).unsqueeze(1),
            counts=torch.from_numpy(counts),
            boxes=[torch.from_numpy(some) for some in boxes],
            labels=[torch.from_numpy(recipe.labels) for recipe in recipes],
        )

    def recipe(self, index: int) -> Recipe:
        """Draws the digits of a scene, their sizes and their places."""
        config, random = self.config, self._generator(self.check_index(index))
        count = config.counts[int(random.integers(len(config.counts)))]
        easy = config.layout == "easy"
        labels = np.arange(count) if easy else random.integers(config.classes, size=count)
        ranks = (random.random(count) * self._sizes[labels]).astype(np.int64)
        sides = random.integers(config.object_size[0], config.object_size[1] + 1, size=count)
        corners = _easy(config, sides, random) if easy else _place(config, sides.tolist(), random, _RESTARTS)
        warps = None
        if config.warp and self.split == "train":  # drawn last: places do not depend on it
            warps = np.eye(2) + random.uniform(-config.warp, config.warp, size=(count, 2, 2))
        recipe = Recipe(self._order[self._starts[labels] + ranks], labels, sides, corners, warps)
        if not config.keep or self.split != "train":
            return recipe
        kept = np.sort(random.permutation(count)[: config.keep[int(random.integers(len(config.keep)))]])
        return Recipe(*(None if part is None else part[kept] for part in recipe))  # pyright: ignore[reportArgumentType]

    def _frames(self, recipe: Recipe) -> np.ndarray:
        """The resized digits, in the top-left corners of arrays of the largest side."""
        frames = self._digits.images[recipe.rows]
        low, high = self.config.object_size
        if low == high == frames.shape[1] and recipe.warps is None:
            return frames
        weights = self._resizers[recipe.sides - low]
        resized = weights @ frames.astype(np.float32) @ weights.transpose(0, 2, 1)
        if recipe.warps is not None:
            resized = warp(resized, recipe.sides, recipe.warps)
        resized += 0.5  # The cast truncates.
        return resized.astype(np.uint8)


def _joined(recipes: Sequence[Recipe]) -> Recipe:
    """The digits of several scenes, one after the other."""
    rows, labels, sides, corners = (np.concatenate(parts) for parts in list(zip(*recipes, strict=True))[:4])
    warps = [recipe.warps for recipe in recipes if recipe.warps is not None]
    return Recipe(rows, labels, sides, corners, np.concatenate(warps) if warps else None)


def resizer(size: int, side: int) -> Float32[np.ndarray, "side size"]:
    """The (side, size) matrix that resizes ``size`` pixels to ``side`` by a triangle filter, antialiased.

    Convention: pixel centres at +0.5, ``align_corners=False``; weights outside the image are dropped and the rest is
    rescaled, so every row sums to 1. Rows and columns are resized alike: ``R @ image @ R.T``.
    """
    scale = size / side
    centres = (np.arange(side) + 0.5) * scale
    distances = np.abs(np.arange(size) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(1 - distances, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def warp(
    frames: Float32[np.ndarray, "n side side"], sides: Int64[np.ndarray, " n"], maps: Float64[np.ndarray, "n 2 2"]
) -> Float32[np.ndarray, "n side side"]:
    """Samples each pixel of a frame bilinearly at a linear map of its place; background beyond the frame.

    Digits are in the top-left corners of ``frames``, 0 elsewhere; ``maps`` are of (x, y) from the centre of a digit.
    """
    size = frames.shape[1]
    rows, columns = np.mgrid[:size, :size] + 0.5
    places = np.stack([columns, rows], axis=-1)[None]
    centres = sides[:, None, None, None] / 2
    looked_up = np.einsum("nij,nyxj->nyxi", maps, places - centres) + centres
    grid = torch.from_numpy((looked_up * (2 / size) - 1).astype(np.float32))
    return torch.nn.functional.grid_sample(torch.from_numpy(frames)[:, None], grid, align_corners=False)[:, 0].numpy()


def _easy(config: ScenesConfig, sides: np.ndarray, random: np.random.Generator) -> Int64[np.ndarray, "n 2"]:
    cell = config.canvas / GRID
    rows, columns = np.divmod(np.arange(GRID * GRID), GRID)
    centres = (np.stack([columns, rows], axis=1) + 0.5) * cell
    centres += random.normal(0, JITTER * cell, size=centres.shape)
    corners = np.floor(centres - sides[:, None] / 2 + 0.5).astype(np.int64)
    return np.clip(corners, 0, config.canvas - sides[:, None])


def _place(
    config: ScenesConfig, sides: list[int], random: np.random.Generator, restarts: int
) -> Int64[np.ndarray, "n 2"]:
    """Top-left corners of frames that keep their distance."""
    for _ in range(restarts):
        corners = _attempt(config, sides, random)
        if corners is not None:
            return np.array(corners, dtype=np.int64).reshape(-1, 2)
    raise MistError(
        f"data.counts: {len(sides)} objects of up to {config.object_size[1]} pixels, data.min_distance="
        f"{config.min_distance:g} apart, do not fit into data.canvas={config.canvas}: "
        "use fewer or smaller objects, a smaller distance or a larger canvas"
    )


def _attempt(config: ScenesConfig, sides: list[int], random: np.random.Generator) -> list[tuple[int, int]] | None:
    """Uses plain numbers, not arrays: for a few objects this is several times faster."""
    least, width = config.min_distance**2, RING * config.object_size[1]
    corners: list[tuple[int, int]] = []
    centres: list[tuple[float, float]] = []
    thrown = darts(random, 4, 32)
    for side in sides:
        span, half = config.canvas - side, side / 2
        for _ in range(_TRIES):
            u, v, parent, start = next(thrown)
            if config.layout == "uneven" and centres and start >= NEW_CLUSTER:
                near_x, near_y = centres[int(parent * len(centres))]
                radius = config.min_distance + width * u
                x = math.floor(near_x + radius * math.cos(math.tau * v) - half + 0.5)
                y = math.floor(near_y + radius * math.sin(math.tau * v) - half + 0.5)
                if not (0 <= x <= span and 0 <= y <= span):
                    continue
            else:
                x, y = int(u * (span + 1)), int(v * (span + 1))
            centre_x, centre_y = x + half, y + half
            for other_x, other_y in centres:
                if (centre_x - other_x) ** 2 + (centre_y - other_y) ** 2 < least:
                    break
            else:
                corners.append((x, y))
                centres.append((centre_x, centre_y))
                break
        else:
            return None
    return corners
