"""Tiny generated images in the layout of every data set that presets read from files."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def make_data(root: Path) -> None:
    """All folders of images that presets need, and the images that shipped models see."""
    random = np.random.default_rng(0)
    root.mkdir()
    torch.save(digit_images(), root / "images.pt")
    for part, count in {"train": 40, "test": 16, "extra": 4}.items():
        make_numbers(root / "svhn" / part, "", count, random)
    make_numbers(root / "numbers", "images/", 60, random)
    make_photographs(root / "photographs", random)
    make_birds(root / "birds" / "CUB_200_2011", random)
    make_folder(root / "folder", random)


def digit_images() -> dict[str, Tensor]:
    """Scenes of digits of 20 px, two of each size: name -> (2, 1, height, width)."""
    from sklearn.datasets import load_digits

    random = np.random.default_rng(1)
    digits = torch.from_numpy(load_digits(return_X_y=True)[0]).float().reshape(-1, 1, 8, 8) / 16
    digits = F.interpolate(digits, (20, 20), mode="bilinear", align_corners=False)
    scenes = {}
    for height, width in ((48, 48), (80, 80), (57, 96), (96, 176)):
        scene = torch.zeros(2, 1, height, width)
        for place in range(2 * (height * width // 700)):
            y, x, digit = (int(random.integers(most)) for most in (height - 20, width - 20, len(digits)))
            part = scene[place % 2, :, y : y + 20, x : x + 20]
            part.copy_(torch.maximum(part, digits[digit]))
        scenes[f"{height}x{width}"] = scene
    return scenes


def noise(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """A picture of dark noise."""
    return Image.fromarray(random.integers(60, 110, (height, width, 3), dtype=np.uint8))


def make_numbers(root: Path, prefix: str, count: int, random: np.random.Generator) -> None:
    """House numbers of two digits, which are coloured rectangles: PNG files and the list ``boxes.json``."""
    (root / prefix).mkdir(parents=True)
    entries = []
    for number in range(1, count + 1):
        height, left, boxes, labels = int(random.integers(30, 48)), 4, [], []
        picture = noise(random, 70, height)
        for _ in range(2):
            digit, right = int(random.integers(10)), left + int(random.integers(14, 26))
            picture.paste((25 * digit, 255 - 25 * digit, 128), (left, 2, right, height - 1))
            boxes.append([float(value) for value in (left, 2, right, height - 1)])
            labels.append(str(digit))
            left = right + 4
        file = f"{prefix}{number}.png"
        picture.save(root / file)
        entries.append({"file": file, "width": 70, "height": height, "boxes": boxes, "labels": labels})
    (root / "boxes.json").write_text(json.dumps(entries))


def make_photographs(root: Path, random: np.random.Generator) -> None:
    """A folder as ``mist build`` makes it, with the classes of VOC: one or two rectangles in each image."""
    classes = (
        "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
        "sheep sofa train tvmonitor"
    ).split()
    (root / "images").mkdir(parents=True)
    entries, listing = [], "file,split\n"
    for number in range(12):
        file, picture, boxes, labels = f"images/{number:02}.png", noise(random, 224, 224), [], []
        for part in range(1 + number % 2):
            kind, left, top = (int(random.integers(most)) for most in (20, 40, 120))
            box = (left + 112 * part, top, left + 112 * part + 64, top + 80)
            picture.paste((12 * kind, 255 - 12 * kind, 200), box)
            boxes.append([float(value) for value in box])
            labels.append(classes[kind])
        picture.save(root / file)
        entries.append({"file": file, "width": 224, "height": 224, "boxes": boxes, "labels": labels})
        listing += f"{file},{'train' if number < 8 else 'validation' if number < 10 else 'test'}\n"
    (root / "boxes.json").write_text(json.dumps(entries))
    (root / "split.csv").write_bytes(listing.encode())
    digest = hashlib.sha256(listing.encode()).hexdigest()
    described = {"format": 1, "name": "tiny", "classes": classes, "split_sha256": digest}
    (root / "dataset.json").write_text(json.dumps(described))


def make_birds(root: Path, random: np.random.Generator) -> None:
    """CUB-200-2011 with three classes of four images."""
    root.mkdir(parents=True)
    rows: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": [], "classes": []}
    for kind in range(1, 4):
        name = f"00{kind}.Bird"
        rows["classes"].append(f"{kind} {name}")
        (root / "images" / name).mkdir(parents=True)
        for copy in range(4):
            number, file = 4 * kind + copy, f"{name}/{4 * kind + copy}.jpg"
            noise(random, 60 + number, 70).save(root / "images" / file)
            rows["images"].append(f"{number} {file}")
            rows["image_class_labels"].append(f"{number} {kind}")
            rows["train_test_split"].append(f"{number} {int(copy < 3)}")
    for name, lines in rows.items():
        (root / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def make_folder(root: Path, random: np.random.Generator) -> None:
    """An image folder with ``counts.csv``: up to three blue or red squares on a dark background."""
    (root / "images").mkdir(parents=True)
    with (root / "counts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "split", "blue", "red"))
        for number in range(20):
            picture, counts = noise(random, 64, 64), [0, 0]
            for part in range(1 + number % 3):
                kind, top = int(random.integers(2)), int(random.integers(48))
                picture.paste(((40, 60, 230), (230, 60, 40))[kind], (2 + 20 * part, top, 18 + 20 * part, top + 16))
                counts[kind] += 1
            picture.save(root / "images" / f"{number:02}.png")
            split = "train" if number < 12 else "val" if number < 16 else "test"
            table.writerow((f"{number:02}.png", split, *counts))
