"""Boxes of the images in a folder: PASCAL VOC, COCO, ``boxes.json``, or other programs', for evaluation only.

Convention: see ``mistnn.data.text_files``; boxes are in pixels of the upright image and clipped to it.

* VOC: objects marked as difficult or truncated are objects; as are those of COCO marked with ``ignore``.
* COCO's (x, y, width, height) becomes (x, y, x + width, y + height). Images with a crowd
  (``iscrowd``) are left out: the number of their objects is unknown.
* ``boxes.json``: without labels, all objects are of the class "object".

An annotation that can't be used is left out, with its image: a count without one of its objects would be wrong. A note
names it.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mistnn.data.folder.attributes import Attributes, class_attribute
from mistnn.data.folder.files import TURNED, ImageFiles, ImageHeader, NameMatcher
from mistnn.data.folder.formats import last_part
from mistnn.data.folder.other_tools import YOLO, readable
from mistnn.data.folder.readers import READERS
from mistnn.data.folder.tables import ONLY_CLASS, SPLIT_WORDS
from mistnn.data.folder.yolo_names import names_note
from mistnn.data.images import is_hidden
from mistnn.data.text_files import (
    AnnotatedObject,
    check_file,
    class_name,
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
SHOWN_PROBLEMS = 3
MARKERS = "markers of Cell Counter"
"""The kind whose own name of an image comes before that of the file; both must mean one image."""
_COCO_SPLIT = re.compile(r"instances_([\w-]+)\.json")


class Annotation(NamedTuple):
    """The objects of an image."""

    labels: tuple[str, ...]  #: Class of each object.
    #: x1, y1, x2, y2 of each object; ``None`` if they belong to another size of the image.
    corners: Float[np.ndarray, "n 4"] | None
    split: Split | None  #: If the annotation names one.
    without_box: tuple[str, ...] = ()  #: Class of each further object, whose box has no area.

    @property
    def classes(self) -> tuple[str, ...]:
        """Class of each object, with and without a box."""
        return (*self.labels, *self.without_box)


class Annotations(NamedTuple):
    """The objects of the images of a folder."""

    source: str  #: The files, for messages; empty if there are none.
    of_image: dict[str, Annotation]  #: Name -> annotation; images without annotation are missing.
    notes: tuple[str, ...]  #: Messages of one line each.
    used: frozenset[Path]  #: The files.
    problems: tuple[str, ...]  #: Why annotations are left out, one line each.


class _Written(NamedTuple):
    """An annotation as the file has it."""

    place: str  # for errors
    names: tuple[str, ...]  # of the image; the first match counts
    size: tuple[float, float]  # width and height; 0 where missing
    objects: list[AnnotatedObject]
    split: Split | None = None
    are_boxes: bool = True  # else objects are points, and only their number is known
    relative: bool = False  # corners are shares of the width and the height
    regions: bool = False  # objects are outlines that QuPath calls annotations
    attributes: tuple[Attributes, ...] = ()  # of each object without a class
    slice: str = ""  # of a stack that the objects lie on, unless it is the first
    inner: str = ""  # the image that the file names, if the file's own name is that of an image too


def read_annotations(root: Path, files: ImageFiles, matcher: NameMatcher) -> Annotations:
    """Reads the first of: VOC XML in ``Annotations/`` or beside the images, COCO JSON, ``boxes.json``, other programs'.

    Of other programs, the kind that most files have is read, see ``mistnn.data.folder.formats``.

    COCO JSON may be in the folder or in a direct subfolder, such as ``annotations/`` or ``train/``. Hidden files and
    XML of other kinds are passed over.
    """
    below = [root / name for name in VOC_FOLDERS if (root / name).is_dir()]
    problems: list[str] = []
    voc = _read_all_voc(chain.from_iterable(map(files_below, below)), root, problems)
    if voc:
        return _matched(f"{next(iter(voc)).relative_to(root).parts[0]}/", voc, files, matcher, problems)
    broken: list[str] = []  # whatever it is, it lies where other programs put theirs
    beside = _read_all_voc((header.path.with_suffix(".xml") for header in files.headers), files.folder, broken)
    if beside:
        return _matched("the XML files beside the images", beside, files, matcher, [*problems, *broken])
    written: dict[Path, list[_Written]] = {}
    tops = {root, files.folder}
    coco = sorted(
        {path for top in tops for name in COCO_NAMES for way in (name, f"*/{name}") for path in top.glob(way)}
    )
    for path in coco or [path for path in [root / BOXES_NAME] if os.path.lexists(path)]:
        place = path.relative_to(root)
        if not any(map(is_hidden, place.parts)):
            read = _read_coco if coco else _read_boxes
            try:
                written[path] = list(read(path, root, problems))
            except MistError as error:
                written[path] = []
                problems.append(str(error))
    if not written:
        source, paths = readable(root, files)
        before = tuple(problems)
        other = {path: _read_other(source, path, root, problems) for path in paths}
        _drop_regions(other, problems)
        note = _take_classes(other)
        found = _matched(source, other, files, matcher, problems)
        more = (*_without_name(source, found.of_image.values()), *note) if found.of_image else ()
        more = (*more, *(names_note(paths, root) if source == YOLO and found.of_image else ()))
        found = found._replace(notes=(*found.notes, *more))
        # Files of another program that fit no image are not meant as labels: the folder has none.
        return found if found.of_image else found._replace(source="", used=frozenset(), problems=before)
    source = listed([path.relative_to(root).as_posix() for path in written])
    notes = _check_coco(written) if coco else []
    found = _matched(source, written, files, matcher, problems)
    return found._replace(notes=(*found.notes, *notes))


def _read_other(kind: str, path: Path, root: Path, problems: list[str]) -> list[_Written]:
    place = path.relative_to(root).as_posix()
    folder = place.rpartition("/")[0]

    def names(written: Sequence[str]) -> tuple[str, ...]:
        # An image in the folder of the file comes first: others may have its name.
        beside = [f"{folder}/{name}" for name in written if folder and "/" not in name]
        return tuple(dict.fromkeys([*beside, *written]))

    try:
        return [
            _Written(one.place, names(one.names), one.size, one.objects, None, *one[4:])
            for one in READERS[kind](path, place, problems)
        ]
    except MistError as error:
        problems.append(str(error))
        return []


def _drop_regions(written: dict[Path, list[_Written]], problems: list[str]) -> None:
    """Leaves out an image with annotations of QuPath only, if other images have detections, of other classes.

    Such annotations outline where objects were searched for. Without a detection, their number is unknown.
    """
    found = {item.label for one in chain.from_iterable(written.values()) if not one.regions for item in one.objects}
    for path, listing in written.items():
        for one in [one for one in listing if found and one.regions]:
            other = sorted({item.label for item in one.objects} - found)
            if other:
                has = f"annotations of {listed(other)} and no detections, which other files have"
                problems.append(f"{one.place}: {has}: run the detection on it, or write counts.csv")
                written[path] = [kept for kept in written[path] if kept is not one]


def _take_classes(written: dict[Path, list[_Written]]) -> list[str]:
    """Takes the class of objects that have none from one of their attributes; returns a note, if there is one."""
    name, note = class_attribute([one.attributes for one in chain.from_iterable(written.values())])
    for listing in written.values() if name else ():
        for place, one in enumerate(listing):
            texts = [class_name(more.get(name, "")) for more in one.attributes]
            objects = [item._replace(label=text or item.label) for item, text in zip(one.objects, texts, strict=True)]
            listing[place] = one._replace(objects=objects)
    return [note] if note else []


def _without_name(source: str, found: Iterable[Annotation]) -> list[str]:
    """A note on numbers of YOLO's classes that no list of names has."""
    labels = sorted({label for one in found for label in one.labels if re.fullmatch("class [0-9]+", label)})
    if source != YOLO or not labels:
        return []
    return [f"{listed(labels)} without a name: write it into classes.txt or data.yaml"]


