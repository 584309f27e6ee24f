"""CUB-200-2011: photographs of birds with the class of each, as they are published.

::

    CUB_200_2011/                       or CUB_200_2011.tgz beside it, which is unpacked; give either folder
      images.txt                          1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
      image_class_labels.txt              1 1
      train_test_split.txt                1 0         (1 for training)
      classes.txt                         1 001.Black_footed_Albatross
      images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg

The photographs are for non-commercial research and education only, and nothing is fetched from here. Bounding boxes and
parts are not read: the paper is taught by the classes alone.

Convention: an image is resized so that its shorter edge is 8/7 of a crop (256 for 224 px, 512 for 448). Training crops
lie anywhere in it and are mirrored at random; a crop for testing is the middle one, and ``views`` are all ten of the
paper: four corners and the middle, then the same five mirrored. Cropping and resizing are done in one, antialiased.

Reference: S003, section 1.5.
"""

from __future__ import annotations

import hashlib
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from mistnn.data.digits.source import Split, check_split
from mistnn.data.house_numbers.number_crops import read_window
from mistnn.data.images import UnreadableImage, open_image
from mistnn.data.rounds import Rounds, seeded
from mistnn.errors import MistError
from mistnn.records import Sample

ADDRESS = "https://data.caltech.edu/records/65de6-vp158"
FOLDER, ARCHIVE = "CUB_200_2011", "CUB_200_2011.tgz"
ARCHIVE_MD5 = "97eceeb196236b17998738112f37df78"
"""Of the published archive; an archive that has another is refused before it is unpacked."""
EDGE = 8 / 7
"""Shorter edge of a resized image, as a multiple of a crop's side: 256 / 224 = 512 / 448 (S003, section 1.5)."""


@dataclass(frozen=True)
class CubConfig:
    """Which birds, and how.

    Attributes:
        root: the folder ``CUB_200_2011``, or the one that holds it or its archive.
        side: of a crop, in pixels; 224 or 448 in the paper.
        validation: share of the training images that is kept for validation, those whose names have the lowest hashes.
            0 trains on all, as the published numbers do; the paper chose its settings by cross-validation.
        mirror: whether training crops are mirrored left-right at random.
        seed: of the order of training images and of their crops.

    Raises:
        MistError: if a value is impossible; the message names it and the mend.
    """

    root: str | None = None
    side: int = 224
    validation: float = 0.0
    mirror: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.side < 1 or self.seed < 0:
            name, value, least = ("side", self.side, 1) if self.side < 1 else ("seed", self.seed, 0)
            raise MistError(f"data.{name}={value} is too small: give {least} or more")
        if not 0 <= self.validation < 1:
            raise MistError(f"data.validation={self.validation} must be a share from 0 to below 1")


class Bird(NamedTuple):
    """An image and its class.

    Attributes:
        path: where it is.
        name: as images.txt has it.
        label: its class, from 0.
        train: whether it is for training.
    """

    path: Path
    name: str
    label: int
    train: bool


class CubFolder(NamedTuple):
    """The content of CUB-200-2011.

    Attributes:
        class_names: one a class.
        birds: all images, in the order of images.txt.
    """

    class_names: tuple[str, ...]
    birds: tuple[Bird, ...]


def read_cub(root: str | None) -> CubFolder:
    """Reads the lists, and compares them with each other and with the images that are there.

    Raises:
        MistError: no folder; a list that is missing or broken; lists that disagree with each other, with the folders
            of the images, or with what is there.
    """
    folder = _folder(root)
    names = _table(folder / "classes.txt")
    files = _table(folder / "images.txt")
    labels = _table(folder / "image_class_labels.txt")
    parts = _table(folder / "train_test_split.txt")
    for path, table in (("image_class_labels.txt", labels), ("train_test_split.txt", parts)):
        if odd := sorted(table.keys() ^ files.keys(), key=_by_number):
            what = "doesn't say anything of" if odd[0] in files else "speaks of"
            raise MistError(
                f"{folder / path} {what} image {odd[0]} ({len(odd)} such), unlike images.txt: unpack {ARCHIVE} again"
            )
    order = {number: place for place, number in enumerate(names)}
    birds = []
    for number, name in files.items():
        label, part = labels[number], parts[number]
        if label not in names or name.partition("/")[0] != names[label]:
            said = names.get(label, "no class of classes.txt")
            raise MistError(
                f"{folder / 'image_class_labels.txt'} gives image {number} the class {label} ({said}), but images.txt "
                f"has it in {name.partition('/')[0]}: the labels are of other images, unpack {ARCHIVE} again"
            )
        if part not in ("0", "1"):
            raise MistError(
                f"{folder / 'train_test_split.txt'}: image {number} has {part!r}, which must be 0 or 1: unpack "
                f"{ARCHIVE} again"
            )
        birds.append(Bird(folder / "images" / name, name, order[label], part == "1"))
    missing = [bird for bird in birds if not bird.path.is_file()]
    if missing:
        raise MistError(f"{missing[0].path} is listed but not there ({len(missing)} such): unpack {ARCHIVE} again")
    return CubFolder(tuple(names.values()), tuple(birds))


