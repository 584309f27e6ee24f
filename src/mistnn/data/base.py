"""What all data sets share: the properties of a configuration, and access to the samples of a split by index."""

from __future__ import annotations

import abc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar, get_args

import numpy as np
from jaxtyping import Float, Int64
from torch.utils.data import Dataset

from mistnn.data.random_numbers import Drawn, Rounds, generator, seeded
from mistnn.errors import MistError
from mistnn.interfaces import DataConfig, Split
from mistnn.records import Batch, Sample

DIGIT_NAMES = tuple(map(str, range(10)))  #: The classes of every data set of digits.


class Truth(NamedTuple):
    """The objects of an image: corners x1, y1, x2, y2 of each, and its class."""

    corners: Float[np.ndarray, "n 4"]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ImagesConfig(DataConfig):
    """Base of the data configurations: what a system may ask of its images.

    ``read_class_names``, ``smallest_image`` and ``truths`` may read files, and raise ``MistError`` if these are broken.
    """

    def read_class_names(self) -> tuple[str, ...]:
        """The classes, read from the files where only these name them; empty if no folder is given."""
        return self.class_names

    def smallest_image(self) -> tuple[int, str] | None:
        """Pixels and file name of the smallest image; the name is empty if all have one size; ``None`` if unknown."""
        return None if self.size is None else (self.size[0] * self.size[1], "")

    def truths(self, split: Split, length: int) -> Sequence[Truth] | None:
        """The objects of the first images of a split, where they are known without decoding any image."""
        return None


AnyConfig = TypeVar("AnyConfig", bound=ImagesConfig)


class SplitImages(Dataset[Sample], abc.ABC, Generic[AnyConfig]):
    """One split of a data set, a map-style torch data set.

    Every method that takes an index raises ``IndexError`` if it is negative or beyond the length, and ``MistError`` if
    a file can't be read or does not match its annotation.

    Args:
        config: the data set.
        length: number of samples; ``None`` for no end.

    Attributes:
        class_names: the order of ``Sample.counts``; empty where there are no classes.

    Raises:
        MistError: if the split is unknown, the length is impossible, files are missing or broken, or no image is left.
    """

    def __init__(self, config: AnyConfig, split: Split, length: int | None) -> None:
        check_split(split)
        self.config = config
        self.split: Split = split
        self.length = length
        self.class_names: tuple[str, ...] = config.class_names

    def __len__(self) -> int:
        """The number of samples, ``sys.maxsize`` where there is no end."""
        return sys.maxsize if self.length is None else self.length

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """One sample, always the same for an index."""

    def check_indices(self, indices: Sequence[int]) -> Int64[np.ndarray, " n"]:
        """The indices as an array, checked."""
        wanted = np.asarray(indices, dtype=np.int64)
        wrong = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(wrong):
            raise IndexError(f"image {wrong[0]} is outside a data set of {len(self)} images")
        return wanted

    def check_index(self, index: int) -> int:
        """The index, checked."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is outside a data set of {len(self)} images")
        return index


class GeneratedImages(SplitImages[AnyConfig]):
    """Images that are generated: sample ``index`` depends on (configuration, split, index) alone.

    Without a length there is no end, and ``len()`` is ``sys.maxsize``. Take these samples in order, as a data loader
    does by default: each sample is new anyway, and so many indices can't be shuffled.
    """

    def __init__(self, config: AnyConfig, split: Split, length: int | None) -> None:
        super().__init__(config, split, length)
        if length is not None and length < 1:
            raise MistError(f"a data set of length {length} holds no image: use 1 or more")
        self._stream = get_args(Split).index(split)

    def _generator(self, *key: int) -> np.random.Generator:
        """The random numbers of an index: ``SeedSequence(seed, spawn_key=(split, *key))``, splits numbered from 0."""
        return generator(self.config.seed, self._stream, *key)


class StoredImages(SplitImages[AnyConfig]):
    """Images that are read from files.

    Without a length, training is an endless sequence of shuffled rounds, each with all images once; the configuration
    and the index alone determine a sample. The other splits then hold all of their images.
    """

    def _set_number(self, images: int) -> None:
        """Limits the length to the number of images of the split."""
        self._rounds = Rounds(images, seeded(self.config.seed))
        if self.length is not None or self.split != "train":
            self.length = images if self.length is None else min(self.length, images)

    def _draw(self, index: int) -> Drawn:
        """The image of an index, with random coins in endless training."""
        self.check_index(index)
        return self._rounds[index] if self.length is None else Drawn(index, (False, False))


def first_sample(batch: Batch) -> Sample:
    """The first image of a batch and its annotations."""
    return Sample(*(None if part is None else part[0] for part in batch))  # pyright: ignore[reportArgumentType]


def check_split(split: str) -> None:
    """Raises ``MistError`` unless a split is train, validation or test."""
    if split not in get_args(Split):
        raise MistError(f"unknown split {split!r}: use train, validation or test")


def data_folder(root: str | None, missing: str) -> Path:
    """The folder that the user gave, with "~" expanded; raises ``MistError(missing)`` if there is none."""
    if root is None:
        raise MistError(missing)
    return Path(root).expanduser()
