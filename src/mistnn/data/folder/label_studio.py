"""Reading the annotations of Label Studio, exported as JSON: a list of tasks, one for each image.

Convention: see ``mistnn.data.folder.formats``. Label Studio has places and sizes as percentages of the image, and turns
a box clockwise about its upper left corner.

Reference: Label Studio's documentation, "Label Studio JSON format of annotated tasks" and the tags of shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mistnn.data.folder.formats import Drawn, Shape, drawn, is_list, is_object, last_part
from mistnn.data.images import SUFFIXES
from mistnn.data.text_files import class_name, finite_numbers, read_json
from mistnn.errors import MistError

SHAPES = ("rectangle", "ellipse", "polygon", "keypoint")
"""The shapes that are read. Each is also a type with its label, such as ``rectanglelabels``."""
ABOUT = ("labels", "choices", "taxonomy", "textarea", "number", "rating", "datetime", "ranking", "pairwise", "relation")
"""Entries that are no shapes: the label of another entry, or something about the image."""
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


def label_studio(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """Tasks with an annotation. A task without one, or whose only ones were skipped, is not annotated yet."""
    for number, task in enumerate(is_list(read_json(path, place), place), start=1):
        names: tuple[str, ...] = ()
        try:
            task = is_object(task, f"{place}, task {number}")
            names = _names(task)
            own = f"{place}, image {names[0]}" if names else f"{place}, task {number}"
            result = _result(task, own)
            found = None if result is None else _drawn(result, names, own)
        except MistError as error:
            problems.append(str(error))
        else:
            if found is not None:
                yield found


def _names(task: Mapping[str, Any]) -> tuple[str, ...]:
    """What the image of a task may be called: as it is stored, and without what an upload put before it."""
    data = task.get("data")
    texts = [task.get("file_upload"), *(data.values() if isinstance(data, dict) else ())]
    paths = [_path_of(text) for text in texts if isinstance(text, str)]
    names = [name for name in paths if Path(name).suffix.lower() in SUFFIXES]
    return tuple(dict.fromkeys(one for name in names for one in (name, _UPLOADED.sub("", name))))


def _path_of(address: str) -> str:
    """The name of a file from its address; of a local file, its path."""
    text = address.replace("\\", "/")
    _, local, path = text.partition("?d=")
    if local:
        return unquote(path).lstrip("/")
    return last_part(unquote(re.split("[?#]", text)[0]) if "://" in text else text)


def _result(task: Mapping[str, Any], place: str) -> list[Any] | None:
    """What was drawn in a task; ``None`` if nobody has annotated it yet."""
    listing = [is_object(one, place) for one in is_list(task.get("annotations", []), place)]
    listing = [one for one in listing if not one.get("was_cancelled")]
    listing = [one for one in listing if one.get("ground_truth")] or listing
    if len(listing) > 1:
        raise MistError(f"{place} has {len(listing)} annotations: mark one as ground truth, or delete the others")
    return is_list(listing[0].get("result"), place) if listing else None


def _drawn(result: list[Any], names: tuple[str, ...], place: str) -> Drawn:
    """The objects of a task. Entries with one id are the shape and the label of one object."""
    entries = [is_object(one, place) for one in result]
    values = [(str(entry.get("id")), entry.get("value")) for entry in entries]
    labels = {key: label for key, value in values if isinstance(value, dict) and (label := _label(value))}
    shapes, size = [], (0.0, 0.0)
    for number, entry in enumerate(entries, start=1):
        if entry.get("type") in ABOUT:
            continue
        kind = str(entry.get("type")).removesuffix("labels")
        own = f"{place}: {kind} {number}"
        if kind not in SHAPES:
            raise MistError(f"{own} is a shape that isn't read: use boxes, polygons, ellipses or points")
        if entry.get("image_rotation"):
            raise MistError(f"{own} was drawn on a turned image: turn the image back in Label Studio")
        wide, high = finite_numbers([entry.get("original_width"), entry.get("original_height")], f"{own}: the size")
        value, size = is_object(entry.get("value"), own), (wide, high)
        label = _label(value) or labels.get(str(entry.get("id")), "")
        shapes.append(Shape(class_name(label), _points(kind, value, size, own)))
    return drawn(place, names, size, shapes)


def _label(value: Mapping[str, Any]) -> str:
    """The label of a shape; several are one text, which has a note of its own."""
    lists = [texts for key, texts in value.items() if key.endswith("labels") and isinstance(texts, list)]
    return ", ".join(str(text) for texts in lists for text in texts)


def _points(kind: str, value: Mapping[str, Any], size: tuple[float, float], place: str) -> list[tuple[float, float]]:
    """Points, in pixels, with the same box around them as a shape."""
    wide, high = size[0] / 100, size[1] / 100
    if kind == "polygon":
        pairs = [finite_numbers(one, place, 2) for one in is_list(value.get("points"), place)]
        if not pairs:
            raise MistError(f"{place}: no points: draw the object again, or delete it")
        return [(x * wide, y * high) for x, y in pairs]
    x, y = finite_numbers([value.get("x"), value.get("y")], place)
    x, y = x * wide, y * high
    if kind == "keypoint":
        return [(x, y)]
    (angle,) = finite_numbers([value.get("rotation") or 0], place)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    if kind == "ellipse":
        across, down = finite_numbers([value.get("radiusX"), value.get("radiusY")], place)
        across, down = across * wide, down * high
        right, below = math.hypot(across * cos, down * sin), math.hypot(across * sin, down * cos)
        return [(x - right, y - below), (x + right, y + below)]
    across, down = finite_numbers([value.get("width"), value.get("height")], place)
    across, down = across * wide, down * high
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in ((0, 0), (across, 0), (across, down), (0, down))]
