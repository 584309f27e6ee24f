"""Miniatures of CUB-200-2011 in its real layout: coloured pictures, a colour a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))
LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def make_cub(root: Path, each: int = 6, seed: int = 0) -> Path:
    """``CUB_200_2011`` with so many images a class, every third of them for testing; returns that folder."""
    folder = root / "CUB_200_2011"
    random = np.random.default_rng(seed)
    rows: dict[str, list[str]] = {name: [] for name in LISTS}
    number = 0
    for place, name in enumerate(CLASSES):
        rows["classes.txt"].append(f"{place + 1} {name}")
        (folder / "images" / name).mkdir(parents=True)
        for copy in range(each):
            number += 1
            file = f"{name}/{name[4:]}_{copy:04}_{number}.jpg"
            width, height = int(random.integers(40, 90)), int(random.integers(40, 90))
            noise = random.integers(-30, 30, (height, width, 1))
            pixels = np.full((height, width, 3), COLOURS[place], dtype=np.int64) + noise
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / file, quality=95)
            rows["images.txt"].append(f"{number} {file}")
            rows["image_class_labels.txt"].append(f"{number} {place + 1}")
            rows["train_test_split.txt"].append(f"{number} {int(copy % 3 != 0)}")
    for name, lines in rows.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder
