"""The photographs of a folder that ``mist build`` made, as a data set: in training mirrored and masked at random."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from mistnn.data.annotations import BoxesEntry, read_boxes, read_json
from mistnn.data.corners import centred
from mistnn.data.digits.source import Split, check_split
from mistnn.data.images import UnreadableImage, open_image, to_tensor
from mistnn.data.photographs.build import BOXES, DATASET, FORMAT, SPLIT, SPLITS
from mistnn.data.rounds import Rounds, seeded
from mistnn.errors import MistError
from mistnn.records import Sample

BUILD = "`mist build pascal-coco` or `mist build voc07` makes such a folder"


@dataclass(frozen=True)
class NaturalConfig:
    """A built folder, and what is done to its training images.

    Attributes:
        root: the folder.
        mirror: whether training images are mirrored left-right at random (paper).
        mask: least and most side of the square that is put on each training image, in shares of its shorter edge
            (paper: .15 to .6), at a random place, in the mean colour of what it hides; 0 0 for none.
        seed: of the order of training images, of mirroring and masks.
    """

    root: str | None = None
    mirror: bool = True
    mask: tuple[float, float] = (0.15, 0.6)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if not 0 <= self.mask[0] <= self.mask[1] <= 1:
            raise MistError(f"data.mask={self.mask} must be two rising shares of the image, or 0 0 for none")
        if self.seed < 0:
            raise MistError(f"data.seed={self.seed} is negative: use 0 or more")


class BuiltImage(NamedTuple):
    """An image of a built folder.

    Attributes:
        file: relative to the folder.
        width: in pixels.
        height: in pixels.
        corners: x1, y1, x2, y2 of each object.
        labels: index of the class of each object.
    """

    file: str
    width: int
    height: int
    corners: tuple[tuple[float, float, float, float], ...]
    labels: tuple[int, ...]


class BuiltFolder(NamedTuple):
    """The content of a built folder.

    Attributes:
        root: the folder.
        name: of the data set.
        class_names: one a class.
        images: split -> its images, by name.
        digest: SHA-256 of the list that says which image is for what.
    """

    root: Path
    name: str
    class_names: tuple[str, ...]
    images: Mapping[Split, tuple[BuiltImage, ...]]
    digest: str


def read_built(root: str | None) -> BuiltFolder:
    """What a built folder holds.

    Raises:
        MistError: no folder, or one that ``mist build`` did not make; a list that was changed since; an image that is
            missing from a list or from the folder.
    """
    if root is None:
        raise MistError(f"no folder of photographs is given: name it with --data.root DIR; {BUILD}")
    folder = Path(root)
    if not (folder / DATASET).is_file():
        raise MistError(f"{folder} holds no {DATASET}: {BUILD}")
    try:
        described, entries = read_json(folder / DATASET, DATASET), list(read_boxes(folder / BOXES, BOXES))
    except MistError as error:
        raise MistError(f"{folder} was changed since it was built ({error}): build it again") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise MistError(f"{folder / DATASET} is not of format {FORMAT}: build the folder with this version")
    try:
        listing = (folder / SPLIT).read_bytes()
    except OSError as error:
        raise MistError(f"{folder / SPLIT} can't be read ({error.strerror}): build the folder again") from error
    digest = hashlib.sha256(listing).hexdigest()
    if digest != described.get("split_sha256"):
        raise MistError(
            f"{folder / SPLIT} was changed since the folder was built (SHA-256 {digest[:12]}, {DATASET} says "
            f"{str(described.get('split_sha256'))[:12]}): results on it would not be comparable; build the folder again"
        )
    try:
        names = tuple(str(name) for name in described["classes"])
        known = {entry.file: _image(entry, names) for entry in entries}
        rows = [line.rpartition(",")[::2] for line in listing.decode().splitlines()[1:]]
        images: dict[Split, tuple[BuiltImage, ...]] = {
            split: tuple(known[file] for file, own in rows if own == split) for split in SPLITS
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MistError(
            f"{folder / BOXES} and {SPLIT} don't belong together ({type(error).__name__} {error}): build the folder "
            "again"
        ) from error
    missing = [image.file for some in images.values() for image in some if not (folder / image.file).is_file()]
    if missing:
        raise MistError(f"{folder / missing[0]} is missing ({len(missing)} such): build the folder again")
    return BuiltFolder(folder, str(described.get("name", folder.name)), names, images, digest)


def _image(entry: BoxesEntry, names: tuple[str, ...]) -> BuiltImage:
    width, height = entry.size
    corners = tuple((a, b, c, d) for a, b, c, d in entry.corners)
    labels = tuple(names.index(label) for label in entry.labels or ())
    if len(labels) < len(corners):
        raise ValueError(f"{entry.file} has boxes without labels")
    return BuiltImage(entry.file, int(width), int(height), corners, labels)


class NaturalImages(Dataset[Sample]):
    """A map-style data set of one split of a built folder.

    Training samples have one size, that of the largest image of the split: others are padded at the right and at the
    bottom in the mean colour of ImageNet, which is 0 to the backbone, and tell their true ``size``. Validation and test
    images keep their own.

    Index i of an endless training set is image i of an endless sequence of shuffled rounds, so that (configuration,
    index) alone say what it is.

    Args:
        config: which folder.
        split: "train", "validation" or "test".
        length: number of samples, at most as many as there are images; ``None`` for an endless training set.
        folder: its content, where it has been read before.

    Raises:
        MistError: see ``read_built``.
    """

    def __init__(
        self, config: NaturalConfig, split: Split, length: int | None, folder: BuiltFolder | None = None
    ) -> None:
        """Reads the lists, not yet the images."""
        check_split(split)
        self.folder = read_built(config.root) if folder is None else folder
        self.config = config
        self.split: Split = split
        self.class_names = self.folder.class_names
        self.images = self.folder.images[split]
        if not self.images:
            raise MistError(f"{self.folder.root}: the {split} split holds no image: build the folder again")
        self.length = length if length is None else min(length, len(self.images))
        self.height = max(image.height for image in self.images)
        self.width = max(image.width for image in self.images)
        self._rounds = Rounds(len(self.images), seeded(config.seed))

    def __len__(self) -> int:
        """The number of samples, ``sys.maxsize`` where there is no end."""
        return sys.maxsize if self.length is None else self.length

    def __getitem__(self, index: int) -> Sample:
        """One image with its counts, boxes and labels.

        Raises:
            IndexError: if the index is negative or beyond the length.
            MistError: if the image can't be read any more.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside a data set of {len(self)} images")
        if self.split != "train" or self.length is not None:
            return self._sample(self.images[index % len(self.images)])
        random = np.random.default_rng((self.config.seed, 1, index))
        sample = self._sample(self.images[self._rounds[index].image])
        if self.config.mirror and random.random() < 0.5:
            sample = mirrored(sample)
        if self.config.mask[1]:
            sample = sample._replace(image=masked(sample.image, self.config.mask, random))
        size = torch.tensor(sample.image.shape[-2:])
        return sample._replace(image=self._padded(sample.image), size=size)

    def _sample(self, known: BuiltImage) -> Sample:
        path = self.folder.root / known.file
        try:
            image = to_tensor(open_image(path), 3)
        except UnreadableImage as error:
            raise MistError(f"can't read {path} ({error}): build the folder again") from error
        if image.shape[-2:] != (known.height, known.width):
            raise MistError(f"{path} has another size than {BOXES} says: build the folder again")
        boxes = torch.from_numpy(centred(np.array(known.corners, dtype=np.float64).reshape(-1, 4))).float()
        labels = torch.tensor(known.labels, dtype=torch.int64)
        return Sample(image, torch.bincount(labels, minlength=len(self.class_names)), boxes, labels)

    def _padded(self, image: Tensor) -> Tensor:
        down, right = self.height - image.shape[-2], self.width - image.shape[-1]
        if not down and not right:
            return image
        colour = torch.tensor(PADDING)[:, None, None]
        return F.pad(image - colour, (0, right, 0, down)) + colour


PADDING = (0.485, 0.456, 0.406)
"""The mean colour of ImageNet."""


def mirrored(sample: Sample) -> Sample:
    """A sample seen in a mirror: left is right."""
    assert sample.boxes is not None
    boxes = sample.boxes.clone()
    boxes[:, 0] = sample.image.shape[-1] - boxes[:, 0]
    return sample._replace(image=sample.image.flip(-1), boxes=boxes)


def masked(image: Tensor, sizes: tuple[float, float], random: np.random.Generator) -> Tensor:
    """An image with a square at a random place, filled with the mean colour of what it hides.

    Args:
        image: (channels, height, width).
        sizes: least and most side, in shares of the shorter edge.
        random: draws side and place.

    Reference: MIST (CVPR 2021), section 5.2. (The released code draws height and width apart: no square.)
    """
    height, width = image.shape[-2:]
    side = max(1, round(random.uniform(*sizes) * min(height, width)))
    top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
    result = image.clone()
    hidden = result[:, top : top + side, left : left + side]
    hidden[:] = hidden.mean(dim=(-2, -1), keepdim=True)
    return result
