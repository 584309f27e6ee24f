"""The photographs of a folder that ``mist build`` made, as a data set; in training mirrored and masked at random."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.data.base import ImagesConfig, StoredImages
from mistnn.data.corners import centred
from mistnn.data.images import read_image, to_tensor
from mistnn.data.photographs.build import BOXES, DATASET, FORMAT, SPLIT, SPLITS
from mistnn.data.text_files import BoxesEntry, Corners, read_boxes, read_json
from mistnn.errors import MistError
from mistnn.interfaces import Known, Split
from mistnn.records import Sample

BUILD = "`mist build pascal-coco` or `mist build voc07` makes such a folder"
AGAIN = "build the folder again"


@dataclass(frozen=True)
class NaturalConfig(ImagesConfig):
    """A built folder, and the augmentation of its training images.

    Attributes:
        root: a folder that ``mist build`` made.
        mirror: whether training images are mirrored left-right at random (paper).
        mask: smallest and largest side of a square on each training image, as shares of its shorter edge (paper: .15 to
            .6). Its place is random and its colour is the mean of the pixels it hides; 0 0 for none.
    """

    kind: ClassVar[str] = "natural"
    root: str | None = None
    mirror: bool = True
    mask: tuple[float, float] = (0.15, 0.6)

    def check(self) -> None:
        """Checks the mask."""
        if not 0 <= self.mask[0] <= self.mask[1] <= 1:
            raise MistError(f"data.mask={self.mask} must be two increasing shares of the image, or 0 0 for none")

    @property
    def known(self) -> Known:
        """What is known without reading any file."""
        return Known(channels=3)

    def open(self, split: Split, length: int | None = None) -> NaturalImages:
        """One split, see ``NaturalImages``."""
        return NaturalImages(self, split, length)

    def read_class_names(self) -> tuple[str, ...]:
        """The classes of the folder; empty if none is given."""
        return () if self.root is None else read_built(self.root).class_names

    def digest(self) -> str:
        """The SHA-256 of ``split.csv``."""
        return read_built(self.root).digest


class BuiltImage(NamedTuple):
    """An image of a built folder."""

    file: str  #: Relative to the folder.
    width: int
    height: int
    corners: tuple[Corners, ...]
    labels: tuple[int, ...]  #: Index of the class of each object.


class BuiltFolder(NamedTuple):
    """The content of a built folder."""

    root: Path
    name: str
    class_names: tuple[str, ...]  #: The order of the labels.
    images: Mapping[Split, tuple[BuiltImage, ...]]  #: Split -> its images, by name.
    digest: str  #: SHA-256 of the list of files and their splits.


def read_built(root: str | None) -> BuiltFolder:
    """The content of a built folder.

    Raises:
        MistError: if no folder is given, ``mist build`` did not make it, a list was changed since, or an image is
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
        raise MistError(f"{folder / SPLIT} can't be read ({error.strerror}): {AGAIN}") from error
    digest = hashlib.sha256(listing).hexdigest()
    if digest != described.get("split_sha256"):
        hashes = f"SHA-256 {digest[:12]}, {DATASET} says {str(described.get('split_sha256'))[:12]}"
        raise MistError(f"{folder / SPLIT} was changed since the folder was built ({hashes}): {AGAIN}")
    try:
        names = tuple(str(name) for name in described["classes"])
        known = {entry.file: _image(entry, names) for entry in entries}
        rows = [line.rpartition(",")[::2] for line in listing.decode().splitlines()[1:]]
        images: dict[Split, tuple[BuiltImage, ...]] = {
            split: tuple(known[file] for file, own in rows if own == split) for split in SPLITS
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"{type(error).__name__} {error}"
        raise MistError(f"{folder / BOXES} and {SPLIT} don't belong together ({why}): {AGAIN}") from error
    if missing := [image.file for some in images.values() for image in some if not (folder / image.file).is_file()]:
        raise MistError(f"{folder / missing[0]} is missing (missing in all: {len(missing)}): {AGAIN}")
    return BuiltFolder(folder, str(described.get("name", folder.name)), names, images, digest)


def _image(entry: BoxesEntry, names: tuple[str, ...]) -> BuiltImage:
    width, height = entry.size
    labels = tuple(names.index(label) for label in entry.labels or ())
    if len(labels) < len(entry.corners):
        raise ValueError(f"{entry.file} has boxes without labels")
    return BuiltImage(entry.file, int(width), int(height), tuple(entry.corners), labels)


class NaturalImages(StoredImages[NaturalConfig]):
    """One split of a built folder.

    Training samples have one size, that of the largest image of the split: smaller images are padded at the right and
    at the bottom with the mean colour of ImageNet, which is 0 to the backbone, and have their true ``size``. Validation
    and test images keep their own size.

    Args:
        folder: its content, if it was read before.
    """

    def __init__(
        self, config: NaturalConfig, split: Split, length: int | None, folder: BuiltFolder | None = None
    ) -> None:
        super().__init__(config, split, length)
        self.folder = read_built(config.root) if folder is None else folder
        self.class_names = self.folder.class_names
        self.images = self.folder.images[split]
        if not self.images:
            raise MistError(f"{self.folder.root}: the {split} split holds no image: {AGAIN}")
        self._set_number(len(self.images))
        self.height = max(image.height for image in self.images)
        self.width = max(image.width for image in self.images)

    def __getitem__(self, index: int) -> Sample:
        """One image with its counts, boxes and labels."""
        sample = self._sample(self.images[self._draw(index).image])
        if self.length is not None:
            return sample
        random = np.random.default_rng((self.config.seed, 1, index))
        if self.config.mirror and random.random() < 0.5:
            sample = mirrored(sample)
        if self.config.mask[1]:
            sample = sample._replace(image=masked(sample.image, self.config.mask, random))
        size = torch.tensor(sample.image.shape[-2:])
        return sample._replace(image=self._padded(sample.image), size=size)

    def _sample(self, known: BuiltImage) -> Sample:
        path = self.folder.root / known.file
        image = to_tensor(read_image(path, AGAIN), 3)
        if image.shape[-2:] != (known.height, known.width):
            raise MistError(f"{path} has another size than in {BOXES}: {AGAIN}")
        boxes = torch.from_numpy(centred(np.array(known.corners, dtype=np.float64).reshape(-1, 4))).float()
        labels = torch.tensor(known.labels, dtype=torch.int64)
        return Sample(image, torch.bincount(labels, minlength=len(self.class_names)), boxes, labels)

    def _padded(self, image: Tensor) -> Tensor:
        down, right = self.height - image.shape[-2], self.width - image.shape[-1]
        if not down and not right:
            return image
        colour = torch.tensor(PADDING)[:, None, None]
        return F.pad(image - colour, (0, right, 0, down)) + colour


PADDING = (0.485, 0.456, 0.406)  #: The mean colour of ImageNet.


def mirrored(sample: Sample) -> Sample:
    """A sample flipped left-right."""
    assert sample.boxes is not None
    boxes = sample.boxes.clone()
    boxes[:, 0] = sample.image.shape[-1] - boxes[:, 0]
    return sample._replace(image=sample.image.flip(-1), boxes=boxes)


def masked(image: Tensor, sizes: tuple[float, float], random: np.random.Generator) -> Tensor:
    """An image with a square at a random place, filled with the mean colour of the pixels that it hides.

    ``sizes`` are the smallest and the largest side, as shares of the shorter edge.

    Reference: MIST (CVPR 2021), section 5.2. The released code draws height and width separately.
    """
    height, width = image.shape[-2:]
    side = max(1, round(random.uniform(*sizes) * min(height, width)))
    top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
    result = image.clone()
    hidden = result[:, top : top + side, left : left + side]
    hidden[:] = hidden.mean(dim=(-2, -1), keepdim=True)
    return result
