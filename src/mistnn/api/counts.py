"""Counts that are given in Python, in any of the usual forms."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mistnn.data.folder.columns import FILE_WORDS, explained, not_counts, total_of
from mistnn.data.folder.files import NameMatcher
from mistnn.data.folder.tables import EXAMPLES, ONLY_CLASS, SPLIT_WORDS, Table, parse_table, read_table
from mistnn.data.text_files import check_name
from mistnn.interfaces import Split


class Counted(NamedTuple):
    """Counts of some images.

    Attributes:
        class_names: the order of the numbers.
        rows: for each image its numbers; ``None`` where a table has no row for it.
        splits: for each image its split; empty if the counts say nothing about splits.
        per_image: whether each image names its own classes, so that one it doesn't name has the count 0.
        notes: what was left out, one line each.
    """

    class_names: tuple[str, ...]
    rows: Sequence[tuple[int, ...] | None]
    splits: tuple[Split | None, ...] = ()
    per_image: bool = False
    notes: tuple[str, ...] = ()


def given_counts(counts: Any, names: Sequence[str], files: bool, class_names: Sequence[str] | None) -> Counted:
    """The counts of some images.

    Args:
        counts: one of: a list or array of one number per image; a list of {class: number}; {class: numbers}; an array
            (images, classes), with ``class_names``; where the images are files, {file: {class: number}} or
            {file: number}, and the path of a ``counts.csv``; or a pandas ``DataFrame``, with one column per class and
            one row per image in their order (or with the files as index, or in a column ``file``), or with the columns
            file, class and count; a column ``split`` holds train, validation or test. An index holds files if all its
            labels are texts or paths, or it is called "file".
        names: of the images.
        files: whether these are names of files.
        class_names: the names of the columns of an array; also the name of the one class of a list of numbers.

    Raises:
        ValueError: if there is not one row for each image, if a number is missing, negative or not whole, or if the
            form is not one of these; also if names of files are needed and the images have none, or if the index of
            pandas objects numbers the rows in another order than theirs.
        MistError: if a file or a table can't be read.
    """
    if isinstance(counts, str | Path):
        _check_files(files, f"counts={str(counts)!r}")
        return _of_table(read_table(Path(counts), NameMatcher(names), "counts"), names)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(counts, pandas.Series):
        counts = _of_series(counts, files)
    if pandas is not None and isinstance(counts, pandas.DataFrame):
        return _of_frame(counts, names, files)
    if isinstance(counts, Mapping):
        joined = None if pandas is None else _joined(counts, pandas)
        return _of_frame(joined, names, files) if joined is not None else _of_mapping(counts, names, files, class_names)
    if isinstance(counts, Tensor):
        counts = counts.detach().cpu().numpy()
    unordered = isinstance(counts, set | frozenset | bytes) or getattr(counts, "ndim", 1) == 0
    if unordered or not isinstance(counts, Iterable):
        raise ValueError(f"counts={counts!r} is a {type(counts).__name__}: give a list, one number for each image")
    rows = list(counts)
    _check_length(len(rows), len(names), "counts")
    if any(isinstance(row, Mapping) for row in rows):
        return _of_dictionaries(dict(enumerate(rows)), "image")
    if all(isinstance(row, Sequence | np.ndarray) and not isinstance(row, str) and np.ndim(row) for row in rows):
        return _of_array(rows, class_names)
    one = tuple(class_names) if class_names is not None and len(class_names) == 1 else (ONLY_CLASS,)
    return Counted(one, [(whole(value, f"image {index}"),) for index, value in enumerate(rows)])


def _of_series(counts: Any, files: bool) -> Any:
    """{file: number} of a Series that names files; another one unchanged, in its own order."""
    if not _names_files(counts.index):
        _check_order(counts.index)
        return counts
    _check_files(files, "the index of counts")
    if not counts.index.is_unique:
        raise ValueError("counts is a Series that names a file twice: give one number for each file")
    return counts.to_dict()


def _joined(counts: Mapping[Any, Any], pandas: Any) -> Any:
    """A table of Series that name files, which pandas joins by these names; ``None`` for other values."""
    named = [isinstance(one, pandas.Series) and _names_files(one.index) for one in counts.values()]
    if any(named) and not all(named):
        raise ValueError("counts mixes Series that name files with others: give all of them the names as index")
    if named and all(named):
        return pandas.DataFrame(dict(counts))
    first, *others = [one.index for one in counts.values() if isinstance(one, pandas.Series)] or [()]
    if any(list(first) != list(other) for other in others):
        raise ValueError(
            "counts holds Series with different indices: make a DataFrame of them, which joins them by the index, or "
            "take .reset_index(drop=True) of each if all are in the order of the images"
        )
    _check_order(first)
    return None


def _check_order(index: Iterable[Any]) -> None:
    """Refuses an index of pandas that numbers the rows from 0, but not in their order: it may number the images."""
    labels = list(index)
    order = list(range(len(labels)))
    if all(isinstance(label, int | np.integer) for label in labels) and labels != order == sorted(labels):
        raise ValueError(
            "the index of counts numbers the rows in another order than theirs: take counts.sort_index() if it numbers "
            "the images, or counts.reset_index(drop=True) if the rows are in the order of the images"
        )


def _names_files(index: Any) -> bool:
    """Whether an index of pandas holds names of files: texts or paths, or anything under a name such as "file".

    Raises:
        ValueError: if it has several levels, or holds names and others.
    """
    if getattr(index, "nlevels", 1) > 1:
        raise ValueError("the index of counts has several levels: counts.reset_index() makes columns of them")
    texts = [isinstance(label, str | Path) for label in index]
    called = re.sub(r"[\s_-]", "", str(getattr(index, "name", None) or "")).lower() in FILE_WORDS
    if any(texts) and not all(texts) and not called:
        raise ValueError("the index of counts names files in some rows only: name one in each row")
    return bool(texts) and (called or all(texts))


def whole(value: Any, place: str) -> int:
    """A count as an int.

    Raises:
        ValueError: if it is not a whole number of 0 or more.
    """
    if value is np.ma.masked:
        raise ValueError(f"counts of {place}: the value is masked: give the number of objects, or leave the image out")
    number = value.item() if isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0 else value
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
    distinct = len(set(names)) == len(names) and all(isinstance(name, str) and name for name in names)
    if not names or not distinct or isinstance(class_names, set | frozenset):
        raise ValueError(f"class_names={names!r} must be distinct names in a list, none of them empty")
    for name in names:
        check_name(name, "class_names")
    return names


def _check_files(files: bool, what: str) -> None:
    if not files:
        raise ValueError(f"{what} names files, and the images are not files: give counts in the order of the images")


def _check_keys(counts: Mapping[Any, Any], what: str) -> None:
    """Refuses keys that differ in their type only, such as 1 and "1"."""
    texts = [str(key) for key in counts]
    if twice := sorted({text for text in texts if texts.count(text) > 1}):
        raise ValueError(f"{what} names {twice[0]!r} twice, as values of different types: keep one of them")


def _check_length(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise ValueError(f"{what} has {found} rows for {wanted} images: give one for each, in the same order")


def _of_table(table: Table, names: Sequence[str]) -> Counted:
    rows = [table.values.get(name) for name in names]
    splits: tuple[Split | None, ...] = tuple(table.splits.get(name) for name in names) if table.splits else ()
    return Counted(table.class_names, rows, splits, notes=table.notes)


def _of_frame(frame: Any, names: Sequence[str], files: bool) -> Counted:
    if any(re.sub(r"[\s_-]", "", str(column)).lower() in FILE_WORDS for column in frame.columns):
        _check_files(files, "the column of files in counts")
        return _of_table(
            parse_table("the table of counts", frame.to_csv(index=False), NameMatcher(names), "counts"), names
        )
    if _names_files(frame.index):
        _check_files(files, "the index of counts")
        text = frame.to_csv(index_label=FILE_WORDS[0])
        return _of_table(parse_table("the table of counts", text, NameMatcher(names), "counts"), names)
    _check_order(frame.index)
    columns = {str(column): list(frame[column]) for column in frame.columns}
    if (column := next((name for name in columns if name.strip().lower() == "split"), None)) is not None:
        splits = _splits(columns.pop(column), names)
        return _of_rows(columns, names, files)._replace(splits=splits)
    return _of_rows(columns, names, files)


def _splits(values: Sequence[Any], names: Sequence[str]) -> tuple[Split | None, ...]:
    """The splits of images from a column of a table, one value for each image."""
    _check_length(len(values), len(names), "the column 'split' of counts")
    splits: list[Split | None] = []
    for index, value in enumerate(values):
        splits.append(split := SPLIT_WORDS.get(str(value).strip().lower()))
        if split is None:
            raise ValueError(f"counts of image {index}: split {value!r} is unknown: use train, validation or test")
    return tuple(splits)


def _of_rows(columns: Mapping[str, Sequence[Any]], names: Sequence[str], files: bool) -> Counted:
    """The counts in the columns of a table with one row for each image, in their order."""
    if files and (naming := _naming(columns, names)):
        raise ValueError(
            f"the column {naming!r} of counts seems to name the images: call it 'file', so that rows are found by it"
        )
    left = not_counts({name: [str(value) for value in values] for name, values in columns.items()})
    if not left:
        return _of_columns(columns, names)
    others = explained(left, EXAMPLES["counts"])
    if len(left) == len(columns):
        raise ValueError(f"no column of counts holds counts: {others}")
    found = _of_columns({name: values for name, values in columns.items() if name not in left}, names)
    return found._replace(notes=(f"columns that hold no counts are left out: {others}",))


def _naming(columns: Mapping[str, Sequence[Any]], names: Sequence[str]) -> str | None:
    """A column that names most of the images, with or without folders and suffixes."""
    stems = {Path(name).stem.lower() for name in names}
    for column, values in columns.items():
        texts = {Path(str(value)).stem.lower() for value in values if isinstance(value, str | Path)}
        if 2 * len(texts & stems) > len(stems):
            return column
    return None


def _of_mapping(
    counts: Mapping[Any, Any], names: Sequence[str], files: bool, class_names: Sequence[str] | None
) -> Counted:
    if not counts:
        raise ValueError("counts is an empty dictionary: give {class: [number, ...]}")
    lists = [isinstance(value, Iterable) and not isinstance(value, str | Mapping) for value in counts.values()]
    _check_keys(counts, "counts")
    if all(lists):
        columns = {str(key): list(value) for key, value in counts.items()}
        total = total_of({key: [str(value) for value in values] for key, values in columns.items()})
        found = _of_columns({key: values for key, values in columns.items() if key != total}, names)
        return found if total is None else found._replace(notes=(f"{total!r} is the sum of the others: no class",))
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
    notes = matcher.loosely_matched("counts", map(str, counts))
    if any(isinstance(value, Mapping) for value in found.values()):
        return _of_dictionaries({name: found[name] for name in names}, "")._replace(notes=notes)
    one = tuple(class_names) if class_names is not None and len(class_names) == 1 else (ONLY_CLASS,)
    return Counted(one, [(whole(found[name], name),) for name in names], notes=notes)


def _of_columns(columns: Mapping[str, Sequence[Any]], names: Sequence[str]) -> Counted:
    for name, values in columns.items():
        _check_length(len(values), len(names), f"the column {name!r} of counts")
    rows = zip(*columns.values(), strict=True)
    return Counted(
        tuple(columns), [tuple(whole(value, f"image {index}") for value in row) for index, row in enumerate(rows)]
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
        _check_keys(row, f"counts of {what} {key}")
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


def ordered(counted: Counted, class_names: tuple[str, ...] | None) -> Counted:
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
