"""SVHN, full numbers: whole street-view photographs, resized to 60 x 240, of which only the digits' classes are learnt.

The files are SVHN's own (format 1), which are for non-commercial use and not distributed here; see
``mistnn.data.house_numbers.svhn_convert`` for the folder. Boxes are for evaluation.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import Dataset

from mistnn.data.corners import centred
from mistnn.data.digits.source import Split, check_split
from mistnn.data.house_numbers.number_list import DIGITS, NumberImage, read_number_list, read_rgb, split_of, with_digits
from mistnn.data.house_numbers.svhn_convert import prepare_part
from mistnn.data.rounds import Rounds, seeded
from mistnn.errors import MistError
from mistnn.records import Sample


@dataclass(frozen=True)
class SvhnConfig:
    """Which images of SVHN, and how.

    Attributes:
        root: the folder that holds ``train/`` and ``test/``, or their archives.
        height: rows that every image is resized to (S001 section 5.2).
        width: columns that every image is resized to (S001 section 5.2), whatever its shape.
        digits: only images of exactly so many digits (S001 section 5.2).
        least_height: test images with a lower box, in pixels, are left out (S001 section 5.2); 0 keeps all.
        least_height_of: whether that height is measured in the "resized" image (not stated; our choice) or in the
            "original".
        extra: whether the images of ``extra/`` are trained on too (not stated; no by default).
        seed: of the order of training images.

    Raises:
        MistError: if a value is impossible.
    """

    root: str | None = None
    height: int = 60
    width: int = 240
    digits: int = 2
    least_height: float = 30.0
    least_height_of: Literal["resized", "original"] = "resized"
    extra: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        check_numbers(self.digits, self.seed, height=self.height, width=self.width)
        if not 0 <= self.least_height:
            raise MistError(f"data.least_height={self.least_height} must be a height in pixels, 0 to keep all images")
        if self.least_height_of not in ("resized", "original"):
            raise MistError(f"data.least_height_of={self.least_height_of!r} is unknown: use resized or original")

    @property
    def counts(self) -> tuple[int, ...]:
        """How many objects an image may hold."""
        return (self.digits,)


def check_numbers(digits: int, seed: int, **sides: int) -> None:
    """Refuses sizes that no images of numbers can have.

    Args:
        digits: how many an image has.
        seed: of the images' order.
        sides: of the images in pixels, by the names of their fields.

    Raises:
        MistError: naming the field and its value.
    """
    for name, value in (*sides.items(), ("digits", digits)):
        if value < 1:
            raise MistError(f"data.{name}={value} is too small: give 1 or more")
    if seed < 0:
        raise MistError(f"data.seed={seed} is negative: use 0 or more")


class Truth(NamedTuple):
    """What is in an image: corners x1, y1, x2, y2 of each digit, and the digits."""

    corners: Float[np.ndarray, "n 4"]
    labels: tuple[int, ...]


class SvhnImages(Dataset[Sample]):
    """A map-style data set of one split.

    Training images are those of ``train/`` but a tenth, which a hash of the file's name puts aside for validation.
    Index i of an endless training set is image i of an endless sequence of shuffled rounds.

    Args:
        config: which images.
        split: "train", "validation" or "test".
        length: number of samples, at most as many as there are images; ``None`` for an endless training set.

    Raises:
        MistError: if the folder can't be used, or no image is left.
    """

    def __init__(self, config: SvhnConfig, split: Split, length: int | None) -> None:
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
        """One image with its counts, boxes and labels.

        Raises:
            IndexError: if the index is negative or beyond the length.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside a data set of {len(self)} images")
        number, config = self._number(index), self.config
        corners, labels = self.truth(index)
        return number_sample(read_rgb(number, config.width, config.height), corners, labels)

    def truth(self, index: int) -> Truth:
        """Boxes and digits of a sample, without its pixels."""
        number, config = self._number(index), self.config
        scale = [config.width / number.width, config.height / number.height] * 2
        return Truth(number.boxes * scale, number.labels)

    def _number(self, index: int) -> NumberImage:
        return self.numbers[self._rounds[index].image if self.length is None else index]


def holds_svhn(root: Path) -> bool:
    """Whether a folder is SVHN's: it holds the training or test images or their archive."""
    return any((root / name).exists() for name in ("train", "train.tar.gz", "test", "test.tar.gz"))


def number_sample(pixels: np.ndarray, corners: np.ndarray, labels: tuple[int, ...]) -> Sample:
    """A sample of pixels (height, width, 3) of 0 to 255, boxes x1, y1, x2, y2 and digits."""
    return Sample(
        torch.from_numpy(np.array(pixels, dtype=np.float32)).permute(2, 0, 1).contiguous() / 255,
        torch.from_numpy(np.bincount(labels, minlength=DIGITS)),
        torch.from_numpy(centred(corners)).float(),
        torch.tensor(labels, dtype=torch.int64),
    )


def _numbers(config: SvhnConfig, split: Split) -> list[NumberImage]:
    if config.root is None:
        raise MistError("SVHN is not part of the package: give the folder of its files with --data-root")
    root = Path(config.root).expanduser()
    folder = prepare_part(root, "test" if split == "test" else "train")
    numbers = with_digits(read_number_list(folder), config.digits, str(folder))
    if split == "test":
        kept = [number for number in numbers if _lowest(number, config) >= config.least_height]
    else:
        kept = [number for number in numbers if (split_of(number.path.name) == "validation") == (split == "validation")]
        if split == "train" and config.extra:
            more = prepare_part(root, "extra")
            kept += with_digits(read_number_list(more), config.digits, str(more))
    if not kept:
        raise MistError(
            f"{folder}: no image of {config.digits} digits is left for {split} (data.least_height="
            f"{config.least_height:g} in test): give more images"
        )
    return kept


def _lowest(number: NumberImage, config: SvhnConfig) -> float:
    scale = config.height / number.height if config.least_height_of == "resized" else 1.0
    return float((number.boxes[:, 3] - number.boxes[:, 1]).min()) * scale
