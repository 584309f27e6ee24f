"""Tables of counts and of labels, as people and spreadsheets write them.

Convention: rows are numbered like lines in a text editor; the header is usually row 1. The separator is a comma, a
semicolon or a tab. Blank lines, spaces around values and the case of the header don't matter. A number may have
decimals that are zero: 3.0, or 3,0.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from mistnn.data.folder.columns import (
    FILE_WORDS,
    MISSING,
    closeness,
    explained,
    named_otherwise,
    not_counts,
    sum_of_some,
)
from mistnn.data.folder.files import NameMatcher
from mistnn.data.folder.sheets import read_sheet
from mistnn.data.images import COUNT_COLUMNS
from mistnn.data.text_files import class_name, from_cell, listed, read_text
from mistnn.errors import MistError
from mistnn.interfaces import Split

CLASS_WORDS = ("class", "classname", "label")
COUNT_WORDS = ("count", "counts", "number", "n")
SPLIT_WORDS: Mapping[str, Split] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
EXAMPLES = {"counts": "file,class,count", "labels": "file,class"}  #: First lines of tables.
TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")
NO_CLASS = MISSING | {"background", "empty", "no object", "nothing"}  #: Names that may mean that there is no object.
TOTAL_WORDS = frozenset({"all", "sum", "total", "totals"})
SUMMED_LEAST = 3  #: In fewer images, one class may be the sum of the others by chance (our choice).
ALIKE_LEAST = 5  #: In fewer images, two classes may have the same numbers by chance (our choice).
ALIKE_SHARE = 0.8  #: Of the images, for a class that is nearly a sum, or nearly another class (our choice).
PREDICTED = "counts that a model predicted are not ground truth"
ONLY_CLASS = "object"  #: The class where a file has counts or boxes but no classes.

_NUMBER = re.compile(r"([+-]?[0-9]+)(?:[.,]([0-9]*))?")


class Table(NamedTuple):
    """The content of a table."""

    class_names: tuple[str, ...]  #: In the order of the columns; sorted if rows name the classes.
    values: dict[str, tuple[int, ...]]  #: Image name -> one number per class; 0 or 1 in a table of labels.
    splits: dict[str, Split]  #: Image name -> split; empty if the table has no column ``split``.
    notes: tuple[str, ...]  #: Messages of one line each.


class _Row(NamedTuple):
    place: str  # "counts.csv, row 7"
    image: str
    cells: list[str]


class _Columns(NamedTuple):
    """Positions in the header; -1 where a column is missing."""

    file: int
    split: int
    label: int
    number: int
    classes: dict[str, int]

    @property
    def used(self) -> tuple[int, ...]:
        return (self.file, self.split, self.label, self.number, *self.classes.values())


def read_table(path: Path, matcher: NameMatcher, kind: Literal["counts", "labels"], begun: bool = True) -> Table:
    """Reads ``counts.csv`` or ``labels.csv``, or the same as ``.tsv`` or, with the extra "files", as ``.xlsx``.

    Counts are rows ``file,class,count``, or one column per class; ``file,count`` has one class called "object". If an
    image has rows for some classes only, the others count 0. Labels are rows ``file,class`` (an empty class: none is
    present), or one column of 0 and 1 per class. A column ``split`` holds train, validation or test. Columns that hold
    something else, see ``not_counts``, are left out; a note names each. Images without any number are not counted.

    Args:
        path: the table.
        matcher: of the images.
        kind: what the table holds.
        begun: whether a table without any number is refused; else it has no class.

    Raises:
        MistError: if the header is not understood, a name matches no image or several, a row is repeated, a value is
            missing or impossible, or a split is unknown.
    """
    text, notes = read_sheet(path) if path.suffix.lower() == ".xlsx" else (read_text(path), ())
    table = parse_table(path.name, text, matcher, kind, begun)
    return table._replace(notes=(*table.notes, *notes))


def parse_table(
    source: str, text: str, matcher: NameMatcher, kind: Literal["counts", "labels"], begun: bool = True
) -> Table:
    """As ``read_table``, from the text of a table; ``source`` names it in messages."""
    lines = _cells(source, text)
    if not lines:
        raise MistError(f"{source} is empty: begin it with a line such as file,class,count")
    top, header = lines[0][0], [class_name(cell) for cell in lines[0][1]]
    columns = _columns(f"{source}, row {top}", header, kind)
    _check_quotes(source, lines[1:], len(header), columns.file, matcher)
    rows = _rows(source, lines, len(header), columns.file)
    unknown = [row for row in rows if not matcher.match_loosely(row.image)]
    if unknown:
        matcher.find(unknown[0].image, unknown[0].place, len({row.image for row in unknown}) - 1)
    written = [row.image for row in rows]
    rows = [row._replace(image=matcher.find(row.image, row.place)) for row in rows]
    matcher.check_apart(source, {name: row.image for name, row in zip(written, rows, strict=True)})
    columns, meant = _meant_splits(source, header, rows, columns)
    loose = (*_predicted(source, header), *matcher.loosely_matched(source, written), *_unnamed(source, header, rows))
    loose = (*meant.values(), *loose)
    splits = _splits(rows, columns.split)
    numbers = [columns.number] if columns.label >= 0 else list(columns.classes.values())
    if not begun and not any(row.cells[column] for row in rows for column in numbers):
        return Table(_named(rows, columns, kind), {}, splits, loose)
    if columns.label < 0:
        classes, notes = _class_columns(f"{source}, row {top}", rows, columns.classes, kind)
        values = _wide(rows, classes, kind)
        notes = (
            *notes,
            *_uncounted(source, rows, values),
            *alike(classes),
            *odd_names(classes),
            *_counted_twice(tuple(classes), values, kind),
            *loose,
        )
        return Table(tuple(classes), values, splits, notes)
    table = _long(source, rows, columns, splits)
    unused = [name for at, name in enumerate(header) if name and at not in columns.used and name not in meant]
    notes = (f"{source}: columns that are not used: {', '.join(map(repr, unused))}",) if unused else ()
    twice = _counted_twice(table.class_names, table.values, kind)
    return table._replace(notes=(*notes, *loose, *table.notes, *twice))


def _rows(source: str, lines: Sequence[tuple[int, list[str]]], width: int, file: int) -> list[_Row]:
    """The rows below a header of so many columns. Raises ``MistError`` if one is too long or names no file."""
    rows = []
    for number, cells in lines[1:]:
        place = f"{source}, row {number}"
        if len(cells) > width and any(cells[width:]):
            raise MistError(
                f"{place}: {len(cells)} values in {width} columns: write a name for column {width + 1} into row "
                f"{lines[0][0]}; if the row is CSV and a value holds a separator, put the value in quotation marks"
            )
        cells += [""] * (width - len(cells))
        if not cells[file]:
            raise MistError(f"{place}: no file is named: write the name of the image, or delete the row")
        rows.append(_Row(place, cells[file], cells))
    if not rows:
        raise MistError(f"{source} has a header but no row: add one for each image")
    return rows


def _cells(source: str, text: str) -> list[tuple[int, list[str]]]:
    """Line number and stripped values of each line that isn't blank."""
    separator = ""
    first = re.match(r"\s*sep=(.)\r?\n", text)  # Excel's own first line
    if first:
        separator, text = first.group(1), "\n" + text[first.end() :]
    if not separator:
        header = next((line for line in text.splitlines() if line.strip()), "")
        try:
            separator = max(",;\t", key=lambda sign: len(next(csv.reader([header], delimiter=sign))))
        except csv.Error as error:
            raise MistError(f"{source}, row 1: {error}: save it as CSV in UTF-8 again") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t")
    lines = []
    try:
        for cells in reader:
            stripped = [from_cell(cell.strip()) for cell in cells]
            if any(stripped):
                lines.append((reader.line_num, stripped))
    except csv.Error as error:
        raise MistError(f"{source}, row {reader.line_num}: {error}: save it as CSV in UTF-8 again") from error
    return lines


