"""Scenes of several digits, composed on the fly: MNIST easy, MNIST hard, three digits, uneven, varying sizes.

Convention: x right, y down. A digit's frame is the object: resized to a whole number of pixels with antialiasing and
put at a whole pixel, so the true box (centre x, centre y, side, side) is exact. Overlapping ink is combined by the
maximum.

Reproducible: scene ``index`` of a split depends on (configuration, split, index) alone. Its random numbers come from
numpy's ``SeedSequence(seed, spawn_key=(split, index))`` with split 0, 1, 2 for train, validation, test, so neither the
order of access, nor the number of workers, nor the length matter.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch.utils.data import Dataset

from mistnn.data.digits.source import DigitSource, SourceName, Split, check_split, load_source
from mistnn.errors import MistError
from mistnn.records import Sample

Layout = Literal["easy", "hard", "uneven"]

GRID = 3
"""Rows and columns of the easy layout (S002 section 5.1)."""
JITTER = 1 / 8
"""Standard deviation of the easy layout's offsets, in cells (S002 section 5.1)."""
NEW_CLUSTER = 0.1
"""Uneven layout: how often a digit starts a cluster of its own (not stated; our choice)."""
RING = 0.15
"""Uneven layout: width of the ring around a neighbour, in sides of the largest frame (not stated; our choice)."""

_TRIES = 100  # Darts thrown for one digit before the scene is started again.
_RESTARTS = 2000
_PROBES = 8  # Scenes placed when the data set is made, to refuse what can't be placed ...
_PROBE_RESTARTS = 100  # ... with far fewer restarts than a scene has, so that none fails later, in the middle of a run.


@dataclass(frozen=True)
class ScenesConfig:
    """What scenes are made of. The defaults are MNIST hard; three digits are ``canvas=48, counts=(3,)``.

    Attributes:
        layout: "hard" places digits at random, never closer than ``min_distance`` (Poisson-disk: darts thrown one
            after the other until the exact count is reached; started again when stuck), each of a random class.
            "easy" puts the digits 0 to 8, in reading order, at the cells of a 3 x 3 grid plus Gaussian noise of 1/8 of
            a cell (which nine digits is not stated; our choice), kept inside the image; it ignores ``min_distance``.
            "uneven" is like hard, but a digit lands on a narrow ring just outside ``min_distance`` around one already
            placed, and only one time in ten anywhere, so that digits crowd in a part of the image.
        source: "mnist", or "embedded": scikit-learn's small digits, which need no download.
        canvas: side of the image, in pixels.
        counts: how many digits an image may hold, each number equally likely; a repeated number is likelier.
        object_size: smallest and largest side of a digit's frame, in pixels, both possible, equally likely.
        min_distance: least distance between the centres of two frames, in pixels.
        classes: how many classes; digits 0 to ``classes - 1`` appear.
        seed: chooses the scenes; two seeds share none.
        root: the folder that holds MNIST; see ``mistnn.data.digits.source``.
        keep: how many of its digits a training scene keeps, each number equally likely; which ones is random, and they
            stay where they were. Validation and test scenes hold all. Nothing for all (0 to 9 for Esl16, which
            doesn't converge otherwise: S000 appendix C.2).
        warp: how far the digits of the training split are bent, so that few digits teach as much as many: each is
            mapped by the identity plus a 2 x 2 matrix of numbers between ``-warp`` and ``warp``, about the centre of
            its frame, which turns, shears and stretches it. Validation and test digits stay as they are. 0 for none
            (the papers name none; our addition).

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S002 section 5.1 (easy, hard), Table 3 (three digits); S000 appendix D (uneven). They give neither the
    sizes nor the distance.
    """

    layout: Layout = "hard"
    source: SourceName = "mnist"
    canvas: int = 80
    counts: tuple[int, ...] = (9,)
    object_size: tuple[int, int] = (20, 20)
    min_distance: float = 16.0
    classes: int = 10
    seed: int = 0
    root: str | None = None
    warp: float = 0.0
    keep: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if len(self.object_size) != 2:
            raise MistError(f"data.object_size={self.object_size} must be two sides, the smallest and the largest")
        low, high = self.object_size
        if self.layout not in get_args(Layout):
            raise MistError(f"data.layout={self.layout!r} is unknown: use easy, hard or uneven")
        if self.source not in get_args(SourceName):
            raise MistError(f"data.source={self.source!r} is unknown: use mnist or embedded")
        if self.canvas < 1:
            raise MistError(f"data.canvas={self.canvas} is no image side: use at least 1 pixel")
        if not self.counts or min(self.counts) < 0:
            raise MistError(f"data.counts={self.counts} must name at least one number of digits, none below 0")
        if not 1 <= low <= high:
            raise MistError(f"data.object_size={self.object_size} must be two sides, the smaller first, from 1 pixel")
        if high > self.canvas:
            raise MistError(
                f"data.object_size={self.object_size} does not fit into data.canvas={self.canvas}: "
                "use smaller objects or a larger canvas"
            )
        if not 0 <= self.min_distance < math.inf:
            raise MistError(f"data.min_distance={self.min_distance} must be a finite distance of 0 pixels or more")
        if not 1 <= self.classes <= 10:
            raise MistError(f"data.classes={self.classes} must lie between 1 and 10: there are ten digits")
        if not 0 <= self.warp < 0.5:
            raise MistError(f"data.warp={self.warp} must lie between 0 and 0.5 (excluded): 0.2 bends digits visibly")
        if self.seed < 0:
            raise MistError(f"data.seed={self.seed} is negative: use 0 or more")
        if self.keep and not 0 <= min(self.keep) <= max(self.keep) <= min(self.counts):
            raise MistError(f"data.keep={self.keep} must lie between 0 and the {min(self.counts)} digits of a scene")
        if self.layout == "easy" and set(self.counts) != {GRID * GRID}:
            raise MistError(f"data.counts={self.counts}: the easy layout always holds nine digits, use counts 9")
        if self.layout == "easy" and self.classes < GRID * GRID:
            raise MistError(f"data.classes={self.classes}: the easy layout shows digits 0 to 8, use 9 or 10")