def files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, sorted, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        if not any(map(is_hidden, path.relative_to(folder).parts)) and not path.is_dir():
            yield path


def _matched(
    source: str,
    written: Mapping[Path, Sequence[_Written]],
    files: ImageFiles,
    matcher: NameMatcher,
    problems: list[str],
) -> Annotations:
    """Matches annotations with images; adds to the ``problems``."""
    headers = {header.name: header for header in files.headers}
    folders = {header.name.rpartition("/")[0] for header in files.headers} - {""}
    found: dict[str, Annotation] = {}
    taken: dict[str, _Written] = {}
    misnamed: list[str] = []
    twice: set[str] = set()
    unknown: list[str] = []
    seen = _Seen([], [], [], [], [])
    written_names: list[str] = []
    for one in chain.from_iterable(written.values()):
        if not one.names:
            problems.append(f"{one.place.strip()}: it names no image: write the image's file name there")
            continue
        if (fitting := _fitting(one, matcher)) is None:
            unknown.append(one.names[-1])
            continue
        try:
            name = matcher.find(fitting, one.place)
        except MistError as error:
            problems.append(str(error))
            continue
        if _of_another_folder(one.place, fitting, name, folders):
            unknown.append(one.names[0])
            continue
        if other := _names_another(one, matcher):
            misnamed.append(f"{one.place} {other}" + f", and is taken for {name}" * (source != MARKERS))
            if source == MARKERS:
                continue
        written_names.append(fitting)
        if name in taken:
            problems.append(f"{one.place}: {name} is described in {taken[name].place} already: delete one of the two")
            twice.add(name)
        elif name in headers and headers[name].pages > 1 and one.slice:
            problems.append(
                f"{one.place}: its objects lie on slice {one.slice}, and only the first page of {name} is read"
            )
        elif name in headers:  # otherwise the image can't be used, which has its own note
            taken[name] = one
            found[name] = _annotation(one, headers[name], seen)
    misnaming = _misnaming(source, misnamed)
    problems += misnaming if source == MARKERS else []
    notes = [*matcher.loosely_matched(source, written_names), *_left_out(problems)]
    notes += misnaming if source != MARKERS else []
    if unknown:
        notes.append(f"{source} describes {len(unknown)} images that are not there ({listed(unknown)})")
    found = {name: one for name, one in found.items() if name not in twice}
    notes += [*_without_object(source, found), *_seen_notes(seen)]
    notes += [*_object_notes(source, {name: taken[name].objects for name in found})]
    return Annotations(source, found, tuple(notes), frozenset(written), tuple(problems))


