"""Distorted digits, made on the fly: rotated, moved and scaled, seen askew, bent, or moved among clutter.

Convention: x right, y down, pixel centres at +0.5; a positive angle turns clockwise on the screen. All pixels are in
those of MNIST's frame of 28; for digits of another frame (the embedded ones) the canvas is what is given, and all other
lengths in pixels shrink with the frame.

* R: turned by -90 to 90 degrees, in the middle.
* RTS: turned by -45 to 45 degrees, 0.7 to 1.2 times as large, anywhere. Anywhere means: the frame, before it is turned,
  lies wholly on the canvas.
* P: 0.75 to 1 times as large, in the middle; then the four corners of that frame are moved, each coordinate by a normal
  number of 5 px, and the projective map that takes the frame to them is applied. Corners are drawn again if they make
  no convex shape (no such map takes a frame to them without folding it), if the middle of the frame is not among them,
  or if the triangles of three of them differ in area by more than ``STEEPEST`` times: nearly all of the digit would
  then end in one corner, which nobody reads.
* E: 0.75 to 1 times as large, in the middle; then bent by a thin plate spline with 4 x 4 control points from edge to
  edge of the 28 px in the middle of the canvas, each coordinate of each moved by a normal number of 1.5 px. The spline
  says where an output pixel reads: so the points are on the bent image, and the numbers, being symmetric, the same.
* T: at a whole pixel anywhere, its frame wholly on the canvas; on a canvas of the frame's size, the digit as it is.
* TC: at a whole pixel anywhere, its frame wholly on the canvas, among six pieces of 6 x 6 px of other digits.
* Z (ours, for the encoder of co-localisation): zoomed. At a whole pixel anywhere on 84 px, half of the images with 16
  pieces of 6 x 6 px of other digits; then a window of 28 to 84 px, all factors equally likely, which may cut off 3 px
  of the digit's frame and is at any such place, is read at the size of the canvas.

With two digits an image has two channels, a digit in each, distorted independently: MNIST addition.

Not stated: the canvas of R, P and E (42 px, as RTS: nothing is cut off but corners of P moved far); what "random
location" means for a turned frame; the order of scaling and stretching; whether images are made anew or once. Here
training never sees one twice.

Reproducible: image ``index`` of a split depends on (configuration, split, index) alone, see
``mistnn.data.random_numbers``. Training draws a digit of its split for each image; image i of validation and test has
digit i of its split, and, where there is a second, another drawn one.

Reference: S003, sections 1.1 and 1.3.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.utils.data import Dataset

from mistnn.data.digits.cluttered import DIGIT_SIDE, Clutter, check_room, compose, draw_clutter, draw_places
from mistnn.data.digits.source import DigitSource, SourceName, Split, check_split, load_source
from mistnn.data.random_numbers import CounterRandom
from mistnn.errors import MistError
from mistnn.ops import transforms
from mistnn.records import Batch, Sample

Distortion = Literal["r", "rts", "p", "e", "t", "tc", "z"]

ROTATION = {"r": math.pi / 2, "rts": math.pi / 4}
"""The greatest angle."""
SCALE = {"rts": (0.7, 1.2), "p": (0.75, 1.0), "e": (0.75, 1.0)}
"""The smallest and the greatest factor."""
CORNER_NOISE = 5.0
"""Standard deviation of a corner's coordinates, in pixels, of P."""
STEEPEST = 8.0
"""Largest ratio of the depths of two corners of P, of which the local scale is the inverse (our choice)."""
CONTROL_NOISE = 1.5
"""Standard deviation of a control point's coordinates, in pixels, of E."""
CONTROL_SIDE = 4
"""Control points along a side."""
PIECES = 6
"""Pieces of clutter of TC."""
ZOOMED_SIDE, ZOOMED_PIECES = 84, 16
"""Side of the image that a window of Z is read from, in pixels, and pieces of clutter in half of them."""
CUT_OFF = 3.0
"""What a window of Z may cut off from a digit's frame, in pixels."""
CLASSES = 10

_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64)
_GEOMETRY = 1  # the draw after the digit's
_AGAIN = 64  # draws from one try at four corners to the next


