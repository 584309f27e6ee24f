"""Reads PASCAL VOC 2007 and COCO in their published layout: photographs with the boxes of their objects.

::

    VOC2007/                         COCO/
      JPEGImages/000005.jpg            annotations/instances_train2017.json
      Annotations/000005.xml           train2017/000000000009.jpg  (or images/train2017/)
      ImageSets/Main/train.txt

Convention: boxes are corners x1, y1, x2, y2, the first pixel from 0 to 1; see ``mistnn.data.text_files`` for VOC's.

Both readers raise ``MistError`` if a folder has another layout, a file is broken, or lists, annotations and photographs
don't belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mistnn.data.text_files import AnnotatedObject, finite_numbers, read_coco_file, read_text, read_xml, voc_objects
from mistnn.errors import MistError
from mistnn.interfaces import Split

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes of PASCAL VOC 2007."""

OF_COCO: Mapping[str, str] = {
    "airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "potted plant": "pottedplant",
    "dining table": "diningtable", "tv": "tvmonitor",
}  # fmt: skip
"""COCO's names of VOC's classes, where they differ."""

VOC_LISTS: Mapping[str, Split] = {"train": "train", "val": "validation", "test": "test"}
UNPACK = "unpack the archive again"


class Photograph(NamedTuple):
    """An annotated photograph."""

    path: Path
    name: str  #: Its name in a built folder, without suffix; unique over both sources.
    width: int  #: In pixels, from the annotation.
    height: int  #: In pixels, from the annotation.
    objects: tuple[AnnotatedObject, ...]
    split: Split | None = None  #: If VOC's lists name one.


def read_voc(root: Path) -> list[Photograph]:
    """All annotated photographs of a VOC folder, by name."""
    folder = root / "Annotations"
    if not folder.is_dir() or not (root / "JPEGImages").is_dir():
        raise MistError(
            f"--voc {root} is not a PASCAL VOC folder like VOCdevkit/VOC2007: it needs JPEGImages/ and Annotations/"
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
    if unknown := sorted(set(splits) - known):
        missing = f"ImageSets/Main names {unknown[0]}, and Annotations/{unknown[0]}.xml is missing"
        raise MistError(f"--voc {root}: {missing} (in all: {len(unknown)}): unpack the archive that holds it")
    return [_voc(path, root, splits.get(path.stem)) for path in paths]


def _voc(path: Path, root: Path, split: Split | None) -> Photograph:
    place = path.relative_to(root).as_posix()
    tree = read_xml(path, place, UNPACK)
    image = root / "JPEGImages" / f"{path.stem}.jpg"
    if not image.is_file():
        raise MistError(f"{place}: its photograph JPEGImages/{image.name} is missing: {UNPACK}")
    sides = [tree.findtext(f"size/{side}") for side in ("width", "height")]
    width, height = finite_numbers(sides, f"{place}: the size")
    objects = tuple(voc_objects(tree, place))
    return Photograph(image, f"voc2007-{path.stem}", int(width), int(height), objects, split)


def read_coco(root: Path) -> list[Photograph]:
    """All photographs in the ``annotations/instances_*.json`` of a COCO folder, by name."""
    paths = sorted((root / "annotations").glob("instances_*.json"))
    if not paths:
        raise MistError(f"--coco {root} is not a COCO folder: it needs annotations/instances_train2017.json or another")
    return [photograph for path in paths for photograph in _coco(path, root)]


def _coco(path: Path, root: Path) -> Iterator[Photograph]:
    place, subset = path.relative_to(root).as_posix(), path.stem.removeprefix("instances_")
    described = read_coco_file(path, place, UNPACK, crowds=True, keys=("file_name", "width", "height"))
    folders = [folder for folder in (root / subset, root / "images" / subset, root / "images") if folder.is_dir()]
    if not folders:
        raise MistError(f"{place}: its photographs are missing: unpack {subset}.zip into {root / subset}")
    held = {folder: {file.name for file in folder.iterdir()} for folder in folders}
    seen: dict[str, Path] = {}
    named = [(Path(str(image["file_name"])), image, objects) for image, objects in described]
    for name, image, objects in sorted(named, key=lambda one: str(one[0])):
        if (other := seen.setdefault(name.stem, name)) is not name:
            both = f"{name} twice" if other == name else f"{other} and {name}, which would both be called {name.stem}"
            raise MistError(f"{place} describes {both}: remove one of the two images")
        folder = next((folder for folder in folders if name.name in held[folder]), None)
        if folder is None:
            raise MistError(f"{place}: the photograph {name} is not in {folders[0]}: unpack {subset}.zip again")
        width, height = finite_numbers([image["width"], image["height"]], f"{place}, image {name}")
        named_as_voc = tuple(one._replace(label=OF_COCO.get(one.label, one.label)) for one in objects)
        yield Photograph(folder / name.name, f"coco-{subset}-{name.stem}", int(width), int(height), named_as_voc)
