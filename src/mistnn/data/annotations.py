"""Boxes that people have drawn already: PASCAL VOC, COCO, or one simple file. They are for evaluation only.

Convention: boxes become corners x1, y1, x2, y2 in the package's frame: x right, y down, the first pixel from 0 to 1, in
pixels of the upright image.

* VOC counts pixels from 1 and includes the last one: (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax).
  Objects marked difficult or truncated are objects.
* COCO's (x, y, width, height) is in this frame: (x, y, x + width, y + height). Crowds (``iscrowd``) are left out.
* ``boxes.json`` is a list of {file, width, height, boxes, labels}, a box being x1, y1, x2, y2 in this frame; without
  labels all are "object". A ``split`` is taken where it is given.

Boxes are cut at the border of their image.
"""

from __future__ import annotations

import json
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mistnn.data.digits.source import Split
from mistnn.data.folder.files import ImageFiles, NameMatcher, check_file, listed, read_text
from mistnn.data.folder.tables import ONLY_CLASS, SPLIT_WORDS
from mistnn.errors import MistError

VOC_FOLDERS = ("Annotations", "annotations")
COCO_NAMES = ("annotations.json", "instances*.json", "_annotations.coco.json")
BOXES_NAME = "boxes.json"


class Annotation(NamedTuple):
    """What is drawn on an image.

    Attributes:
        labels: class of each object.
        corners: x1, y1, x2, y2 of each object; ``None`` if they are of another size of the image.
        split: if the annotation names one.
    """

    labels: tuple[str, ...]
    corners: Float[np.ndarray, "n 4"] | None
    split: Split | None


class Annotations(NamedTuple):
    """What is drawn on the images of a folder.

    Attributes:
        source: where it was read, for the user.
        of_image: name -> its annotation; images that nobody annotated are missing.
        notes: one line each.
    """

    source: str
    of_image: dict[str, Annotation]
    notes: tuple[str, ...]


class _Drawn(NamedTuple):
    """An annotation as it was read."""

    place: str  # for errors
    names: tuple[str, ...]  # of the image, the first that fits counts
    size: tuple[float, float]  # width and height; 0 where not stated
    labels: list[str]
    corners: list[list[float]]
    split: Split | None


def read_annotations(root: Path, files: ImageFiles, matcher: NameMatcher) -> Annotations | None:
    """Reads the first kind there is: VOC XML in ``Annotations/`` or beside the images, COCO JSON, ``boxes.json``.

    COCO JSON is looked for in the folder and in the folders of it, so in ``annotations/`` and ``train/`` too.

    Args:
        root: the folder.
        files: its images.
        matcher: knows the images.

    Returns:
        ``None`` if there is no annotation.

    Raises:
        MistError: broken XML or JSON, or what isn't in the format; one image described twice.
    """
    below = [root / name for name in VOC_FOLDERS if (root / name).is_dir()]
    voc = sorted(chain.from_iterable(folder.rglob("*.xml") for folder in below))
    beside = [path for header in files.headers if (path := header.path.with_suffix(".xml")).is_file()]
    coco = sorted({path for name in COCO_NAMES for path in chain(root.glob(name), root.glob(f"*/{name}"))})
    if voc:
        source, drawn = f"{voc[0].parent.name}/", [_read_voc(path, root) for path in voc]
    elif beside:
        source, drawn = "the XML files beside the images", [_read_voc(path, files.folder) for path in beside]
    elif coco:
        source, drawn = listed([path.relative_to(root).as_posix() for path in coco]), []
        for path in coco:
            drawn.extend(_read_coco(path, root))
    elif os.path.lexists(root / BOXES_NAME):
        source, drawn = BOXES_NAME, list(_drawn_boxes(root / BOXES_NAME))
    else:
        return None
    return _assigned(source, drawn, files, matcher)


def _assigned(source: str, drawn: Sequence[_Drawn], files: ImageFiles, matcher: NameMatcher) -> Annotations:
    """Gives each image its annotation."""
    headers = {header.name: header for header in files.headers}
    found: dict[str, Annotation] = {}
    places: dict[str, str] = {}
    strange: list[str] = []
    resized: list[str] = []
    flat: list[str] = []
    for one in drawn:
        name = next((match for written in one.names if (match := _only(written, one.place, matcher))), None)
        if name is None:
            strange.append(one.names[-1])
        elif name in places:
            raise MistError(f"{one.place}: {name} is described in {places[name]} already: delete one of the two")
        elif name in headers:  # else it can't be used, which is said elsewhere
            header = headers[name]
            places[name] = one.place
            corners = np.array(one.corners, dtype=np.float64).reshape(-1, 4)
            if min(one.size) > 0 and one.size != (header.width, header.height):
                resized.append(name)
                found[name] = Annotation(tuple(one.labels), None, one.split)
                continue
            corners = corners.clip(0, [header.width, header.height] * 2)
            kept = np.flatnonzero(np.all(corners[:, 2:] > corners[:, :2], axis=1)).tolist()
            if len(kept) < len(corners):
                flat.append(name)
            labels = tuple(one.labels[index] for index in kept)
            found[name] = Annotation(labels, corners[kept], one.split)
    notes = []
    if strange:
        notes.append(f"{source} describes {len(strange)} images that are not there ({listed(strange)})")
    if resized:
        notes.append(f"boxes of another image size are left out: {len(resized)} images ({listed(resized)})")
    if flat:
        notes.append(f"boxes without area in their image are left out, in {len(flat)} images ({listed(flat)})")
    return Annotations(source, found, tuple(notes))


def _only(written: str, place: str, matcher: NameMatcher) -> str | None:
    return matcher.find(written, place) if matcher.match(written) else None


