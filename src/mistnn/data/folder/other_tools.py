"""Names the annotations of other programs in a folder: they are not read, and a note says what to do."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Set
from pathlib import Path

from mistnn.data.folder.files import ImageFiles
from mistnn.data.images import holds_results, is_hidden
from mistnn.data.text_files import read_xml
from mistnn.errors import MistError

FOLDERS = ("Annotations", "annotations", "labels", "Labels")
"""Where annotations lie, with subfolders; they may also lie beside the images, or in the folder itself."""

LOOKED_AT = 5  #: Files of a folder with one suffix that are opened (our choice).
MAX_BYTES = 1 << 28  #: Of a file that is searched (our choice).

EXPORT = "export them as COCO JSON (annotations.json) or PASCAL VOC, or write counts.csv"
SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
SUFFIXES = (".xml", ".json", ".geojson", ".txt", ".csv", ".tsv", ".npy", *SHEETS)
_YOLO = re.compile(rb"\s*[0-9]+(?:[ \t]+[0-9.]+(?:e-?[0-9]+)?){4,}\s*(?:\n|\r|$)")


def other_annotations(root: Path, files: ImageFiles, used: Set[Path]) -> list[str]:
    """One note for each kind of file of another program, one line each.

    Args:
        root: the folder.
        files: its images.
        used: files that are read.
    """
    stems = {header.path.stem for header in files.headers}
    found: dict[tuple[str, str], list[str]] = {}
    for _, group in itertools.groupby(sorted(_candidates(root, files, used), key=_kind), _kind):
        paths = list(group)
        for path in paths[:LOOKED_AT]:
            if (tool := tool_of(path)) is not None:
                alike = [other for other in paths if other is not path and other.stem in stems]
                found.setdefault(tool, []).extend(one.relative_to(root).as_posix() for one in (path, *alike))
                break
    return [
        f"{tool} ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}): not read; {fix}"
        for (tool, fix), names in found.items()
    ]


def tool_of(path: Path) -> tuple[str, str] | None:
    """The kind of a file and what to do to use it; ``None`` if it is of no known kind."""
    suffix = path.suffix.lower()
    if suffix in SHEETS:
        return "a spreadsheet", "save its table as CSV, called counts.csv"
    if suffix == ".xml":
        return _xml(path)
    with contextlib.suppress(OSError):
        if path.stat().st_size <= MAX_BYTES:
            return _text(suffix, path.read_bytes(), path.name)
    return None


def _candidates(root: Path, files: ImageFiles, used: Set[Path]) -> Iterator[Path]:
    own = dict.fromkeys(header.path.parent for header in files.headers)
    named = [base / name for base in (root, *(folder.parent for folder in own if folder != root)) for name in FOLDERS]
    below = [folder for top in named for folder in (top, *top.glob("**/"))]
    for folder in dict.fromkeys((root, *below, *own)):
        if folder.is_dir() and not holds_results(folder):
            for path in sorted(folder.iterdir()):
                known = path.suffix.lower() in SUFFIXES and path not in used
                if known and not is_hidden(path.name) and path.is_file():
                    yield path


def _kind(path: Path) -> tuple[Path, str]:
    return path.parent, path.suffix.lower()


def _xml(path: Path) -> tuple[str, str] | None:
    try:
        tag = read_xml(path, path.name).tag.rpartition("}")[2]
    except MistError:
        return "broken XML", "fix it, or remove it from the folder"
    if tag == "annotation":
        return None
    if tag == "annotations":
        return "annotations of CVAT", EXPORT
    return f"XML of another program, <{tag}>", "no annotations are expected in it"


def _text(suffix: str, data: bytes, name: str) -> tuple[str, str] | None:
    """The kind of a file by its content; JSON is searched for the keys that identify a format."""

    def holds(*keys: bytes) -> bool:
        return all(b'"' + key + b'"' in data for key in keys)

    if suffix == ".txt" and _YOLO.match(data):
        return "annotations of YOLO", EXPORT
    if suffix in (".csv", ".tsv"):
        first = data.partition(b"\n")[0].lower()
        if b"region_shape_attributes" in first:
            return "annotations of VIA", EXPORT
        return ("a table of boxes", EXPORT) if b"xmin" in first and b"ymax" in first else None
    if suffix == ".npy" and name.endswith("_seg.npy"):
        return "masks of Cellpose", "write the number of objects of each image into counts.csv"
    if suffix == ".geojson" or (suffix == ".json" and holds(b"FeatureCollection", b"features")):
        return "annotations as GeoJSON", EXPORT
    if suffix != ".json":
        return None
    if holds(b"images", b"annotations", b"categories"):
        return "COCO JSON under another name", "call it annotations.json to use it"
    if holds(b"shapes", b"imagePath") or holds(b"shapes", b"shape_type"):
        return "annotations of LabelMe", EXPORT
    if holds(b"regions", b"shape_attributes") or holds(b"_via_img_metadata"):
        return "annotations of VIA", EXPORT
    if holds(b"annotations", b"data", b"result"):
        return "annotations of Label Studio", EXPORT
    return ("annotations of CreateML", EXPORT) if holds(b"annotations", b"image", b"coordinates") else None