class Recipe(NamedTuple):
    """How a scene is composed: one row a digit, no pixels yet.

    Attributes:
        rows: the digit's row in the source.
        labels: its class.
        sides: side of its frame on the canvas, in pixels.
        corners: (n, 2), x and y of the frame's top-left corner, whole pixels.
        warps: (n, 2, 2), where a digit's picture is looked up, relative to the centre of its frame; ``None`` for
            unbent digits.
    """

    rows: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    sides: Int64[np.ndarray, " n"]
    corners: Int64[np.ndarray, "n 2"]
    warps: Float64[np.ndarray, "n 2 2"] | None = None


class Scenes(Dataset[Sample]):
    """A map-style data set of composed scenes.

    Each sample has an image (1, canvas, canvas) in [0, 1], the counts (classes,), the true boxes (n, 4) and the labels
    (n,) in the order of the boxes.

    Args:
        config: what the scenes are made of.
        split: the split whose digits are used; the splits share no digit and no random numbers.
        length: number of scenes; ``None`` for no end. Then ``len()`` is ``sys.maxsize``: take the scenes in order (a
            data loader's default), since every scene is new anyway; shuffling so many indices is impossible.
        digits: digits of your own instead of ``config.source``.

    Raises:
        MistError: if the digits can't be loaded, or so many objects can't be placed.
    """

    def __init__(
        self, config: ScenesConfig, split: Split, length: int | None, digits: DigitSource | None = None
    ) -> None:
        """Loads the digits and tries whether the objects can be placed."""
        check_split(split)
        if length is not None and length < 1:
            raise MistError(f"a data set of length {length} holds no scene: use 1 or more")
        if config.layout != "easy":
            _probe(config)
        self.config = config
        self.split: Split = split
        self.length = length
        self.class_names = tuple(str(digit) for digit in range(config.classes))
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

    def __len__(self) -> int:
        """The number of scenes, ``sys.maxsize`` where there is no end."""
        return sys.maxsize if self.length is None else self.length

    def __getitem__(self, index: int) -> Sample:
        """Composes one scene.

        Raises:
            IndexError: if the index is negative or beyond the length.
        """
        recipe = self.recipe(index)
        size = self.config.canvas
        canvas = np.zeros((size, size), dtype=np.uint8)
        frames = self._frames(recipe)
        for frame, side, (x, y) in zip(frames, recipe.sides.tolist(), recipe.corners.tolist(), strict=True):
            place = canvas[y : y + side, x : x + side]
            np.maximum(place, frame[:side, :side], out=place)
        boxes = np.empty((len(recipe.rows), 4), dtype=np.float32)
        boxes[:, 2:] = recipe.sides[:, None]
        boxes[:, :2] = recipe.corners + recipe.sides[:, None] / 2
        return Sample(
            image=torch.from_numpy(canvas).to(torch.float32).div_(255)[None],
            counts=torch.from_numpy(np.bincount(recipe.labels, minlength=self.config.classes)),
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(recipe.labels),
        )

    def recipe(self, index: int) -> Recipe:
        """Draws which digits a scene holds, their sizes and their places.

        Raises:
            IndexError: if the index is negative or beyond the length.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} is outside a data set of {len(self)} scenes")
        config = self.config
        key = (get_args(Split).index(self.split), index)
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=key)))
        count = config.counts[int(random.integers(len(config.counts)))]
        easy = config.layout == "easy"
        labels = np.arange(count) if easy else random.integers(config.classes, size=count)
        ranks = (random.random(count) * self._sizes[labels]).astype(np.int64)
        sides = random.integers(config.object_size[0], config.object_size[1] + 1, size=count)
        corners = _easy(config, sides, random) if easy else _place(config, sides.tolist(), random, _RESTARTS)
        if corners is None:
            raise _crowded(config, count)
        warps = None
        if config.warp and self.split == "train":  # drawn last: a scene's places do not depend on it
            warps = np.eye(2) + random.uniform(-config.warp, config.warp, size=(count, 2, 2))
        recipe = Recipe(self._order[self._starts[labels] + ranks], labels, sides, corners, warps)
        if not config.keep or self.split != "train":
            return recipe
        kept = np.sort(random.permutation(count)[: config.keep[int(random.integers(len(config.keep)))]])
        return Recipe(*(None if part is None else part[kept] for part in recipe))  # pyright: ignore[reportArgumentType]

    def digit_ids(self, index: int) -> Int64[np.ndarray, " n"]:
        """The ids, in the whole source, of the digits a scene is made of."""
        return self._digits.ids[self.recipe(index).rows]

    def _frames(self, recipe: Recipe) -> np.ndarray:
        """The digits at their sides, in the top-left corners of arrays of the largest side."""
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


def resizer(size: int, side: int) -> Float32[np.ndarray, "side size"]:
    """The matrix that resizes a row of pixels with a triangle filter, antialiased where it shrinks.

    Convention: pixel centres at +0.5, ``align_corners=False``; at the border the weights that fall outside are left out
    and the rest rescaled, so every row sums to 1. Rows and columns are resized alike: ``R @ image @ R.T``.

    Args:
        size: pixels before.
        side: pixels after.
    """
    scale = size / side
    reach = max(scale, 1.0)
    centres = (np.arange(side) + 0.5) * scale
    distances = np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach
    weights = np.maximum(1 - distances, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def warp(
    frames: Float32[np.ndarray, "n side side"], sides: Int64[np.ndarray, " n"], maps: Float64[np.ndarray, "n 2 2"]
) -> Float32[np.ndarray, "n side side"]:
    """Looks each pixel of a frame up at a linear map of its place, bilinearly; background beyond the frame.

    Args:
        frames: pictures in the top-left corners of arrays of the largest side, 0 elsewhere.
        sides: of each picture, in pixels.
        maps: of (x, y), relative to the centre of the picture.
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
) -> Int64[np.ndarray, "n 2"] | None:
    """Top-left corners of frames that keep their distance, ``None`` if no attempt succeeds.

    Plain numbers, not arrays: for the handful of objects of a scene that is several times faster.
    """
    for _ in range(restarts):
        corners = _attempt(config, sides, random)
        if corners is not None:
            return np.array(corners, dtype=np.int64).reshape(-1, 2)
    return None


