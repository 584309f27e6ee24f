"""Reading the annotations of other programs: CVAT, LabelMe, VIA, YOLO, ImageJ, QuPath and napari.

Convention: see ``mistnn.data.text_files``. Boxes are in pixels; other shapes have the box around them. An image with a
point among its objects has counts and no boxes. A label that is missing is ``ONLY_CLASS``. Every reader raises
``MistError`` for a file that can't be used, and adds to the problems what it leaves out of one.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from mistnn.data.folder.attributes import CLASS_WORDS, Attributes
from mistnn.data.folder.sheets import archived, check_archive
from mistnn.data.folder.tables import ONLY_CLASS
from mistnn.data.folder.yolo_names import class_number, has_keypoints, yolo_levels, yolo_names
from mistnn.data.text_files import (
    AnnotatedObject,
    Corners,
    class_name,
    finite_numbers,
    from_cell,
    one_line,
    read_json,
    read_text,
    read_xml,
)
from mistnn.errors import MistError

MOST_OUTSIDE = 0.5  #: Of YOLO's shares: how far they may lie outside the image (our choice).
VIA_COLUMNS = {"shape_attributes": "region_shape_attributes", "region_attributes": "region_attributes"}
"""The keys of a region in VIA's JSON -> the columns in its CSV."""
NAPARI_AXES, NAPARI_THIRD = ("axis-0", "axis-1"), "axis-2"
"""Columns of napari: row and column of a point, and the third coordinate of one in a stack."""
QUPATH_IDS = {
    "PathCellObject": "cell",
    "PathDetectionObject": "detection",
    "PathTileObject": "detection",
    "PathRootObject": "root",
    "TMACoreObject": "tma_core",
}
"""The kinds of objects in the identifiers of QuPath 0.2; later versions have the property objectType."""
_ROI_NAMES = re.compile(r"[ _.-]*(roi|rois|roiset|cellcounter|annotations?|counts?|points|shapes)$", re.IGNORECASE)
"""What programs append to the name of an image."""
_ROI_BEGINNINGS = re.compile(r"^(cellcounter|roiset)[ _.-]+", re.IGNORECASE)


class Drawn(NamedTuple):
    """The objects of an image, as another program has them."""

    place: str  #: For messages.
    names: tuple[str, ...]  #: Of the image; the first that fits counts.
    size: tuple[float, float]  #: Width and height; 0 where unknown.
    objects: list[AnnotatedObject]
    are_boxes: bool  #: Whether all have a box.
    relative: bool = False  #: Whether corners are shares of the image's width and height.
    regions: bool = False  #: Whether objects are outlines that QuPath calls annotations.
    #: Of each object that VIA gives no class: its other attributes. Empty where they don't matter.
    attributes: tuple[Attributes, ...] = ()
    slice: str = ""  #: Of a stack that all objects lie on, unless it is the first.
    inner: str = ""  #: The image that the file names, if the file's own name is that of an image too.


class Shape(NamedTuple):
    """An object: its label and its points; one point is no box."""

    label: str
    points: Sequence[tuple[float, float]]
    line: bool = False  #: Whether it is a line and no outline.


def drawn(place: str, names: Iterable[str], size: tuple[float, float], shapes: Sequence[Shape]) -> Drawn:
    """The boxes around shapes."""
    objects = [
        AnnotatedObject(class_name(shape.label) or ONLY_CLASS, around(shape.points), line=shape.line)
        for shape in shapes
    ]
    boxes = all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in (one.corners for one in objects))
    return Drawn(place, tuple(dict.fromkeys(filter(None, names))), size, objects, boxes)


