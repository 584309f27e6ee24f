"""The images of a folder of your own as a data set: prepared; in training flipped at random and padded to one size."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from mistnn.data.digits.source import Split, check_split
from mistnn.data.folder.content import FolderImage, OwnFolder, read_folder
from mistnn.data.folder.object_size import SizeSuggestion, suggest_object_size
from mistnn.data.images import UnreadableImage, open_image, to_tensor
from mistnn.data.rounds import Rounds, seeded
from mistnn.errors import MistError
from mistnn.nn.preparation import Ground, PreparationConfig, prepare
from mistnn.records import Sample

MEASURED_IMAGES = 24
"""Images whose objects' size is measured, evenly chosen."""
TAIL, AGREEMENT = 0.005, 0.8
"""Which ground images have: the share of pixels at either end of the brightness, and of images that must agree."""
KEPT_BYTES = 1 << 30
"""Prepared images are kept in memory as long as they take no more; beyond that each is read whenever it is needed."""


@dataclass(frozen=True)
class FolderConfig:
    """A folder of images and what is known of them; see ``mistnn.data.folder.content`` for what it may hold.

    Attributes:
        root: the folder.
        channels: 1 (grey) or 3 (colour) that images are converted to.
        preparation: what is done to images first; the model must have the same.
        flips: whether training images are flipped left-right and up-down at random.
        seed: of the order of training images and of their flips.
    """

    root: str | None = None
    channels: int = 3
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    flips: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.channels not in (1, 3):
            raise MistError(f"data.channels={self.channels} must be 1 (grey) or 3 (colour)")
        if self.seed < 0:
            raise MistError(f"data.seed={self.seed} is negative: use 0 or more")


