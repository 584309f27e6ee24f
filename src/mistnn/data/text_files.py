"""Reading text, JSON and XML files that people wrote.

Every function raises ``MistError`` where a file can't be read, is broken or lacks something that it must have. The
message names the file, the place in it and the fix; ``place`` and ``fix`` are the caller's words for the last two.

Convention: boxes become corners x1, y1, x2, y2 in pixels: x right, y down, the first pixel from 0 to 1.

* ``boxes.json`` is a list of {file, width, height, boxes, labels, split}; a box is x1, y1, x2, y2 in this frame.
* PASCAL VOC counts pixels from 1 and includes the last one: (xmin, ymin, xmax, ymax) becomes
  (xmin - 1, ymin - 1, xmax, ymax).
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np

from mistnn.errors import MistError

_JOINERS = "\u200c\u200d"  # zero-width
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
BROKEN = "fix it, or remove it from the folder"
Corners = tuple[float, float, float, float]  #: x1, y1, x2, y2.


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few of some names, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def printable(text: str) -> str:
    r"""A text with "\n" and the like in place of characters that break a line or can't be written."""
    odd = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}
    return "".join(ascii(letter)[1:-1] if letter in odd else letter for letter in text) if odd else text


def one_line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def as_cell(text: str) -> str:
    """A text as it is written to a table: with a "'" before it, if a spreadsheet would take it for a formula.

    Convention: a formula begins with =, +, -, @, a tab or a carriage return. Spreadsheets show the rest as text.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(text: str) -> str:
    """The text that ``as_cell`` has written."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def class_name(text: str) -> str:
    """The name of a class as it was meant: without spaces around it, and without invisible characters.

    These are the format characters of Unicode (category Cf), such as zero-width spaces, byte order marks and soft
    hyphens, which come with text that is copied. Joiners stay between other characters: scripts and emoji need them.
    """
    if text.isascii():
        return text.strip()
    seen = (letter for letter in text if letter in _JOINERS or unicodedata.category(letter) != "Cf")
    return re.sub(rf"^[\s{_JOINERS}]+|[\s{_JOINERS}]+$", "", "".join(seen))


def check_name(name: str, place: str) -> None:
    """Raises ``MistError`` if the name of a class holds a control character, or half of a letter of UTF-16."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise MistError(f"{place}: the class {name[:40]!a} holds a character that can't be written: rename it")


def check_file(path: Path) -> None:
    """Checks that a path is a regular file: reading a pipe would wait forever."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a broken link" if path.is_symlink() else "not a regular file"
        raise MistError(f"{path} is {what}, but this name is reserved for a file: put the file there, or rename this")


def utf_16_of(data: bytes) -> str:
    """The encoding of a text that is UTF-16, from its first bytes; empty if it is not UTF-16."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    # No mark, but every other byte of ASCII letters is 0.
    return ("utf-16-be" if data[0] == 0 else "utf-16-le") if b"\0" in data[:2] else ""


def read_text(path: Path) -> str:
    """A text file in UTF-8 or UTF-16, with or without a byte order mark, or in Windows-1252."""
    check_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MistError(f"{path} can't be read ({error.strerror}): check its permissions") from error
    utf_16 = utf_16_of(data)
    for encoding in [utf_16] if utf_16 else ["utf-8-sig", "cp1252", "latin-1"]:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise MistError(f"{path} is not text, perhaps a spreadsheet: save it as CSV in UTF-8")


def read_json(path: Path, place: str, fix: str = BROKEN) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise MistError(f"{place} is broken JSON ({error}): {fix}") from error


def read_xml(path: Path, place: str, fix: str = BROKEN) -> ElementTree.Element:
    """The root element of an XML file, see ``parse_xml``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MistError(f"{place} is broken XML ({error}): {fix}") from error
    return parse_xml(data, place, fix)


