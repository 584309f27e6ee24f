"""Folders of coloured shapes, whose ``labels.csv`` says which are there and not how many."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("blue disc", "green square", "red disc")
COLOURS = ((70, 90, 230), (40, 170, 60), (220, 60, 50))
SIDE, SIZE = 64, 14


def make_labelled(root: Path, images: int, seed: int = 0, counts: bool = False) -> Path:
    """Up to four shapes of up to three kinds on a bright ground, 14 px each; a kind is in about half of the images.

    Args:
        root: made.
        images: how many.
        seed: of everything.
        counts: whether to write ``counts.csv`` in place of ``labels.csv``.
    """
    random = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    name = "counts.csv" if counts else "labels.csv"
    with (root / name).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "split", *SHAPES))
        for index in range(images):
            there = np.flatnonzero(random.random(3) < 0.5)
            kinds = [*there, *(random.choice(there, random.integers(0, 5 - len(there))) if len(there) else ())]
            picture = Image.new("RGB", (SIDE, SIDE), (235, 230, 225))
            draw = ImageDraw.Draw(picture)
            places: list[tuple[int, int]] = []
            while len(places) < len(kinds):
                x, y = (int(value) for value in random.integers(1, SIDE - SIZE - 1, 2))
                if all(max(abs(x - a), abs(y - b)) > SIZE + 2 for a, b in places):
                    places.append((x, y))
            for (x, y), kind in zip(places, kinds, strict=True):
                shape = draw.rectangle if SHAPES[kind].endswith("square") else draw.ellipse
                shape((x, y, x + SIZE - 1, y + SIZE - 1), fill=COLOURS[kind])
            picture.save(root / "images" / f"{index:03}.png")
            held = np.bincount(np.array(kinds, dtype=int), minlength=3)
            split = "train" if index < 0.6 * images else "val" if index < 0.75 * images else "test"
            table.writerow((f"{index:03}.png", split, *(held if counts else (held > 0).astype(int))))
    return root


def make_unlabelled(root: Path, images: int, k: int, seed: int = 0) -> Path:
    """K shapes an image and no table; a folder beside it, which is returned, holds the same with ``boxes.json``."""
    random = np.random.default_rng(seed)
    known = root.with_name(f"{root.name}-known")
    for folder in (root, known):
        (folder / "images").mkdir(parents=True)
    entries = []
    for index in range(images):
        picture = Image.new("RGB", (SIDE, SIDE), (235, 230, 225))
        draw = ImageDraw.Draw(picture)
        places: list[tuple[int, int]] = []
        while len(places) < k:
            x, y = (int(value) for value in random.integers(1, SIDE - SIZE - 1, 2))
            if all(max(abs(x - a), abs(y - b)) > SIZE + 2 for a, b in places):
                places.append((x, y))
                kind = int(random.integers(3))
                shape = draw.rectangle if SHAPES[kind].endswith("square") else draw.ellipse
                shape((x, y, x + SIZE - 1, y + SIZE - 1), fill=COLOURS[kind])
        for folder in (root, known):
            picture.save(folder / "images" / f"{index:03}.png")
        boxes = [(x, y, x + SIZE, y + SIZE) for x, y in places]
        entries.append({"file": f"{index:03}.png", "width": SIDE, "height": SIDE, "boxes": boxes})
    (known / "boxes.json").write_text(json.dumps(entries))
    return known
