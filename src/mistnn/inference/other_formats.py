"""The detections of a prediction as files of other programs: YOLO, LabelMe, ROIs of ImageJ and shapes of napari.

Convention: each format has a folder in the results, with one file for each image at the image's own relative path, and
an empty file ``.mistnn``. Only a folder with that file is ever replaced. Files of YOLO lie in its subfolder ``labels``.
An image that shares its name without suffix with another one, such as a.png and a.jpg, has a file with its whole name:
a.png.txt and a.jpg.txt.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import os
import shutil
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mistnn.data.folder.files import ImageHeader, read_header
from mistnn.data.folder.formats import NAPARI_AXES
from mistnn.data.folder.tables import ONLY_CLASS
from mistnn.data.images import DETECTIONS_FILE, UnreadableImage, find_images
from mistnn.data.text_files import as_cell, from_cell, listed
from mistnn.errors import MistError, MistWarning
from mistnn.files import replace_file, write_through
from mistnn.inference.tables import COUNTS_FILE

FormatName = Literal["yolo", "labelme", "imagej", "napari"]
FOLDERS: Mapping[FormatName, str] = {"yolo": "yolo", "labelme": "labelme", "imagej": "rois", "napari": "napari"}
SUFFIXES: Mapping[FormatName, str] = {"yolo": ".txt", "labelme": ".json", "imagej": ".zip", "napari": ".csv"}
NAMES_FILE, LABELS = "classes.txt", "labels"
MARKER = ".mistnn"
"""In each folder that is written here: the folder may be replaced."""
RECORD = ".formats.json"
"""The model and the images of the tables, by their hashes, while other formats are written from them."""
MOST_GROUPS = 255
"""Groups of ROIs that ImageJ knows."""


class Box(NamedTuple):
    """A detection, in pixels."""

    x: float
    y: float
    w: float
    h: float
    label: str
    score: float


def check_formats(out: Path, formats: Sequence[FormatName], force: bool) -> None:
    """Checks, before a prediction, that its detections can be written in other formats.

    Raises:
        MistError: if a package is missing, or a folder of a format is there already; with ``force`` only if no
            prediction has written it.
    """
    if "imagej" in formats:
        _roifile()
    taken = [FOLDERS[name] for name in formats if os.path.lexists(out / FOLDERS[name])]
    if taken and not force:
        raise MistError(f"--out {out} already holds {', '.join(taken)}: give another folder, or --force to replace it")
    for name in taken:
        _check_ours(out / name)


def _check_ours(folder: Path) -> None:
    if os.path.lexists(folder) and (folder.is_symlink() or not (folder / MARKER).is_file()):
        raise MistError(f"{folder} was not written by this version of mist predict: rename or remove it")


def unwritten(out: Path, formats: Sequence[FormatName]) -> bool:
    """Whether a prediction was killed after its tables were complete, while it wrote these formats."""
    begun = any(os.path.lexists(out / f".{FOLDERS[name]}.{end}") for name in formats for end in ("part", "old"))
    return begun and (out / DETECTIONS_FILE).is_file()


def check_same(
    out: Path, paths: Sequence[Path | str], class_names: Sequence[str], identity: Mapping[str, str] | None = None
) -> None:
    """Checks that the complete tables in ``out`` are those of these images and this model.

    Args:
        identity: of the model and the images, as ``write_formats`` took it; compared if it was kept.

    Raises:
        MistError: if the tables have other classes, an image of them is missing, one was changed after they were
            written, or model or images are others.
    """
    table = out / COUNTS_FILE
    fix = "give the same model and images, or predict again with --force"
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        classes = {from_cell(row["class"]) for row in csv.DictReader(file)}
    if classes - {""} != set(class_names):
        raise MistError(f"--resume: the results in {out} are those of another model: {fix}")
    found = {file.name: file.path for file in find_images(paths, out)}
    gone = sorted(_predicted(table) - set(found))
    if gone:
        raise MistError(f"--resume: the results in {out} are those of other images, such as {gone[0]}: {fix}")
    if changed := [name for name, path in found.items() if path.stat().st_mtime > table.stat().st_mtime]:
        raise MistError(f"--resume: images were changed after the results in {out} were written ({changed[0]}): {fix}")
    kept = json.loads((out / RECORD).read_text(encoding="utf-8")) if identity and (out / RECORD).is_file() else {}
    if different := [name for name, value in kept.items() if (identity or {}).get(name) != value]:
        others = {"model": "of another model", "images": "of other images, or some were changed"}[different[0]]
        raise MistError(f"--resume: the results in {out} are those {others}: {fix}")


def write_formats(
    out: Path,
    paths: Sequence[Path | str],
    class_names: Sequence[str],
    formats: Sequence[FormatName],
    identity: Mapping[str, str] | None = None,
) -> None:
    """Writes the detections in ``out`` in other formats; earlier files of a format are replaced.

    Warns if two images differ in their suffix only: YOLO looks for one file for both.

    Args:
        out: the folder of a finished prediction.
        paths: its images.
        class_names: those of the model; empty for a model without classes.
        identity: of the model and the images, see ``stage.identity_of``; kept until all is written, for
            ``check_same``.

    Raises:
        MistError: if a package is missing, a folder can't be written to, or is there and no prediction has written it.
    """
    for kind in formats:
        _check_ours(out / FOLDERS[kind])
    names = tuple(class_names) or (ONLY_CLASS,)
    found = _detections(out / DETECTIONS_FILE) if formats else {}
    headers = list(_headers(paths, out, _predicted(out / COUNTS_FILE))) if formats else []
    _note_turned(formats, headers)
    try:
        if formats and identity is not None:
            replace_file(out / RECORD, json.dumps(identity).encode())
        for kind in formats:
            aside = out / f".{FOLDERS[kind]}.part"
            shutil.rmtree(aside, ignore_errors=True)
            top = aside / LABELS if kind == "yolo" else aside
            top.mkdir(parents=True)
            stems = _distinct([header.name for header in headers])
            for header in headers:
                target = top / (stems[header.name] + SUFFIXES[kind])
                target.parent.mkdir(parents=True, exist_ok=True)
                size = header.width, header.height
                write_through(target, WRITERS[kind](header.name, size, found.get(header.name, []), names))
            if kind == "yolo":
                write_through(aside / NAMES_FILE, "".join(f"{name}\n" for name in names).encode())
                if shared := [name for name, stem in stems.items() if name == stem and Path(name).suffix]:
                    warnings.warn(
                        f"yolo: {listed(shared)} share a name without suffix, so their files have the whole name, "
                        "which other programs don't look for: rename the images and predict them again",
                        MistWarning,
                        stacklevel=2,
                    )
            write_through(aside / MARKER, b"")
            old = out / f".{FOLDERS[kind]}.old"
            shutil.rmtree(old, ignore_errors=True)
            if os.path.lexists(out / FOLDERS[kind]):  # moved first: half removed, it would seem to be another's
                os.replace(out / FOLDERS[kind], old)
            os.replace(aside, out / FOLDERS[kind])
            shutil.rmtree(old, ignore_errors=True)
        (out / RECORD).unlink(missing_ok=True)
    except OSError as error:
        raise MistError(f"can't write to {out} ({error.strerror}): give a writable folder with enough space") from error


def _note_turned(formats: Sequence[str], headers: Iterable[ImageHeader]) -> None:
    """Warns of images that EXIF turns."""
    if turned := [header.name for header in headers if header.orientation != 1]:
        warnings.warn(
            f"{', '.join(formats)}: EXIF turns {listed(turned)}, and the boxes are those of the upright image: for a "
            "program that shows the stored pixels, such as ImageJ, save the image upright and predict it again",
            MistWarning,
            stacklevel=3,
        )


def _headers(paths: Sequence[Path | str], out: Path, predicted: Container[str]) -> Iterator[ImageHeader]:
    """Of the images that were predicted; the others, which the prediction has named, hold no one knows what."""
    for file in find_images(paths, out):
        if file.name in predicted:
            with contextlib.suppress(UnreadableImage):  # gone since
                yield read_header(file)


def _predicted(counts: Path) -> set[str]:
    with counts.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return {from_cell(row["file"]) for row in csv.DictReader(file)}


def _distinct(names: Sequence[str]) -> dict[str, str]:
    """Name -> the name without suffix, or the whole name where it would be that of another image."""
    stems = {name: Path(name).with_suffix("").as_posix() for name in names}
    while twice := [stem for stem, many in Counter(stems.values()).items() if many > 1]:
        stems = {name: name if stem in twice else stem for name, stem in stems.items()}
    return stems


def as_yolo(name: str, size: tuple[int, int], boxes: Sequence[Box], class_names: Sequence[str]) -> bytes:
    """Rows of class, centre x, centre y, width and height as shares of the image.

    Without the score: programs in which boxes are corrected refuse a sixth column.
    """
    width, height = size
    rows = (
        f"{class_names.index(box.label)} {box.x / width:.6f} {box.y / height:.6f} {box.w / width:.6f} "
        f"{box.h / height:.6f}\n"
        for box in boxes
    )
    return "".join(rows).encode()


def as_labelme(name: str, size: tuple[int, int], boxes: Sequence[Box], class_names: Sequence[str]) -> bytes:
    """The JSON of LabelMe, with rectangles; the image is named, not stored."""
    shapes = [
        {
            "label": box.label,
            "points": [[box.x - box.w / 2, box.y - box.h / 2], [box.x + box.w / 2, box.y + box.h / 2]],
            "group_id": None,
            "description": f"{box.score:.4f}",
            "shape_type": "rectangle",
            "flags": {},
        }
        for box in boxes
    ]
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": Path(name).name,
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    }
    return json.dumps(content, indent=1).encode()


def as_rois(name: str, size: tuple[int, int], boxes: Sequence[Box], class_names: Sequence[str]) -> bytes:
    """The archive of ImageJ's ROI manager: a rectangle for each box; the group is the number of the class, from 1.

    Without named classes it is 0, for none: read back, the objects are of ``ONLY_CLASS`` again.
    """
    first = 0 if list(class_names) == [ONLY_CLASS] else 1
    roifile = _roifile()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, box in enumerate(boxes, start=1):
            left, top = round(box.x - box.w / 2), round(box.y - box.h / 2)
            right, bottom = max(left + 1, round(box.x + box.w / 2)), max(top + 1, round(box.y + box.h / 2))
            roi = roifile.ImagejRoi(
                roitype=roifile.ROI_TYPE.RECT,
                left=left,
                top=top,
                right=right,
                bottom=bottom,
                name=f"{number:04}-{box.label}",
                group=min(class_names.index(box.label) + first, MOST_GROUPS),
            )
            archive.writestr(f"{number:04}.roi", roi.tobytes())
    return buffer.getvalue()


def as_napari(name: str, size: tuple[int, int], boxes: Sequence[Box], class_names: Sequence[str]) -> bytes:
    """A layer of rectangles as napari saves it; the columns ``class`` and ``score`` are ours, and napari skips them.

    napari has the first pixel's centre at 0, and the row before the column.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("index", "shape-type", "vertex-index", *NAPARI_AXES, "class", "score"))
    for number, box in enumerate(boxes):
        left, top = box.x - box.w / 2 - 0.5, box.y - box.h / 2 - 0.5
        corners = ((top, left), (top, left + box.w), (top + box.h, left + box.w), (top + box.h, left))
        for place, (row, column) in enumerate(corners):
            written = (f"{row:.3f}", f"{column:.3f}", as_cell(box.label), f"{box.score:.4f}")
            writer.writerow((number, "rectangle", place, *written))
    return text.getvalue().encode("utf-8", "surrogateescape")


WRITERS: Mapping[FormatName, Callable[[str, tuple[int, int], Sequence[Box], Sequence[str]], bytes]] = {
    "yolo": as_yolo,
    "labelme": as_labelme,
    "imagej": as_rois,
    "napari": as_napari,
}


def _detections(path: Path) -> dict[str, list[Box]]:
    found: dict[str, list[Box]] = {}
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            x, y, w, h, score = (float(row[name]) for name in ("x", "y", "w", "h", "score"))
            label = from_cell(row["label"]) or ONLY_CLASS
            found.setdefault(from_cell(row["file"]), []).append(Box(x, y, w, h, label, score))
    return found


def _roifile() -> Any:
    try:
        return importlib.import_module("roifile")
    except ImportError as error:
        raise MistError("ROIs are written with roifile: pip install 'mistnn[files]'") from error
