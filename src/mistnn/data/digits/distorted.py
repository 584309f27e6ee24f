"""Distorted digits, generated on the fly: rotated, translated and scaled, projected, bent, or among clutter.

Convention: x right, y down, pixel centres at +0.5; a positive angle rotates clockwise on the screen. Pixels refer to
MNIST's frame of 28; for digits with another frame (the embedded ones), all lengths but the canvas scale with the frame.

* R: rotated by -90 to 90 degrees, centred.
* RTS: rotated by -45 to 45 degrees, scaled by 0.7 to 1.2, at a random place such that the frame, before its rotation,
  is entirely on the canvas.
* P: scaled by 0.75 to 1, centred; then the four corners of that frame are moved, each coordinate by a normal variable
  of 5 px, and the projective map from the frame to the moved corners is applied. New corners are sampled if they are
  not convex (the map would fold the frame), if the centre of the frame is not inside, or if the areas of the triangles
  of three of them differ by more than a factor of ``STEEPEST``: nearly all of the digit would then be in one corner.
* E: scaled by 0.75 to 1, centred; then bent by a thin plate spline with 4 x 4 control points from edge to edge of the
  central 28 px of the canvas, each coordinate of each moved by a normal variable of 1.5 px. The spline maps an output
  pixel to the place where it is sampled, so the points are on the bent image; the noise, being symmetric, is the same.
* T: at a random whole pixel, the frame entirely on the canvas; on a canvas of the frame's size, the plain digit.
* TC: at a random whole pixel, the frame entirely on the canvas; then six pieces of 6 x 6 px of other digits are
  inserted at random whole pixels, where they can hide part of the digit.
* Z (ours, for the encoder of co-localisation): zoomed. A digit at a random whole pixel of 84 px, in half of the images
  with 16 pieces of 6 x 6 px of other digits; then a window of 28 to 84 px, all factors equally likely, at a random
  place that cuts off at most 3 px of the digit's frame, is resampled to the size of the canvas.

With two digits, an image has two channels with one digit each, distorted independently: MNIST addition.

Not stated: the canvas of R, P and E (42 px, as RTS: only corners of P that move far are cut off); the meaning of
"random location" for a rotated frame; the order of scaling and bending; whether images are generated once. Here, no
training image appears twice.

Reproducible: image ``index`` of a split depends on (configuration, split, index) alone, see
``mistnn.data.random_numbers``. A training image has a random digit of its split; image i of validation and test has
digit i of its split, and a random second one if there are two.

Reference: S003, sections 1.1 and 1.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mistnn.config import at_least, one_of
from mistnn.data.base import DIGIT_NAMES, GeneratedImages, ImagesConfig, first_sample
from mistnn.data.digits.cluttered import DIGIT_SIDE, Clutter, Overlap, check_room, compose, draw_clutter, draw_places
from mistnn.data.digits.source import DigitSource, SourceName, load_source
from mistnn.data.random_numbers import CounterRandom
from mistnn.interfaces import Known, Split
from mistnn.ops import transforms
from mistnn.records import Batch, Sample

Distortion = Literal["r", "rts", "p", "e", "t", "tc", "z"]

ROTATION = {"r": math.pi / 2, "rts": math.pi / 4}  #: Largest angle.
SCALE = {"rts": (0.7, 1.2), "p": (0.75, 1.0), "e": (0.75, 1.0)}  #: Smallest and largest factor.
CORNER_NOISE = 5.0  #: P: standard deviation of a corner's coordinates, in pixels.
STEEPEST = 8.0  #: P: largest ratio of the depths of two corners, which are inverse to the local scale (our choice).
CONTROL_NOISE = 1.5  #: E: standard deviation of a control point's coordinates, in pixels.
CONTROL_SIDE = 4  #: E: control points along a side.
PIECES = 6  #: TC: pieces of clutter.
ZOOMED_SIDE, ZOOMED_PIECES = 84, 16
"""Z: side of the image from which a window is read, in pixels, and pieces of clutter in half of these images."""
CUT_OFF = 3.0  #: Z: largest part of a digit's frame that a window cuts off, in pixels.
CLASSES = 10

_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64)
_GEOMETRY = 1  # the first draw after that of the digit
_AGAIN = 64  # draws between two tries at four corners


@dataclass(frozen=True)
class DistortedConfig(ImagesConfig):
    """Distorted digits.

    Attributes:
        distortion: "r", "rts", "p", "e", "t", "tc" or "z", see ``mistnn.data.digits.distorted``.
        canvas: side of the image, in pixels; the paper has 42 for RTS and 60 for TC.
        digits: 1, or 2 for addition: two channels with one digit each.
        source: "mnist", or "embedded": scikit-learn's small digits, which need no download.
        root: the folder that holds MNIST; see ``mistnn.data.digits.source``.
        clutter: what a piece of clutter (TC, Z) does to the pixels below it: "insert" replaces them (S003, section
            1.3), "maximum" keeps the brighter, so that nothing is hidden.

    Reference: S003, sections 1.1 and 1.3.
    """

    kind: ClassVar[str] = "distorted"
    distortion: Distortion = "rts"
    canvas: Annotated[int, at_least(1)] = 42
    digits: Annotated[int, one_of(1, 2)] = 1
    source: SourceName = "mnist"
    root: str | None = None
    clutter: Overlap = "insert"

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known((self.canvas, self.canvas), self.digits, (self.digits,), DIGIT_NAMES, has_objects=False)

    def open(self, split: Split, length: int | None = None) -> DistortedDigits:
        """One split, see ``DistortedDigits``."""
        return DistortedDigits(self, split, length)


class Drawn(NamedTuple):
    """The random parameters of single digits; those that a distortion doesn't have are ``None``."""

    rows: Int64[np.ndarray, " n"]  #: (n,), the digit in the source.
    angles: Float64[np.ndarray, " n"] | None = None  #: (n,), radians, clockwise.
    scales: Float64[np.ndarray, " n"] | None = None  #: (n,).
    #: (n, 2), x and y of the frame's centre on the canvas, in pixels.
    centres: Float64[np.ndarray, "n 2"] | None = None
    #: (n, 4, 2), offsets of the frame's corners, in pixels: top left, top right, bottom right, bottom left.
    corners: Float64[np.ndarray, "n 4 2"] | None = None
    #: (n, 16, 2), offsets of the control points, in pixels, row by row.
    controls: Float64[np.ndarray, "n 16 2"] | None = None
    places: Int64[np.ndarray, "n 2"] | None = None  #: (n, 2), the frame's top left corner, in whole pixels.
    clutter: Clutter | None = None  #: Pieces of other digits.
    windows: Float64[np.ndarray, "n 3"] | None = None  #: (n, 3), side and centre x and y of the window, in pixels.
    cluttered: Bool[np.ndarray, " n"] | None = None  #: (n,), whether an image of Z shows its clutter.


