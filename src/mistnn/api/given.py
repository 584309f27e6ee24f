"""Images that are given in Python, with their counts, as the content of an image folder."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from mistnn.api.counts import checked_names, given_counts, ordered, whole
from mistnn.data.folder.content import CountsFrom, FolderImage, OwnFolder, in_order_of, read_folder
from mistnn.data.folder.files import read_header, read_image_files
from mistnn.data.folder.tables import ONLY_CLASS, alike
from mistnn.data.images import ImageFile, UnreadableImage
from mistnn.errors import MistError
from mistnn.inference.predictor import as_image_tensor
from mistnn.interfaces import SampleDataset, Split
from mistnn.records import Sample

ROOT = Path("the given images")
"""Stands for the folder in messages."""


@dataclass(frozen=True)
class FromDataset:
    """Loads an image of a data set when it is needed.

    Attributes:
        dataset: map-style, of ``Sample``.
        index: of the sample.
    """

    dataset: Any = field(repr=False)
    index: int

    def __call__(self, channels: int) -> Tensor:
        """The image, (channels, height, width) in [0, 1]."""
        return as_image_tensor(self.dataset[self.index].image, channels)


class CheckedSamples:
    """The samples of another data set, each checked against a model when it is read.

    Args:
        samples: map-style, of ``Sample``.
        model: the configuration of the network that is trained.
    """

    def __init__(self, samples: SampleDataset, model: Any) -> None:
        if isinstance(samples, IterableDataset) or not hasattr(samples, "__getitem__") or not len(samples):
            raise ValueError(f"samples={samples!r} must be a map-style Dataset of mistnn.Sample that is not empty")
        self.samples, self.channels = samples, getattr(model, "channels", None)
        self.classes = len(getattr(model, "class_names", ()))

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """A sample; raises ``ValueError`` that names its index if the model can't learn from it."""
        sample = self.samples[index]
        known = _sample(sample, index, None, 3 if self.channels is None else self.channels)
        if self.channels not in (None, sample.image.shape[0]):
            raise ValueError(f"sample {index} has {sample.image.shape[0]} channels, and the model {self.channels}")
        if known.counts is not None and self.classes and len(known.counts) != self.classes:
            raise ValueError(f"sample {index} counts {len(known.counts)} classes, and the model has {self.classes}")
        return sample


def given_folder(images: Any, counts: Any = None, class_names: Sequence[str] | None = None) -> OwnFolder:
    """Images and counts as the content of an image folder. No pixel is copied, and image files are not decoded.

    Args:
        images: see ``given_images``; also the path of an image folder, whose own tables are read if ``counts`` is
            ``None``.
        counts: see ``given_counts``; ``None`` takes those of the samples or of the folder, if there are any.
        class_names: the order of the classes.

    Returns:
        The content. An image has a split only if the folder or the table of counts gives it one.

    Raises:
        ValueError: if a value can't be used; the message names it and the fix.
        MistError: the same for files.
    """
    class_names = None if class_names is None else checked_names(class_names)
    if isinstance(images, str | Path) and counts is None:
        folder = read_folder(images)
        return folder if class_names is None or folder.counts_from == "nothing" else in_order_of(folder, class_names)
    known = given_images(images)
    if not known:
        raise ValueError("no image was given: give at least one")
    source: CountsFrom = "counts.csv"
    notes: list[str] = []
    if counts is None:
        own = tuple(getattr(images, "class_names", ()))
        known, own, source = _of_samples(known, class_names or own)
        return OwnFolder(ROOT, tuple(known), own, source, ())
    names = [image.name for image in known]
    files = all(image.load is None for image in known)
    counted = ordered(given_counts(counts, names, files, class_names), class_names)
    if isinstance(images, str | Path):
        check_order(images, names, counts, files, class_names)
    notes += [*counted.notes, *alike(counted.class_names)]
    missing = [image.name for image, row in zip(known, counted.rows, strict=True) if row is None]
    if len(missing) == len(known):
        raise ValueError("the table of counts has no row for any of the images: check the names of the files")
    if missing:
        notes.append(f"{len(missing)} of {len(known)} images have no counts ({missing[0]}, ...): they are not used")
    splits = counted.splits or (None,) * len(known)
    rows = zip(known, counted.rows, splits, strict=True)
    return OwnFolder(ROOT, tuple(_with_counts(*row) for row in rows), counted.class_names, source, tuple(notes))


def given_images(images: Any) -> list[FolderImage]:
    """The images, checked, with what samples say about them.

    Args:
        images: the path of a folder; a sequence of paths, Pillow images, arrays (height, width) or (height, width,
            channels), tensors (channels, height, width), or samples; an array (images, height, width, channels) or a
            tensor (images, channels, height, width); or a map-style ``torch.utils.data.Dataset`` of ``Sample``.
            Integers of 8 or 16 bits are scaled to [0, 1]; floats must lie there.

    Raises:
        ValueError: if an image has another shape, type or range; the message names its index.
        MistError: if a file is no image.
    """
    if isinstance(images, str | Path):
        path = Path(images)
        if path.is_file():
            raise ValueError(f"images={str(images)!r} is one file: give a list of files, or a folder")
        return [_file(header.path, header.name) for header in read_image_files(path).headers]
    if isinstance(images, Dataset):
        if isinstance(images, IterableDataset):
            raise ValueError(f"{type(images).__name__} has no samples by index: give a map-style Dataset of Sample")
        length = len(images)  # pyright: ignore[reportArgumentType]
        if length == sys.maxsize:
            raise ValueError("this data set has no end: open it with a length")
        return [_sample(images[index], index, FromDataset(images, index)) for index in range(length)]
    if isinstance(images, np.ndarray | Tensor):
        check_stack(images)
    elif isinstance(images, Mapping | Image.Image | set | frozenset) or not isinstance(images, Iterable):
        raise ValueError(f"images is a {type(images).__name__}: give a list of images, a folder or a Dataset of Sample")
    known = [_image(image, index) for index, image in enumerate(images)]
    paths = Counter(image.path.resolve() for image in known if image.load is None)
    if twice := next((path for path, many in paths.items() if many > 1), None):
        raise ValueError(f"{twice} is given twice: it would be trained on and measured; keep one of the two")
    names = [image.name for image in known]
    if len(set(names)) < len(names):  # files of one name in two folders
        known = [image._replace(name=str(image.path)) for image in known]
    return known