def _fitting(one: _Written, matcher: NameMatcher) -> str | None:
    """The first of an annotation's names that fits an image; one that fits a single image comes first."""
    ways = (matcher.match, matcher.match_loosely)
    fits = [name for match in ways for name in one.names if match(name)]
    return next((name for name in fits if len(matcher.match_loosely(name)) == 1), next(iter(fits), None))


def _without_object(source: str, found: Mapping[str, Annotation]) -> list[str]:
    """A note on images without an object, if there are others."""
    empty = [name for name, one in found.items() if not one.classes]
    if not 0 < len(empty) < len(found):
        return []
    what = f"{len(empty)} images have no object in {source} and count 0 ({listed(empty)})"
    return [f"{what}: take those out that nobody has annotated yet"]


def _left_out(problems: Sequence[str]) -> Iterator[str]:
    yield from (f"annotations are left out: {problem}" for problem in problems[:SHOWN_PROBLEMS])
    if len(problems) > SHOWN_PROBLEMS:
        yield f"annotations are left out for {len(problems) - SHOWN_PROBLEMS} more reasons of this kind"


def _names_another(one: _Written, matcher: NameMatcher) -> str:
    """What a file says about its image, if its own name is that of one image and it names another; else empty."""
    inner = matcher.match_loosely(one.inner) if one.inner else []
    ours = [name for name in one.names if last_part(name) != last_part(one.inner)]
    own = [image for name in ours for image in matcher.match_loosely(name)]
    apart = inner and own and not set(inner) & set(own)
    return f"has the name of {own[0]}, names {inner[0]}" if apart else ""


def _misnaming(source: str, misnamed: Sequence[str]) -> list[str]:
    """A note on files that name another image than their own name does, if there are some."""
    what = f"{source}: {len(misnamed)} files name another image inside than their own name says: "
    return [f"{what}{misnamed[0]}; correct the name that is wrong"] if misnamed else []


