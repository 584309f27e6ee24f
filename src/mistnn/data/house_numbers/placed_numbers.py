"""House numbers put at random places: tight views of numbers on made-up backgrounds, for who lacks SVHN's own files.

Made for the "SVHN (re-assembled test crops)": SVHN's cropped test digits, put together again at their true relative
positions, views about 40 px high without the wall around. What is measured on them has that name, never SVHN's own.
Their terms are SVHN's: non-commercial research. Any folder with ``boxes.json`` will do
(``mistnn.data.house_numbers.number_list``).

Convention: a view is resized, antialiased, to a whole number of rows and columns and put at a whole pixel, so that its
boxes are moved exactly. Around it its border pixels are repeated and fade into the background over ``feather`` pixels:
the digits themselves, which often touch the border of their view, don't fade, and no edge tells where a view ends.

Reproducible: image ``index`` of a split depends on (configuration, split, index) alone. Which view it shows comes from
``SeedSequence(seed, spawn_key=(split, 0, round))``, everything else from ``spawn_key=(split, 1, index)``, with split
0, 1, 2 for train, validation, test. Each view comes once in a round, at another place in each.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Float32
from torch.utils.data import Dataset

from mistnn.data.digits.source import Split, check_split
from mistnn.data.house_numbers.number_list import (
    LIST,
    NumberImage,
    check_images,
    read_number_list,
    read_rgb,
    split_of,
    with_digits,
)
from mistnn.data.house_numbers.svhn import Truth, check_numbers, number_sample
from mistnn.data.rounds import Rounds
from mistnn.errors import MistError
from mistnn.records import Sample

NAME = "SVHN (re-assembled test crops)"
BACKGROUNDS = ("plain", "gradient", "noise")
"""Each equally likely: one colour; brighter or darker towards a random direction; the same with smooth noise. The
colour is that of the border of the view, as a wall goes on around a number: else the edge of a view would be the
strongest edge there is (our choice)."""
TINT = 0.05
"""Standard deviation of what is added to each channel of a colour."""
SLOPE = 0.15
"""Standard deviation of what the brightness gains from the middle to the edge."""
GRAINS = (2, 4, 8, 16)
"""Sizes in pixels of the spots of noise, one of them at random."""
NOISE = 0.1
"""Largest strength of the noise: the standard deviation of its values."""


@dataclass(frozen=True)
class NumbersConfig:
    """Which numbers, and how they are placed.

    Attributes:
        root: the folder that holds ``boxes.json`` and the images it names.
        canvas_height: rows of the image (60, as S001 section 5.2).
        canvas_width: columns of the image (240, as S001 section 5.2).
        digits: only numbers of exactly so many digits.
        zoom: smallest and largest height of a view as a share of ``canvas_height``, all heights between equally likely.
        stretch: the horizontal zoom over the vertical one. SVHN's photographs are about twice as wide as high, and
            the paper resizes them to 60 x 240, whatever their shape: that stretches their digits about twofold. A view
            that would be wider than the image is made smaller as a whole.
        feather: pixels over which the continued border of a view fades into the background.
        seed: chooses places, zooms and backgrounds; which number is in which split doesn't depend on it.

    Raises:
        MistError: if a value is impossible.
    """

    root: str | None = None
    canvas_height: int = 60
    canvas_width: int = 240
    digits: int = 2
    zoom: tuple[float, float] = (0.4, 0.8)
    stretch: float = 2.0
    feather: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        check_numbers(self.digits, self.seed, canvas_height=self.canvas_height, canvas_width=self.canvas_width)
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1] <= 1:
            raise MistError(f"data.zoom={self.zoom} must be two shares of the height, the smaller first, at most 1")
        if not 0 < self.stretch < math.inf:
            raise MistError(f"data.stretch={self.stretch} must be a factor above 0; 1 keeps the shape of the views")
        if self.feather < 0:
            raise MistError(f"data.feather={self.feather} must be a number of pixels, 0 for a hard edge")

    @property
    def height(self) -> int:
        """Rows of an image."""
        return self.canvas_height

    @property
    def width(self) -> int:
        """Columns of an image."""
        return self.canvas_width

    @property
    def counts(self) -> tuple[int, ...]:
        """How many objects an image may hold."""
        return (self.digits,)


class Placement(NamedTuple):
    """Where a view lies in an image: its left and upper edge, its columns and rows."""

    left: int
    top: int
    width: int
    height: int


class PlacedNumbers(Dataset[Sample]):
    """A map-style data set of one split; the splits share no number.

    Args:
        config: which numbers.
        split: "train", "validation" or "test"; a hash of a file's name says which one it is in.
        length: number of samples, any; ``None`` for an endless set.

    Raises:
        MistError: if the folder can't be used, or no number is left.
    """

    def __init__(self, config: NumbersConfig, split: Split, length: int | None) -> None:
        """Reads the list and the headers of the images."""
        check_split(split)
        self.config = config
        self.split: Split = split
        if config.root is None:
            raise MistError("house numbers are not part of the package: give their folder with --data-root")
        folder = Path(config.root).expanduser()
        numbers = with_digits(read_number_list(folder), config.digits, str(folder))
        self.numbers = [number for number in numbers if split_of(number.path.name) == split]
        if not self.numbers:
            raise MistError(
                f"{folder}: none of {len(numbers)} numbers of {config.digits} digits is in the {split} split, by the "
                "hash of their names: give more images"
            )
        check_images(self.numbers)
        self.length = length
        self._key = get_args(Split).index(split)
        self._rounds = Rounds(len(self.numbers), lambda turn: self._random(0, turn))

    def __len__(self) -> int:
        """The number of samples, ``sys.maxsize`` where there is no end."""
        return sys.maxsize if self.length is None else self.length

    def __getitem__(self, index: int) -> Sample:
        """One number on its background, with its counts, boxes and labels.

        Raises:
            IndexError: if the index is negative or beyond the length.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside a data set of {len(self)} images")
        number, placed, random = self._placed(index)
        view = read_rgb(number, placed.width, placed.height).astype(np.float32) / 255
        ground = background(self.config.height, self.config.width, border_colour(view), random)
        corners, labels = self.truth(index)
        return number_sample(255 * put(ground, view, placed, self.config.feather), corners, labels)

    def truth(self, index: int) -> Truth:
        """Boxes and digits of a sample, without its pixels."""
        number, placed, _ = self._placed(index)
        scale = [placed.width / number.width, placed.height / number.height] * 2
        return Truth(number.boxes * scale + [placed.left, placed.top] * 2, number.labels)

    def _placed(self, index: int) -> tuple[NumberImage, Placement, np.random.Generator]:
        """The number of a sample, where it lies, and the random numbers that are left for its ground."""
        number, random = self.numbers[self._rounds[index].image], self._random(1, index)
        return number, place_view(number, self.config, random), random

    def _random(self, kind: int, number: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self.config.seed, spawn_key=(self._key, kind, number))
        return np.random.Generator(np.random.PCG64(sequence))


