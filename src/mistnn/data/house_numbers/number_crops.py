"""SVHN for whoever reads whole numbers: the part of each photograph around its digits, and the digits in their order.

The files are SVHN's own (format 1), see ``mistnn.data.house_numbers.svhn_convert`` for the folder.

The supplement (section 1.4) follows its references [1, 2] and names no crop. Ours: the smallest box around all digits,
enlarged about its centre to ``window`` times its width and its height, is resized, antialiased, to a square, whatever
its shape. 1.3 (a box larger by 30 %, [2]) with 64 px; 2.6 with 128 px, so that the digits stay as large and twice as
much is seen of what is around them. What lies outside the photograph repeats its border: black would frame the digits.

Validation images are so many of ``train/`` as the protocol says, those whose names have the lowest hashes.

Reference: S003, section 1.4; [2] Goodfellow et al. (2014), section 5.1.
"""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch.utils.data import Dataset

from mistnn.data.digits.source import Split, check_split
from mistnn.data.house_numbers.number_list import LIST, NumberImage, read_number_list
from mistnn.data.house_numbers.svhn import number_sample
from mistnn.data.house_numbers.svhn_convert import prepare_part
from mistnn.data.images import UnreadableImage, open_image
from mistnn.data.rounds import Rounds, seeded
from mistnn.errors import MistError
from mistnn.records import Sample

MOST_DIGITS = 5
"""Of a number that the five softmaxes can read; the few longer ones are left out."""


@dataclass(frozen=True)
class NumberCropsConfig:
    """Which crops of SVHN.

    Attributes:
        root: the folder that holds ``train/`` and ``test/``, or their archives, and ``extra/`` if it is used.
        side: of a crop, in pixels; 64 or 128 in the paper.
        window: sides of what is cropped, as multiples of those of the box around all digits (ours; see the module).
        validation: images of ``train/`` that are kept for validation (S003, section 1.4).
        extra: whether ``extra/`` is trained on too. Not stated in S003; [1, 2] do, and only so there are 200,000.
        seed: of the order of training images.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.
    """

    root: str | None = None
    side: int = 64
    window: float = 1.3
    validation: int = 5000
    extra: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        for name, least in (("side", 1), ("validation", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise MistError(f"data.{name}={getattr(self, name)} is too small: give {least} or more")
        if not 1 <= self.window <= 100:
            raise MistError(f"data.window={self.window} must be from 1 (the digits alone) to 100 times their box")


class NumberCrops(Dataset[Sample]):
    """A map-style data set of one split: crops with their digits in reading order as labels.

    Boxes are those of the digits in the crop, for who wants to look. Index i of an endless training set is image i of
    an endless sequence of shuffled rounds.

    Args:
        config: which crops.
        split: "train", "validation" or "test".
        length: number of samples, at most as many as there are; ``None`` for an endless training set.

    Raises:
        MistError: if the folder can't be used, or no image is left.
    """

    def __init__(self, config: NumberCropsConfig, split: Split, length: int | None) -> None:
        """Reads the lists, not yet the images."""
        check_split(split)
        self.config = config
        self.split: Split = split
        self.numbers = _numbers(config, split)
        self.length = length if length is None else min(length, len(self.numbers))
        self._rounds = Rounds(len(self.numbers), seeded(config.seed))

    def __len__(self) -> int:
        """The number of samples, ``sys.maxsize`` where there is no end."""
        return sys.maxsize if self.length is None else self.length

    def __getitem__(self, index: int) -> Sample:
        """One crop.

        Raises:
            IndexError: if the index is negative or beyond the length.
            MistError: if the photograph can't be read, or is not the one that the list describes.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside a data set of {len(self)} images")
        if self.length is None:
            index = self._rounds[index].image
        number, side = self.numbers[index], self.config.side
        window = window_around(number.boxes, self.config.window)
        pixels = read_window(_read(number), window, side)
        low, extent = window[:2], window[2:] - window[:2]
        corners = (number.boxes - np.tile(low, 2)) / np.tile(extent, 2) * side
        return number_sample(pixels, corners, number.labels)


def window_around(boxes: Float[np.ndarray, "n 4"], times: float) -> Float[np.ndarray, " 4"]:
    """The smallest box around some boxes, enlarged about its centre.

    Convention: corners x1, y1, x2, y2 in pixels, the first pixel from 0 to 1; the result may leave the image.

    Args:
        boxes: one or more.
        times: width and height of the result, as multiples of those of the smallest box.
    """
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2 * times
    return np.concatenate((middle - half, middle + half))


def read_window(
    image: UInt8[np.ndarray, "height width 3"], window: Float[np.ndarray, " 4"], side: int
) -> UInt8[np.ndarray, "side side 3"]:
    """A part of an image resized, antialiased, to a square; outside of the image its border is repeated.

    Args:
        image: its pixels.
        window: corners x1, y1, x2, y2, as in ``window_around``.
        side: of the result, in pixels.
    """
    height, width = image.shape[:2]
    left, top = max(0, math.ceil(-window[0])), max(0, math.ceil(-window[1]))
    right, bottom = max(0, math.ceil(window[2] - width)), max(0, math.ceil(window[3] - height))
    wide = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="edge")
    x1, y1, x2, y2 = (window + np.array((left, top, left, top))).tolist()
    return np.asarray(Image.fromarray(wide).resize((side, side), Image.Resampling.BILINEAR, box=(x1, y1, x2, y2)))


def _read(number: NumberImage) -> UInt8[np.ndarray, "height width 3"]:
    try:
        image = open_image(number.path).convert("RGB")
    except UnreadableImage as error:
        raise MistError(f"can't read {number.path} ({error}): replace it") from error
    if image.size != (number.width, number.height):
        raise MistError(
            f"{number.path} is {image.width} x {image.height} px, but {LIST} beside it says {number.width} x "
            f"{number.height}: the labels are of other images, unpack the archive again"
        )
    return np.asarray(image)


def _numbers(config: NumberCropsConfig, split: Split) -> list[NumberImage]:
    if config.root is None:
        raise MistError("SVHN is not part of the package: give the folder of its files with --data-root")
    root = Path(config.root).expanduser()
    folder = prepare_part(root, "test" if split == "test" else "train")
    numbers = _readable(folder)
    if split == "test":
        return numbers
    if len(numbers) <= config.validation:
        raise MistError(
            f"data.validation={config.validation} leaves nothing of the {len(numbers)} images in {folder} to train on: "
            "give fewer"
        )
    numbers.sort(key=lambda number: hashlib.sha256(number.path.name.encode()).digest())
    kept, others = numbers[: config.validation], numbers[config.validation :]
    if split == "validation":
        if not kept:
            raise MistError("data.validation=0 keeps no image for validation: give more, or --evaluation-images 0")
        return kept
    if config.extra:
        if not (root / "extra").is_dir() and not (root / "extra.tar.gz").is_file():
            raise MistError(
                f"{root} holds neither extra/ nor extra.tar.gz, which others train on too: get it, or give "
                "--data.no-extra"
            )
        others += _readable(prepare_part(root, "extra"))
    return others


def _readable(folder: Path) -> list[NumberImage]:
    numbers = [number for number in read_number_list(folder) if 1 <= len(number.labels) <= MOST_DIGITS]
    if not numbers:
        raise MistError(f"{folder}: no image has 1 to {MOST_DIGITS} digits: give SVHN's own full numbers")
    return numbers
