"""Crops of SVHN for reading whole numbers: the part of each photograph around its digits, with the digits in order.

The files are SVHN's own (format 1), see ``mistnn.data.house_numbers.svhn_convert`` for the folder.

The supplement (section 1.4) follows its references [1, 2] and does not define a crop. Ours: the smallest box around all
digits, enlarged about its centre to ``window`` times its width and height, is resized, antialiased, to a square. Use
1.3 (a box larger by 30 %, [2]) with 64 px, and 2.6 with 128 px: the digits keep their size, and twice as much of their
surroundings is visible. Beyond the photograph its border pixels are repeated: black would frame the digits.

The validation images are the images of ``train/`` whose names have the lowest hashes.

Reference: S003, section 1.4; [2] Goodfellow et al. (2014), section 5.1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from mistnn.config import at_least, between
from mistnn.data.base import DIGIT_NAMES, ImagesConfig, StoredImages, data_folder
from mistnn.data.house_numbers.number_list import LIST, NumberImage, number_sample, read_number_list
from mistnn.data.house_numbers.svhn_convert import NO_FOLDER, prepare_part
from mistnn.data.images import read_image, read_window
from mistnn.errors import MistError
from mistnn.interfaces import Known, Split
from mistnn.records import Sample

MOST_DIGITS = 5  #: Digits of a number that the five softmax outputs can read; the few longer numbers are left out.


@dataclass(frozen=True)
class NumberCropsConfig(ImagesConfig):
    """Crops of SVHN.

    Attributes:
        root: the folder that holds ``train/`` and ``test/``, or their archives, and ``extra/`` if it is used.
        side: side of a crop, in pixels; 64 or 128 in the paper.
        window: side of the cropped region, as a multiple of the box around all digits (ours; see the module).
        validation: number of images of ``train/`` that are kept for validation (S003, section 1.4).
        extra: whether ``extra/`` is also used for training. Not stated in S003; [1, 2] do, which gives its 200,000
            images.
    """

    kind: ClassVar[str] = "number-crops"
    root: str | None = None
    side: Annotated[int, at_least(1)] = 64
    window: Annotated[float, between(1, 100, "a multiple of the box around all digits")] = 1.3
    validation: Annotated[int, at_least(0)] = 5000
    extra: bool = True

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known((self.side, self.side), 3, tuple(range(1, MOST_DIGITS + 1)), DIGIT_NAMES, has_objects=False)

    def open(self, split: Split, length: int | None = None) -> NumberCrops:
        """One split, see ``NumberCrops``."""
        return NumberCrops(self, split, length)


class NumberCrops(StoredImages[NumberCropsConfig]):
    """One split of the crops; labels are the digits in reading order, boxes those of the digits in the crop."""

    def __init__(self, config: NumberCropsConfig, split: Split, length: int | None) -> None:
        super().__init__(config, split, length)
        self.numbers = _numbers(config, split)
        self._set_number(len(self.numbers))

    def __getitem__(self, index: int) -> Sample:
        """One crop."""
        number, side = self.numbers[self._draw(index).image], self.config.side
        window = window_around(number.boxes, self.config.window)
        pixels = read_window(_read(number), window, side)
        low, extent = window[:2], window[2:] - window[:2]
        corners = (number.boxes - np.tile(low, 2)) / np.tile(extent, 2) * side
        return number_sample(pixels, corners, number.labels)


def window_around(boxes: Float[np.ndarray, "n 4"], times: float) -> Float[np.ndarray, " 4"]:
    """The smallest box around some boxes, enlarged about its centre to ``times`` its width and height.

    Convention: corners x1, y1, x2, y2 in pixels, the first pixel from 0 to 1; the result may exceed the image.
    """
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2 * times
    return np.concatenate((middle - half, middle + half))


def _read(number: NumberImage) -> UInt8[np.ndarray, "height width 3"]:
    image = read_image(number.path, "replace it").convert("RGB")
    if image.size != (number.width, number.height):
        listed = f"{LIST} beside it says {number.width} x {number.height}: the labels belong to other images"
        raise MistError(f"{number.path} is {image.width} x {image.height} px, but {listed}, unpack the archive again")
    return np.asarray(image)


def _numbers(config: NumberCropsConfig, split: Split) -> list[NumberImage]:
    root = data_folder(config.root, NO_FOLDER)
    folder = prepare_part(root, "test" if split == "test" else "train")
    numbers = _readable(folder)
    if split == "test":
        return numbers
    if len(numbers) <= config.validation:
        raise MistError(
            f"data.validation={config.validation} leaves none of the {len(numbers)} images in {folder} for training"
        )
    numbers.sort(key=lambda number: hashlib.sha256(number.path.name.encode()).digest())
    kept, others = numbers[: config.validation], numbers[config.validation :]
    if split == "validation":
        if not kept:
            raise MistError("data.validation=0 keeps no image for validation: give more, or --evaluation-images 0")
        return kept
    if config.extra:
        if not (root / "extra").is_dir() and not (root / "extra.tar.gz").is_file():
            raise MistError(f"{root} holds neither extra/ nor extra.tar.gz: download it, or give --data.no-extra")
        others += _readable(prepare_part(root, "extra"))
    return others


def _readable(folder: Path) -> list[NumberImage]:
    numbers = [number for number in read_number_list(folder) if 1 <= len(number.labels) <= MOST_DIGITS]
    if not numbers:
        raise MistError(f"{folder}: no image has 1 to {MOST_DIGITS} digits: give SVHN's own full numbers")
    return numbers
