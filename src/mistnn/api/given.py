"""Images and counts that are given in Python, in any of the usual forms, as the content of an image folder.

Images: see ``given_images``. Counts: see ``given_counts``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from mistnn.data.folder import FolderImage, OwnFolder, in_order_of, read_folder
from mistnn.data.folder.content import CountsFrom
from mistnn.data.folder.files import NameMatcher, read_header, read_image_files
from mistnn.data.folder.tables import FILE_WORDS, ONLY_CLASS, parse_table, read_table
from mistnn.data.images import ImageFile, UnreadableImage
from mistnn.errors import MistError
from mistnn.inference.predictor import as_image_tensor
from mistnn.interfaces import Split
from mistnn.records import Sample

ROOT = Path("the given images")
"""Stands for the folder in messages."""


class Counted(NamedTuple):
    """Counts of some images.

    Attributes:
        class_names: the order of the numbers.
        rows: for each image its numbers; ``None`` where a table has no row for it.
        splits: for each image its split; empty if the counts say nothing about splits.
        per_image: whether each image names its own classes, so that one it doesn't name has the count 0.
    """

    class_names: tuple[str, ...]
    rows: list[tuple[int, ...] | None]
    splits: tuple[Split | None, ...] = ()
    per_image: bool = False


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
    counted = _ordered(given_counts(counts, names, files, class_names), class_names)
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
        _check_stack(images)
    elif isinstance(images, Mapping | Image.Image) or not isinstance(images, Iterable):
        raise ValueError(f"images is a {type(images).__name__}: give a list of images, a folder or a Dataset of Sample")
    known = [_image(image, index) for index, image in enumerate(images)]
    names = [image.name for image in known]
    if len(set(names)) < len(names):  # files of one name in two folders
        known = [image._replace(name=str(image.path)) for image in known]
    return known


def given_counts(counts: Any, names: Sequence[str], files: bool, class_names: Sequence[str] | None) -> Counted:
    """The counts of some images.

    Args:
        counts: one of: a list or array of one number per image; a list of {class: number}; {class: numbers}; an array
            (images, classes), with ``class_names``; where the images are files, {file: {class: number}} or
            {file: number}, and the path of a ``counts.csv``; or a pandas ``DataFrame``, with one column per class and
            one row per image in their order (or with the files as index, or in a column ``file``), or with the columns
            file, class and count.
        names: of the images.
        files: whether these are names of files.
        class_names: the names of the columns of an array; also the name of the one class of a list of numbers.

    Raises:
        ValueError: if there is not one row for each image, if a number is missing, negative or not whole, or if the
            form is not one of these; also if names of files are needed and the images have none.
        MistError: if a file or a table can't be read.
    """
    if isinstance(counts, str | Path):
        _check_files(files, f"counts={str(counts)!r}")
        return _of_table(read_table(Path(counts), NameMatcher(names), "counts"), names)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(counts, pandas.DataFrame):
        return _of_frame(counts, names, files)
    if isinstance(counts, Mapping):
        return _of_mapping(counts, names, files, class_names)
    if isinstance(counts, Tensor):
        counts = counts.detach().cpu().numpy()
    if not isinstance(counts, Iterable):
        raise ValueError(f"counts={counts!r} is a {type(counts).__name__}: give one number for each image")
    rows = list(counts)
    _check_length(len(rows), len(names), "counts")
    if any(isinstance(row, Mapping) for row in rows):
        return _of_dictionaries(dict(enumerate(rows)), "image")
    if all(isinstance(row, Sequence | np.ndarray) and not isinstance(row, str) for row in rows):
        return _of_array(rows, class_names)
    one = tuple(class_names) if class_names is not None and len(class_names) == 1 else (ONLY_CLASS,)
    return Counted(one, [(whole(value, f"image {index}"),) for index, value in enumerate(rows)])


def whole(value: Any, place: str) -> int:
    """A count as an int.

    Raises:
        ValueError: if it is not a whole number of 0 or more.
    """
    number = value.item() if isinstance(value, np.generic | Tensor) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(
            f"counts of {place}: {value!r} is not a number: give the number of objects, 0 if there is none"
        )
    if math.isnan(number):
        raise ValueError(f"counts of {place}: the value is NaN: give the number of objects, or leave the image out")
    if number < 0 or number != number // 1 or math.isinf(number):
        raise ValueError(f"counts of {place}: {number} is not a whole number of 0 or more: correct it")
    return int(number)


def checked_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of classes as a tuple.

    Raises:
        ValueError: if there is none, or they are not distinct texts.
    """
    names = (class_names,) if isinstance(class_names, str) else tuple(class_names)
    if not names or len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"class_names={names!r} must be distinct names, none of them empty")
    return names


# Images.


def _check_stack(images: Any) -> None:
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


def _size(image: Any, index: int) -> tuple[int, int]:
    try:
        height, width = as_image_tensor(image, 3).shape[-2:]
    except ValueError as error:
        raise ValueError(f"image {index}: {error}") from error
    return height, width


def _file(path: Path, name: str) -> FolderImage:
    try:
        header = read_header(ImageFile(path, name))
    except UnreadableImage as error:
        raise MistError(f"{path} can't be used ({error}): correct the path, or leave the file out") from error
    return FolderImage(name, path, header.width, header.height, None, None, None, None, None)


