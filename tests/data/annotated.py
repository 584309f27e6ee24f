"""Folders of blank images beside annotations of other programs, and what was read of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mistnn.data.folder.content import OwnFolder


def blank_image(path: Path) -> None:
    """100 x 50 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((50, 100), np.uint8)).save(path)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def summary(folder: OwnFolder) -> dict[str, tuple[dict[str, int] | None, list[list[float]] | None]]:
    """Image -> counts by class, and corners."""
    found = {}
    for image in folder.images:
        counts = None if image.counts is None else dict(zip(folder.class_names, image.counts, strict=True))
        boxes = None
        if image.boxes is not None:
            low, high = image.boxes[:, :2] - image.boxes[:, 2:] / 2, image.boxes[:, :2] + image.boxes[:, 2:] / 2
            boxes = np.concatenate((low, high), 1).round(3).tolist()
        found[image.name] = (counts, boxes)
    return found