def _check_quotes(
    source: str, lines: Sequence[tuple[int, Sequence[str]]], columns: int, file: int, matcher: NameMatcher
) -> None:
    """Refuses a cell of several lines of which one begins as the row of another image: a quotation mark is missing."""
    for number, cells in lines:
        for cell in cells:
            for line in cell.splitlines()[1:]:
                first = re.split(r"[,;\t]", line)
                if len(first) >= max(2, columns) and first[file].strip(' "') and matcher.match(first[file].strip(' "')):
                    raise MistError(
                        f"{source}, row {number}: a quotation mark is not closed, and the row of {first[file].strip()} "
                        "and others are part of one value: delete the mark, or write a second one"
                    )


def _predicted(source: str, header: Sequence[str]) -> list[str]:
    """A note on a table that a prediction has written."""
    marks = set(COUNT_COLUMNS) - {*FILE_WORDS, *CLASS_WORDS, *COUNT_WORDS}
    if not marks.issubset(header):
        return []
    return [f"{source} looks like the table of a prediction: {PREDICTED}"]


def _unnamed(source: str, header: Sequence[str], rows: Sequence[_Row]) -> list[str]:
    """A note on columns that have values and no name, as those below a header of merged cells."""
    columns = {index: [row.cells[index] for row in rows] for index, name in enumerate(header) if not name}
    numbers = [[str(first + at) for at in range(len(rows))] for first in (0, 1)]  # of the rows, as pandas writes them
    filled = [
        f"column {index + 1} ({next(filter(None, values))[:20]!r}, ...)"
        for index, values in columns.items()
        if any(values) and values not in numbers
    ]
    what = "columns without a name are not used"
    return [f"{source}: {what}: {', '.join(filled)}; if one holds counts, name it"] if filled else []