@dataclass(frozen=True)
class DistortedConfig:
    """Which distorted digits.

    Attributes:
        distortion: "r", "rts", "p", "e", "t", "tc" or "z", see the top of ``mistnn.data.digits.distorted``.
        canvas: side of the image, in pixels; the paper has 42 for RTS and 60 for TC.
        digits: 1, or 2 for addition: two channels, a digit in each.
        source: "mnist", or "embedded": scikit-learn's small digits, which need no download.
        seed: chooses the images; two seeds share none.
        root: the folder that holds MNIST; see ``mistnn.data.digits.source``.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.

    Reference: S003, sections 1.1 and 1.3.
    """

    distortion: Distortion = "rts"
    canvas: int = 42
    digits: int = 1
    source: SourceName = "mnist"
    seed: int = 0
    root: str | None = None

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.distortion not in get_args(Distortion):
            raise MistError(f"data.distortion={self.distortion!r} is unknown: use {', '.join(get_args(Distortion))}")
        if self.source not in get_args(SourceName):
            raise MistError(f"data.source={self.source!r} is unknown: use mnist or embedded")
        if self.canvas < 1:
            raise MistError(f"data.canvas={self.canvas} is no image side: use at least 1 pixel")
        if self.digits not in (1, 2):
            raise MistError(f"data.digits={self.digits} must be 1, or 2 for addition")
        if self.seed < 0:
            raise MistError(f"data.seed={self.seed} is negative: use 0 or more")


class Drawn(NamedTuple):
    """What was drawn for single digits, before any pixel; what a distortion doesn't have is ``None``.

    Attributes:
        rows: (n,), the digit in the source.
        angles: (n,), radians, clockwise.
        scales: (n,).
        centres: (n, 2), x and y of the frame's centre on the canvas, in pixels.
        corners: (n, 4, 2), what was added to the frame's corners, in pixels: top left, top right, bottom right,
            bottom left.
        controls: (n, 16, 2), what was added to the control points, in pixels, row by row.
        places: (n, 2), the frame's top left corner, in whole pixels.
        clutter: pieces of other digits.
        windows: (n, 3), side and x and y of the centre of what is read, in pixels.
        cluttered: (n,), whether an image of Z holds its clutter.
    """

    rows: Int64[np.ndarray, " n"]
    angles: Float64[np.ndarray, " n"] | None = None
    scales: Float64[np.ndarray, " n"] | None = None
    centres: Float64[np.ndarray, "n 2"] | None = None
    corners: Float64[np.ndarray, "n 4 2"] | None = None
    controls: Float64[np.ndarray, "n 16 2"] | None = None
    places: Int64[np.ndarray, "n 2"] | None = None
    clutter: Clutter | None = None
    windows: Float64[np.ndarray, "n 3"] | None = None
    cluttered: Bool[np.ndarray, " n"] | None = None


