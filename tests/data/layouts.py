"""Small folders in every layout, and what to ask of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mistnn.data import FolderImage, OwnFolder, read_folder
from mistnn.errors import MistError

NAMES = ("a.png", "b.png", "c.jpg")


def make(root: Path, *names: str, folder: str = "images", size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Path:
    for name in names or NAMES:
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size).save(path)
    return root


def write(root: Path, text: str | bytes, name: str = "counts.csv") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def write_json(root: Path, content: Any, name: str = "boxes.json") -> Path:
    return write(root, json.dumps(content), name)


def voc(*objects: tuple[str, tuple[float, ...]], size: tuple[int, int] = (8, 6), filename: str = "other.tif") -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    entries = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    shape = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation><filename>{filename}</filename>{shape}{entries}</annotation>"


def counts_of(folder: OwnFolder) -> dict[str, tuple[int, ...] | None]:
    return {image.name: image.counts for image in folder.images}


def image_of(folder: OwnFolder, name: str) -> FolderImage:
    return next(image for image in folder.images if image.name == name)


def boxes_of(image: FolderImage) -> list[list[float]]:
    assert image.boxes is not None
    return image.boxes.tolist()


def noted(folder: OwnFolder, *words: str) -> str:
    assert all("\n" not in note for note in folder.notes)
    found = [note for note in folder.notes if all(word in note for word in words)]
    assert len(found) == 1, folder.notes
    return found[0]


def refused(root: Path, *words: str) -> None:
    with pytest.raises(MistError) as caught:
        read_folder(root)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
