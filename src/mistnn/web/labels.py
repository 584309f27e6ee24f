"""The counts of images while a person labels them: order, undo, and ``counts.csv`` after each change."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mistnn.data.folder.annotations import read_annotations
from mistnn.data.folder.files import ImageFiles, ImageHeader, NameMatcher, read_image_files
from mistnn.data.folder.tables import ONLY_CLASS, TABLE_SUFFIXES, Table, parse_table, read_table
from mistnn.data.images import UnreadableImage, holds_results, open_image, to_tensor
from mistnn.data.text_files import as_cell, check_file, check_name, class_name, listed
from mistnn.errors import MistError
from mistnn.files import locked, replace_file, sync_folder
from mistnn.inference.predictor import Predictor
from mistnn.interfaces import Split

COUNTS_FILE = "counts.csv"
MOST = 999_999
"""The largest count that can be entered; tables refuse larger ones."""
NEAR = 2.0
"""A detection is doubtful if its score is within this factor of the threshold (our choice)."""


class Guess(NamedTuple):
    """What a model says about an image.

    Attributes:
        counts: one for each class.
        doubt: how uncertain they are; only its order matters.
    """

    counts: tuple[int, ...]
    doubt: float


@contextlib.contextmanager
def session(root: Path) -> Iterator[None]:
    """Inside the context, no other process labels the folder; ``MistError`` if one does."""
    with contextlib.ExitStack() as stack:
        if root.is_dir():  # else reading it says what is wrong
            try:
                stack.enter_context(locked(root))
            except MistError as error:
                raise MistError(
                    f"{root} is in use by another mist label, or another command: end that first"
                ) from error
        yield


class Labels:
    """The images of a folder in the order in which they are labelled, and their counts.

    Convention: images without counts come first, the most uncertain ones before others; then by name. Each change
    replaces ``counts.csv`` atomically, unless another program has changed it since. Images that lie outside the folder,
    behind links, are left out.

    Attributes:
        root: the folder.
        class_names: the classes.
        headers: the images in their order.
        counts: image name -> one count for each class.
        splits: image name -> split, where the table has such a column; then of all images.
        notes: what is left out, one line each.
    """

    def __init__(self, root: Path, class_names: Sequence[str] = ()) -> None:
        """Reads the folder and its ``counts.csv``, if there is one.

        Raises:
            MistError: if there is no image, ``counts.csv`` has other classes or columns that would be lost, the counts
                are in another file, or a class has no name.
        """
        files = read_image_files(root)
        self.root, self.path, self.notes = root, root / COUNTS_FILE, list[str]()
        real = root.resolve()
        self.headers = [one for one in files.headers if one.path.resolve().is_relative_to(real)]
        if outside := [one.name for one in files.headers if one not in self.headers]:
            self.notes.append(f"{len(outside)} images lie outside {root}, behind links: left out ({listed(outside)})")
        if files.left_out:
            name, why = next(iter(files.left_out.items()))
            self.notes.append(f"{len(files.left_out)} files can't be used ({name}: {why})")
        if not self.headers:
            raise MistError(f"no image lies in {root} itself: give the folder that holds them")
        self._matcher = NameMatcher([header.name for header in files.headers] + list(files.left_out))
        self._check_other_counts(files)
        self._on_disk = self._bytes()
        table = self._read()
        self.class_names = self._classes(table, tuple(class_names))
        self._take(table)
        new = [name for name in self.class_names if name not in table.class_names]
        if new and self.counts:
            self.notes.append(
                f"{', '.join(new)}: taken as 0 in the images that have counts already ({listed(sorted(self.counts))}): "
                "check them"
            )
        self.guesses: dict[str, Guess] = {}
        self._undo: list[tuple[str, tuple[int, ...] | None]] = []
        self.sort()

    def _take(self, table: Table) -> None:
        order = [self.class_names.index(name) for name in table.class_names]
        self.counts = {name: _placed(values, order, len(self.class_names)) for name, values in table.values.items()}
        self.splits: dict[str, Split] = {}
        self.add_splits(table.splits)

    def add_splits(self, splits: Mapping[str, Split]) -> None:
        """Takes splits over, to be written with the next counts; other images of a folder with splits train a model."""
        self.splits |= splits
        if self.splits and (new := sorted({one.name for one in self.headers} - self.splits.keys())):
            self.splits |= dict.fromkeys(new, "train")
            self.notes.append(f"the column split has no row for {listed(new)}: they are for training")

    def refresh(self) -> None:
        """Reads ``counts.csv`` again if another program has changed it; what was done before can't be undone then.

        Raises:
            MistError: if it can't be used any more; the counts then stay as they were.
        """
        if (found := self._bytes()) != self._on_disk:
            table = self._read()
            self._classes(table, self.class_names)
            self._take(table)
            self._on_disk = found
            self._undo.clear()

    def sort(self) -> None:
        """Puts the images in order, see the class."""
        doubt = {name: guess.doubt for name, guess in self.guesses.items()}
        self.headers.sort(key=lambda one: (one.name in self.counts, -doubt.get(one.name, 0.0), one.name))

    def guess_with(self, predictor: Predictor, progress: Callable[[int, int], None] | None = None) -> None:
        """Predicts the images without counts, and sorts again: the most uncertain first.

        The doubt is the width of the intervals of the counts; for a model without them, the number of detections with a
        score near the threshold.

        Raises:
            MistError: if the model can't count, or has other classes.
        """
        names = predictor.model.class_names or (ONLY_CLASS,)
        if predictor.finds_k:
            raise MistError(
                "this model finds the same number of objects in every image and can't count: train one on counts"
            )
        if set(names) != set(self.class_names):
            raise MistError(
                f"the model counts {', '.join(names)}, and the labels are {', '.join(self.class_names)}: give a model "
                "with the same classes, or leave out --classes"
            )
        order = [self.class_names.index(name) for name in names]
        todo = [header for header in self.headers if header.name not in self.counts]
        for index, header in enumerate(todo):
            if (guess := _guess(predictor, header)) is not None:
                counts = _placed(guess.counts, order, len(order))
                self.guesses[header.name] = guess._replace(counts=counts)
            if progress is not None:
                progress(index + 1, len(todo))
        if unusable := [header.name for header in todo if header.name not in self.guesses]:
            self.notes.append(f"the model can't process {len(unusable)} images ({listed(unusable)})")
        self.sort()

    def set(self, name: str, counts: Sequence[Any]) -> None:
        """Sets the counts of an image and writes the table.

        Raises:
            ValueError: if there is no such image, or the counts are not whole numbers from 0, one for each class.
            MistError: if the table can't be written, or another program has changed it; the counts then stay as they
                were.
        """
        if name not in {header.name for header in self.headers}:
            raise ValueError(f"no image is called {name!r}")
        self._check(name, counts)
        before = self.counts.get(name)
        self._put(name, tuple(counts))
        self._undo.append((name, before))

    def set_all(self, counts: Mapping[str, Sequence[int] | None]) -> None:
        """Sets the counts of several images at once, ``None`` where they are unknown; it can't be undone.

        Raises: as ``set``.
        """
        known = {header.name for header in self.headers}
        if unknown := [name for name in counts if name not in known]:
            raise ValueError(f"no image is called {unknown[0]!r}")
        for name, values in counts.items():
            if values is not None:
                self._check(name, values)
        changed = {**self.counts, **{name: tuple(one) for name, one in counts.items() if one is not None}}
        self._write({name: one for name, one in changed.items() if counts.get(name, one) is not None})
        self._undo.clear()

    def undo(self) -> str | None:
        """Takes the last change back; returns the name of its image, ``None`` if there is none. Raises as ``set``."""
        if not self._undo:
            return None
        name, before = self._undo[-1]
        self._put(name, before)
        self._undo.pop()
        return name

    def _put(self, name: str, counts: tuple[int, ...] | None) -> None:
        changed = {**self.counts}
        if counts is None:
            changed.pop(name, None)
        else:
            changed[name] = counts
        self._write(changed)

    def _check(self, name: str, counts: Sequence[Any]) -> None:
        whole = [one for one in counts if isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= MOST]
        if len(whole) != len(counts) or len(counts) != len(self.class_names):
            raise ValueError(
                f"{name}: {list(counts)!r} are not {len(self.class_names)} whole numbers from 0 to {MOST:,}"
            )

    def _write(self, changed: dict[str, tuple[int, ...]]) -> None:
        """Writes the table, and keeps these counts."""
        if self._bytes() != self._on_disk:
            raise MistError(f"another program has changed {self.path}, so nothing was saved: reload the page")
        data = self._table(changed).encode("utf-8", "surrogateescape") if changed or self.splits else None
        try:
            if data is not None:
                replace_file(self.path, data)
            else:  # a table without rows could not be read
                self.path.unlink(missing_ok=True)
                sync_folder(self.root)
        except OSError as error:
            raise MistError(
                f"can't write {self.path} ({error.strerror}): make room, or change its permissions"
            ) from error
        self._on_disk = data
        self.counts = changed

    def _table(self, counts: Mapping[str, Sequence[int]]) -> str:
        """Rows of file, class and count: no column can be mistaken for something else.

        Images with a split and no counts have rows without a number.
        """
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["file", "class", "count", *(["split"] if self.splits else [])])
        for name in sorted({*counts, *self.splits}):
            split = [self.splits[name]] if self.splits else []
            numbers = counts.get(name, [""] * len(self.class_names))
            rows.writerows(
                (as_cell(name), as_cell(label), n, *split) for label, n in zip(self.class_names, numbers, strict=True)
            )
        return text.getvalue()

    def _bytes(self) -> bytes | None:
        """The content of the table, ``None`` if there is none."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MistError(f"can't read {self.path} ({error.strerror}): change its permissions") from error

    def _check_other_counts(self, files: ImageFiles) -> None:
        """Raises ``MistError`` if a new ``counts.csv`` would replace counts from another file, or be ignored."""
        new, tables = not self.path.exists(), [f"counts{suffix}" for suffix in TABLE_SUFFIXES]
        for path in [one for folder in dict.fromkeys((self.root, files.folder)) for one in sorted(folder.iterdir())]:
            kind = path.name.lower()
            if path != self.path and kind in tables and (new or (path.parent == self.root and kind == COUNTS_FILE)):
                raise MistError(
                    f"{path} holds the counts of this folder: save it as {self.path}, and move it elsewhere"
                )
            if new and kind in [f"labels{suffix}" for suffix in TABLE_SUFFIXES]:
                self.notes.append(f"{path} isn't used any more once {COUNTS_FILE} is there")
        if new and (drawn := read_annotations(self.root, files, self._matcher)).of_image:
            example = next(iter(sorted(drawn.used)), self.root)
            raise MistError(
                f"the counts of {self.root} come from {drawn.source} ({example}), and {COUNTS_FILE} would "
                "replace them: move the annotations elsewhere to count by hand"
            )

    def _read(self) -> Table:
        if not self.path.exists():
            return Table((), {}, {}, ())
        check_file(self.path)
        if holds_results(self.root):
            raise MistError(f"{self.path} is the result of a prediction, not labels: give the folder of the images")
        data = self.path.read_bytes()
        if not data.strip():
            raise MistError(f"{self.path} is empty: delete it")
        if _is_utf8(data) or all(_is_utf8(name.encode("utf-8", "surrogateescape")) for name in self._matcher.names):
            table = read_table(self.path, self._matcher, "counts", begun=False)
        else:  # bytes that are no UTF-8 are those of file names, as in _put
            text = data.decode("utf-8", "surrogateescape")
            table = parse_table(self.path.name, text, self._matcher, "counts", begun=False)
        if lost := [note for note in table.notes if re.search(": columns (that|without) ", note)]:
            raise MistError(f"{lost[0]}; labelling would lose them: rename the file, or delete these columns")
        return table

    @staticmethod
    def _classes(table: Table, wanted: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(class_name, wanted)) or table.class_names or (ONLY_CLASS,)  # as the table will be read
        if len(set(names)) < len(names) or not all(names):
            raise MistError(f"classes {', '.join(names)}: give distinct names, none of them empty")
        for name in names:
            check_name(name, "classes")
        if lacking := [name for name in table.class_names if name not in names]:
            raise MistError(f"{COUNTS_FILE} also counts {', '.join(lacking)}: add them to the classes")
        return names


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _placed(values: Sequence[int], order: Sequence[int], size: int) -> tuple[int, ...]:
    """The values at other places; 0 elsewhere."""
    placed = [0] * size
    for value, place in zip(values, order, strict=True):
        placed[place] = value
    return tuple(placed)


def _guess(predictor: Predictor, header: ImageHeader) -> Guess | None:
    """The counts of an image and their doubt; ``None`` if the model or Pillow can't process it."""
    try:
        image = to_tensor(open_image(header.path), predictor.model.config.channels)
        found = predictor.predict(image)
    except (UnreadableImage, MistError):
        return None
    counts = tuple(found.counts.values())
    if found.count_intervals:
        return Guess(counts, float(sum(high - low for low, high in found.count_intervals.values())))
    threshold = predictor.model.threshold
    scores = predictor.predict(image, k=predictor.model.limit(*image.shape[-2:])).scores
    return Guess(counts, float(((scores > threshold / NEAR) & (scores < threshold * NEAR)).sum()))