def _object_notes(source: str, objects: Mapping[str, Sequence[AnnotatedObject]]) -> Iterator[str]:
    """Notes on unusual objects that are counted, with their numbers; the objects are those of each image."""
    for what, fix, those in (
        ("objects marked as difficult count", "remove those that shall not", lambda one: one.difficult),
        ("objects marked with ignore count", "remove those that shall not", lambda one: one.ignored),
        ("lines count as objects", "remove those that are none, such as scale bars", lambda one: one.line),
        (
            "boxes have a sixth value, as the confidence of predictions, and are used as the true objects",
            "correct them, or remove the files",
            lambda one: one.scored and source == YOLO,
        ),
    ):
        many = {name: number for name, listing in objects.items() if (number := sum(map(those, listing)))}
        if many:
            where = f"in {len(many)} images ({listed(list(many))})"
            yield f"{source}: {sum(many.values())} {what}, {where}: {fix}"


def _of_another_folder(place: str, written: str, name: str, folders: Set[str]) -> bool:
    """Whether a file in the folder of some images names, without a folder, an image that lies in another one.

    Then its own image is missing: labels/a/1.txt does not describe images/b/1.png. The file of a split of COCO,
    instances_a.json, stands for the folder a.
    """
    above, _, file = place.rpartition("/")
    lies = f"/{split[1]}" if (split := _COCO_SPLIT.match(file)) and split[1] in folders else f"/{above}"
    own = max((one for one in folders if lies.endswith(f"/{one}")), key=len, default="")
    return "/" not in written and own not in ("", name.rpartition("/")[0])


class _Seen(NamedTuple):
    """Images with unusual boxes."""

    resized: list[str]
    outside: list[str]
    flat: list[str]
    repeated: list[str]
    turned: list[str]


def _annotation(one: _Written, header: ImageHeader, seen: _Seen) -> Annotation:
    """The objects of an image, in its pixels; adds to what is ``seen``."""
    labels = [item.label for item in one.objects]
    if len({(item.label, item.corners) for item in one.objects}) < len(labels):
        seen.repeated.append(header.name)
    upright, as_stored = (header.width, header.height), (header.height, header.width)
    stored = header.orientation in TURNED and one.size == as_stored != upright
    other_size = min(one.size) > 0 and one.size != upright and not stored
    if other_size:
        seen.resized.append(header.name)
    if other_size or not one.are_boxes:
        return Annotation(tuple(labels), None, one.split)
    told = header.orientation in TURNED and one.size == upright != as_stored
    if header.orientation != 1 and one.objects and not stored and not told:
        seen.turned.append(header.name)
    size = np.array([header.width, header.height] * 2)
    corners = np.array([item.corners for item in one.objects], dtype=np.float64).reshape(-1, 4)
    if stored:
        corners = _upright(corners / [*one.size, *one.size], header.orientation) * size
    else:
        corners = corners * size if one.relative else corners
    # Some programs write where the mouse was pressed and released.
    corners = np.hstack([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])])
    inside = np.all((corners[:, :2] < size[:2]) & (corners[:, 2:] > 0), axis=1)
    flat = inside & np.any(corners[:, 2:] <= corners[:, :2], axis=1)
    if not inside.all():
        seen.outside.append(header.name)
    if flat.any():
        seen.flat.append(header.name)
    kept = np.flatnonzero(inside & ~flat).tolist()
    without = tuple(labels[index] for index in np.flatnonzero(flat).tolist())
    boxes = corners.clip(0, size)[kept]
    return Annotation(tuple(labels[index] for index in kept), boxes, one.split, without)


def _upright(corners: Float[np.ndarray, "n 4"], orientation: int) -> Float[np.ndarray, "n 4"]:
    """Corners on the pixels as they are stored, in shares of the sides, on the upright image; see ``TURNED``."""
    x, y = corners[:, 0::2], corners[:, 1::2]
    across, down = (1 - y if orientation in (6, 7) else y), (1 - x if orientation in (7, 8) else x)
    return np.stack((across[:, 0], down[:, 0], across[:, 1], down[:, 1]), axis=1)