def holds_numbers(root: Path) -> bool:
    """Whether a folder holds a list of numbers."""
    return (root / LIST).exists()


def place_view(number: NumberImage, config: NumbersConfig, random: np.random.Generator) -> Placement:
    """A random size and place of a view, whole within the image."""
    height = random.uniform(*config.zoom) * config.height
    width = height * config.stretch * number.width / number.height
    fit = min(1.0, config.width / width)
    rows, columns = max(1, round(height * fit)), min(config.width, max(1, round(width * fit)))
    left = int(random.integers(config.width - columns + 1))
    return Placement(left, int(random.integers(config.height - rows + 1)), columns, rows)


def border_colour(view: Float32[np.ndarray, "rows columns 3"]) -> Float32[np.ndarray, " 3"]:
    """The mean colour of the pixels at the border of a view."""
    sides = (view[0], view[-1], view[:, 0], view[:, -1])
    return np.concatenate(sides).mean(0, dtype=np.float32)


def background(
    height: int, width: int, colour: Float32[np.ndarray, " 3"], random: np.random.Generator
) -> Float32[np.ndarray, "height width 3"]:
    """A made-up wall: plain, a gradient, or a gradient with noise; values in [0, 1].

    Args:
        height: rows.
        width: columns.
        colour: that it has in the middle, but for a tint.
        random: draws all else.
    """
    kind = BACKGROUNDS[int(random.integers(len(BACKGROUNDS)))]
    middle = colour + TINT * random.standard_normal(3)
    slope = np.zeros(3) if kind == "plain" else SLOPE * random.standard_normal() + TINT * random.standard_normal(3)
    angle = random.uniform(0, 2 * math.pi)
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    ground = middle + slope * (across * math.cos(angle) + down[:, None] * math.sin(angle))[..., None]
    if kind == "noise":
        grain = int(random.choice(GRAINS))
        ground = ground + random.uniform(0, NOISE) * _spots(height, width, grain, random)
    return ground.clip(0, 1).astype(np.float32)


def put(
    ground: Float32[np.ndarray, "height width 3"],
    view: Float32[np.ndarray, "rows columns 3"],
    placed: Placement,
    feather: int,
) -> Float32[np.ndarray, "height width 3"]:
    """A view on a ground, its continued border fading over ``feather`` pixels, by the larger distance of the two axes.

    Convention: a pixel d px beyond the view (the next one has d = 1) has the share 1 - d / (feather + 1) of the view.
    """
    height, width = ground.shape[:2]
    beyond = []
    nearest = []
    for size, start, length in ((height, placed.top, placed.height), (width, placed.left, placed.width)):
        place = np.arange(size) - start
        inside = place.clip(0, length - 1)
        beyond.append(np.abs(place - inside))
        nearest.append(inside)
    distance = np.maximum(beyond[0][:, None], beyond[1][None])
    share = (1 - distance / (feather + 1)).clip(0, 1).astype(np.float32)[..., None]
    continued = view[nearest[0][:, None], nearest[1][None]]
    return (share * continued + (1 - share) * ground).astype(np.float32)


def _spots(height: int, width: int, grain: int, random: np.random.Generator) -> np.ndarray:
    """Noise in spots of so many pixels, linear between their middles, grey or of any colour."""
    colours = 3 if random.random() < 0.5 else 1
    coarse = random.standard_normal((height // grain + 2, width // grain + 2, colours))
    rows, columns = np.arange(height) / grain, np.arange(width) / grain
    up, left = rows.astype(int), columns.astype(int)
    low, near = (rows - up)[:, None, None], (columns - left)[None, :, None]
    above = coarse[up[:, None], left] * (1 - near) + coarse[up[:, None], left + 1] * near
    below = coarse[up[:, None] + 1, left] * (1 - near) + coarse[up[:, None] + 1, left + 1] * near
    return above * (1 - low) + below * low
