"""House numbers on disk: images, and one list ``boxes.json`` with the box and the digit of each figure.

Every function raises ``MistError`` where the list or an image is missing, broken or impossible, or both contradict each
other; the message names the entry.

``boxes.json`` is a list of {file, width, height, boxes, labels}: the file relative to the list, a box x1, y1, x2, y2 in
pixels of the image (x right, y down, the first pixel from 0 to 1), a label the digit 0 to 9.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from mistnn.data.base import DIGIT_NAMES, ImagesConfig, Truth
from mistnn.data.corners import centred
from mistnn.data.images import read_image, rgb_tensor
from mistnn.data.random_numbers import hash_share
from mistnn.data.text_files import BoxesEntry, read_boxes
from mistnn.errors import MistError
from mistnn.interfaces import SampleDataset, Split
from mistnn.records import Sample

LIST = "boxes.json"
DIGITS = 10
OTHERS = "the list belongs to other images, get both from one source"
MOST_PIXELS = 100_000  #: Largest side of an image, more than any photograph has.
SHARES: tuple[tuple[Split, float], ...] = (("train", 0.8), ("validation", 0.9), ("test", 1.0))
"""Upper ends of the splits by the hash of a file's name: 80 %, 10 % and 10 % (our choice)."""


class NumberImage(NamedTuple):
    """An image of a house number."""

    path: Path
    width: int
    height: int
    boxes: Float[np.ndarray, "n 4"]  #: x1, y1, x2, y2 of each digit.
    labels: tuple[int, ...]

    def resized(self, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
        """The pixels, resized, antialiased, to another width and height."""
        image = read_image(self.path, "replace it").convert("RGB")
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


class HouseNumbers(SampleDataset, Protocol):
    """One split of house numbers whose digits have boxes."""

    numbers: list[NumberImage]  #: Those of the split, before any shuffling.

    def truth(self, index: int) -> Truth:
        """Boxes and digits of a sample, without its pixels."""
        ...


@dataclass(frozen=True)
class HouseNumbersConfig(ImagesConfig):
    """Base of the configurations of house numbers whose digits have boxes."""

    @abc.abstractmethod
    def open(self, split: Split, length: int | None = None) -> HouseNumbers:
        """One split."""

    def truths(self, split: Split, length: int) -> Sequence[Truth]:
        """The digits of the first images of a split."""
        images = self.open(split, length)
        return [images.truth(index) for index in range(len(images))]

    def digest(self) -> str:
        """The SHA-256 of the sorted lines "split,folder/file" of each split's images; empty if there is no image."""
        lines: list[str] = []
        for split in get_args(Split):
            with contextlib.suppress(MistError):  # in a small folder, a split may be empty
                # With the folder, since the file names of each part of SVHN start from 1.
                paths = [one.path for one in self.open(split, 1).numbers]
                lines += [f"{split},{path.parent.name}/{path.name}\n" for path in paths]
        return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest() if lines else ""


def read_number_list(folder: Path) -> list[NumberImage]:
    """All images of a list, in its order; the images themselves are not opened."""
    path = folder / LIST
    if not os.path.lexists(path):
        raise MistError(f"{folder} has no {LIST}: give the folder that holds it and its images")
    numbers = [_number(entry, folder) for entry in read_boxes(path, str(path))]
    if not numbers:
        raise MistError(f"{path} is empty: it must be a list of entries with file, width, height, boxes and labels")
    seen: set[Path] = set()
    for number in numbers:
        if number.path in seen:
            raise MistError(f"{path} describes {number.path.name} twice: remove one of the two entries")
        seen.add(number.path)
    return numbers


def check_images(numbers: Sequence[NumberImage]) -> None:
    """Compares a list with the headers of its images."""
    for number in numbers:
        width, height = image_size(number.path)
        if (width, height) != (number.width, number.height):
            raise MistError(
                f"{number.path} is {width} x {height} px, but {LIST} says {number.width} x {number.height}: {OTHERS}"
            )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, from its header."""
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError as error:
        raise MistError(f"{path} is listed but not there: unpack all images beside their list") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise MistError(f"{path} is listed but can't be read as an image: replace it") from error


def number_sample(pixels: np.ndarray, corners: np.ndarray, labels: tuple[int, ...]) -> Sample:
    """A sample of pixels (height, width, 3) from 0 to 255, boxes x1, y1, x2, y2 and digits."""
    return Sample(
        rgb_tensor(pixels),
        torch.from_numpy(np.bincount(labels, minlength=DIGITS)),
        torch.from_numpy(centred(corners)).float(),
        torch.tensor(labels, dtype=torch.int64),
    )


def split_of(name: str) -> Split:
    """The split of a file, by the hash of its name alone, so that it never changes."""
    return next(split for split, end in SHARES if hash_share(name.encode()) < end)


def read_numbers(folder: Path, digits: int) -> list[NumberImage]:
    """The images of a list with exactly ``digits`` digits, at least one."""
    numbers = read_number_list(folder)
    chosen = [number for number in numbers if len(number.labels) == digits]
    if not chosen:
        lengths = sorted({len(number.labels) for number in numbers})
        raise MistError(
            f"{folder}: none of {len(numbers)} images has exactly {digits} digits, they have {lengths}: give another "
            "folder, or another --data.digits"
        )
    return chosen


def _number(entry: BoxesEntry, folder: Path) -> NumberImage:
    width, height = entry.size
    if not _is_side(width) or not _is_side(height):
        raise MistError(f"{entry.place}: width and height must be whole numbers of pixels, from 1 to {MOST_PIXELS:,}")
    if entry.labels is None:
        raise MistError(f"{entry.place}: no labels: write the digit of each box")
    corners = np.array(entry.corners, dtype=np.float64).reshape(-1, 4).clip(0, [width, height] * 2)
    if not np.all(corners[:, 2:] > corners[:, :2]):
        raise MistError(f"{entry.place}: a box has no area in the {width} x {height} px of its image: {OTHERS}")
    return NumberImage(folder / entry.file, width, height, corners, tuple(_digit(x, entry.place) for x in entry.labels))


def _is_side(value: Any) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= MOST_PIXELS


def _digit(label: Any, place: str) -> int:
    if str(label) not in DIGIT_NAMES:
        raise MistError(f"{place}: the label {label!r} is not a digit from 0 to 9")
    return int(label)