class FolderImages(Dataset[Sample]):
    """A map-style data set of one split of a folder.

    Samples of an endless training set have one size: that of the largest prepared image of the folder, smaller ones
    padded with black at the right and at the bottom, with their true ``size``. Others keep their own. Boxes, where the
    folder has them, are in pixels of the prepared image.

    Images are those with counts or, from ``labels.csv``, with the classes they hold, which is their ``presence`` then;
    all images where nothing is known of any. Index i of an endless training set is image i of an endless sequence of
    shuffled rounds, so that (configuration, index) alone say what it is.

    Args:
        config: which folder.
        split: "train", "validation" or "test".
        length: number of samples, at most as many as there are images; ``None`` for an endless training set.
        folder: its content, where it has been read before.

    Attributes:
        room: bytes that all prepared images take.
        keeps: whether they are kept in memory once they were asked for.

    Raises:
        MistError: if the folder can't be used, or the split holds no image of which anything is known.
    """

    def __init__(self, config: FolderConfig, split: Split, length: int | None, folder: OwnFolder | None = None) -> None:
        """Reads the folder, not yet its images."""
        check_split(split)
        folder = content_of(config) if folder is None else folder
        self.config = config
        self.split: Split = split
        self.class_names = folder.class_names
        self.images = known_images(folder, split)
        if not self.images:
            raise MistError(
                f"{config.root}: no image of the {split} split has counts or labels; "
                f"`mist inspect {config.root}` tells why"
            )
        self.length = length if length is None else min(length, len(self.images))
        sizes = [config.preparation.size(image.height, image.width) for image in folder.images]
        self.height, self.width = max(height for height, _ in sizes), max(width for _, width in sizes)
        self._kept: dict[int, Tensor] = {}
        self._rounds = Rounds(len(self.images), seeded(config.seed))
        self.room = config.channels * self.height * self.width * 4 * len(self.images)
        self.keeps = self.room <= KEPT_BYTES

    def __len__(self) -> int:
        """The number of samples, ``sys.maxsize`` where there is no end."""
        return sys.maxsize if self.length is None else self.length

    def __getitem__(self, index: int) -> Sample:
        """One image with its counts.

        Raises:
            IndexError: if the index is negative or beyond the length.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside a data set of {len(self)} images")
        if self.split != "train" or self.length is not None:
            return self._sample(index, False, False)
        image, coins = self._rounds[index]
        across, down = (coin and self.config.flips for coin in coins)
        sample = self._sample(image, across, down)
        height, width = sample.image.shape[-2:]
        padded = F.pad(sample.image, (0, self.width - width, 0, self.height - height))
        return sample._replace(image=padded, size=torch.tensor((height, width)))

    def _sample(self, index: int, across: bool, down: bool) -> Sample:
        known = self.images[index]
        image = self._prepared(index)
        height, width = image.shape[-2:]
        zoom = self.config.preparation.zoom
        boxes = None if known.boxes is None else torch.from_numpy(known.boxes).float() * zoom
        if across:
            image = image.flip(-1)
            boxes = None if boxes is None else _mirrored(boxes, 0, width)
        if down:
            image = image.flip(-2)
            boxes = None if boxes is None else _mirrored(boxes, 1, height)
        return Sample(
            image,
            None if known.counts is None else torch.tensor(known.counts),
            boxes,
            None if known.labels is None else torch.from_numpy(known.labels).long(),
            torch.tensor(known.present) if known.counts is None and known.present is not None else None,
        )

    def _prepared(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        image = prepare(load_image(self.images[index], self.config.channels)[None], self.config.preparation)[0]
        if self.keeps:
            self._kept[index] = image
        return image


def content_of(config: FolderConfig) -> OwnFolder:
    """What the folder of a configuration holds.

    Raises:
        MistError: if none is named, or it can't be used.
    """
    if config.root is None:
        raise MistError("no folder was named: give yours with --data.root DIR")
    return read_folder(config.root)


def load_image(known: FolderImage, channels: int) -> Float[Tensor, "channels height width"]:
    """An image of a folder in [0, 1].

    Raises:
        MistError: if it can't be read any more.
    """
    try:
        return to_tensor(open_image(known.path), channels)
    except UnreadableImage as error:
        raise MistError(f"can't read {known.path} ({error}): mend it, or take it out of the folder") from error


def measured_images(folder: OwnFolder) -> Sequence[FolderImage]:
    """Images to measure objects on: of the training split with counts; of no test image where there are others."""
    training = [image for image in folder.images if image.split == "train" and image.counts is not None]
    others = [image for image in folder.images if image.split != "test"]
    return evenly(training or others or folder.images, MEASURED_IMAGES)


def evenly(images: Sequence[FolderImage], most: int) -> Sequence[FolderImage]:
    """At most so many of the images, evenly chosen."""
    return images[:: math.ceil(len(images) / most)]


def object_size_of(images: Sequence[FolderImage], k: int | None = None) -> SizeSuggestion:
    """The size of the objects in some images, with the help of their counts if all have them.

    Args:
        images: at least one.
        k: how many objects each holds where counts are not known.

    Raises:
        MistError: if an image can't be read.
    """
    counts = [sum(image.counts) for image in images if image.counts is not None]
    if len(counts) < len(images):
        counts = None if k is None else [k] * len(images)
    return suggest_object_size(_Decoded(images), counts)


def known_images(folder: OwnFolder, split: Split) -> tuple[FolderImage, ...]:
    """The images of a split of which anything is known; all of them where nothing is known of any."""
    own = (image for image in folder.images if image.split == split)
    return tuple(image for image in own if image.present is not None or folder.counts_from == "nothing")


def ground_of(images: Sequence[FolderImage]) -> Ground:
    """The ground to take away: "light" where nearly all images reach further into the dark than into the light.

    From its median brightness each image reaches to its darkest and its lightest half per cent. "dark" is the contrary;
    "median" where the images disagree.

    Raises:
        MistError: if an image can't be read.
    """
    darker = []
    for image in images:
        grey = load_image(image, 3).mean(0).flatten().sort().values
        low, middle, high = (float(grey[round(share * (len(grey) - 1))]) for share in (TAIL, 0.5, 1 - TAIL))
        darker.append(middle - low > high - middle)
    share = sum(darker) / len(darker)
    return "light" if share >= AGREEMENT else "dark" if share <= 1 - AGREEMENT else "median"


class _Decoded(Sequence[Tensor]):
    """Images that are decoded when they are asked for, so that only one at a time takes memory."""

    def __init__(self, images: Sequence[FolderImage]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        return _Decoded(self.images[index]) if isinstance(index, slice) else load_image(self.images[index], 3)


def _mirrored(boxes: Tensor, axis: int, side: int) -> Tensor:
    mirrored = boxes.clone()
    mirrored[:, axis] = side - boxes[:, axis]
    return mirrored
