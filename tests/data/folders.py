"""Folders as people have them, made of embedded digits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from mistnn.data import Scenes, ScenesConfig

DIGITS = ScenesConfig(source="embedded", canvas=48, counts=(1, 2, 3), classes=3)


def make_folder(root: Path, images: int = 20, zoom: int = 2, inverted: bool = False) -> Path:
    """Scenes of zeros, ones and twos as PNG files, enlarged, with ``counts.csv`` of named classes."""
    (root / "images").mkdir(parents=True)
    scenes = Scenes(DIGITS, "train", images)
    with (root / "counts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "class", "count"))
        for index in range(images):
            sample = scenes[index]
            assert sample.counts is not None
            values = (sample.image[0].numpy() * 255).astype(np.uint8)
            picture = Image.fromarray(255 - values if inverted else values)
            picture.resize((48 * zoom, 48 * zoom), Image.Resampling.BICUBIC).save(root / "images" / f"{index:03}.png")
            for name, count in zip(("zero", "one", "two"), sample.counts.tolist(), strict=True):
                table.writerow((f"{index:03}.png", name, count))
    return root