def around(points: Sequence[tuple[float, float]]) -> Corners:
    """The corners of the box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def cvat(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """CVAT for images 1.1."""
    tree = read_xml(path, place)
    if tree.find("track") is not None:
        raise MistError(f"{place} holds tracks of a video: export it as CVAT for images")
    for image in tree.iter("image"):
        name = image.get("name", "")
        own = f"{place}, image {name}"
        try:
            width, height = finite_numbers([image.get("width", 0), image.get("height", 0)], f"{own}: the size")
            shapes = [shape for entry in image for shape in _cvat_shapes(entry, own)]
        except MistError as error:
            problems.append(str(error))
        else:
            yield drawn(own, (name,), (width, height), shapes)


def _cvat_shapes(entry: ElementTree.Element, place: str) -> Iterator[Shape]:
    label, own = entry.get("label") or "", f"{place}: {entry.tag}"
    if entry.tag == "box":
        x1, y1, x2, y2 = finite_numbers([entry.get(side) for side in ("xtl", "ytl", "xbr", "ybr")], own)
        across, down = (x2 - x1) / 2, (y2 - y1) / 2
        (angle,) = finite_numbers([entry.get("rotation", 0)], own)
        turn = math.radians(angle)
        # The box around the turned one, both with the same centre.
        wide = abs(across * math.cos(turn)) + abs(down * math.sin(turn))
        high = abs(across * math.sin(turn)) + abs(down * math.cos(turn))
        yield Shape(label, _centred((x1 + x2) / 2, (y1 + y2) / 2, wide, high) if turn else ((x1, y1), (x2, y2)))
    elif entry.tag == "ellipse":
        x, y, across, down = finite_numbers([entry.get(name) for name in ("cx", "cy", "rx", "ry")], own)
        (angle,) = finite_numbers([entry.get("rotation", 0)], own)
        turn = math.radians(angle)
        wide = math.hypot(across * math.cos(turn), down * math.sin(turn))
        high = math.hypot(across * math.sin(turn), down * math.cos(turn))
        yield Shape(label, _centred(x, y, wide, high))
    elif entry.tag == "mask":
        x, y, wide, high = finite_numbers([entry.get(name) for name in ("left", "top", "width", "height")], own)
        yield Shape(label, ((x, y), (x + wide, y + high)))
    elif entry.tag in ("polygon", "polyline", "points"):
        pairs = [one.split(",") for one in (entry.get("points") or "").split(";")]
        points = _pairs(pairs, own)
        # Points of one entry are objects of their own.
        whole = [Shape(label, points, entry.tag == "polyline")]
        yield from [Shape(label, [one]) for one in points] if entry.tag == "points" else whole
    elif entry.tag != "tag":
        raise MistError(f"{own} is a shape that isn't read: use boxes, polygons, ellipses or points")


def _centred(x: float, y: float, wide: float, high: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two corners of a box, given its centre and half of its sides."""
    return (x - wide, y - high), (x + wide, y + high)


