"""CUB-200-2011: photographs of birds and their classes, in the published layout.

::

    CUB_200_2011/                       or CUB_200_2011.tgz, which is unpacked; give this folder or its parent
      images.txt                          1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
      image_class_labels.txt              1 1
      train_test_split.txt                1 0         (1 for training)
      classes.txt                         1 001.Black_footed_Albatross
      images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg

The photographs are for non-commercial research and education only, and are never downloaded automatically. Bounding
boxes and parts are not read: the paper trains on the classes alone.

Convention: an image is resized so that its shorter edge is 8/7 of a crop (256 for 224 px, 512 for 448). Training crops
lie anywhere in it and are mirrored at random; a test crop is the central one, and ``views`` are the ten of the paper:
four corners and the centre, then the same five mirrored. Cropping and resizing are one step, antialiased.

Reference: S003, section 1.5.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mistnn.config import at_least, below
from mistnn.data.base import ImagesConfig, StoredImages, data_folder
from mistnn.data.images import read_image, read_window, rgb_tensor
from mistnn.errors import MistError
from mistnn.files import move_folder
from mistnn.interfaces import Known, Split
from mistnn.records import Sample

ADDRESS = "https://data.caltech.edu/records/65de6-vp158"
FOLDER, ARCHIVE = "CUB_200_2011", "CUB_200_2011.tgz"
ARCHIVE_MD5 = "97eceeb196236b17998738112f37df78"
"""Of the published archive; an archive with another checksum is not unpacked."""
EDGE = 8 / 7
"""Shorter edge of a resized image, as a multiple of a crop's side: 256 / 224 = 512 / 448 (S003, section 1.5)."""
UNPACK = f"unpack {ARCHIVE} again"


@dataclass(frozen=True)
class CubConfig(ImagesConfig):
    """Photographs of birds.

    Attributes:
        root: the folder ``CUB_200_2011``, or the one that holds it or its archive.
        side: side of a crop, in pixels; 224 or 448 in the paper.
        validation: share of the training images that is kept for validation, those whose names have the lowest hashes.
            0 trains on all, like the published numbers; the paper chose its settings by cross-validation.
        mirror: whether training crops are mirrored left-right at random.
    """

    kind: ClassVar[str] = "birds"
    root: str | None = None
    side: Annotated[int, at_least(1)] = 224
    validation: Annotated[float, at_least(0), below(1)] = 0.0
    mirror: bool = True

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known((self.side, self.side), 3, (1,), has_objects=False)

    def open(self, split: Split, length: int | None = None) -> CubImages:
        """One split, see ``CubImages``."""
        return CubImages(self, split, length)

    def read_class_names(self) -> tuple[str, ...]:
        """The species; empty if no folder is given."""
        return () if self.root is None else read_cub(self.root).class_names


class Bird(NamedTuple):
    """An image and its class."""

    path: Path
    name: str  #: As in images.txt.
    label: int  #: Its class, from 0.
    train: bool


class CubFolder(NamedTuple):
    """The content of CUB-200-2011."""

    class_names: tuple[str, ...]  #: The order of the labels.
    birds: tuple[Bird, ...]  #: All images, in the order of images.txt.


def read_cub(root: str | None) -> CubFolder:
    """Reads the lists, and compares them with each other and with the image files.

    Raises:
        MistError: if there is no folder, a list is missing or broken, or the lists contradict each other, the folders
            of the images, or the files.
    """
    folder = _folder(root)
    names = _table(folder / "classes.txt")
    files = _table(folder / "images.txt")
    labels = _table(folder / "image_class_labels.txt")
    parts = _table(folder / "train_test_split.txt")
    for path, table in (("image_class_labels.txt", labels), ("train_test_split.txt", parts)):
        if odd := sorted(table.keys() ^ files.keys(), key=lambda number: (len(number), number)):
            what = "does not list" if odd[0] in files else "lists"
            raise MistError(f"{folder / path} {what} image {odd[0]} (in all: {len(odd)}), unlike images.txt: {UNPACK}")
    order = {number: place for place, number in enumerate(names)}
    birds = []
    for number, name in files.items():
        label, part = labels[number], parts[number]
        if label not in names or name.partition("/")[0] != names[label]:
            given = f"image {number} the class {label} ({names.get(label, 'not in classes.txt')})"
            listed = f"images.txt has it in {name.partition('/')[0]}: the labels belong to other images"
            raise MistError(f"{folder / 'image_class_labels.txt'} gives {given}, but {listed}, {UNPACK}")
        if part not in ("0", "1"):
            path = folder / "train_test_split.txt"
            raise MistError(f"{path}: image {number} has {part!r}, which must be 0 or 1: {UNPACK}")
        birds.append(Bird(folder / "images" / name, name, order[label], part == "1"))
    if missing := [bird for bird in birds if not bird.path.is_file()]:
        raise MistError(f"{missing[0].path} is listed but not there (in all: {len(missing)}): {UNPACK}")
    return CubFolder(tuple(names.values()), tuple(birds))


