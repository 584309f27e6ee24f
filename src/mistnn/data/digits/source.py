"""Sources of digits: MNIST from its four IDX files, and the small digits that ship with scikit-learn.

The images of digits are composed from a source. The three splits of a source share no digit. Every function raises
``MistError`` if a name or split is unknown, or if a file is missing, unreadable or not the expected one.

MNIST is searched in the first of: the ``root`` argument (``--data.root`` on the command line), the environment variable
``MIST_DATA``, ``~/.cache/mistnn``. The files may be in that folder, in its ``mnist/``, or in its ``MNIST/raw/``
(torchvision's layout), uncompressed or gzip-compressed. If neither ``root`` nor ``MIST_DATA`` is given, missing files
are downloaded to ``~/.cache/mistnn/mnist``.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import logging
import math
import os
import threading
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from mistnn.data.base import check_split
from mistnn.data.text_files import one_line
from mistnn.errors import MistError
from mistnn.files import replace_file
from mistnn.interfaces import Split

SourceName = Literal["mnist", "embedded"]

ROOT_HELP = "name the folder that holds MNIST with --data.root or the environment variable MIST_DATA"
ROOT_VARIABLE = "MIST_DATA"
DEFAULT_ROOT = "~/.cache/mistnn"
SUBFOLDERS = ("", "mnist", "MNIST/raw", "mnist/MNIST/raw")

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_SHA256: Mapping[str, str] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of the decompressed bytes, which does not depend on the compression."""

MNIST_VALIDATION = 5000
"""Size of the validation split, the end of MNIST's training file (our choice; the papers name none)."""

MNIST_TEST_ID = 60_000  #: The id of the test file's first digit; the ids of the training file come first.

EMBEDDED_SPLITS = {"train": slice(1200), "validation": slice(1200, 1497), "test": slice(1497, 1797)}
EMBEDDED_MAXIMUM = 16  #: The largest grey value of scikit-learn's digits.

_IDX_UINT8 = 0x08
_log = logging.getLogger(__name__)


class DigitSource(NamedTuple):
    """Square grey images of single digits, one split of a source."""

    images: UInt8[np.ndarray, "n side side"]  #: (N, s, s), 0 is the background and 255 full ink.
    labels: Int64[np.ndarray, " n"]  #: (N,), the digit, 0 to 9.
    #: (N,), the position of each image in the whole source; the splits of a source share no id.
    ids: Int64[np.ndarray, " n"]


def load_source(name: SourceName, split: Split, root: str | Path | None = None) -> DigitSource:
    """Loads one split of a source by its name."""
    if name == "mnist":
        return load_mnist(split, root)
    if name == "embedded":
        return load_embedded(split)
    raise MistError(f"unknown digit source {name!r}: use mnist or embedded")


def load_embedded(split: Split) -> DigitSource:
    """Loads scikit-learn's ``load_digits``: 1,797 real handwritten digits of 8 x 8 pixels.

    The grey values 0..16 become 0..255, and a border of one background pixel makes frames of 10 x 10. In scikit-learn's
    order, train is the first 1,200 digits, validation the next 297, test the last 300.
    """
    check_split(split)
    from sklearn.datasets import load_digits  # slow to import

    images, labels = load_digits(return_X_y=True)
    levels = np.rint(np.asarray(images).reshape(-1, 8, 8) * (255 / EMBEDDED_MAXIMUM)).astype(np.uint8)
    frames = np.pad(levels, ((0, 0), (1, 1), (1, 1)))
    own = EMBEDDED_SPLITS[split]
    return DigitSource(frames[own].copy(), np.asarray(labels, dtype=np.int64)[own], np.arange(len(frames))[own])


def load_mnist(
    split: Split,
    root: str | Path | None = None,
    *,
    digests: Mapping[str, str] = MNIST_SHA256,
    validation: int = MNIST_VALIDATION,
) -> DigitSource:
    """Loads one split of MNIST from its IDX files.

    Train is the training file without its last 5,000 digits, validation those 5,000, test the test file.

    Args:
        digests: file name -> SHA-256 of the decompressed bytes.
    """
    check_split(split)
    given = root if root is not None else os.environ.get(ROOT_VARIABLE) or None
    folder = Path(DEFAULT_ROOT if given is None else given).expanduser()
    if given is not None and not folder.is_dir():
        raise MistError(f"the data folder {str(folder)!r} does not exist: {ROOT_HELP}")
    if given is None and any(find_file(name, folder) is None for name in digests):
        download_mnist(folder / "mnist", digests=digests)
    prefix = "t10k" if split == "test" else "train"
    images = _read_checked(f"{prefix}-images-idx3-ubyte", folder, digests)
    labels = _read_checked(f"{prefix}-labels-idx1-ubyte", folder, digests)
    if images.ndim != 3 or images.shape[1] != images.shape[2] or labels.shape != images.shape[:1]:
        found = f"images of shape {images.shape} and labels of shape {labels.shape}"
        raise MistError(f"MNIST in {str(folder)!r} has {found}, expected (N, s, s) and (N,): {ROOT_HELP}")
    labels, ids = labels.astype(np.int64), np.arange(len(images), dtype=np.int64)
    if split == "test":
        return DigitSource(images, labels, ids + MNIST_TEST_ID)
    if not 0 < validation < len(images):
        raise MistError(f"validation={validation} does not leave digits in both splits of {len(images)}")
    kept = len(images) - validation
    if split == "train":
        return DigitSource(images[:kept], labels[:kept], ids[:kept])
    # A copy, so that the validation split does not keep the whole file in memory.
    return DigitSource(images[kept:].copy(), labels[kept:], ids[kept:])