def check_order(folder: str | Path, names: Sequence[str], counts: Any, *shape: Any) -> None:
    """Raises ``ValueError`` if counts without names may be meant for the images of a folder in another order.

    File managers show 2.png before 10.png; here the images of a folder are in the order of the letters.

    Args:
        folder: for the message.
        names: of its images, in their order here.
        counts: as given, and what else ``given_counts`` takes.
    """
    shown = sorted(names, key=_by_numbers)
    if shown == list(names):
        return
    here, there = (dict(zip(order, given_counts(counts, order, *shape).rows, strict=True)) for order in (names, shown))
    if here != there:  # counts with names are the same in any order
        first = next(place for place, name in enumerate(names) if name != shown[place])
        raise ValueError(
            f"the counts have no names, and the images of {folder} are in another order here than in a file manager "
            f"({names[first]} comes where {shown[first]} would): give a dict from file name to count"
        )


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """A key that sorts names as file managers do."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.lower())
    return [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in parts]


def check_stack(images: Any) -> None:
    """Raises ``ValueError`` if an array or a tensor can't be several images."""
    expected = (
        "(images, height, width, channels)" if isinstance(images, np.ndarray) else "(images, channels, height, width)"
    )
    if images.ndim != 4 and not (isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[-1] > 4):
        raise ValueError(f"images has the shape {tuple(images.shape)}: give {expected}, or a list of images")


def _image(image: Any, index: int) -> FolderImage:
    if isinstance(image, Sample):
        return _sample(image, index, partial(as_image_tensor, image.image))
    if isinstance(image, str | Path):
        return _file(Path(image), Path(image).name)
    if not isinstance(image, Tensor | Image.Image | np.ndarray):
        raise ValueError(
            f"image {index} is a {type(image).__name__}: give an array, a tensor, a Pillow image or a path"
        )
    height, width = _size(image, index)
    return FolderImage(
        f"image {index}", ROOT, width, height, None, None, None, None, None, partial(as_image_tensor, image)
    )


def _size(image: Any, index: int, channels: int = 3) -> tuple[int, int]:
    try:
        height, width = as_image_tensor(image, channels).shape[-2:]
    except ValueError as error:
        raise ValueError(f"image {index}: {error}") from error
    return height, width


def _file(path: Path, name: str) -> FolderImage:
    try:
        header = read_header(ImageFile(path, name))
    except UnreadableImage as error:
        raise MistError(f"{path} can't be used ({error}): correct the path, or leave the file out") from error
    return FolderImage(name, path, header.width, header.height, None, None, None, None, None)


def _sample(sample: Any, index: int, load: Any, channels: int = 3) -> FolderImage:
    if not isinstance(sample, Sample):
        raise ValueError(f"sample {index} is a {type(sample).__name__}: give a Dataset of mistnn.Sample(image, counts)")
    height, width = _size(sample.image, index, channels)
    counts = None if sample.counts is None else tuple(whole(value, f"sample {index}") for value in sample.counts)
    present = None if sample.presence is None else tuple(map(bool, sample.presence.tolist()))
    return FolderImage(
        f"sample {index}",
        ROOT,
        width,
        height,
        counts,
        present if counts is None else tuple(count > 0 for count in counts),
        None if sample.boxes is None or sample.labels is None else sample.boxes.cpu().numpy(),
        None if sample.boxes is None or sample.labels is None else sample.labels.cpu().numpy(),
        None,
        load,
    )


def _of_samples(
    known: list[FolderImage], class_names: tuple[str, ...]
) -> tuple[list[FolderImage], tuple[str, ...], CountsFrom]:
    """Images with the annotations of their samples, the classes, and the kind of annotation."""
    for source, values in (
        ("counts.csv", [one.counts for one in known]),
        ("labels.csv", [one.present for one in known]),
    ):
        given = [value for value in values if value is not None]
        if not given:
            continue
        lengths = {len(value) for value in given}
        if len(given) < len(known) or len(lengths) > 1:
            raise ValueError("all samples must have counts of the same classes, or none of them")
        classes = lengths.pop()
        names = class_names or ((ONLY_CLASS,) if classes == 1 else tuple(map(str, range(classes))))
        if len(names) != classes:
            raise ValueError(f"samples count {classes} classes, and class_names has {len(names)}: {', '.join(names)}")
        return known, names, source  # pyright: ignore[reportReturnType]
    return [one._replace(boxes=None, labels=None) for one in known], (), "nothing"


def _with_counts(image: FolderImage, row: tuple[int, ...] | None, split: Split | None) -> FolderImage:
    # Boxes stay only beside the counts of the same sample, whose classes they have.
    return image._replace(
        counts=row,
        present=None if row is None else tuple(value > 0 for value in row),
        boxes=None,
        labels=None,
        split=split,
    )