class CubImages(Dataset[Sample]):
    """A map-style data set of one split: crops with the class as the only count.

    Index i of an endless training set is image i of an endless sequence of shuffled rounds, so that (configuration,
    index) alone say what it is.

    Args:
        config: which.
        split: "train", "validation" or "test".
        length: number of samples, at most as many as there are; ``None`` for an endless training set.

    Raises:
        MistError: see ``read_cub``; or if no image is left.
    """

    def __init__(self, config: CubConfig, split: Split, length: int | None) -> None:
        """Reads the lists, not yet the images."""
        check_split(split)
        whole = read_cub(config.root)
        self.config, self.class_names = config, whole.class_names
        self.split: Split = split
        self.birds = _birds(whole.birds, config, split)
        self.length = length if length is None else min(length, len(self.birds))
        self._rounds = Rounds(len(self.birds), seeded(config.seed))

    def __len__(self) -> int:
        """The number of samples, ``sys.maxsize`` where there is no end."""
        return sys.maxsize if self.length is None else self.length

    def __getitem__(self, index: int) -> Sample:
        """One crop: of an endless training set anywhere and perhaps mirrored, else the middle one.

        Raises:
            IndexError: if the index is negative or beyond the length.
            MistError: if the image can't be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside a data set of {len(self)} images")
        if self.length is not None:
            bird = self.birds[index]
            return self._sample(bird, self._crop(_pixels(bird), 0.5, 0.5))
        random = np.random.default_rng((self.config.seed, 1, index))
        bird = self.birds[self._rounds[index].image]
        crop = self._crop(_pixels(bird), random.random(), random.random())
        return self._sample(bird, crop.flip(-1) if self.config.mirror and random.random() < 0.5 else crop)

    def views(self, index: int) -> Tensor:
        """(10, 3, side, side), what a test image is judged by: four corners and the middle, as they are and mirrored.

        Raises:
            IndexError: if there is no such image.
            MistError: if the image can't be read.
        """
        pixels = _pixels(self.birds[index])
        places = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
        five = torch.stack([self._crop(pixels, x, y) for x, y in places])
        return torch.cat((five, five.flip(-1)))

    def _crop(self, pixels: UInt8[np.ndarray, "height width 3"], x: float, y: float) -> Tensor:
        """A crop; x and y from 0, at the left and the top, to 1."""
        height, width = pixels.shape[:2]
        extent = min(height, width) / EDGE
        left, top = x * (width - extent), y * (height - extent)
        window = np.array((left, top, left + extent, top + extent))
        return _tensor(read_window(pixels, window, self.config.side))

    def _sample(self, bird: Bird, crop: Tensor) -> Sample:
        counts = torch.zeros(len(self.class_names), dtype=torch.int64)
        counts[bird.label] = 1
        return Sample(crop, counts)


def _tensor(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "3 height width"]:
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).contiguous() / 255


def _birds(birds: tuple[Bird, ...], config: CubConfig, split: Split) -> list[Bird]:
    # By a hash of their names, so that the first of any split are of all kinds: the lists go from kind to kind.
    chosen = sorted((bird for bird in birds if bird.train == (split != "test")), key=lambda bird: _hash(bird.name))
    if split != "test":
        kept = round(config.validation * len(chosen))
        chosen = chosen[:kept] if split == "validation" else chosen[kept:]
    if not chosen:
        raise MistError(
            f"no image of CUB-200-2011 is left for {split} with data.validation={config.validation}: give another "
            "share, or --evaluation-images 0 to measure nothing while training"
        )
    return chosen


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _by_number(text: str) -> tuple[int, str]:
    return len(text), text


def _pixels(bird: Bird) -> UInt8[np.ndarray, "height width 3"]:
    try:
        return np.asarray(open_image(bird.path).convert("RGB"))
    except UnreadableImage as error:
        raise MistError(f"can't read {bird.path} ({error}): unpack {ARCHIVE} again") from error


def _table(path: Path) -> Mapping[str, str]:
    """The lines "number value" of a list, in their order."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise MistError(f"{path} can't be read ({why}): unpack {ARCHIVE} again") from error
    table: dict[str, str] = {}
    for place, line in enumerate(lines, start=1):
        number, _, value = line.strip().partition(" ")
        if not number.isdecimal() or not value or number in table:
            raise MistError(
                f"{path}, line {place}: {line[:60]!r} must be a new number and its value: unpack {ARCHIVE} again"
            )
        table[number] = value
    if not table:
        raise MistError(f"{path} is empty: unpack {ARCHIVE} again")
    return table


def _folder(root: str | None) -> Path:
    if root is None:
        raise MistError(
            f"CUB-200-2011 is not part of the package: get it at {ADDRESS}, give its folder with --data-root"
        )
    top = Path(root).expanduser()
    for folder in (top, top / FOLDER):
        if (folder / "images.txt").is_file():
            return folder
    if not (top / ARCHIVE).is_file():
        raise MistError(f"{top} holds neither {FOLDER}/ with its images.txt nor {ARCHIVE}: get it at {ADDRESS}")
    _unpack(top / ARCHIVE, top / FOLDER)
    return top / FOLDER


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks the published archive, whole or not at all."""
    if folder.exists():
        raise MistError(f"{folder} holds no images.txt: remove it, {archive} will then be unpacked")
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        if digest != ARCHIVE_MD5:
            raise MistError(
                f"{archive} has the MD5 {digest}, not the {ARCHIVE_MD5} of the published one: get it again at "
                f"{ADDRESS}, or unpack it yourself if you packed it anew"
            )
        with tempfile.TemporaryDirectory(dir=archive.parent) as aside:
            with tarfile.open(archive, "r:gz") as packed:
                packed.extractall(aside, filter="data")
            (Path(aside) / FOLDER).rename(folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise MistError(f"{archive} can't be unpacked ({error}): is there room, and may you write there?") from error
