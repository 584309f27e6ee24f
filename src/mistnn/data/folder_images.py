"""The images of a folder of your own as a data set: prepared, padded to one size, in training flipped at random."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from mistnn.data.digits import Split, check_split
from mistnn.data.images import UnreadableImage, open_image, to_tensor
from mistnn.data.own_folder import FolderImage, read_folder
from mistnn.errors import MistError
from mistnn.nn.preparation import PreparationConfig, prepare
from mistnn.records import Sample

KEPT_BYTES = 1 << 30
"""Prepared images are kept in memory as long as they take no more; beyond that each is read whenever it is needed."""


@dataclass(frozen=True)
class FolderConfig:
    """A folder of images and what is known of them; see ``mistnn.data.own_folder`` for what it may hold.

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

    All samples have one size: that of the largest prepared image of the folder, smaller ones padded with black at the
    right and at the bottom. Boxes, where the folder has them, are in pixels of the prepared image.

    Training images are those with counts; index i of an endless training set is image i of an endless sequence of
    shuffled rounds, so that (configuration, index) alone say what it is.

    Args:
        config: which folder.
        split: "train", "validation" or "test".
        length: number of samples, at most as many as there are images; ``None`` for an endless training set.

    Raises:
        MistError: if the folder can't be used, or the split holds no image with counts.
    """

    def __init__(self, config: FolderConfig, split: Split, length: int | None) -> None:
        check_split(split)
        if config.root is None:
            raise MistError("no folder was named: give yours with --data.root DIR")
        folder = read_folder(config.root)
        self.config = config
        self.split: Split = split
        self.class_names = folder.class_names
        self.images = tuple(image for image in folder.images if image.split == split and image.counts is not None)
        if not self.images:
            raise MistError(
                f"{config.root}: no image of the {split} split has counts; `mist inspect {config.root}` tells why"
            )
        self.length = length if length is None else min(length, len(self.images))
        sizes = [config.preparation.size(image.height, image.width) for image in folder.images]
        self.height, self.width = max(height for height, _ in sizes), max(width for _, width in sizes)
        self._kept: dict[int, Tensor] = {}
        room = config.channels * self.height * self.width * 4 * len(self.images)
        self._keeps = room <= KEPT_BYTES

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
        turn, place = divmod(index, len(self.images))
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.config.seed, spawn_key=(0, turn))))
        order = random.permutation(len(self.images))
        flips = random.random((len(self.images), 2)) < 0.5
        across, down = flips[place].tolist() if self.config.flips else (False, False)
        return self._sample(int(order[place]), across, down)

    def _sample(self, index: int, across: bool, down: bool) -> Sample:
        known = self.images[index]
        image = self._prepared(index)
        zoom = self.config.preparation.zoom
        boxes = None if known.boxes is None else torch.from_numpy(known.boxes).float() * zoom
        if across:
            image = image.flip(-1)
            boxes = None if boxes is None else _mirrored(boxes, 0, self.width)
        if down:
            image = image.flip(-2)
            boxes = None if boxes is None else _mirrored(boxes, 1, self.height)
        return Sample(
            image,
            torch.tensor(known.counts),
            boxes,
            None if known.labels is None else torch.from_numpy(known.labels).long(),
        )

    def _prepared(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        image = prepare(load_image(self.images[index], self.config.channels)[None], self.config.preparation)[0]
        height, width = image.shape[-2:]
        image = F.pad(image, (0, self.width - width, 0, self.height - height))
        if self._keeps:
            self._kept[index] = image
        return image


def load_image(known: FolderImage, channels: int) -> Float[Tensor, "channels height width"]:
    """An image of a folder in [0, 1].

    Raises:
        MistError: if it can't be read any more.
    """
    try:
        return to_tensor(open_image(known.path), channels)
    except UnreadableImage as error:
        raise MistError(f"can't read {known.path} ({error}): mend it, or take it out of the folder") from error


def _mirrored(boxes: Tensor, axis: int, side: int) -> Tensor:
    mirrored = boxes.clone()
    mirrored[:, axis] = side - boxes[:, axis]
    return mirrored