def _columns(place: str, header: Sequence[str], kind: Literal["counts", "labels"]) -> _Columns:
    """The role of each column, from the header."""
    words = [_word(cell) for cell in header]
    found = ", ".join(filter(None, header))

    def position(names: Sequence[str]) -> int:
        return next((words.index(name) for name in names if name in words), -1)

    example = EXAMPLES[kind]
    file, split, label, count = (position(names) for names in (FILE_WORDS, ("split",), CLASS_WORDS, COUNT_WORDS))
    if file < 0:
        raise MistError(f"{place}: no column is called file, but {found}: begin with a line such as {example}")
    if label >= 0 and (count >= 0 or kind == "labels"):
        return _Columns(file, split, label, count, {})
    if label >= 0:
        raise MistError(f"{place}: a class but no count in {found}: add a column count, or name it labels.csv")
    named = [(name, index) for index, name in enumerate(header) if name and index not in (file, split)]
    classes = dict(named)
    if not classes:
        raise MistError(f"{place}: no class in {found}: begin with a line such as {example}")
    if len(classes) < len(named):
        twice = next(name for name in classes if list(header).count(name) > 1)
        raise MistError(f"{place}: two columns are called {twice!r}: give each class one column")
    return _Columns(file, split, -1, -1, classes)


def _meant_splits(
    source: str, header: Sequence[str], rows: Sequence[_Row], columns: _Columns
) -> tuple[_Columns, dict[str, str]]:
    """The columns without those that hold splits under another name, and a note on each of these, by its name.

    A column that says only "valid" of some images is none.
    """
    notes: dict[str, str] = {}
    for at, name in enumerate(header):
        if not name or columns.split >= 0 or at in (columns.file, columns.label, columns.number):
            continue
        values = list(dict.fromkeys(row.cells[at] for row in rows if row.cells[at]))
        if (
            values
            and all(one.lower() in SPLIT_WORDS for one in values)
            and [one.lower() for one in values] != ["valid"]
        ):
            said = "values are" if len(values) > 1 else "only value is"
            notes[name] = f"{source}: column {name!r} is not used: its {said} {' and '.join(values)}: call it split"
            notes[name] += " to use them"
    if notes and columns.classes and notes.keys() >= columns.classes.keys():
        raise MistError(f"{next(iter(notes.values()))}; no other column holds counts: add one")
    classes = {name: at for name, at in columns.classes.items() if name not in notes}
    return columns._replace(classes=classes), notes