def _read_voc(path: Path, folder: Path) -> _Drawn:
    place = path.relative_to(folder).as_posix()
    check_file(path)
    try:
        tree = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        raise MistError(f"{place} is broken XML ({error}): mend it, or take it out of the folder") from error
    if tree.tag != "annotation":
        raise MistError(f"{place} is no PASCAL VOC annotation, but <{tree.tag}>: take it out of the folder")

    labels, corners = [], []
    for number, entry in enumerate(tree.iter("object"), start=1):
        label = (entry.findtext("name") or "").strip()
        if not label:
            raise MistError(f"{place}: object {number} has no name: write its class")
        written = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = finite_numbers(written, f"{place}: object {number} ({label})")
        labels.append(label)
        corners.append([left - 1, top - 1, right, bottom])
    # The name of the XML file goes first: <filename> is often that of a picture before it was converted.
    own = path.relative_to(folder).with_suffix("").as_posix()
    inner = own.partition("/")[2] if own.startswith(VOC_FOLDERS) else own
    names = (inner, (tree.findtext("filename") or inner).strip())
    sides = [tree.findtext(f"size/{side}") or "0" for side in ("width", "height")]
    width, height = finite_numbers(sides, f"{place}: the size")
    return _Drawn(place, names, (width, height), labels, corners, None)


def _read_coco(path: Path, root: Path) -> Iterator[_Drawn]:
    place = path.relative_to(root).as_posix()
    content = read_json(path, place)
    try:
        classes = {entry["id"]: str(entry["name"]).strip() for entry in content["categories"]}
        images = {entry["id"]: entry for entry in content["images"]}
        objects: dict[Any, list[Any]] = {number: [] for number in images}
        for entry in content["annotations"]:
            if not entry.get("iscrowd", 0):
                objects[entry["image_id"]].append((entry["id"], classes[entry["category_id"]], entry["bbox"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise MistError(
            f"{place} is no COCO file ({type(error).__name__} {error}): it needs images, annotations and categories "
            "that name each other, with file_name, bbox and category_id"
        ) from error
    within = path.parent.relative_to(root).as_posix()
    for number, image in images.items():
        name = str(image.get("file_name", ""))
        labels, corners = [], []
        for key, label, box in objects[number]:
            x, y, width, height = finite_numbers(box, f"{place}, annotation {key} ({name})", 4)
            labels.append(label)
            corners.append([x, y, x + width, y + height])
        size = _size(image, f"{place}, image {name}")
        yield _Drawn(place, (f"{within}/{name}", name), size, labels, corners, None)


def _drawn_boxes(path: Path) -> Iterator[_Drawn]:
    for entry in read_boxes(path, path.name):
        width, height = entry.size
        size = _size({"width": width, "height": height}, entry.place)
        labels = [ONLY_CLASS] * len(entry.corners) if entry.labels is None else [str(label) for label in entry.labels]
        yield _Drawn(entry.place, (entry.file,), size, labels, entry.corners, SPLIT_WORDS.get(entry.split.lower()))


class BoxesEntry(NamedTuple):
    """An entry of ``boxes.json``.

    Attributes:
        place: where it stands, for errors.
        file: of the image.
        size: its width and height as they are written; ``None`` where they are not.
        corners: x1, y1, x2, y2 of each box.
        labels: one a box, as they are written; ``None`` where there are none.
        split: as it is written, empty where it is not.
    """

    place: str
    file: str
    size: tuple[Any, Any]
    corners: list[list[float]]
    labels: list[Any] | None
    split: str


def read_boxes(path: Path, place: str) -> Iterator[BoxesEntry]:
    """The entries of a ``boxes.json``, see the module; what sizes and labels may be is for the caller to say.

    Args:
        path: of the file.
        place: how errors call it.

    Raises:
        MistError: JSON that is broken; an entry without a file or boxes; what is no box; another number of labels.
    """
    content = read_json(path, place)
    if not isinstance(content, list):
        raise MistError(f"{place} must be a list of entries with file, boxes and labels")
    for number, entry in enumerate(content, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise MistError(f"{place}, entry {number}: no file is named: write an entry with file, boxes and labels")
        own = f"{place}, entry {number} ({entry['file']})"
        boxes, labels = entry.get("boxes"), entry.get("labels")
        if not isinstance(boxes, list):
            raise MistError(f"{own}: no boxes: write a list of [x1, y1, x2, y2], empty if there is no object")
        if "labels" in entry and (not isinstance(labels, list) or len(labels) != len(boxes)):
            raise MistError(f"{own}: {len(boxes)} boxes, but labels are {labels!r}: give one for each")
        corners = [finite_numbers(box, own, 4) for box in boxes]
        size = entry.get("width"), entry.get("height")
        yield BoxesEntry(own, entry["file"], size, corners, labels, str(entry.get("split", "")))


def read_json(path: Path, place: str) -> Any:
    """What a JSON file holds.

    Raises:
        MistError: if it can't be read, or is broken.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise MistError(f"{place} is broken JSON ({error}): mend it, or take it out of the folder") from error


def _size(entry: dict[str, Any], place: str) -> tuple[float, float]:
    width, height = finite_numbers([entry.get("width") or 0, entry.get("height") or 0], f"{place}: width and height")
    return width, height


def finite_numbers(values: Any, place: str, many: int | None = None) -> list[float]:
    """Finite numbers from what a file holds.

    Raises:
        MistError: if they are none, or not so many.
    """
    if isinstance(values, list) and (many is None or len(values) == many):
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if numbers and all(map(math.isfinite, numbers)):
            return numbers
    raise MistError(f"{place}: {values!r} are not the {many or len(values)} numbers expected: correct them")