def labelme(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """LabelMe: one JSON file for each image. Shapes of one class and one ``group_id`` are parts of one object."""
    content = is_object(read_json(path, place), place)
    shapes: list[Shape] = []
    groups: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(is_list(content.get("shapes"), f"{place}: shapes"), start=1):
        own = f"{place}: shape {number}"
        entry = is_object(entry, own)
        kind, points = entry.get("shape_type") or "polygon", _pairs(is_list(entry.get("points"), own), own)
        if kind == "circle" and len(points) == 2:
            (x, y), other = points
            radius = math.dist((x, y), other)
            points = [(x - radius, y - radius), (x + radius, y + radius)]
        single = kind in ("point", "points")
        label = class_name(str(entry.get("label") or ""))
        group = (label, str(entry["group_id"])) if entry.get("group_id") is not None and not single else None
        if group in groups:
            place_of_first = groups[group]
            first = shapes[place_of_first]
            shapes[place_of_first] = first._replace(points=[*first.points, *points])
            continue
        if group is not None:
            groups[group] = len(shapes)
        line = kind in ("line", "linestrip")
        shapes += [Shape(label, [one]) for one in points] if single else [Shape(label, points, line)]
    size = finite_numbers([content.get("imageWidth") or 0, content.get("imageHeight") or 0], f"{place}: the size")
    inner = last_part(content.get("imagePath"))
    yield drawn(place, (path.stem, inner), (size[0], size[1]), shapes)._replace(inner=inner)


def via(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """VIA: a project, or its annotations as JSON or CSV."""
    if path.suffix.lower() == ".csv":
        yield from _via_rows(path, place, problems)
        return
    content = is_object(read_json(path, place), place)
    entries = is_object(content.get("_via_img_metadata", content), place)
    for entry in entries.values():
        name = entry.get("filename") if isinstance(entry, dict) else None
        own = f"{place}, image {name}"
        try:
            regions = is_object(entry, own).get("regions") or []
            listing = list(regions.values()) if isinstance(regions, dict) else is_list(regions, own)
            found = _via_drawn(own, str(name), [(is_object(one, own), own) for one in listing])
        except MistError as error:
            problems.append(str(error))
        else:
            yield found


def _via_rows(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """Of VIA's CSV, which has a row for each region, and one without a shape for an image without regions."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise MistError(f"{place} is broken CSV ({error}): export it again") from error
    images: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for number, row in enumerate(rows, start=2):
        # The first column is #filename, or filename in older versions.
        name = next((str(row[key] or "") for key in ("#filename", "filename") if key in row), "")
        if not name:
            raise MistError(f"{place}, row {number}: no image is named: export it again")
        images.setdefault(name, []).append((f"{place}, row {number}, image {name}", row))
    for name, regions in images.items():
        try:
            listing = [
                ({key: _via_cell(row.get(column), own) for key, column in VIA_COLUMNS.items()}, own)
                for own, row in regions
                if (row.get("region_count") or "0").strip() != "0" or _via_cell(row.get("region_shape_attributes"), own)
            ]
            found = _via_drawn(f"{place}, image {name}", name, listing)
        except MistError as error:
            problems.append(str(error))
        else:
            yield found


def _via_drawn(place: str, name: str, regions: Sequence[tuple[dict[str, Any], str]]) -> Drawn:
    """The regions of an image, each with its place for messages."""
    texts = [_via_texts(region) for region, _ in regions]
    keys = [next((word for word in CLASS_WORDS if word in one), None) for one in texts]
    labels = ["" if key is None else one[key] for key, one in zip(keys, texts, strict=True)]
    shapes = [_via_shape(region, label, own) for (region, own), label in zip(regions, labels, strict=True)]
    others = tuple(one if key is None else {} for key, one in zip(keys, texts, strict=True))
    return drawn(place, (name,), (0, 0), shapes)._replace(attributes=others)


def _via_texts(region: dict[str, Any]) -> dict[str, str]:
    """The attributes of a region as texts; those of check boxes are the names of the chosen ones."""
    attributes = region.get("region_attributes")
    return {
        name: " ".join(str(one) for one, on in value.items() if on) if isinstance(value, dict) else str(value)
        for name, value in (attributes.items() if isinstance(attributes, dict) else ())
    }


def _via_cell(text: Any, place: str) -> dict[str, Any]:
    """A cell with JSON; an empty one is an empty object."""
    try:
        return is_object(json.loads(str(text or "{}")), place)
    except (ValueError, RecursionError) as error:
        raise MistError(f"{place} is broken JSON ({error}): export it again") from error


def _via_shape(region: dict[str, Any], label: str, place: str) -> Shape:
    shape = is_object(region.get("shape_attributes"), place)
    kind = shape.get("name")

    def numbers(*names: str) -> list[float]:
        return finite_numbers([shape.get(name) for name in names], f"{place}: {kind}")

    if kind == "rect":
        x, y, wide, high = numbers("x", "y", "width", "height")
        return Shape(label, ((x, y), (x + wide, y + high)))
    if kind in ("circle", "ellipse"):
        x, y, *radii = numbers("cx", "cy", *(("r",) if kind == "circle" else ("rx", "ry")))
        return Shape(label, ((x - radii[0], y - radii[-1]), (x + radii[0], y + radii[-1])))
    if kind == "point":
        x, y = numbers("cx", "cy")
        return Shape(label, ((x, y),))
    if kind in ("polygon", "polyline"):
        rows = [is_list(shape.get(f"all_points_{axis}"), f"{place}: {kind}") for axis in "xy"]
        if len(rows[0]) == len(rows[1]):
            return Shape(label, _pairs(list(zip(*rows, strict=True)), f"{place}: {kind}"), kind == "polyline")
    raise MistError(f"{place}: a shape {kind!r} isn't read: use rectangles, polygons, circles, ellipses or points")


def yolo(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """YOLO: one text file for each image; class, then a box or a polygon as shares of the image."""
    levels = yolo_levels(place)
    classes, keypoints = yolo_names(path, levels), has_keypoints(path, levels)
    objects: list[AnnotatedObject] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        own = f"{place}, row {number}"
        first, *rest = line.split()
        if (index := class_number(first)) is None:
            raise MistError(f"{own}: {first[:40]!r} is no number of a class: write 0, 1, 2, ...")
        values = finite_numbers(list(rest), own)
        if len(values) > 3 and not all(-MOST_OUTSIDE <= value <= 1 + MOST_OUTSIDE for value in values[:4]):
            raise MistError(f"{own}: {' '.join(rest[:4])} are no shares of the image: divide pixels by its size")
        label = classes.get(index) or f"class {index}"
        if len(values) in (4, 5):  # the fifth is the confidence of a prediction
            x, y, wide, high = values[:4]
            corners = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
            objects.append(AnnotatedObject(label, corners, scored=len(values) == 5))
        elif len(values) == 6 and values[5].is_integer() and values[5] > 1:
            raise MistError(f"{own} has the number of a track: write a box alone, of 4 numbers after the class")
        elif len(values) >= 6 and (keypoints or any(value > 1 + MOST_OUTSIDE for value in values)):
            raise MistError(f"{own} has keypoints of a pose: write a box alone, of 4 numbers after the class")
        elif len(values) >= 6 and len(values) % 2 == 0:
            objects.append(AnnotatedObject(label, around(list(zip(values[::2], values[1::2], strict=True)))))
        else:
            raise MistError(f"{own}: {len(values)} numbers after the class: write 4, centre x, centre y, width, height")
    inner = place.partition("/")[2] if "/" in place else place
    beside = re.sub("(^|/)labels/", r"\1images/", place, flags=re.IGNORECASE)
    names = tuple(dict.fromkeys(one.rpartition(".")[0] for one in (beside, inner, path.name)))
    yield Drawn(place, names, (0, 0), objects, are_boxes=True, relative=True)


def cell_counter(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """Cell Counter of ImageJ and Fiji: points of several types."""
    tree = read_xml(path, place)
    shapes, slices = [], set[str]()
    for kind in tree.iter("Marker_Type"):
        number = (kind.findtext("Type") or "").strip()
        label = class_name(kind.findtext("Name") or "") or f"type {number}"
        for marker in kind.iter("Marker"):
            written = [marker.findtext(f"Marker{axis}") for axis in "XY"]
            x, y = finite_numbers(written, f"{place}: a marker of {label}")
            shapes.append(Shape(label, ((x, y),)))
            slices.add((marker.findtext("MarkerZ") or "").strip())
    own = _one_slice(slices, place)
    inner = last_part(tree.findtext("Image_Properties/Image_Filename"))
    yield drawn(place, (inner, path.stem, own_name(path)), (0, 0), shapes)._replace(slice=own, inner=inner)


def imagej_rois(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """ROIs of ImageJ and Fiji: a ``.zip`` of the ROI manager, or one ``.roi``.

    Group 2 is the class "group 2", and counter 1 of the Multi-point tool "counter 1"; 0 of both is ``ONLY_CLASS``.
    """
    try:
        roifile = importlib.import_module("roifile")
    except ImportError as error:
        raise MistError(f"{place}: ROIs are read with roifile: pip install 'mistnn[files]'") from error
    try:
        if path.suffix.lower() == ".zip":
            check_archive(path, place)
            with zipfile.ZipFile(path) as archive:
                read = [roifile.ImagejRoi.frombytes(archive.read(entry)) for entry in archived(archive)]
        else:
            read = [roifile.roiread(path)]
    except MistError:
        raise
    except Exception as error:  # roifile and zipfile raise errors of many kinds on damaged files
        raise MistError(f"{place} can't be read ({one_line(error)}): save the ROIs again") from error
    own = _one_slice({one for roi in read for one in _slices(roi)}, place)
    shapes = []
    for roi in read:
        label = f"group {roi.group}" if roi.group else ""
        if roi.roitype == roifile.ROI_TYPE.POINT:
            points = [(float(x), float(y)) for x, y in roi.coordinates()]
            # The Multi-point tool counts with several counters; without any, all points are of counter 0.
            counters = iter([] if roi.counters is None else roi.counters.tolist())
            for point in points:
                counter = next(counters, 0)
                shapes.append(Shape(f"{label} counter {counter}" if counter else label, (point,)))
        else:
            line = roi.roitype.name in ("LINE", "FREELINE", "POLYLINE", "ANGLE")
            shapes.append(Shape(label, ((roi.left, roi.top), (roi.right, roi.bottom)), line))
    yield drawn(place, (path.stem, own_name(path)), (0, 0), shapes)._replace(slice=own)


def _slices(roi: Any) -> list[str]:
    """The slices of a stack that a ROI of ImageJ lies on, by depth and time if they are known; "0" for all."""
    if roi.z_position or roi.t_position:
        return [f"depth {roi.z_position or 1}, time {roi.t_position or 1}"]
    several = [] if roi.counter_positions is None else roi.counter_positions.tolist()
    return list(map(str, several)) or [str(0 if roi.c_position else roi.position)]


def _one_slice(slices: Set[str], place: str) -> str:
    """The slice of a stack that objects lie on, empty for the first one or none.

    Raises:
        MistError: if they lie on several: only the first page of an image is read.
    """
    if len(found := slices - {"", "0"}) > 1:
        raise MistError(
            f"{place} has objects on {len(found)} slices of a stack, and only its first page is read: save those of "
            "that page alone, or write counts.csv"
        )
    return next(iter(found - {"1", "depth 1, time 1"}), "")


def geojson(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """QuPath: the objects of one image. Detections and cells count; annotations only where there are none."""
    content = read_json(path, place)
    features = content.get("features") if isinstance(content, dict) else content
    shapes: dict[bool, list[Shape]] = {True: [], False: []}
    for number, feature in enumerate(is_list(features, place), start=1):
        own = f"{place}, feature {number}"
        feature = is_object(feature, own)
        about = feature.get("properties")
        about = about if isinstance(about, dict) else {}
        label = _classification(about.get("classification"))
        kind = str(about.get("objectType") or about.get("object_type") or "").lower()
        kind = kind or QUPATH_IDS.get(str(feature.get("id")), "")
        if kind not in ("root", "tma_core"):
            shapes[kind in ("detection", "cell")] += _geometry(is_object(feature.get("geometry"), own), label, own)
    found = drawn(place, (path.stem, own_name(path)), (0, 0), shapes[True] or shapes[False])
    yield found._replace(regions=not shapes[True] and any(len(one.points) > 1 for one in shapes[False]))


def _classification(written: Any) -> str:
    """The class of an object in QuPath. Later versions list the names of a derived class: "Tumor: Positive" is two."""
    if not isinstance(written, dict):
        return str(written or "")
    names = written.get("names")
    listing = [str(name) for name in names if name] if isinstance(names, list) else []
    return str(written.get("name") or "") or ": ".join(listing)


def _geometry(geometry: dict[str, Any], label: str, place: str) -> list[Shape]:
    kind, places = geometry.get("type"), geometry.get("coordinates")
    if kind == "Point":
        return [Shape(label, _pairs([places], place))]
    rows = is_list(places, place)
    if not rows:
        raise MistError(f"{place}: a {kind} without coordinates: draw the object again, or delete it")
    if kind == "MultiPoint":
        return [Shape(label, [one]) for one in _pairs(rows, place)]
    if kind == "LineString":
        return [Shape(label, _pairs(rows, place), line=True)]
    if kind == "Polygon":
        return [Shape(label, _pairs(is_list(rows[0], place), place))]
    if kind == "MultiPolygon":  # one object in several parts
        outlines = [outline for part in rows for outline in is_list(part, place)[:1]]
        return [Shape(label, [one for outline in outlines for one in _pairs(is_list(outline, place), place)])]
    raise MistError(f"{place}: a geometry {kind!r} isn't read: use points or polygons")


def napari(path: Path, place: str, problems: list[str]) -> Iterator[Drawn]:
    """A layer of points or shapes that napari saved as CSV: one file for each image; a column ``class`` is optional.

    napari has the first pixel's centre at 0, and the row before the column.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise MistError(f"{place} is broken CSV ({error}): save the layer again") from error
    if rows and NAPARI_THIRD in rows[0]:
        raise MistError(f"{place} has points in three dimensions: draw them on a two-dimensional image")
    objects: dict[str, tuple[str, list[tuple[float, float]]]] = {}
    for number, row in enumerate(rows):
        own = f"{place}, row {number + 2}"
        y, x = finite_numbers([row.get(axis) for axis in NAPARI_AXES], own)
        key = str(row.get("index")) if "shape-type" in row else str(number)
        label = next((from_cell(str(row[name] or "").strip()) for name in ("class", "label") if name in row), "")
        objects.setdefault(key, (label, []))[1].append((x + 0.5, y + 0.5))
    names = (path.stem, own_name(path))
    yield drawn(place, names, (0, 0), [Shape(label, points) for label, points in objects.values()])


def own_name(path: Path) -> str:
    """The name of the image that a file is about: its own, without what programs put before it and behind it."""
    return _ROI_NAMES.sub("", _ROI_BEGINNINGS.sub("", path.stem)) or path.stem


def last_part(written: Any) -> str:
    """The name of a file, from its path."""
    return str(written or "").replace("\\", "/").rpartition("/")[2].strip()


def _pairs(values: Sequence[Any], place: str) -> list[tuple[float, float]]:
    if not values:
        raise MistError(f"{place}: no points: draw the object again, or delete it")
    pairs = [finite_numbers(list(one)[:2] if isinstance(one, list | tuple) else one, place, 2) for one in values]
    return [(x, y) for x, y in pairs]


def is_list(value: Any, place: str) -> list[Any]:
    """A value of a file that must be a list; else raises ``MistError``."""
    if not isinstance(value, list):
        raise MistError(f"{place}: {str(value)[:40]!r} is no list: export the file again")
    return value


def is_object(value: Any, place: str) -> dict[str, Any]:
    """A value of a file that must be an object of JSON; else raises ``MistError``."""
    if not isinstance(value, dict):
        raise MistError(f"{place}: {str(value)[:40]!r} is not what is expected there: export the file again")
    return value