class DistortedDigits(GeneratedImages[DistortedConfig]):
    """Distorted digits.

    Each sample has an image (digits, canvas, canvas) in [0, 1], the counts of the ten classes and, for T and TC, the
    box of the digit's frame with its class.
    """

    def __init__(self, config: DistortedConfig, split: Split, length: int | None) -> None:
        super().__init__(config, split, length)
        self._source: DigitSource = load_source(config.source, split, config.root)
        self._side = self._source.images.shape[-1]
        self._unit = self._side / DIGIT_SIDE
        self._whole = round(ZOOMED_SIDE * self._unit)
        if config.distortion != "z":
            check_room(config.canvas, math.ceil(SCALE.get(config.distortion, (1.0, 1.0))[1] * self._side))
        self._random = CounterRandom(config.seed, self._stream)
        self._digits = torch.from_numpy(self._source.images.copy())
        self._plate: Tensor | None = None
        if config.distortion == "e":
            lattice = transforms.control_lattice(CONTROL_SIDE) * (self._side / config.canvas)
            plate = transforms.thin_plate(lattice, config.canvas, config.canvas)
            self._plate = plate.influence.flatten(1).to(torch.float32)

    def __getitem__(self, index: int) -> Sample:
        """Generates one image."""
        return first_sample(self.batch([index]))

    def batch(self, indices: Sequence[int]) -> Batch:
        """Generates many images at once: the same as one by one, but much faster."""
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
        """Draws the digits of some images and their distortions; the channels of an image follow each other."""
        wanted = self.check_indices(indices)
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
        """The images of single digits, (n, canvas, canvas) in [0, 1]."""
        canvas = self.config.canvas
        if drawn.windows is not None:
            return self._read_windows(drawn)
        if drawn.places is not None:
            how, digits = self.config.clutter, self._source.images
            images = compose(digits, drawn.rows, drawn.places, canvas, drawn.clutter, overlap=how)
            return torch.from_numpy(images)
        frames = self._digits[torch.from_numpy(drawn.rows)].to(torch.float32).div_(255)[:, None]
        if drawn.corners is not None:
            grid = transforms.projective_grid(self._projective(drawn), canvas, canvas)
        else:
            grid = transforms.affine_grid(self._affine(drawn), canvas, canvas)
        if drawn.controls is not None:
            assert self._plate is not None and drawn.scales is not None
            # From pixels of the canvas to the digit's frame, which runs from -1 to 1.
            moved = drawn.controls / (drawn.scales[:, None, None] * self._side / 2)
            bent = torch.from_numpy(moved).to(torch.float32).transpose(1, 2).reshape(-1, CONTROL_SIDE**2) @ self._plate
            grid = grid + bent.view(-1, 2, canvas, canvas).permute(0, 2, 3, 1)
        return transforms.sample(frames, grid)[:, 0]

    def _drawn_windows(self, each: np.ndarray, rows: np.ndarray) -> Drawn:
        """Draws the parameters of Z."""
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
        """The images of Z, (n, canvas, canvas) in [0, 1]."""
        assert drawn.places is not None and drawn.clutter is not None
        assert drawn.windows is not None and drawn.cluttered is not None
        images = np.empty((len(drawn.rows), self._whole, self._whole), dtype=np.float32)
        for some, clutter in (
            (drawn.cluttered, Clutter(*(part[drawn.cluttered] for part in drawn.clutter))),
            (~drawn.cluttered, None),
        ):
            rows, places, how = drawn.rows[some], drawn.places[some], self.config.clutter
            images[some] = compose(self._source.images, rows, places, self._whole, clutter, overlap=how)
        half = self._whole / 2
        windows = torch.from_numpy((drawn.windows - (0, half, half)) / (2 * half, half, half)).to(torch.float32)
        grid = transforms.attention_grid(windows, self.config.canvas, self.config.canvas)
        return transforms.sample(torch.from_numpy(images)[:, None], grid)[:, 0]

    def _affine(self, drawn: Drawn) -> Tensor:
        """The inverse map from the canvas to a digit's frame, both from -1 to 1."""
        assert drawn.angles is not None and drawn.scales is not None and drawn.centres is not None
        half = drawn.scales * self._side / 2
        cosine, sine = np.cos(drawn.angles) / half, np.sin(drawn.angles) / half
        reach = self.config.canvas / 2
        x, y = (reach - drawn.centres).T
        of_x = (cosine * reach, sine * reach, cosine * x + sine * y)
        of_y = (-sine * reach, cosine * reach, cosine * y - sine * x)
        return torch.from_numpy(np.stack((*of_x, *of_y), axis=1)).to(torch.float32)

    def _projective(self, drawn: Drawn) -> Tensor:
        """The inverse map from the canvas to a frame whose corners were moved."""
        assert drawn.corners is not None and drawn.scales is not None
        reach = self.config.canvas / 2
        moved = (_CORNERS * (drawn.scales[:, None, None] * self._side / 2) + drawn.corners) / reach
        u, v = moved[..., 0], moved[..., 1]
        x, y = np.broadcast_arrays(_CORNERS[:, 0], _CORNERS[:, 1])
        one, none = np.ones_like(u), np.zeros_like(u)
        # Two equations per corner: a u + b v + c - g u x - h v x = x, and the same for y.
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
    """Whether four corners (n, 4, 2), relative to the frame's centre, are convex around it and not too steep, see P.

    The depth of the projective map at a corner is proportional to the area of the triangle of the other three.
    """
    along = np.roll(corners, -1, axis=1) - corners
    areas = _cross(along, np.roll(along, -1, axis=1))
    around = _cross(corners, np.roll(corners, -1, axis=1))
    steep = areas.max(axis=1) > STEEPEST * areas.min(axis=1)
    return np.asarray((areas > 0).all(axis=1) & (around > 0).all(axis=1) & ~steep)


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0])