class DistortedDigits(Dataset[Sample]):
    """A map-style data set of distorted digits.

    Each sample has an image (digits, canvas, canvas) in [0, 1], the counts of the ten classes and, for T and TC, the
    box of the digit's frame with its class.

    Args:
        config: which.
        split: of the digits; the splits share none.
        length: number of images; ``None`` for no end.

    Raises:
        MistError: if MNIST is missing or broken, or the canvas is too small for a digit.
    """

    def __init__(self, config: DistortedConfig, split: Split, length: int | None) -> None:
        """Loads the digits."""
        check_split(split)
        if length is not None and length < 1:
            raise MistError(f"a data set of length {length} holds no image: use 1 or more")
        self.config = config
        self.split: Split = split
        self.length = length
        self.class_names = tuple(str(digit) for digit in range(CLASSES))
        self._source: DigitSource = load_source(config.source, split, config.root)
        self._side = self._source.images.shape[-1]
        self._unit = self._side / DIGIT_SIDE
        self._whole = round(ZOOMED_SIDE * self._unit)
        if config.distortion != "z":
            check_room(config.canvas, math.ceil(SCALE.get(config.distortion, (1.0, 1.0))[1] * self._side))
        self._random = CounterRandom(config.seed, get_args(Split).index(split))
        self._digits = torch.from_numpy(self._source.images.copy())
        self._plate: Tensor | None = None
        if config.distortion == "e":
            lattice = transforms.control_lattice(CONTROL_SIDE) * (self._side / config.canvas)
            plate = transforms.thin_plate(lattice, config.canvas, config.canvas)
            self._plate = plate.influence.flatten(1).to(torch.float32)

    def __len__(self) -> int:
        """The number of images, ``sys.maxsize`` where there is no end."""
        return sys.maxsize if self.length is None else self.length

    def __getitem__(self, index: int) -> Sample:
        """Makes one image.

        Raises:
            IndexError: if the index is negative or beyond the length.
        """
        made = self.batch([index])
        assert made.counts is not None
        return Sample(
            made.images[0],
            made.counts[0],
            None if made.boxes is None else made.boxes[0],
            None if made.labels is None else made.labels[0],
        )

    def batch(self, indices: Sequence[int]) -> Batch:
        """Makes many images at once: the same as one by one, far faster.

        Raises:
            IndexError: if an index is negative or beyond the length.
        """
        drawn = self.drawn(indices)
        labels = torch.from_numpy(self._source.labels[drawn.rows])
        images = self.render(drawn)
        canvas, digits = self.config.canvas, self.config.digits
        counts = torch.nn.functional.one_hot(labels, CLASSES).view(-1, digits, CLASSES).sum(1)
        images = images.view(-1, digits, canvas, canvas)
        if drawn.places is None or drawn.windows is not None or digits > 1:
            return Batch(images, counts)
        middle = torch.from_numpy(drawn.places).to(torch.float32) + self._side / 2
        boxes = torch.cat((middle, torch.full_like(middle, self._side)), dim=1)
        return Batch(images, counts, list(boxes[:, None]), list(labels[:, None]))

    def drawn(self, indices: Sequence[int]) -> Drawn:
        """Draws the digits of some images and what is done to each, the channels of an image one after the other.

        Raises:
            IndexError: if an index is negative or beyond the length.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        wrong = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(wrong):
            raise IndexError(f"image {wrong[0]} is outside a data set of {len(self)} images")
        config, random, side = self.config, self._random, self._side
        each = (wanted[:, None] * config.digits + np.arange(config.digits)).reshape(-1)
        rows = random.integers(each, 0, 1, len(self._source.images))[:, 0]
        if self.split != "train":
            rows[:: config.digits] = wanted % len(self._source.images)
        if config.distortion == "z":
            return self._drawn_windows(each, rows)
        if config.distortion in ("t", "tc"):
            places = draw_places(random, each, _GEOMETRY, config.canvas, side)
            if config.distortion == "t":
                return Drawn(rows, places=places)
            digits = len(self._source.images)
            clutter = draw_clutter(random, each, rows, _GEOMETRY + 2, PIECES, config.canvas, side, digits)
            return Drawn(rows, places=places, clutter=clutter)
        angle, shrink, *place = random.uniform(each, _GEOMETRY, 4).T
        turn = ROTATION.get(config.distortion, 0.0)
        low, high = SCALE.get(config.distortion, (1.0, 1.0))
        scales = low + (high - low) * shrink
        centres = np.full((len(each), 2), config.canvas / 2)
        if config.distortion == "rts":
            room = scales[:, None] * side
            centres = room / 2 + np.stack(place, axis=1) * (config.canvas - room)
        corners = self._drawn_corners(each, scales) if config.distortion == "p" else None
        controls = None
        if config.distortion == "e":
            noise = random.normal(each, _GEOMETRY + 4, 2 * CONTROL_SIDE**2)
            controls = (noise * CONTROL_NOISE * self._unit).reshape(-1, CONTROL_SIDE**2, 2)
        return Drawn(rows, (2 * angle - 1) * turn, scales, centres, corners, controls)

    def render(self, drawn: Drawn) -> Tensor:
        """The pictures of single digits, (n, canvas, canvas) in [0, 1]."""
        canvas = self.config.canvas
        if drawn.windows is not None:
            return self._read_windows(drawn)
        if drawn.places is not None:
            return torch.from_numpy(compose(self._source.images, drawn.rows, drawn.places, canvas, drawn.clutter))
        frames = self._digits[torch.from_numpy(drawn.rows)].to(torch.float32).div_(255)[:, None]
        if drawn.corners is not None:
            grid = transforms.projective_grid(self._projective(drawn), canvas, canvas)
        else:
            grid = transforms.affine_grid(self._affine(drawn), canvas, canvas)
        if drawn.controls is not None:
            assert self._plate is not None and drawn.scales is not None
            # From pixels of the canvas, which is where a point is moved, to the digit's own frame from -1 to 1.
            moved = drawn.controls / (drawn.scales[:, None, None] * self._side / 2)
            bent = torch.from_numpy(moved).to(torch.float32).transpose(1, 2).reshape(-1, CONTROL_SIDE**2) @ self._plate
            grid = grid + bent.view(-1, 2, canvas, canvas).permute(0, 2, 3, 1)
        return transforms.sample(frames, grid)[:, 0]

    def _drawn_windows(self, each: np.ndarray, rows: np.ndarray) -> Drawn:
        """Draws images of Z."""
        random, side, whole = self._random, self._side, self._whole
        places = draw_places(random, each, _GEOMETRY, whole, side)
        clutter = draw_clutter(random, each, rows, _GEOMETRY + 6, ZOOMED_PIECES, whole, side, len(self._source.images))
        factor, coin, *place = random.uniform(each, _GEOMETRY + 2, 4).T
        sides = side * (whole / side) ** factor
        slack = (sides - side)[:, None] / 2 + CUT_OFF * self._unit
        centres = places + side / 2 + (2 * np.stack(place, axis=1) - 1) * slack
        windows = np.concatenate((sides[:, None], centres), axis=1)
        return Drawn(rows, places=places, clutter=clutter, windows=windows, cluttered=coin < 0.5)

    def _read_windows(self, drawn: Drawn) -> Tensor:
        """The pictures of Z, (n, canvas, canvas) in [0, 1]."""
        assert drawn.places is not None and drawn.clutter is not None
        assert drawn.windows is not None and drawn.cluttered is not None
        images = np.empty((len(drawn.rows), self._whole, self._whole), dtype=np.float32)
        for some, clutter in (
            (drawn.cluttered, Clutter(*(part[drawn.cluttered] for part in drawn.clutter))),
            (~drawn.cluttered, None),
        ):
            images[some] = compose(self._source.images, drawn.rows[some], drawn.places[some], self._whole, clutter)
        half = self._whole / 2
        windows = torch.from_numpy((drawn.windows - (0, half, half)) / (2 * half, half, half)).to(torch.float32)
        grid = transforms.attention_grid(windows, self.config.canvas, self.config.canvas)
        return transforms.sample(torch.from_numpy(images)[:, None], grid)[:, 0]

    def _affine(self, drawn: Drawn) -> Tensor:
        """Where the canvas reads a digit's frame, both from -1 to 1: turned back, moved back and enlarged back."""
        assert drawn.angles is not None and drawn.scales is not None and drawn.centres is not None
        half = drawn.scales * self._side / 2
        cosine, sine = np.cos(drawn.angles) / half, np.sin(drawn.angles) / half
        reach = self.config.canvas / 2
        x, y = (reach - drawn.centres).T
        of_x = (cosine * reach, sine * reach, cosine * x + sine * y)
        of_y = (-sine * reach, cosine * reach, cosine * y - sine * x)
        return torch.from_numpy(np.stack((*of_x, *of_y), axis=1)).to(torch.float32)

    def _projective(self, drawn: Drawn) -> Tensor:
        """The same for a frame whose corners were moved: the map that takes them back."""
        assert drawn.corners is not None and drawn.scales is not None
        reach = self.config.canvas / 2
        moved = (_CORNERS * (drawn.scales[:, None, None] * self._side / 2) + drawn.corners) / reach
        u, v = moved[..., 0], moved[..., 1]
        x, y = np.broadcast_arrays(_CORNERS[:, 0], _CORNERS[:, 1])
        one, none = np.ones_like(u), np.zeros_like(u)
        # Two lines a corner of a u + b v + c - g u x - h v x = x, and the same of y.
        of_x = np.stack((u, v, one, none, none, none, -u * x, -v * x), axis=-1)
        of_y = np.stack((none, none, none, u, v, one, -u * y, -v * y), axis=-1)
        system = np.concatenate((of_x, of_y), axis=1)
        right = np.broadcast_to(np.concatenate((x, y)), (len(u), 8))
        return torch.from_numpy(np.linalg.solve(system, right[..., None])[..., 0]).to(torch.float32)

    def _drawn_corners(self, each: np.ndarray, scales: np.ndarray) -> np.ndarray:
        frames = _CORNERS * (scales[:, None, None] * self._side / 2)
        noise = np.empty_like(frames)
        left, first = np.arange(len(each)), _GEOMETRY + 4
        while len(left):
            tried = self._random.normal(each[left], first, 8).reshape(-1, 4, 2) * (CORNER_NOISE * self._unit)
            noise[left] = tried
            left = left[~_readable(frames[left] + tried)]
            first += _AGAIN
        return noise


def _readable(corners: np.ndarray) -> np.ndarray:
    """Whether four corners (n, 4, 2), from the middle of the frame, are convex around it and not too steep, see P.

    The depth of the projective map at a corner is as the area of the triangle of the three others.
    """
    along = np.roll(corners, -1, axis=1) - corners
    areas = _cross(along, np.roll(along, -1, axis=1))
    around = _cross(corners, np.roll(corners, -1, axis=1))
    steep = areas.max(axis=1) > STEEPEST * areas.min(axis=1)
    return np.asarray((areas > 0).all(axis=1) & (around > 0).all(axis=1) & ~steep)


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0])
