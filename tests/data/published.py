"""Miniatures of VOC 2007 and COCO in the real formats: rectangles, coloured by their class, on noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("bird", "sofa", "tvmonitor")
COLOURS = {"bird": (230, 40, 40), "sofa": (40, 220, 60), "tvmonitor": (50, 60, 240), "zebra": (240, 240, 240)}
COCO_NAMES = {"bird": "bird", "sofa": "couch", "tvmonitor": "tv", "zebra": "zebra"}
COCO_IDS = {"bird": 16, "couch": 63, "tv": 72, "zebra": 24}

Box = tuple[str, int, int, int, int]
"""Class, left, top, width, height."""


def draw(path: Path, width: int, height: int, boxes: Sequence[Box]) -> None:
    noise = np.random.default_rng(len(path.name)).integers(90, 130, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    pen = ImageDraw.Draw(picture)
    for label, left, top, wide, high in boxes:
        pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=COLOURS[label])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=95)


def some_boxes(random: np.random.Generator, width: int, height: int, many: int, first: int) -> list[Box]:
    """Rectangles that don't overlap: each in its own part of the image, from left to right."""
    boxes = []
    for part in range(many):
        wide, high = (int(side) for side in random.integers(24, 36, 2))
        room = width // many
        left = part * room + int(random.integers(room - wide))
        boxes.append((CLASSES[(first + part) % 3], left, int(random.integers(height - high)), wide, high))
    return boxes


def voc_xml(name: str, width: int, height: int, boxes: Sequence[Box], difficult: Sequence[int] = ()) -> str:
    """As VOC writes it: from 1, the last pixel included."""
    objects = "".join(
        f"<object><name>{label}</name><difficult>{int(place in difficult)}</difficult><bndbox><xmin>{left + 1}</xmin>"
        f"<ymin>{top + 1}</ymin><xmax>{left + wide}</xmax><ymax>{top + high}</ymax></bndbox></object>"
        for place, (label, left, top, wide, high) in enumerate(boxes)
    )
    return (
        f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size>{objects}</annotation>"
    )


def add_voc(root: Path, name: str, size: tuple[int, int], boxes: Sequence[Box], difficult: Sequence[int] = ()) -> None:
    draw(root / "JPEGImages" / f"{name}.jpg", *size, boxes)
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / f"{name}.xml").write_text(voc_xml(name, *size, boxes, difficult), encoding="utf-8")


def make_voc(root: Path, many: int = 18) -> Path:
    random = np.random.default_rng(0)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for index in range(many):
        name = f"{index + 1:06d}"
        size = (160, 120) if index % 2 else (120, 150)
        add_voc(root, name, size, some_boxes(random, *size, 1 + index % 2, index))
        splits[("train", "train", "train", "train", "val", "test")[index % 6]].append(name)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in splits.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return root


def make_coco(root: Path, many: int = 12) -> Path:
    random = np.random.default_rng(1)
    images, annotations = [], []
    for index in range(many):
        size = (140, 130)
        boxes = some_boxes(random, *size, 1 + index % 2, index)
        name = f"{index + 9:012d}.jpg"
        draw(root / "train2017" / name, *size, boxes)
        images.append({"id": index + 9, "file_name": name, "width": size[0], "height": size[1]})
        for label, *box in boxes:
            annotations.append(
                {"id": len(annotations), "image_id": index + 9, "category_id": COCO_IDS[COCO_NAMES[label]],
                 "bbox": [float(value) for value in box], "area": 1.0, "iscrowd": 0}
            )  # fmt: skip
    write_coco(root, images, annotations)
    return root


def write_coco(root: Path, images: list[dict], annotations: list[dict]) -> None:
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in COCO_IDS.items()],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content), encoding="utf-8")