def parse_xml(data: bytes, place: str, fix: str = BROKEN) -> ElementTree.Element:
    """The root element of XML.

    What declares an entity is refused: entities can refer to other files, or grow without limit.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True

    def refuse(*declared: Any) -> int:
        raise MistError(f"{place} declares an entity, which is not read: {fix}")

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start("{" * ("}" in tag) + tag, attributes)

    def end(tag: str) -> None:
        builder.end("{" * ("}" in tag) + tag)

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError, AssertionError) as error:
        raise MistError(f"{place} is broken XML ({error}): {fix}") from error


def finite_numbers(values: Any, place: str, many: int | None = None) -> list[float]:
    """Finite numbers from a value of a file, which should be a list; of length ``many``, if given."""
    if isinstance(values, list) and (many is None or len(values) == many):
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if numbers and all(map(math.isfinite, numbers)):
            return numbers
    raise MistError(f"{place}: {values!r} are not the {many or len(values)} numbers expected: correct them")


class AnnotatedObject(NamedTuple):
    """An object of an image."""

    label: str  #: Its class.
    corners: Corners
    difficult: bool = False  #: Marked as difficult in VOC.
    crowd: bool = False  #: Several objects in one box; COCO does not give their number.
    scored: bool = False  #: It has a score in COCO or YOLO, as predictions do.
    ignored: bool = False  #: Marked as one to ignore in COCO.
    line: bool = False  #: Drawn as a line, as a scale bar is.


def voc_objects(tree: ElementTree.Element, place: str) -> Iterator[AnnotatedObject]:
    """The objects of a PASCAL VOC annotation."""
    for number, entry in enumerate(tree.iter("object"), start=1):
        label = class_name(entry.findtext("name") or "")
        if not label:
            raise MistError(f"{place}: object {number} has no name: write its class")
        written = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = finite_numbers(written, f"{place}: object {number} ({label})")
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        yield AnnotatedObject(label, (left - 1, top - 1, right, bottom), difficult)


def read_coco_file(
    path: Path,
    place: str,
    fix: str = BROKEN,
    crowds: bool = False,
    keys: Sequence[str] = (),
    left_out: list[str] | None = None,
) -> list[tuple[dict[str, Any], list[AnnotatedObject]]]:
    """The images of a COCO file and their objects; without ``crowds``, images that have one are left out.

    Every image must have the ``keys``. An object without a box has that of its polygons. If ``left_out`` is given, an
    image with an annotation that can't be used is left out instead of an error, and its message is added there.
    """
    content = read_json(path, place, fix)
    try:
        classes = _coco_classes(content["categories"], place)
        images = {_coco_id(entry["id"]): entry for entry in content["images"]}
        objects: dict[str, list[AnnotatedObject]] = {number: [] for number in images}
        for number, why in _coco_repeated(content["images"], place).items():
            if left_out is None:
                raise MistError(why)
            left_out.append(why)
            del objects[number]
        unlisted: Counter[str] = Counter()
        for entry in content["annotations"]:
            number = _coco_id(entry["image_id"])
            if number not in images and left_out is not None:
                unlisted[number] += 1
            elif number in objects and not crowds and entry.get("iscrowd", 0):
                if left_out is not None:  # else it lacks the objects of the crowd, as in COCO's own evaluation
                    where = images[number].get("file_name", number)
                    left_out.append(f"{place}: {where} has a crowd (iscrowd), so the number of its objects is unknown")
                    del objects[number]
            elif number in objects:
                name = f"{place}, annotation {entry.get('id')} ({images[number].get('file_name', '')})"
                try:
                    objects[number].append(_coco_object(entry, classes, name))
                except MistError as error:
                    if left_out is None:
                        raise
                    left_out.append(str(error))
                    del objects[number]
            elif number not in images:
                raise KeyError(number)
        if left_out is not None:
            left_out += [
                f"{place}: image {one} is not listed, but has {many} annotations" for one, many in unlisted.items()
            ]
        whole = {number: images[number] for number in objects}
        return [({**image, **{key: image[key] for key in keys}}, objects[number]) for number, image in whole.items()]
    except (KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__} {error}"
        needed = "images, annotations and categories with file_name, width, height, bbox and category_id"
        raise MistError(f"{place} is not a COCO file ({why}): it needs {needed}") from error


def _coco_id(value: Any) -> str:
    """A number of an image or a class: 3, 3.0 and "3" are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _coco_classes(entries: Sequence[dict[str, Any]], place: str) -> dict[str, str]:
    classes: dict[str, str] = {}
    for entry in entries:
        number, name = _coco_id(entry["id"]), class_name(str(entry["name"]))
        if classes.setdefault(number, name) != name:
            raise MistError(f"{place}: category {number} is {classes[number]} and {name}: give each its own id")
    return classes