def _attempt(config: ScenesConfig, sides: list[int], random: np.random.Generator) -> list[tuple[int, int]] | None:
    least = config.min_distance**2
    width = RING * config.object_size[1]
    corners: list[tuple[int, int]] = []
    centres: list[tuple[float, float]] = []
    darts = iter(())
    for side in sides:
        span = config.canvas - side
        half = side / 2
        for _ in range(_TRIES):
            dart = next(darts, None)
            if dart is None:
                darts = iter(random.random((32, 4)).tolist())
                dart = next(darts)
            u, v, parent, start = dart
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


def _probe(config: ScenesConfig) -> None:
    """Refuses a configuration whose fullest scene can't be placed, before a run starts."""
    count = max(config.counts)
    random = np.random.default_rng(config.seed)
    for _ in range(_PROBES):
        if _place(config, [config.object_size[1]] * count, random, _PROBE_RESTARTS) is None:
            raise _crowded(config, count)


def _crowded(config: ScenesConfig, count: int) -> MistError:
    return MistError(
        f"data.counts: {count} objects of up to {config.object_size[1]} pixels, data.min_distance="
        f"{config.min_distance:g} apart, do not fit into data.canvas={config.canvas}: "
        "use fewer or smaller objects, a smaller distance or a larger canvas"
    )
