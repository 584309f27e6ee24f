"""The images and counts of ``mist app``: one folder on disk, to which images and tables are added."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mistnn.data.folder.files import NameMatcher
from mistnn.data.folder.tables import ONLY_CLASS, TABLE_SUFFIXES, Table, read_table
from mistnn.data.images import SUFFIXES, UnreadableImage, open_image
from mistnn.data.text_files import listed, printable
from mistnn.errors import MistError
from mistnn.files import PART
from mistnn.inference.pictures import displayed
from mistnn.reports.estimate import expect
from mistnn.reports.inspection import describe, inspect_folder, write_sheet
from mistnn.web.labels import MOST, Labels

WHOLE = re.compile(r"[0-9]{1,15}([.]0*)?", re.ASCII)
"""A count as it is typed; a page may turn 3 into 3.0."""
LONGEST = 1200
"""The longest side of an image that is shown, in pixels."""


class ImageFolder:
    """The images and the counts that the page shows and changes.

    Attributes:
        root: the images, and ``counts.csv``.
        labels: the images and their counts; ``None`` while there is no image.
    """

    def __init__(self, root: Path) -> None:
        """Reads the folder. Raises ``MistError`` if its images or counts can't be used."""
        self.root = root
        self.labels: Labels | None = None
        self._lock = threading.RLock()
        self.reload()

    def reload(self, class_names: Sequence[str] = ()) -> None:
        """Reads the folder again. Raises ``MistError`` if its images or counts can't be used."""
        with self._lock:
            some = any(one.suffix.lower() in SUFFIXES for one in self.root.iterdir())
            self.labels = Labels(self.root, class_names) if some else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes; one without a name of its own while there are no images."""
        return (ONLY_CLASS,) if self.labels is None else self.labels.class_names

    def name_classes(self, text: str) -> None:
        """Sets the classes from names with commas between them. Raises ``MistError`` if counts would be lost."""
        names = tuple(one.strip() for one in text.split(",") if one.strip())
        if not names:
            raise MistError("give the names of the classes with commas between them, such as: red cells, white cells")
        if self.labels is None:
            raise MistError("add images first")
        self.reload(names)

    def add(self, paths: Iterable[Path]) -> list[str]:
        """Copies images into the folder and reads tables of counts; returns what happened, one line each."""
        with self._lock:
            tables: list[Path] = []
            notes: list[str] = []
            added = 0
            for path in paths:
                if path.suffix.lower() in TABLE_SUFFIXES:
                    tables.append(path)
                elif (why := self._refused(path)) is not None:
                    notes.append(f"{path.name} was not added: {why}")
                else:
                    self._copy(path)  # at once: the next one may have the same name
                    added += 1
            if added:
                notes.insert(0, "1 image added" if added == 1 else f"{added} images added")
                self.reload(() if self.labels is None else self.labels.class_names)
            for path in tables:
                try:
                    notes.append(self.read_counts(path))
                except (MistError, ValueError) as error:  # the upload lies in a folder that the user does not know
                    notes.append(f"no counts were read: {str(error).replace(str(path), path.name)}")
            return list(map(printable, notes))

    def _copy(self, path: Path) -> None:
        """Copies an image into the folder, under a hidden name until it is whole."""
        part = self.root / f".upload{PART}"  # always the same, so that a kill leaves one; the image's may be too long
        try:
            shutil.copyfile(path, part)
            os.replace(part, self.root / path.name)
        except OSError as error:
            raise MistError(
                f"{printable(path.name)} can't be added to {self.root} ({error.strerror or error}): make room, or "
                "change its permissions; images before it are there"
            ) from error
        finally:
            with contextlib.suppress(OSError):  # already renamed on success
                part.unlink()

    def _refused(self, path: Path) -> str | None:
        """Why an image can't be added; ``None`` if it can."""
        if path.suffix.lower() not in SUFFIXES:
            return f"it is neither an image nor a table ({', '.join(sorted(TABLE_SUFFIXES))})"
        if path.name.startswith("."):
            return "its name begins with a dot"
        there = self.root / path.name
        if there.exists():
            same = there.is_file() and there.read_bytes() == path.read_bytes()
            return "it is there already" if same else "another image has this name: rename it"
        try:
            open_image(path)
        except UnreadableImage as error:
            return str(error)
        return None

    def read_counts(self, path: Path) -> str:
        """Takes the counts of a table over, beside those that are known. Raises ``MistError`` if it can't be used."""
        with self._lock:
            if self.labels is None:
                raise MistError("add the images first, and then the table of their counts")
            matcher = NameMatcher([one.name for one in self.labels.headers])
            table = read_table(path, matcher, "counts")
            if wrong := [name for name, values in table.values.items() if max(values, default=0) > MOST]:
                raise MistError(f"{wrong[0]}: a count above {MOST:,}: correct it")
            names = self._joined(table)
            if names != self.labels.class_names:
                self.reload(names)
            labels = self.labels
            order = [labels.class_names.index(name) for name in table.class_names]
            others = [name for name in labels.class_names if name not in table.class_names]
            fresh = [name for name in table.values if name not in labels.counts]
            zeros = [f"{', '.join(others)}: taken as 0 in {listed(fresh)}, since {path.name} has no such column"]
            counts: dict[str, list[int]] = {}
            for name, values in table.values.items():
                row = list(labels.counts.get(name, (0,) * len(labels.class_names)))
                for place, value in zip(order, values, strict=True):
                    row[place] = value
                counts[name] = row
            before = dict(labels.splits)
            labels.add_splits(table.splits)
            try:
                labels.set_all(counts)
            except MistError:
                labels.splits = before
                raise
            return "; ".join(
                [f"counts of {len(counts)} image{'s' * (len(counts) != 1)} read from {path.name}", *table.notes]
                + (zeros if others and fresh else [])
            )

    def _joined(self, table: Table) -> tuple[str, ...]:
        """The classes of the folder and of a table. Without any count, only those of the table."""
        assert self.labels is not None
        known = self.labels.class_names if self.labels.counts else ()
        return (*known, *(name for name in table.class_names if name not in known))

    def rows(self) -> list[list[Any]]:
        """For each image its name and its counts, empty where they are unknown; by name."""
        labels = self.labels
        if labels is None:
            return []
        empty = ("",) * len(labels.class_names)
        names = sorted(one.name for one in labels.headers)
        return [[name, *labels.counts.get(name, empty)] for name in names]

    def save_rows(self, rows: Iterable[Sequence[Any]], shown: Iterable[Sequence[Any]] = ()) -> str:
        """Saves rows as those of ``rows``; those that stand among the ``shown`` ones have not been changed.

        Raises:
            MistError: if a count is none.
        """
        unchanged = {str(name): cell_texts(values) for name, *values in shown}
        with self._lock:
            if self.labels is None:
                raise MistError("add images first")
            counts = {
                str(name): _counts(str(name), values, self.labels.class_names)
                for name, *values in rows
                if unchanged.get(str(name)) != cell_texts(values)
            }
            try:
                self.labels.set_all(counts)
            except ValueError as error:
                raise MistError(str(error)) from error
            return f"{len(self.labels.counts)} of {len(self.labels.headers)} images have counts"

    def picture(self, name: str) -> Image.Image:
        """An image as it is shown. Raises ``MistError`` if there is none of this name, or it can't be decoded."""
        headers = [] if self.labels is None else self.labels.headers
        path = next((one.path for one in headers if one.name == name), None)
        if path is None:
            raise MistError(f"no image is called {name!r}: reload the page")
        try:
            image = displayed(open_image(path))
        except UnreadableImage as error:
            raise MistError(f"{name}: {error}") from error
        image.thumbnail((LONGEST, LONGEST))
        return image

    def inspection(self, sheet: Path, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """What ``mist inspect`` says about the folder. Draws its contact sheet into a file."""
        found = inspect_folder(self.root, progress)
        write_sheet(found, sheet)
        return [*describe(found), "", *expect(found, progress)]


def cell_texts(values: Sequence[Any]) -> list[str]:
    """The cells of a row as text; empty for ``None`` and NaN."""
    return ["" if value is None or value != value else str(value).strip() for value in values]


def _counts(name: str, values: Sequence[Any], class_names: Sequence[str]) -> list[int] | None:
    """The counts in the cells of a row; ``None`` if all are empty."""
    texts = cell_texts(values)
    if not any(texts):
        return None
    numbers = []
    for text, label in itertools.zip_longest(texts, class_names, fillvalue=""):
        if not text:
            raise MistError(f"{name}: no number for {label}: write 0 if there is none")
        if not WHOLE.fullmatch(text):
            raise MistError(f"{name}: {text!r} is not a whole number from 0")
        numbers.append(int(float(text)))
    return numbers
