"""Reading PASCAL VOC 2007 and COCO as they are published: photographs with the boxes of their objects.

::

    VOC2007/                         COCO/
      JPEGImages/000005.jpg            annotations/instances_train2017.json
      Annotations/000005.xml           train2017/000000000009.jpg  (or images/train2017/)
      ImageSets/Main/train.txt

Convention: boxes become corners x1, y1, x2, y2, the first pixel from 0 to 1. VOC counts pixels from 1 and includes the
last one: (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax).
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mistnn.data.annotations import finite_numbers
from mistnn.data.digits.source import Split
from mistnn.data.folder.files import read_text
from mistnn.errors import MistError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes of PASCAL VOC 2007."""

OF_COCO: Mapping[str, str] = MappingProxyType(
    {
        "airplane": "aeroplane",
        "motorcycle": "motorbike",
        "couch": "sofa",
        "potted plant": "pottedplant",
        "dining table": "diningtable",
        "tv": "tvmonitor",
    }
)
"""COCO's names of VOC's classes, where they differ."""

VOC_LISTS: Mapping[str, Split] = MappingProxyType({"train": "train", "val": "validation", "test": "test"})


class Drawn(NamedTuple):
    """An object of a photograph.

    Attributes:
        label: its class, by VOC's name.
        corners: x1, y1, x2, y2.
        difficult: marked so in VOC.
        crowd: several objects in one box, of which COCO doesn't say how many.
    """

    label: str
    corners: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False


class Photograph(NamedTuple):
    """A photograph and all that is drawn on it.

    Attributes:
        path: of the file.
        name: under which it goes into a built folder, without ending; unique over both sources.
        width: in pixels, as the annotation says.
        height: in pixels, as the annotation says.
        objects: of any class.
        split: if VOC's lists name one.
    """

    path: Path
    name: str
    width: int
    height: int
    objects: tuple[Drawn, ...]
    split: Split | None = None


def read_voc(root: Path) -> list[Photograph]:
    """Every annotated photograph of a VOC folder, by name.

    Raises:
        MistError: not such a folder; an annotation that is broken, or whose photograph is missing; a list that names a
            photograph without annotation.
    """
    folder = root / "Annotations"
    if not folder.is_dir() or not (root / "JPEGImages").is_dir():
        raise MistError(
            f"--voc {root} is no PASCAL VOC folder: it needs JPEGImages/ and Annotations/, as in VOCdevkit/VOC2007"
        )
    paths = sorted(folder.glob("*.xml"))
    if not paths:
        raise MistError(f"--voc {root}: Annotations/ holds no .xml file: unpack the whole archive")
    splits: dict[str, Split] = {}
    for name, split in VOC_LISTS.items():
        listing = root / "ImageSets" / "Main" / f"{name}.txt"
        for line in read_text(listing).splitlines() if listing.is_file() else ():
            if line.strip():
                splits[line.split()[0]] = split
    known = {path.stem for path in paths}
    if strange := sorted(set(splits) - known):
        raise MistError(
            f"--voc {root}: ImageSets/Main names {strange[0]}, and Annotations/{strange[0]}.xml is missing "
            f"({len(strange)} such): unpack the archive that holds it"
        )
    return [_voc(path, root, splits.get(path.stem)) for path in paths]


def _voc(path: Path, root: Path, split: Split | None) -> Photograph:
    place = path.relative_to(root).as_posix()
    try:
        tree = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        raise MistError(f"{place} is broken XML ({error}): unpack the archive again") from error
    image = root / "JPEGImages" / f"{path.stem}.jpg"
    if not image.is_file():
        raise MistError(f"{place}: its photograph JPEGImages/{image.name} is missing: unpack the archive again")
    width, height = finite_numbers(
        [tree.findtext(f"size/{side}") for side in ("width", "height")], f"{place}: the size"
    )
    objects = []
    for number, entry in enumerate(tree.iter("object"), start=1):
        label = (entry.findtext("name") or "").strip()
        if not label:
            raise MistError(f"{place}: object {number} has no name: write its class")
        written = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = finite_numbers(written, f"{place}: object {number} ({label})")
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        objects.append(Drawn(label, (left - 1, top - 1, right, bottom), difficult))
    return Photograph(image, f"voc2007-{path.stem}", int(width), int(height), tuple(objects), split)


def read_coco(root: Path) -> list[Photograph]:
    """Every photograph that the ``annotations/instances_*.json`` of a COCO folder describe, by name.

    Raises:
        MistError: not such a folder; JSON that is broken or no such file; a photograph that is missing.
    """
    paths = sorted((root / "annotations").glob("instances_*.json"))
    if not paths:
        raise MistError(f"--coco {root} is no COCO folder: it needs annotations/instances_train2017.json (or another)")
    photographs: list[Photograph] = []
    for path in paths:
        photographs += _coco(path, root)
    return photographs


def _coco(path: Path, root: Path) -> Iterator[Photograph]:
    place, subset = path.relative_to(root).as_posix(), path.stem.removeprefix("instances_")
    try:
        content: Any = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise MistError(f"{place} is broken JSON ({error}): unpack the archive again") from error
    try:
        classes = {entry["id"]: str(entry["name"]).strip() for entry in content["categories"]}
        images = {entry["id"]: entry for entry in content["images"]}
        objects: dict[Any, list[Drawn]] = {number: [] for number in images}
        for entry in content["annotations"]:
            x, y, width, height = finite_numbers(entry["bbox"], f"{place}, annotation {entry['id']}", 4)
            name = classes[entry["category_id"]]
            label, crowd = OF_COCO.get(name, name), bool(entry.get("iscrowd", 0))
            objects[entry["image_id"]].append(Drawn(label, (x, y, x + width, y + height), crowd=crowd))
        described = [(key, Path(str(one["file_name"])), one["width"], one["height"]) for key, one in images.items()]
    except (KeyError, TypeError, AttributeError) as error:
        raise MistError(
            f"{place} is no COCO file ({type(error).__name__} {error}): it needs images, annotations and categories "
            "that name each other, with file_name, width, height, bbox and category_id"
        ) from error
    folders = [folder for folder in (root / subset, root / "images" / subset, root / "images") if folder.is_dir()]
    if not folders:
        raise MistError(f"{place}: its photographs are missing: unpack {subset}.zip into {root / subset}")
    held = {folder: {file.name for file in folder.iterdir()} for folder in folders}
    seen: dict[str, Path] = {}
    for key, name, width, height in sorted(described, key=lambda one: str(one[1])):
        if (other := seen.setdefault(name.stem, name)) is not name:
            raise MistError(
                f"{place} describes {name} twice: take one of the two images out"
                if other == name
                else f"{place} describes {other} and {name}, which would both be called {name.stem}: take one out"
            )
        folder = next((folder for folder in folders if name.name in held[folder]), None)
        if folder is None:
            raise MistError(f"{place}: the photograph {name} is not in {folders[0]}: unpack {subset}.zip again")
        sides = finite_numbers([width, height], f"{place}, image {name}")
        size = int(sides[0]), int(sides[1])
        yield Photograph(folder / name.name, f"coco-{subset}-{name.stem}", *size, tuple(objects[key]))