def _seen_notes(seen: _Seen) -> Iterator[str]:
    what = {
        "boxes for another image size are ignored: {} images ({})": seen.resized,
        "boxes outside the image are ignored, in {} images ({})": seen.outside,
        "boxes without area are used for the count alone, in {} images ({})": seen.flat,
        "boxes are taken to be drawn on the image as EXIF turns it, in {} images ({})": seen.turned,
        "objects of one class and place are there twice, in {} images ({}): each counts; delete copies": seen.repeated,
    }
    yield from (text.format(len(names), listed(names)) for text, names in what.items() if names)


def _read_all_voc(paths: Iterable[Path], folder: Path, problems: list[str]) -> dict[Path, list[_Written]]:
    """The VOC annotations among some files; adds to the ``problems`` why XML files can't be used."""
    found: dict[Path, list[_Written]] = {}
    for path in paths:
        if path.suffix.lower() == ".xml" and os.path.lexists(path):
            try:
                check_file(path)
                place = path.relative_to(folder).as_posix()
                tree = read_xml(path, place)
                if tree.tag == "annotation":  # CVAT, microscopes and others write XML too
                    found[path] = [_read_voc(tree, place)]
            except MistError as error:
                problems.append(str(error))
    return found


def _read_voc(tree: ElementTree.Element, place: str) -> _Written:
    objects = list(voc_objects(tree, place))
    # The name of the XML file comes first: <filename> is often the name before the image was converted.
    own = place.rpartition(".")[0]
    inner = own.partition("/")[2] if own.startswith(VOC_FOLDERS) else own
    filename = (tree.findtext("filename") or "").strip()
    sides = [tree.findtext(f"size/{side}") or "0" for side in ("width", "height")]
    width, height = finite_numbers(sides, f"{place}: the size")
    return _Written(place, (inner, filename or inner), (width, height), objects, inner=filename)


def _read_coco(path: Path, root: Path, problems: list[str]) -> Iterator[_Written]:
    place = path.relative_to(root).as_posix()
    within = path.parent.relative_to(root).as_posix()
    for image, objects in read_coco_file(path, place, left_out=problems):
        name = str(image.get("file_name", ""))
        if size := _size(image.get("width"), image.get("height"), f"{place}, image {name}", problems):
            yield _Written(place, (f"{within}/{name}", name), size, objects)


def _check_coco(written: dict[Path, list[_Written]]) -> list[str]:
    """Notes on boxes that are perhaps predictions, and on boxes that are no pixels: their number alone is then used."""
    notes = []
    for path, listing in written.items():
        objects = list(chain.from_iterable(one.objects for one in listing))
        if any(item.scored for item in objects):
            notes.append(
                f"{listing[0].place}: its boxes have scores, so they look like predictions, and they are used as the "
                "true objects: correct them, or remove the file"
            )
        values = [value for item in objects for value in item.corners]
        if values and min(values) >= 0 and max(values) <= 1:
            notes.append(
                f"{listing[0].place}: all boxes lie between 0 and 1, so they are no pixels, which COCO has: only their "
                "number is used; multiply them by the image's width and height"
            )
            written[path] = [one._replace(are_boxes=False) for one in listing]
    return notes


def _read_boxes(path: Path, root: Path, problems: list[str]) -> Iterator[_Written]:
    for entry in read_boxes(path, path.name, problems):
        labels = entry.labels or [ONLY_CLASS] * len(entry.corners)
        objects = [
            AnnotatedObject(class_name(str(label)), box) for label, box in zip(labels, entry.corners, strict=True)
        ]
        split = SPLIT_WORDS.get(entry.split.strip().lower())
        if entry.split.strip() and split is None:
            problems.append(f"{entry.place}: split {entry.split!r} is unknown: use train, validation or test")
            continue
        if size := _size(*entry.size, entry.place, problems):
            yield _Written(entry.place, (entry.file,), size, objects, split)


def _size(width: Any, height: Any, place: str, problems: list[str]) -> tuple[float, float] | None:
    try:
        width, height = finite_numbers([width or 0, height or 0], f"{place}: width and height")
    except MistError as error:
        problems.append(str(error))
        return None
    return width, height