def find_file(name: str, root: Path) -> Path | None:
    """The path of an IDX file below a folder, compressed or not; ``None`` if it is missing."""
    paths = (root / folder / f"{name}{suffix}" for folder in SUBFOLDERS for suffix in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def parse_idx(data: bytes, name: str) -> UInt8[np.ndarray, ...]:
    """Parses an array of bytes in the IDX format.

    Convention: two zero bytes, one byte for the type (only 0x08, unsigned byte, is accepted), one for the number of
    axes, then the length of each axis as a big-endian 32-bit number, then the values in row-major order.
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_UINT8 or not 1 <= data[3] <= 4:
        raise MistError(f"{name} is not an IDX file of unsigned bytes, it starts with {data[:4].hex(' ') or 'nothing'}")
    header = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4))
    if len(data) - header != math.prod(shape):
        raise MistError(f"{name} announces the shape {shape} but holds {max(len(data) - header, 0)} values")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def download_mnist(
    folder: str | Path,
    *,
    mirrors: Sequence[str] = MNIST_MIRRORS,
    digests: Mapping[str, str] = MNIST_SHA256,
    timeout: float = 10.0,
) -> Path:
    """Downloads the MNIST files that are missing in a folder. Each is checked, then written atomically.

    Args:
        folder: for the ``.gz`` files; created if it doesn't exist.
        mirrors: URLs of folders that hold them, tried in turn.
        digests: file name -> SHA-256 of the decompressed bytes.
        timeout: seconds without an answer before the next mirror is tried.
    """
    folder = Path(folder).expanduser()
    for name, digest in digests.items():
        if find_file(name, folder) is None:
            data = _fetch(name, digest, mirrors, timeout, folder)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                # Several processes and threads may download at once: each uses its own temporary name.
                replace_file(folder / f"{name}.gz", data, aside=f".{os.getpid()}-{threading.get_ident()}.tmp")
            except OSError as error:
                raise MistError(f"cannot write MNIST to {str(folder)!r} ({one_line(error)}): {ROOT_HELP}") from error
    return folder


def _fetch(name: str, digest: str, mirrors: Sequence[str], timeout: float, folder: Path) -> bytes:
    failures = []
    for mirror in mirrors:
        url = f"{mirror}{name}.gz"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer:
                data = answer.read()
            if hashlib.sha256(gzip.decompress(data)).hexdigest() == digest:
                _log.info("downloaded %s", url)  # not before: if all downloads fail, only the error is printed
                return data
            failures.append(f"{url}: wrong checksum")
        except (OSError, EOFError, zlib.error, http.client.HTTPException, ValueError) as error:
            failures.append(f"{url}: {one_line(error)}")
    why = "; ".join(failures)
    raise MistError(f"MNIST file {name} is not in {str(folder)!r} and could not be downloaded ({why}): {ROOT_HELP}")


def _read_checked(name: str, root: Path, digests: Mapping[str, str]) -> np.ndarray:
    path, expected = find_file(name, root), f"expected sha256 {digests[name]} of the decompressed bytes"
    if path is None:
        places = ", ".join(repr(str(root / folder)) for folder in SUBFOLDERS)
        raise MistError(f"MNIST file {name} (or {name}.gz, {expected}) not found in {places}: {ROOT_HELP}")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        why = f"cannot be read ({one_line(error)}), {expected}"
        raise MistError(f"MNIST file {str(path)!r} {why}: replace it, or {ROOT_HELP}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != digests[name]:
        why = f"is corrupt: it has sha256 {found}, {expected}"
        raise MistError(f"MNIST file {str(path)!r} {why}: replace it, or {ROOT_HELP}")
    return parse_idx(data, str(path))