def _coco_repeated(entries: Sequence[dict[str, Any]], place: str) -> dict[str, str]:
    """Numbers that several images have, each with a message."""
    files: dict[str, dict[str, None]] = {}
    for entry in entries:
        files.setdefault(_coco_id(entry["id"]), {})[str(entry.get("file_name", ""))] = None
    fix = "give each its own id, in its annotations too"
    return {
        number: f"{place}: {listed(list(names))} have one id, {number}: {fix}"
        for number, names in files.items()
        if len(names) > 1
    }


def _coco_object(entry: dict[str, Any], classes: Mapping[str, str], place: str) -> AnnotatedObject:
    label = classes.get(_coco_id(entry.get("category_id")))
    if label is None:
        raise MistError(f"{place}: category {entry.get('category_id')!r} is not listed: add it to categories")
    box, polygons = entry.get("bbox"), entry.get("segmentation")
    crowd, ignored = (bool(entry.get(key, 0)) for key in ("iscrowd", "ignore"))
    if box is None and isinstance(polygons, list) and polygons:
        points = np.array([one for polygon in polygons for one in finite_numbers(polygon, place)])
        x1, y1, x2, y2 = points[::2].min(), points[1::2].min(), points[::2].max(), points[1::2].max()
        return AnnotatedObject(label, (x1, y1, x2, y2), crowd=crowd, ignored=ignored)
    x, y, width, height = finite_numbers(box, place, 4)
    scored = entry.get("score") is not None
    return AnnotatedObject(label, (x, y, x + width, y + height), crowd=crowd, scored=scored, ignored=ignored)


class BoxesEntry(NamedTuple):
    """An entry of ``boxes.json``."""

    place: str  #: Where it stands, for errors.
    file: str  #: Name of the image.
    size: tuple[Any, Any]  #: Width and height as written; ``None`` where missing.
    corners: list[Corners]
    labels: list[Any] | None  #: One per box, as written; ``None`` where missing.
    split: str  #: As written; empty where missing.


def read_boxes(path: Path, place: str, left_out: list[str] | None = None) -> Iterator[BoxesEntry]:
    """The entries of a ``boxes.json``; the caller checks sizes and labels.

    If ``left_out`` is given, an entry that can't be used is left out instead of an error, and its message added there.
    """
    content = read_json(path, place)
    if not isinstance(content, list):
        raise MistError(f"{place} must be a list of entries with file, boxes and labels")
    for number, entry in enumerate(content, start=1):
        try:
            found = _boxes_entry(entry, f"{place}, entry {number}")
        except MistError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
        else:
            yield found


def _boxes_entry(entry: Any, place: str) -> BoxesEntry:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise MistError(f"{place}: no file is named: write an entry with file, boxes and labels")
    own = f"{place} ({entry['file']})"
    boxes, labels = entry.get("boxes"), entry.get("labels")
    if not isinstance(boxes, list):
        raise MistError(f"{own}: no boxes: write a list of [x1, y1, x2, y2], empty if there is no object")
    if "labels" in entry and (not isinstance(labels, list) or len(labels) != len(boxes)):
        raise MistError(f"{own}: {len(boxes)} boxes, but labels are {labels!r}: give one for each")
    corners = [(x1, y1, x2, y2) for x1, y1, x2, y2 in (finite_numbers(box, own, 4) for box in boxes)]
    size = entry.get("width"), entry.get("height")
    return BoxesEntry(own, entry["file"], size, corners, labels, str(entry.get("split") or ""))
