"""House numbers on disk: images, the box and the digit of each figure in them, as one list ``boxes.json``.

``boxes.json`` is a list of {file, width, height, boxes, labels}: the file relative to the list, a box x1, y1, x2, y2 in
pixels of the image (x right, y down, the first pixel from 0 to 1), a label the digit 0 to 9.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mistnn.data.annotations import BoxesEntry, read_boxes
from mistnn.data.digits.source import Split
from mistnn.data.images import UnreadableImage, open_image
from mistnn.errors import MistError

LIST = "boxes.json"
DIGITS = 10
MOST_PIXELS = 100_000
"""Of a side: no photograph has more."""
SHARES: tuple[tuple[Split, float], ...] = (("train", 0.8), ("validation", 0.9), ("test", 1.0))
"""Where the hash of a file's name puts it: 80 %, 10 % and 10 % (our choice)."""


class NumberImage(NamedTuple):
    """An image of a house number.

    Attributes:
        path: where it is.
        width: in pixels.
        height: in pixels.
        boxes: x1, y1, x2, y2 of each digit.
        labels: the digits.
    """

    path: Path
    width: int
    height: int
    boxes: Float[np.ndarray, "n 4"]
    labels: tuple[int, ...]


def read_number_list(folder: Path) -> list[NumberImage]:
    """All images of a list, in its order; the images themselves are not opened.

    Args:
        folder: that holds ``boxes.json``.

    Raises:
        MistError: if the list is missing, broken, names an image twice or one that is not there, or holds what is no
            box in its image or no digit; the message names the entry.
    """
    path = folder / LIST
    if not os.path.lexists(path):
        raise MistError(f"{folder} has no {LIST}: give the folder that holds it and its images")
    numbers = [_number(entry, folder) for entry in read_boxes(path, str(path))]
    if not numbers:
        raise MistError(f"{path} is empty: it must be a list of entries with file, width, height, boxes and labels")
    seen: set[Path] = set()
    for number in numbers:
        if number.path in seen:
            raise MistError(f"{path} describes {number.path.name} twice: take one of the two entries out")
        seen.add(number.path)
    return numbers


def check_images(numbers: Sequence[NumberImage]) -> None:
    """Compares the list with the headers of its images.

    Raises:
        MistError: if an image is missing, is none, or has another size than the list says.
    """
    for number in numbers:
        width, height = image_size(number.path)
        if (width, height) != (number.width, number.height):
            raise MistError(
                f"{number.path} is {width} x {height} px, but {LIST} says {number.width} x {number.height}: the "
                "list is of other images, get both from one source"
            )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image from its header.

    Raises:
        MistError: if it is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError as error:
        raise MistError(f"{path} is listed but not there: unpack all images beside their list") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise MistError(f"{path} is listed but no image can be read from it: replace it") from error


def read_rgb(number: NumberImage, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """An image resized, antialiased, to another width and height.

    Raises:
        MistError: if it can't be decoded.
    """
    try:
        image = open_image(number.path)
    except UnreadableImage as error:
        raise MistError(f"can't read {number.path} ({error}): replace it") from error
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def split_of(name: str) -> Split:
    """The split of a file by the hash of its name alone, so that it never moves."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return next(split for split, end in SHARES if share < end)


def with_digits(numbers: Sequence[NumberImage], digits: int, what: str) -> list[NumberImage]:
    """Those of exactly so many digits.

    Raises:
        MistError: if there is none.
    """
    chosen = [number for number in numbers if len(number.labels) == digits]
    if not chosen:
        lengths = sorted({len(number.labels) for number in numbers})
        raise MistError(
            f"{what}: none of {len(numbers)} images has exactly {digits} digits, they have {lengths}: give another "
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
        raise MistError(
            f"{entry.place}: a box has no area in the {width} x {height} px of its image: the list is of others"
        )
    return NumberImage(folder / entry.file, width, height, corners, tuple(_digit(x, entry.place) for x in entry.labels))


def _is_side(value: Any) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= MOST_PIXELS


def _digit(label: Any, place: str) -> int:
    if str(label) not in {str(digit) for digit in range(DIGITS)}:
        raise MistError(f"{place}: the label {label!r} is no digit from 0 to 9")
    return int(label)
