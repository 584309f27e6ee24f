"""Converts SVHN's own files to a plain list: reads ``digitStruct.mat`` once and writes ``boxes.json`` beside it.

The official format 1 ("full numbers") has three archives, each with a folder of PNG files and a ``digitStruct.mat``::

    svhn/
      train/  train.tar.gz      33,402 images     either the folder or the archive, which is unpacked beside itself
      test/   test.tar.gz       13,068 images
      extra/  extra.tar.gz      202,353 images; optional

``digitStruct.mat`` is MATLAB 7.3, which is HDF5: it is read with h5py, an extra. Later runs read only the list.
``boxes.sha256`` beside it identifies its ``digitStruct.mat``; the list is written again when that file changes.

Convention: a box is (left, top, left + width, top + height) as written, taken as corners in pixels from 0, clipped to
the image; the label 10 is the digit 0.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import json
import logging
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mistnn.data.house_numbers.number_list import LIST, image_size
from mistnn.data.text_files import one_line
from mistnn.errors import MistError
from mistnn.files import move_folder, replace_file

Part = Literal["train", "test", "extra"]

ADDRESS = "http://ufldl.stanford.edu/housenumbers/"
"""Where the archives are published; they are for non-commercial use only, and are never downloaded automatically."""
ARCHIVE_SHA256: Mapping[str, str] = {
    "train.tar.gz": "4b17bb33b6cd8f963493168f80143da956f28ec406cc12f8e5745a9f91a51898",
    "test.tar.gz": "57ac9ceb530e4aa85b55d991be8fc49c695b3d71c6f6a88afea86549efde7fb5",
}
"""SHA-256 of the whole archives, to check a download, from docTR's loader: the authors publish none, and there is none
for extra.tar.gz. Archives that were packed differently are also read."""
OTHERS = "it belongs to other images, unpack the archive again"
NO_FOLDER = "SVHN is not part of the package: give the folder of its files with --data-root"
MAT, MADE_OF = "digitStruct.mat", "boxes.sha256"
ZERO = 10  #: The label of the digit 0.
FIELDS = ("left", "top", "width", "height", "label")

_log = logging.getLogger(__name__)


class Described(NamedTuple):
    """An image in ``digitStruct.mat``: (left, top, width, height) and the label of each digit."""

    name: str
    boxes: list[tuple[float, float, float, float]]
    labels: list[int]


def prepare_part(root: Path, part: Part) -> Path:
    """The folder of a part with its ``boxes.json``; unpacks and converts it if necessary.

    Raises ``MistError`` if the part, an image or h5py is missing, a file is broken, or the folder can't be written to.
    """
    if not root.is_dir():
        raise MistError(f"the folder {root} does not exist: {_help(part)}")
    folder, archive = root / part, root / f"{part}.tar.gz"
    if not folder.is_dir():
        if not archive.is_file():
            raise MistError(f"{root} holds neither {part}/ nor {part}.tar.gz: {_help(part)}")
        _unpack(archive, folder)
    mat, made, kept = folder / MAT, folder / MADE_OF, folder / LIST
    if not mat.is_file():
        if kept.is_file():
            return folder  # converted elsewhere
        raise MistError(f"{folder} has no {MAT}, which holds the labels: unpack {part}.tar.gz again")
    with mat.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if kept.is_file() and made.is_file() and made.read_text(encoding="ascii", errors="replace").strip() == digest:
        return folder
    entries = list(_entries(folder, read_digit_struct(mat)))
    with _writing(folder):
        replace_file(kept, json.dumps(entries).encode(), aside=f".{os.getpid()}.tmp")
        replace_file(made, f"{digest}\n".encode(), aside=f".{os.getpid()}.tmp")
    return folder


def read_digit_struct(path: Path) -> list[Described]:
    """The content of a ``digitStruct.mat``, in its order; raises ``MistError`` if it is broken or h5py is missing."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise MistError(f'{MAT} is read with h5py, which is not installed: pip install "mistnn[svhn]"') from error
    try:
        with h5py.File(path, "r") as file:
            struct = file["digitStruct"]
            names, boxes = struct["name"][()].ravel(), struct["bbox"][()].ravel()
            return [_described(file, name, box) for name, box in zip(names, boxes, strict=True)]
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise MistError(
            f"{path} is not a complete {MAT} of SVHN ({one_line(error)}): unpack its archive again"
        ) from error


def _described(file: Any, name: Any, box: Any) -> Described:
    text = "".join(chr(code) for code in file[name][()].ravel().tolist())
    group = file[box]
    columns = [[_value(file, one) for one in group[field][()].ravel()] for field in FIELDS]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"the fields of {text} differ in length")
    rows = list(zip(*columns, strict=True))
    labels = [int(row[4]) for row in rows]
    if any(not 1 <= label <= ZERO for label in labels):
        raise ValueError(f"{text} has the labels {labels}, which must be 1 to 10")
    return Described(text, [(row[0], row[1], row[2], row[3]) for row in rows], [label % ZERO for label in labels])


def _value(file: Any, stored: Any) -> float:
    """A number: stored directly if an image has one digit, else behind a reference."""
    return float(stored) if isinstance(stored, int | float | np.number) else float(file[stored][()].item())


def _entries(folder: Path, described: list[Described]) -> Iterator[dict[str, Any]]:
    names = {one.name for one in described}
    unnamed = [path.name for path in sorted(folder.glob("*.png")) if path.name not in names and path.name[0] != "."]
    if unnamed:
        some = f"{len(unnamed)} images of its folder, such as {unnamed[0]}"
        raise MistError(f"{folder / MAT} does not describe {some}: {OTHERS}")
    outside = 0
    for one in described:
        width, height = image_size(folder / one.name)
        corners = np.array([(x, y, x + w, y + h) for x, y, w, h in one.boxes], dtype=np.float64).reshape(-1, 4)
        corners = corners.clip(0, [width, height] * 2)
        if not np.all(corners[:, 2:] > corners[:, :2]):
            outside += 1
            continue
        boxes, labels = corners.tolist(), [str(label) for label in one.labels]
        yield {"file": one.name, "width": width, "height": height, "boxes": boxes, "labels": labels}
    if outside == len(described):
        raise MistError(f"{folder / MAT} puts every box outside its image: {OTHERS}")
    if outside:
        _log.warning("%s: %d images are left out because a box lies outside the image", folder / MAT, outside)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks the folder of a part, completely or not at all."""
    with _writing(archive.parent), tempfile.TemporaryDirectory(dir=archive.parent) as aside:
        try:
            with tarfile.open(archive, "r:gz") as packed:
                packed.extractall(aside, filter="data")
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            digest = ARCHIVE_SHA256.get(archive.name)
            fix = "download it again" + (f"; the published file has the sha256 {digest}" if digest else "")
            raise MistError(f"{archive} can't be unpacked ({error}): {fix}") from error
        inner = Path(aside) / folder.name
        if not inner.is_dir():
            raise MistError(f"{archive} holds no folder {folder.name}/: it is not an archive of SVHN's full numbers")
        move_folder(inner, folder)


def _help(part: Part) -> str:
    return f"give the folder with {part}.tar.gz of {ADDRESS}, or its contents, with --data-root"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MistError(f"can't write to {folder}, where SVHN is unpacked: {error.strerror or error}") from error
