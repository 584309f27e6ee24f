"""Miniatures of house numbers: painted rectangles as digits, in the re-assembled form and as SVHN's own files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GROUND = (90, 90, 90)
COLOURS = tuple((25 * digit, 255 - 25 * digit, 128) for digit in range(10))
"""Of the rectangle that stands for a digit."""

Digit = tuple[int, tuple[int, int, int, int]]
"""A digit and its box x1, y1, x2, y2."""


def picture(width: int, height: int, digits: Sequence[Digit]) -> Image.Image:
    image = Image.new("RGB", (width, height), GROUND)
    for digit, box in digits:
        image.paste(COLOURS[digit], box)
    return image


def numbers(count: int, digits: int = 2, seed: int = 0) -> list[tuple[int, int, list[Digit]]]:
    """Width, height and digits of some numbers: boxes side by side with gaps, of whole pixels."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        height, left, found = int(random.integers(30, 48)), int(random.integers(2, 8)), []
        for _ in range(digits):
            width = int(random.integers(12, 24))
            top = int(random.integers(0, 6))
            found.append((int(random.integers(10)), (left, top, left + width, height - int(random.integers(0, 4)))))
            left += width + int(random.integers(1, 5))
        made.append((left + int(random.integers(2, 8)), height, found))
    return made


def make_numbers(root: Path, count: int = 60, singles: int = 3) -> Path:
    """A folder like that of the re-assembled numbers: ``images/N.png`` and ``boxes.json``."""
    (root / "images").mkdir(parents=True)
    entries = []
    for place, (width, height, digits) in enumerate(numbers(count) + numbers(singles, 1, seed=1), start=1):
        picture(width, height, digits).save(root / "images" / f"{place}.png")
        entries.append(entry(f"images/{place}.png", width, height, digits))
    write_list(root, entries)
    return root


def entry(file: str, width: int, height: int, digits: Sequence[Digit]) -> dict[str, Any]:
    return {
        "file": file,
        "width": width,
        "height": height,
        "boxes": [list(map(float, box)) for _, box in digits],
        "labels": [str(digit) for digit, _ in digits],
    }


def write_list(root: Path, entries: Any) -> None:
    (root / "boxes.json").write_text(json.dumps(entries))


def photographs(count: int, seed: int) -> list[tuple[int, int, list[Digit]]]:
    """Wide images with their number anywhere: what SVHN's own look like. One in four has three digits."""
    random = np.random.default_rng(seed)
    made = []
    for place, (width, height, digits) in enumerate(numbers(count, seed=seed)):
        if place % 4 == 3:
            width, height, digits = numbers(1, 3, seed=seed + place)[0]
        right, down = int(random.integers(0, 60)), int(random.integers(0, 40))
        moved = [(digit, (a + right, b + down, c + right, d + down)) for digit, (a, b, c, d) in digits]
        made.append((width + right + 20, height + down + 5, moved))
    return made


def make_part(root: Path, part: str, count: int, seed: int = 0) -> list[tuple[int, int, list[Digit]]]:
    """The PNG files of a part of SVHN, without their ``digitStruct.mat``; returns what they show."""
    shown = photographs(count, seed)
    (root / part).mkdir(parents=True)
    for place, (width, height, digits) in enumerate(shown, start=1):
        picture(width, height, digits).save(root / part / f"{place}.png")
    return shown


def list_part(root: Path, part: str, count: int, seed: int = 0) -> None:
    """A part of SVHN that was converted before, so that neither h5py nor ``digitStruct.mat`` is needed."""
    shown = make_part(root, part, count, seed)
    write_list(root / part, [entry(f"{place}.png", *one) for place, one in enumerate(shown, start=1)])


def write_digit_struct(h5py: Any, path: Path, shown: Sequence[tuple[int, int, list[Digit]]]) -> None:
    """A ``digitStruct.mat`` as MATLAB 7.3 wrote it: names as UTF-16 columns, one digit in place, several by reference.

    The label of the digit 0 is 10; left and top are those of the corner in pixels from 0, as this package takes them.
    """
    with h5py.File(path, "w") as file:
        stored = file.create_group("#refs#")
        names, boxes = [], []
        for place, (_, _, digits) in enumerate(shown, start=1):
            text = np.array([[ord(letter)] for letter in f"{place}.png"], dtype=np.uint16)
            names.append(stored.create_dataset(f"name{place}", data=text).ref)
            group = stored.create_group(f"bbox{place}")
            columns = {
                "left": [box[0] for _, box in digits],
                "top": [box[1] for _, box in digits],
                "width": [box[2] - box[0] for _, box in digits],
                "height": [box[3] - box[1] for _, box in digits],
                "label": [digit or 10 for digit, _ in digits],
            }
            for field, values in columns.items():
                if len(values) == 1:
                    group.create_dataset(field, data=np.array([[float(values[0])]]))
                    continue
                references = [
                    [stored.create_dataset(f"{field}{place}_{number}", data=np.array([[float(value)]])).ref]
                    for number, value in enumerate(values)
                ]
                group.create_dataset(field, data=np.array(references, dtype=object), dtype=h5py.ref_dtype)
            boxes.append(group.ref)
        struct = file.create_group("digitStruct")
        for field, references in (("name", names), ("bbox", boxes)):
            column = np.array(references, dtype=object)[:, None]
            struct.create_dataset(field, data=column, dtype=h5py.ref_dtype)