def _class_columns(
    place: str, rows: Sequence[_Row], named: Mapping[str, int], kind: Literal["counts", "labels"]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The columns of classes, and a note that names the others."""
    left = not_counts({name: [row.cells[column] for row in rows] for name, column in named.items()})
    classes = {name: column for name, column in named.items() if name not in left}
    if not left:
        return _one_unnamed(classes, kind), ()
    others = explained(left, EXAMPLES[kind])
    if not classes:
        raise MistError(f"{place}: no column holds counts: {others}")
    return _one_unnamed(classes, kind), (f"{place}: columns that hold no counts are left out: {others}",)


def _one_unnamed(classes: dict[str, int], kind: Literal["counts", "labels"]) -> dict[str, int]:
    """``ONLY_CLASS`` in place of the name "count" of the only column."""
    only = kind == "counts" and len(classes) == 1 and _word(next(iter(classes))) in COUNT_WORDS
    return {ONLY_CLASS: next(iter(classes.values()))} if only else classes


def _word(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _splits(rows: Sequence[_Row], column: int) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for place, image, cells in rows if column >= 0 else ():
        split = SPLIT_WORDS.get(cells[column].lower())
        if split is None:
            raise MistError(f"{place}: split {cells[column]!r} is unknown: use train, validation or test")
        if splits.setdefault(image, split) != split:
            raise MistError(f"{place}: {image} is in {splits[image]} in an earlier row and in {split} here: choose one")
    return splits


def _wide(
    rows: Sequence[_Row], classes: Mapping[str, int], kind: Literal["counts", "labels"]
) -> dict[str, tuple[int, ...]]:
    values: dict[str, tuple[int, ...]] = {}
    seen: set[str] = set()
    for place, image, cells in rows:
        if image in seen:
            raise MistError(f"{place}: {image} already has a row: delete one of the two")
        seen.add(image)
        if kind == "counts" and not any(cells[column] for column in classes.values()):
            continue  # nobody has counted it yet
        values[image] = tuple(_whole(cells[column], f"{place}, {name}") for name, column in classes.items())
        if kind == "labels" and max(values[image]) > 1:
            raise MistError(f"{place}: {max(values[image])} is neither 0 nor 1: counts belong in counts.csv")
    return values


def _uncounted(source: str, rows: Sequence[_Row], values: Mapping[str, object]) -> tuple[str, ...]:
    """A note on the rows without any number. Raises ``MistError`` if none has one."""
    empty = [row.image for row in rows if row.image not in values]
    if not values:
        raise MistError(f"{source}: no row holds a count: write the number of objects in some images")
    return (f"{source}: {listed(empty)}: no number in the row, so not counted",) if empty else ()


def _long(source: str, rows: Sequence[_Row], columns: _Columns, splits: dict[str, Split]) -> Table:
    counted: dict[str, dict[str, int]] = {}
    begun = {row.image for row in rows if columns.number < 0 or row.cells[columns.number]}
    for place, image, cells in rows:
        if begun and image not in begun:
            continue  # nobody has counted it yet
        name = class_name(cells[columns.label])
        of_image = counted.setdefault(image, {})
        if name in of_image:
            raise MistError(f"{place}: {image} already has a row for {name or 'no class'}: delete one of the two")
        if columns.number >= 0:
            if not name:
                raise MistError(f"{place}: the class is missing: write one, or delete the row")
            of_image[name] = _whole(cells[columns.number], place)
        else:
            of_image[name] = 1
    names = tuple(sorted({name for of_image in counted.values() for name in of_image if name}))
    if not names:
        raise MistError(f"{rows[0].place}: no row names a class: write the classes that are present")
    notes = [*_uncounted(source, rows, counted), *alike(names), *odd_names(names)]
    short = [image for image, of_image in counted.items() if len(of_image) < len(names)]
    if columns.number >= 0 and short:
        notes.append(f"classes without a row count 0, in {len(short)} images ({listed(short)})")
    values = {image: tuple(of_image.get(name, 0) for name in names) for image, of_image in counted.items()}
    return Table(names, values, splits, tuple(notes))


def alike(names: Iterable[str]) -> list[str]:
    """A note on classes that are perhaps one.

    They differ only in case, spaces, hyphens and underscores, in how an accent is stored, or because one was read in
    another encoding.
    """
    first: dict[str, str] = {}
    pairs = [(other, name) for name in names if (other := first.setdefault(_word(_usual(name)), name)) != name]
    if not pairs:
        return []
    shown = listed([f"{one!r} and {other!r}" for one, other in pairs])
    return [
        f"classes with almost the same name ({shown}) are learned as different ones: if they are one, write it alike"
    ]


def odd_names(names: Iterable[str]) -> Iterator[str]:
    """Notes on the name of a class that seems to list several, or to say that there is none."""
    for name in names:
        if re.search(r"\w\s*[;|,]\s*\w", name):
            yield f"class {name!r} is learned as one: if it lists several, write a row for each"
        if name.endswith("*") or name.lower().strip("_") == "ignore":  # QuPath, LabelMe
            yield f"class {name!r} is learned as any other: if it marks what to ignore, remove its objects"
        if name.lower() in NO_CLASS:
            yield f"class {name!r} is learned as any other: if it means that there is no object, leave the class empty"


def _usual(name: str) -> str:
    """A name with its accents in composed form; if it is UTF-8 that was read as Windows-1252, as it was meant."""
    try:
        name = name.encode("cp1252").decode("utf-8")
    except UnicodeError:  # the usual case
        pass
    return unicodedata.normalize("NFKC", name)


def _counted_twice(
    names: Sequence[str], values: Mapping[str, Sequence[int]], kind: Literal["counts", "labels"]
) -> list[str]:
    """Notes on classes that seem to count the objects of others once more."""
    if kind == "labels" or len(names) < 2:
        return []
    numbers = np.array(list(values.values()), dtype=np.int64)
    totals = _totals(names, values)
    sums = (_sum(names, numbers, at) for at, name in enumerate(names) if name not in totals)
    return [*totals.values(), *filter(None, sums), *_twice(names, numbers)]


def _totals(names: Sequence[str], values: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """A note on each class that seems to be a total of the others: each object would be counted twice.

    Its name says so; or it is the sum of the others in ``ALIKE_SHARE`` of the images, of which ``SUMMED_LEAST`` or more
    hold it.
    """
    notes = {}
    for index, name in enumerate(names):
        other = [image for image, row in values.items() if 2 * row[index] != sum(row)]
        words = set(re.findall(r"[^\W_]+", name.lower()))
        named = name.lower() in (*TOTAL_WORDS, *COUNT_WORDS) or (bool(TOTAL_WORDS & words) and len(other) < len(values))
        nearly = len(other) <= (1 - ALIKE_SHARE) * len(values)
        summed = nearly and len(names) > 2 and sum(row[index] > 0 for row in values.values()) >= SUMMED_LEAST
        if named or summed:
            what = f"differs from the sum of the others in {listed(other)}" if other else "is the sum of the others"
            notes[name] = f"class {name} {what}: if it is a total, remove it, or each object is counted twice"
    return notes


def _sum(names: Sequence[str], numbers: Int[np.ndarray, "images classes"], index: int) -> str:
    """A note on a class that is the sum of some others, but not of all of them; else empty."""
    if (found := sum_of_some(numbers, index)) is None:
        return ""
    *parts, last = [names[one] for one in found.classes]
    where = f"in {found.same} of {found.images} images"
    what = f"class {names[index]} is the sum of {', '.join(parts)} and {last} {where}"
    return f"{what}: if it is a total, remove it, or each object is counted twice"


def _twice(names: Sequence[str], numbers: Int[np.ndarray, "images classes"]) -> list[str]:
    """A note on two classes with the same numbers or close ones, as of two people who counted the same objects."""
    notes = []
    pairs = list(itertools.combinations(range(len(names)), 2))
    for one, other in pairs:
        first, second = numbers[:, one], numbers[:, other]
        held = (first > 0) | (second > 0)
        same, images, said = first[held & (first == second)], int(held.sum()), ""
        if images >= ALIKE_LEAST and len(same) >= ALIKE_SHARE * images and len(np.unique(same)) > 2:
            said = f"the same number in {len(same)} of {images}"
        elif close := closeness(first, second, len(pairs)):
            said = f"nearly the same number in {close.same} of {close.images}"
        if said:
            both = f"classes {names[one]} and {names[other]}"
            notes.append(f"{both} have {said} images: if they count the same objects, keep one of the two")
    return notes


def _named(rows: Sequence[_Row], columns: _Columns, kind: Literal["counts", "labels"]) -> tuple[str, ...]:
    """The classes that a table without numbers names; none in a table of files and counts."""
    if columns.label >= 0:
        return tuple(sorted({class_name(row.cells[columns.label]) for row in rows} - {""}))
    named = {name: at for name, at in columns.classes.items() if not named_otherwise(name)}
    return tuple(name for name in _one_unnamed(named, kind) if name != ONLY_CLASS)


def _whole(text: str, place: str) -> int:
    """A count; raises ``MistError`` if it is missing, negative or fractional, or its decimals may be thousands."""
    if not text:
        raise MistError(f"{place}: the value is missing: write a number (0 if there is none), or delete the row")
    match = _NUMBER.fullmatch(text)
    if text.upper() in ("TRUE", "FALSE"):
        raise MistError(f"{place}: {text!r} says only whether there are objects: write their number, or use labels.csv")
    if match is None:
        raise MistError(f"{place}: {text!r} is not a whole number: write 0, 1, 2, ..., or delete the row if unknown")
    whole, decimals = match.groups()
    if decimals and len(decimals) == 3:
        raise MistError(f"{place}: {text!r} may mean {whole} or {whole}{decimals}: write it without a separator")
    if decimals and decimals.strip("0"):
        raise MistError(f"{place}: {text!r} is a fraction: write the whole number of objects")
    if whole.startswith("-") and whole.strip("-0"):
        raise MistError(f"{place}: {text!r} is negative: write 0 or more")
    if len(whole) > 9:
        raise MistError(f"{place}: {text!r} is too large: correct it")
    return int(whole)