def _sample(sample: Any, index: int, load: Any) -> FolderImage:
    if not isinstance(sample, Sample):
        raise ValueError(f"sample {index} is a {type(sample).__name__}: give a Dataset of mistnn.Sample(image, counts)")
    height, width = _size(sample.image, index)
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


# Counts.


def _check_files(files: bool, what: str) -> None:
    if not files:
        raise ValueError(f"{what} names files, and the images are not files: give counts in the order of the images")


def _check_length(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise ValueError(f"{what} has {found} rows for {wanted} images: give one for each, in the same order")


def _of_table(table: Any, names: Sequence[str]) -> Counted:
    rows = [table.values.get(name) for name in names]
    splits = tuple(table.splits.get(name) for name in names) if table.splits else ()
    return Counted(table.class_names, rows, splits)


def _of_frame(frame: Any, names: Sequence[str], files: bool) -> Counted:
    if any(str(column).strip().lower() in FILE_WORDS for column in frame.columns):
        _check_files(files, "the column of files in counts")
        return _of_table(
            parse_table("the table of counts", frame.to_csv(index=False), NameMatcher(names), "counts"), names
        )
    if all(isinstance(label, str) for label in frame.index) and len(frame):
        _check_files(files, "the index of counts")
        text = frame.to_csv(index_label=FILE_WORDS[0])
        return _of_table(parse_table("the table of counts", text, NameMatcher(names), "counts"), names)
    return _of_columns({str(column): list(frame[column]) for column in frame.columns}, names)


def _of_mapping(
    counts: Mapping[Any, Any], names: Sequence[str], files: bool, class_names: Sequence[str] | None
) -> Counted:
    if not counts:
        raise ValueError("counts is an empty dictionary: give {class: [number, ...]}")
    lists = [isinstance(value, Iterable) and not isinstance(value, str | Mapping) for value in counts.values()]
    if all(lists):
        return _of_columns({str(key): list(value) for key, value in counts.items()}, names)
    if any(lists):
        raise ValueError("counts mixes lists with other values: give {class: [number, ...]} or {file: {class: number}}")
    _check_files(files, f"counts with the key {next(iter(counts))!r}")
    matcher, found = NameMatcher(names), {}
    for key, value in counts.items():
        name = matcher.find(str(key), "counts")
        if name in found:
            raise ValueError(f"counts names {name} twice: keep one of the two")
        found[name] = value
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"counts has no entry for {missing[0]}: add it, or leave the image out")
    if any(isinstance(value, Mapping) for value in found.values()):
        return _of_dictionaries({name: found[name] for name in names}, "")
    one = tuple(class_names) if class_names is not None and len(class_names) == 1 else (ONLY_CLASS,)
    return Counted(one, [(whole(found[name], name),) for name in names])


def _of_columns(columns: Mapping[str, Sequence[Any]], names: Sequence[str]) -> Counted:
    for name, values in columns.items():
        _check_length(len(values), len(names), f"the column {name!r} of counts")
    rows = zip(*columns.values(), strict=True)
    return Counted(
        tuple(columns),
        [tuple(whole(value, f"image {index}") for value in row) for index, row in enumerate(rows)],
    )


def _of_dictionaries(counts: Mapping[Any, Any], what: str) -> Counted:
    for key, row in counts.items():
        if not isinstance(row, Mapping):
            raise ValueError(
                f"counts of {what} {key}: {row!r} is no dictionary, and others are: give {{class: number}}"
            )
    classes = tuple(sorted({str(name) for row in counts.values() for name in row}))
    if not classes:
        raise ValueError("counts names no class: give {class: number} for each image")
    rows = []
    for key, row in counts.items():
        named = {str(name): whole(value, f"{what} {key}".strip()) for name, value in row.items()}
        rows.append(tuple(named.get(name, 0) for name in classes))
    return Counted(classes, rows, per_image=True)


def _of_array(rows: Sequence[Any], class_names: Sequence[str] | None) -> Counted:
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or lengths[0] == 0:
        raise ValueError(f"the rows of counts have {lengths} values: give each image one value per class")
    if class_names is None and lengths[0] > 1:
        raise ValueError(f"counts has {lengths[0]} columns: name them, class_names=[...]")
    names = (ONLY_CLASS,) if class_names is None else tuple(class_names)
    if len(names) != lengths[0]:
        raise ValueError(f"counts has {lengths[0]} columns, and class_names has {len(names)}: make them equal")
    values = [tuple(whole(value, f"image {index}") for value in row) for index, row in enumerate(rows)]
    return Counted(names, values)


def _ordered(counted: Counted, class_names: tuple[str, ...] | None) -> Counted:
    """The counts with their classes in a given order."""
    if class_names is None or counted.class_names == class_names:
        return counted
    unknown = [name for name in counted.class_names if name not in class_names]
    missing = [name for name in class_names if name not in counted.class_names]
    if unknown or (missing and not counted.per_image):
        raise ValueError(
            f"counts has the classes {', '.join(counted.class_names)}, and those of the model are "
            f"{', '.join(class_names)}: give the same classes"
        )
    place = {name: index for index, name in enumerate(counted.class_names)}
    rows = [
        None if row is None else tuple(row[place[name]] if name in place else 0 for name in class_names)
        for row in counted.rows
    ]
    return counted._replace(class_names=class_names, rows=rows)