class CubImages(StoredImages[CubConfig]):
    """One split: crops whose only count is that of their class."""

    def __init__(self, config: CubConfig, split: Split, length: int | None) -> None:
        super().__init__(config, split, length)
        whole = read_cub(config.root)
        self.class_names = whole.class_names
        self.birds = _birds(whole.birds, config, split)
        self._set_number(len(self.birds))

    def __getitem__(self, index: int) -> Sample:
        """One crop: in endless training at a random place and mirrored at random, else the central one."""
        bird = self.birds[self._draw(index).image]
        if self.length is not None:
            return self._sample(bird, self._crop(_pixels(bird), 0.5, 0.5))
        random = np.random.default_rng((self.config.seed, 1, index))
        crop = self._crop(_pixels(bird), random.random(), random.random())
        return self._sample(bird, crop.flip(-1) if self.config.mirror and random.random() < 0.5 else crop)

    def views(self, index: int) -> Tensor:
        """(10, 3, side, side), the ten views for classifying a test image: corners and centre, plain and mirrored."""
        pixels = _pixels(self.birds[index])
        places = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
        five = torch.stack([self._crop(pixels, x, y) for x, y in places])
        return torch.cat((five, five.flip(-1)))

    def _crop(self, pixels: UInt8[np.ndarray, "height width 3"], x: float, y: float) -> Tensor:
        """A crop; x and y run from 0, at the left and at the top, to 1."""
        height, width = pixels.shape[:2]
        extent = min(height, width) / EDGE
        left, top = x * (width - extent), y * (height - extent)
        window = np.array((left, top, left + extent, top + extent))
        return rgb_tensor(read_window(pixels, window, self.config.side))

    def _sample(self, bird: Bird, crop: Tensor) -> Sample:
        counts = torch.zeros(len(self.class_names), dtype=torch.int64)
        counts[bird.label] = 1
        return Sample(crop, counts)


def _birds(birds: tuple[Bird, ...], config: CubConfig, split: Split) -> list[Bird]:
    # Sorted by hash, so that the first images of a split are of many species: the lists are sorted by species.
    chosen = sorted((bird for bird in birds if bird.train == (split != "test")), key=_hash)
    if split != "test":
        kept = round(config.validation * len(chosen))
        chosen = chosen[:kept] if split == "validation" else chosen[kept:]
    if not chosen:
        fix = "give another share, or --evaluation-images 0"
        raise MistError(f"no image of {FOLDER} is left for {split} with data.validation={config.validation}: {fix}")
    return chosen


def _hash(bird: Bird) -> bytes:
    return hashlib.sha256(bird.name.encode()).digest()


def _pixels(bird: Bird) -> UInt8[np.ndarray, "height width 3"]:
    return np.asarray(read_image(bird.path, UNPACK).convert("RGB"))


def _table(path: Path) -> Mapping[str, str]:
    """The lines "number value" of a list, in their order."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise MistError(f"{path} can't be read ({why}): {UNPACK}") from error
    table: dict[str, str] = {}
    for place, line in enumerate(lines, start=1):
        number, _, value = line.strip().partition(" ")
        if not number.isdecimal() or not value or number in table:
            raise MistError(f"{path}, line {place}: {line[:60]!r} must be a new number and its value: {UNPACK}")
        table[number] = value
    if not table:
        raise MistError(f"{path} is empty: {UNPACK}")
    return table


def _folder(root: str | None) -> Path:
    missing = f"CUB-200-2011 is not part of the package: download it from {ADDRESS}, give its folder with --data-root"
    top = data_folder(root, missing)
    for folder in (top, top / FOLDER):
        if (folder / "images.txt").is_file():
            return folder
    if not (top / ARCHIVE).is_file():
        raise MistError(f"{top} holds neither {FOLDER}/ with its images.txt nor {ARCHIVE}: download it from {ADDRESS}")
    _unpack(top / ARCHIVE, top / FOLDER)
    return top / FOLDER


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks the published archive, completely or not at all."""
    if folder.exists():
        raise MistError(f"{folder} holds no images.txt: remove it, then {archive} will be unpacked")
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        if digest != ARCHIVE_MD5:
            fix = f"download it again from {ADDRESS}, or unpack it yourself if you made the archive"
            raise MistError(f"{archive} has the MD5 {digest}, not the {ARCHIVE_MD5} of the published one: {fix}")
        with tempfile.TemporaryDirectory(dir=archive.parent) as aside:
            with tarfile.open(archive, "r:gz") as packed:
                packed.extractall(aside, filter="data")
            move_folder(Path(aside) / FOLDER, folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise MistError(f"{archive} can't be unpacked ({error}): check free space and permissions") from error
