"""Recognises the annotations of other programs in a folder. Those that are not read are named, with what to do."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
import zipfile
from collections.abc import Iterator, Set
from pathlib import Path

from mistnn.data.folder.columns import FILE_WORDS
from mistnn.data.folder.files import ImageFiles
from mistnn.data.folder.formats import NAPARI_AXES
from mistnn.data.folder.readers import READERS
from mistnn.data.folder.sheets import archived
from mistnn.data.images import holds_results, is_hidden
from mistnn.data.text_files import listed, read_xml, utf_16_of
from mistnn.errors import MistError

FOLDERS = ("Annotations", "annotations", "labels", "Labels")
"""Where annotations lie, with subfolders; they may also lie beside the images, or in the folder itself."""

LOOKED_AT = 5  #: Files of a folder with one suffix that are opened (our choice).
MAX_BYTES = 1 << 28  #: Of a file that is searched (our choice).
MAX_LINE = 4096  #: Bytes of the first line of a table (our choice).

EXPORT = "export them as COCO JSON (annotations.json) or PASCAL VOC, or write counts.csv"
TEXTS = "for annotations of YOLO, write the number of the class and four shares of the image: 0 0.5 0.5 0.1 0.2"
SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
SUFFIXES = (".xml", ".json", ".geojson", ".txt", ".csv", ".tsv", ".npy", ".zip", ".roi", *SHEETS)
YOLO = "annotations of YOLO"
_YOLO = re.compile(rb"\s*[0-9]+(?:[ \t]+[0-9.]+(?:e-?[0-9]+)?){4,}\s*(?:\n|\r|$)")


def other_annotations(root: Path, files: ImageFiles, used: Set[Path]) -> list[str]:
    """One note for each kind of file of another program, one line each.

    Args:
        root: the folder.
        files: its images.
        used: files that are read.
    """
    stems = _stems(files)
    found: dict[tuple[str, str], list[str]] = {}
    for _, group in itertools.groupby(sorted(_candidates(root, files, used), key=_kind), _kind):
        paths = list(group)
        tools = {path: tool for path in paths[:LOOKED_AT] if (tool := tool_of(path)) is not None}
        for path, tool in tools.items():
            found.setdefault(tool, []).append(path.relative_to(root).as_posix())
        for tool in list(tools.values())[:1]:
            alike = (path for path in paths if path not in tools and path.stem in stems)
            found[tool].extend(path.relative_to(root).as_posix() for path in alike)
    return [
        f"{tool} ({names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}): not read; {fix}"
        for (tool, fix), names in found.items()
    ]


def _texts(root: Path, files: ImageFiles) -> list[str]:
    """Texts with names of images that are perhaps meant as annotations of YOLO: their numbers are written otherwise."""
    stems = _stems(files)
    paths = (path for path in _candidates(root, files, frozenset()) if path.suffix.lower() == ".txt")
    return [
        path.relative_to(root).as_posix()
        for path in paths
        if path.stem in stems and tool_of(path) is None and path.stat().st_size > 0
    ]


def unread_tables(root: Path, files: ImageFiles) -> list[str]:
    """Notes on tables and texts that may hold the counts of a folder and have a name or a form that is not read."""
    found = []
    for folder in dict.fromkeys((root, files.folder)):
        for path in sorted(folder.iterdir()) if not holds_results(folder) else ():
            table = path.suffix.lower() in (".csv", ".tsv", ".txt") and not is_hidden(path.name) and path.is_file()
            if table and _names_files(path):
                found.append(path.relative_to(root).as_posix())
    notes = [f"{listed(found)}: not read; if it holds the counts of the images, call it counts.csv"] if found else []
    texts = _texts(root, files)
    return [*notes, f"{listed(texts)}: not read; {TEXTS}"] if texts else notes


def _names_files(path: Path) -> bool:
    """Whether the first line of a file has a column for the names of images, and none of a table of boxes."""
    first = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        first = file.readline(MAX_LINE)
    columns = re.split(r"[,;\t]", first.decode("utf-8-sig", "replace").lower())
    words = {re.sub(r"[\W_]", "", one) for one in columns}
    return len(columns) > 1 and bool(words & set(FILE_WORDS)) and not words & {"regionshapeattributes", "xmin"}


def readable(root: Path, files: ImageFiles) -> tuple[str, list[Path]]:
    """The kind of annotations that most files of the folder have, of those that are read, and these files.

    Empty if there are none. Beside files of YOLO, all text files with the name of an image are such files: those of
    images without objects are empty, and broken ones must be named.
    """
    stems = _stems(files)
    found: dict[str, list[Path]] = {}
    texts: list[Path] = []
    for path in _candidates(root, files, frozenset()):
        tool = tool_of(path)
        if tool is not None and tool[0] in READERS:
            found.setdefault(tool[0], []).append(path)
        elif path.suffix.lower() == ".txt" and path.stem in stems:
            texts.append(path)
    if not found:
        return "", []
    kind = max(found, key=lambda name: len(found[name]))
    # All files of a folder may be empty: then it lies beside one of them, or has the same name ("labels").
    folders = {path.parent for path in found[kind]}
    tops = {folder.relative_to(root).parts[:1] for folder in folders}
    names = {folder.name for folder in folders if folder != root}
    near = (path for path in texts if path.parent.relative_to(root).parts[:1] in tops or path.parent.name in names)
    return kind, [*found[kind], *(near if kind == YOLO else ())]


def _stems(files: ImageFiles) -> set[str]:
    """What a file about an image may be called, without its suffix: a.txt or, beside a.jpg and a.png, a.jpg.txt."""
    return {name for header in files.headers for name in (header.path.stem, header.path.name)}


def tool_of(path: Path) -> tuple[str, str] | None:
    """The kind of a file and what to do to use it; ``None`` if it is of no known kind."""
    suffix = path.suffix.lower()
    if suffix in SHEETS:
        if path.name.lower() in ("counts.xlsx", "labels.xlsx"):
            return None
        return "a spreadsheet", "save it as counts.xlsx, or its table as counts.csv"
    if suffix == ".xml":
        return _xml(path)
    if suffix in (".zip", ".roi"):
        return _rois(path)
    with contextlib.suppress(OSError):
        if path.stat().st_size <= MAX_BYTES:
            return _text(suffix, _in_utf_8(path.read_bytes()), path.name)
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
    if tag == "CellCounter_Marker_File":
        return "markers of Cell Counter", EXPORT
    return f"XML of another program, <{tag}>", "no annotations are expected in it"


def _rois(path: Path) -> tuple[str, str] | None:
    """ROIs of ImageJ: a file that begins as they do, or an archive of such files; an empty one for no objects."""
    # NotImplementedError: the archive needs a later version of ZIP than Python reads.
    with contextlib.suppress(OSError, zipfile.BadZipFile, NotImplementedError):
        if path.suffix.lower() == ".roi":
            with path.open("rb") as file:
                return ("ROIs of ImageJ", EXPORT) if file.read(4) == b"Iout" else None
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archived(archive)] or archive.namelist()
        return ("ROIs of ImageJ", EXPORT) if all(one.lower().endswith(".roi") for one in names) else None
    return None


def _in_utf_8(data: bytes) -> bytes:
    """The bytes of a text without a byte order mark, in UTF-8 if they are UTF-16."""
    encoding = utf_16_of(data)
    return data.decode(encoding, "replace").encode() if encoding else data.removeprefix(codecs.BOM_UTF8)


def _text(suffix: str, data: bytes, name: str) -> tuple[str, str] | None:
    """The kind of a file by its content; JSON is searched for the keys that identify a format."""

    def holds(*keys: bytes) -> bool:
        return all(b'"' + key + b'"' in data for key in keys)

    if suffix == ".txt" and _YOLO.match(data):
        return YOLO, EXPORT
    if suffix in (".csv", ".tsv"):
        first = data.partition(b"\n")[0].lower()
        if b"region_shape_attributes" in first:
            return "annotations of VIA", EXPORT
        if all(axis.encode() in first for axis in NAPARI_AXES):
            return "a layer of napari", EXPORT
        return ("a table of boxes", EXPORT) if b"xmin" in first and b"ymax" in first else None
    if suffix == ".npy" and name.endswith("_seg.npy"):
        return "masks of Cellpose", "write the number of objects of each image into counts.csv"
    features = holds(b"FeatureCollection", b"features") or holds(b"Feature", b"geometry")
    if suffix == ".geojson" or (suffix == ".json" and features):
        return "annotations as GeoJSON", EXPORT
    if suffix != ".json":
        return None
    if holds(b"images", b"annotations", b"categories") and name.lower() == "annotations.json":
        return "COCO JSON", "other annotations are read instead: keep one kind"
    if holds(b"images", b"annotations", b"categories"):
        return "COCO JSON under another name", "call it annotations.json to use it"
    if holds(b"shapes", b"imagePath") or holds(b"shapes", b"shape_type"):
        return "annotations of LabelMe", EXPORT
    if holds(b"regions", b"shape_attributes") or holds(b"_via_img_metadata"):
        return "annotations of VIA", EXPORT
    if holds(b"project", b"attribute", b"metadata", b"view"):
        return "a project of VIA 3", EXPORT
    if holds(b"annotations", b"data", b"result"):
        return "annotations of Label Studio", EXPORT
    if holds(b"original_width", b"original_height"):
        return "annotations of Label Studio as JSON-MIN", "export them as JSON"
    return ("annotations of CreateML", EXPORT) if holds(b"annotations", b"image", b"coordinates") else None
