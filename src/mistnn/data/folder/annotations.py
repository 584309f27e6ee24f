"""Boxes of the images in a folder: PASCAL VOC, COCO, or ``boxes.json``. They are used for evaluation only.

Convention: see ``mistnn.data.text_files``; boxes are in pixels of the upright image and clipped to it.

* VOC: objects marked as difficult or truncated are objects.
* COCO's (x, y, width, height) becomes (x, y, x + width, y + height). Crowds (``iscrowd``) are left out.
* ``boxes.json``: without labels, all objects are of the class "object".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mistnn.data.folder.files import ImageFiles, NameMatcher
from mistnn.data.folder.tables import ONLY_CLASS, SPLIT_WORDS
from mistnn.data.text_files import (
    AnnotatedObject,
    check_file,
    finite_numbers,
    listed,
    read_boxes,
    read_coco_file,
    read_xml,
    voc_objects,
)
from mistnn.errors import MistError
from mistnn.interfaces import Split

VOC_FOLDERS = ("Annotations", "annotations")
COCO_NAMES = ("annotations.json", "instances*.json", "_annotations.coco.json")
BOXES_NAME = "boxes.json"


class Annotation(NamedTuple):
    """The objects of an image."""

    labels: tuple[str, ...]  #: Class of each object.
    #: x1, y1, x2, y2 of each object; ``None`` if they belong to another size of the image.
    corners: Float[np.ndarray, "n 4"] | None
    split: Split | None  #: If the annotation names one.


class Annotations(NamedTuple):
    """The objects of the images of a folder."""

    source: str  #: The files, for messages.
    of_image: dict[str, Annotation]  #: Name -> annotation; images without annotation are missing.
    notes: tuple[str, ...]  #: Messages of one line each.


class _Written(NamedTuple):
    """An annotation as the file has it."""

    place: str  # for errors
    names: tuple[str, ...]  # of the image; the first match counts
    size: tuple[float, float]  # width and height; 0 where missing
    objects: list[AnnotatedObject]
    split: Split | None = None


def read_annotations(root: Path, files: ImageFiles, matcher: NameMatcher) -> Annotations | None:
    """Reads the first of: VOC XML in ``Annotations/`` or beside the images, COCO JSON, ``boxes.json``.

    COCO JSON may be in the folder or in a direct subfolder, such as ``annotations/`` or ``train/``. ``None`` if there
    is no annotation. Raises ``MistError`` if one is broken or in another format, or an image is described twice.
    """
    below = [root / name for name in VOC_FOLDERS if (root / name).is_dir()]
    voc = sorted(chain.from_iterable(folder.rglob("*.xml") for folder in below))
    beside = [path for header in files.headers if (path := header.path.with_suffix(".xml")).is_file()]
    coco = sorted({path for name in COCO_NAMES for path in chain(root.glob(name), root.glob(f"*/{name}"))})
    if voc:
        source, written = f"{voc[0].parent.name}/", [_read_voc(path, root) for path in voc]
    elif beside:
        source, written = "the XML files beside the images", [_read_voc(path, files.folder) for path in beside]
    elif coco:
        source = listed([path.relative_to(root).as_posix() for path in coco])
        written = [one for path in coco for one in _read_coco(path, root)]
    elif os.path.lexists(root / BOXES_NAME):
        source, written = BOXES_NAME, list(_read_boxes(root / BOXES_NAME))
    else:
        return None
    return _matched(source, written, files, matcher)


def _matched(source: str, written: Sequence[_Written], files: ImageFiles, matcher: NameMatcher) -> Annotations:
    """Matches annotations with images."""
    headers = {header.name: header for header in files.headers}
    found: dict[str, Annotation] = {}
    places: dict[str, str] = {}
    unknown: list[str] = []
    resized: list[str] = []
    flat: list[str] = []
    written_names: list[str] = []
    for one in written:
        ways = (matcher.match, matcher.match_loosely)
        fitting = next((name for match in ways for name in one.names if match(name)), None)
        if fitting is None:
            unknown.append(one.names[-1])
            continue
        written_names.append(fitting)
        name = matcher.find(fitting, one.place)
        if name in places:
            raise MistError(f"{one.place}: {name} is described in {places[name]} already: delete one of the two")
        if name in headers:  # otherwise the image can't be used, which has its own note
            header = headers[name]
            places[name] = one.place
            labels = [item.label for item in one.objects]
            if min(one.size) > 0 and one.size != (header.width, header.height):
                resized.append(name)
                found[name] = Annotation(tuple(labels), None, one.split)
                continue
            corners = np.array([item.corners for item in one.objects], dtype=np.float64).reshape(-1, 4)
            corners = corners.clip(0, [header.width, header.height] * 2)
            kept = np.flatnonzero(np.all(corners[:, 2:] > corners[:, :2], axis=1)).tolist()
            if len(kept) < len(corners):
                flat.append(name)
            found[name] = Annotation(tuple(labels[index] for index in kept), corners[kept], one.split)
    notes = [*matcher.loosely_matched(source, written_names)]
    if unknown:
        notes.append(f"{source} describes {len(unknown)} images that are not there ({listed(unknown)})")
    if resized:
        notes.append(f"boxes for another image size are ignored: {len(resized)} images ({listed(resized)})")
    if flat:
        notes.append(f"boxes without area inside the image are ignored, in {len(flat)} images ({listed(flat)})")
    return Annotations(source, found, tuple(notes))


def _read_voc(path: Path, folder: Path) -> _Written:
    place = path.relative_to(folder).as_posix()
    check_file(path)
    tree = read_xml(path, place)
    if tree.tag != "annotation":
        raise MistError(f"{place} is not a PASCAL VOC annotation, but <{tree.tag}>: remove it from the folder")
    objects = list(voc_objects(tree, place))
    # The name of the XML file comes first: <filename> is often the name before the image was converted.
    own = path.relative_to(folder).with_suffix("").as_posix()
    inner = own.partition("/")[2] if own.startswith(VOC_FOLDERS) else own
    names = (inner, (tree.findtext("filename") or inner).strip())
    sides = [tree.findtext(f"size/{side}") or "0" for side in ("width", "height")]
    width, height = finite_numbers(sides, f"{place}: the size")
    return _Written(place, names, (width, height), objects)


def _read_coco(path: Path, root: Path) -> Iterator[_Written]:
    place = path.relative_to(root).as_posix()
    within = path.parent.relative_to(root).as_posix()
    for image, objects in read_coco_file(path, place):
        name = str(image.get("file_name", ""))
        size = _size(image.get("width"), image.get("height"), f"{place}, image {name}")
        yield _Written(place, (f"{within}/{name}", name), size, objects)


def _read_boxes(path: Path) -> Iterator[_Written]:
    for entry in read_boxes(path, path.name):
        size, labels = _size(*entry.size, entry.place), entry.labels or [ONLY_CLASS] * len(entry.corners)
        objects = [AnnotatedObject(str(label), box) for label, box in zip(labels, entry.corners, strict=True)]
        yield _Written(entry.place, (entry.file,), size, objects, SPLIT_WORDS.get(entry.split.lower()))


def _size(width: Any, height: Any, place: str) -> tuple[float, float]:
    width, height = finite_numbers([width or 0, height or 0], f"{place}: width and height")
    return width, height
