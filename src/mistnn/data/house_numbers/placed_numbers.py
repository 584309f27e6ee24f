"""House numbers at random places: tight views of numbers on generated backgrounds, for users without SVHN's own files.

Made for the "SVHN (re-assembled test crops)": SVHN's cropped test digits, put together again at their true relative
positions; the views are about 40 px high and show no wall around the number. Results on them carry that name, never
SVHN's own. Their licence is SVHN's: non-commercial research. Any folder with ``boxes.json`` works
(``mistnn.data.house_numbers.number_list``).

Convention: a view is resized, antialiased, to a whole number of rows and columns and put at a whole pixel, so that its
boxes are moved exactly. Around it its border pixels are repeated and fade into the background over ``feather`` pixels:
the digits, which often touch the border of their view, don't fade, and no edge shows where a view ends.

Reproducible: image ``index`` of a split depends on (configuration, split, index) alone. The view comes from
``SeedSequence(seed, spawn_key=(split, 0, round))``, everything else from ``spawn_key=(split, 1, index)``, with split
0, 1, 2 for train, validation, test. Each round shows every view once, at a new place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32

from mistnn.config import above, at_least
from mistnn.data.base import DIGIT_NAMES, GeneratedImages, Truth, data_folder
from mistnn.data.house_numbers import number_list
from mistnn.data.house_numbers.number_list import HouseNumbersConfig, NumberImage, number_sample, read_numbers, split_of
from mistnn.data.random_numbers import Rounds
from mistnn.errors import MistError
from mistnn.interfaces import Known, Split
from mistnn.records import Sample

NAME = "SVHN (re-assembled test crops)"
BACKGROUNDS = ("plain", "gradient", "noise")
"""All equally likely: one colour; a gradient of brightness in a random direction; a gradient with smooth noise. The
colour is that of the border of the view, like a wall that continues around a number: otherwise the edge of a view would
be the strongest edge of the image (our choice)."""
TINT = 0.05  #: Standard deviation of the offset of each colour channel.
SLOPE = 0.15  #: Standard deviation of the change of brightness from the middle to the edge.
GRAINS = (2, 4, 8, 16)  #: Sizes in pixels of the spots of noise; one is chosen at random.
NOISE = 0.1  #: Largest standard deviation of the noise.


@dataclass(frozen=True)
class NumbersConfig(HouseNumbersConfig):
    """House numbers at random places.

    Attributes:
        root: the folder that holds ``boxes.json`` and its images.
        canvas_height: rows of the image (60, as S001 section 5.2).
        canvas_width: columns of the image (240, as S001 section 5.2).
        digits: only numbers with exactly this number of digits are used.
        zoom: smallest and largest height of a view as a share of ``canvas_height``, uniformly distributed.
        stretch: the horizontal zoom over the vertical one. SVHN's photographs are about twice as wide as high, and the
            paper resizes all to 60 x 240: that stretches their digits about twofold. A view that would be wider than
            the image is made smaller as a whole.
        feather: pixels over which the continued border of a view fades into the background.
        seed: selects places, zooms and backgrounds; the splits do not depend on it.
    """

    kind: ClassVar[str] = "numbers"
    root: str | None = None
    canvas_height: Annotated[int, at_least(1)] = 60
    canvas_width: Annotated[int, at_least(1)] = 240
    digits: Annotated[int, at_least(1)] = 2
    zoom: tuple[float, float] = (0.4, 0.8)
    stretch: Annotated[float, above(0, "1 keeps the shape of the views")] = 2.0
    feather: Annotated[int, at_least(0, "0 gives a hard edge")] = 4

    def check(self) -> None:
        """Checks the range of zooms."""
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1] <= 1:
            raise MistError(f"data.zoom={self.zoom} must be two shares of the height, the smaller first, at most 1")

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known((self.canvas_height, self.canvas_width), 3, (self.digits,), DIGIT_NAMES)

    def open(self, split: Split, length: int | None = None) -> PlacedNumbers:
        """One split, see ``PlacedNumbers``."""
        return PlacedNumbers(self, split, length)


class Placement(NamedTuple):
    """The place of a view in an image: its left and top edge, its columns and rows."""

    left: int
    top: int
    width: int
    height: int


class PlacedNumbers(GeneratedImages[NumbersConfig]):
    """One split of placed numbers; the splits share no number."""

    def __init__(self, config: NumbersConfig, split: Split, length: int | None) -> None:
        super().__init__(config, split, length)
        missing = "house numbers are not part of the package: give their folder with --data-root"
        folder = data_folder(config.root, missing)
        numbers = read_numbers(folder, config.digits)
        self.numbers = [number for number in numbers if split_of(number.path.name) == split]
        if not self.numbers:
            known = f"{len(numbers)} numbers of {config.digits} digits"
            raise MistError(f"{folder}: none of {known} is in the {split} split, by a hash of their names: add more")
        number_list.check_images(self.numbers)
        self._rounds = Rounds(len(self.numbers), lambda turn: self._generator(0, turn))

    def __getitem__(self, index: int) -> Sample:
        """One number on its background, with its counts, boxes and labels."""
        self.check_index(index)
        number, placed, random = self._placed(index)
        view, config = number.resized(placed.width, placed.height).astype(np.float32) / 255, self.config
        wall = background(config.canvas_height, config.canvas_width, border_colour(view), random)
        return number_sample(255 * put(wall, view, placed, config.feather), *self.truth(index))

    def truth(self, index: int) -> Truth:
        """Boxes and digits of a sample, without its pixels."""
        number, placed, _ = self._placed(index)
        scale = [placed.width / number.width, placed.height / number.height] * 2
        return Truth(number.boxes * scale + [placed.left, placed.top] * 2, number.labels)

    def _placed(self, index: int) -> tuple[NumberImage, Placement, np.random.Generator]:
        """The number of a sample, its place, and the random numbers for its background."""
        number, random = self.numbers[self._rounds[index].image], self._generator(1, index)
        return number, place_view(number, self.config, random), random


def holds_numbers(root: Path) -> bool:
    """Whether a folder holds a list of numbers."""
    return (root / number_list.LIST).exists()


def place_view(number: NumberImage, config: NumbersConfig, random: np.random.Generator) -> Placement:
    """A random size and place for a view, entirely inside the image."""
    height = random.uniform(*config.zoom) * config.canvas_height
    width = height * config.stretch * number.width / number.height
    fit = min(1.0, config.canvas_width / width)
    rows, columns = max(1, round(height * fit)), min(config.canvas_width, max(1, round(width * fit)))
    left = int(random.integers(config.canvas_width - columns + 1))
    return Placement(left, int(random.integers(config.canvas_height - rows + 1)), columns, rows)


def border_colour(view: Float32[np.ndarray, "rows columns 3"]) -> Float32[np.ndarray, " 3"]:
    """The mean colour of the border pixels of a view."""
    sides = (view[0], view[-1], view[:, 0], view[:, -1])
    return np.concatenate(sides).mean(0, dtype=np.float32)


def background(
    height: int, width: int, colour: Float32[np.ndarray, " 3"], random: np.random.Generator
) -> Float32[np.ndarray, "height width 3"]:
    """A generated wall: plain, a gradient, or a gradient with noise; values in [0, 1].

    A random tint is added to ``colour``, that of the middle.
    """
    kind = BACKGROUNDS[int(random.integers(len(BACKGROUNDS)))]
    middle = colour + TINT * random.standard_normal(3)
    slope = np.zeros(3) if kind == "plain" else SLOPE * random.standard_normal() + TINT * random.standard_normal(3)
    angle = random.uniform(0, 2 * math.pi)
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    wall = middle + slope * (across * math.cos(angle) + down[:, None] * math.sin(angle))[..., None]
    if kind == "noise":
        grain = int(random.choice(GRAINS))
        wall = wall + random.uniform(0, NOISE) * _spots(height, width, grain, random)
    return wall.clip(0, 1).astype(np.float32)


def put(
    wall: Float32[np.ndarray, "height width 3"],
    view: Float32[np.ndarray, "rows columns 3"],
    placed: Placement,
    feather: int,
) -> Float32[np.ndarray, "height width 3"]:
    """Puts a view on a wall; its continued border fades over ``feather`` pixels.

    Convention: a pixel d px beyond the view, the larger distance of the two axes (1 for the next pixel), has the share
    1 - d / (feather + 1) of the view.
    """
    height, width = wall.shape[:2]
    beyond, nearest = [], []
    for size, start, length in ((height, placed.top, placed.height), (width, placed.left, placed.width)):
        place = np.arange(size) - start
        inside = place.clip(0, length - 1)
        beyond.append(np.abs(place - inside))
        nearest.append(inside)
    distance = np.maximum(beyond[0][:, None], beyond[1][None])
    share = (1 - distance / (feather + 1)).clip(0, 1).astype(np.float32)[..., None]
    continued = view[nearest[0][:, None], nearest[1][None]]
    return (share * continued + (1 - share) * wall).astype(np.float32)


def _spots(height: int, width: int, grain: int, random: np.random.Generator) -> np.ndarray:
    """Noise in spots of ``grain`` pixels, linearly interpolated between their centres, grey or coloured."""
    colours = 3 if random.random() < 0.5 else 1
    coarse = random.standard_normal((height // grain + 2, width // grain + 2, colours))
    rows, columns = np.arange(height) / grain, np.arange(width) / grain
    up, left = rows.astype(int), columns.astype(int)
    low, near = (rows - up)[:, None, None], (columns - left)[None, :, None]
    above = coarse[up[:, None], left] * (1 - near) + coarse[up[:, None], left + 1] * near
    below = coarse[up[:, None] + 1, left] * (1 - near) + coarse[up[:, None] + 1, left + 1] * near
    return above * (1 - low) + below * low
