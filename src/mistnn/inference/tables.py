"""The tables that a prediction writes; they can be truncated to a recorded length and continued."""

from __future__ import annotations

import contextlib
import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from mistnn.data.images import DETECTION_COLUMNS, DETECTIONS_FILE
from mistnn.inference.coco import NOTHING_YET, CocoCounts, CocoWriter, coco_file
from mistnn.inference.counting import interval
from mistnn.records import Detections

COUNTS_FILE, COCO_FILE = "counts.csv", "detections.json"
COUNT_COLUMNS = ("file", "class", "count", "at_limit", "low", "high", "unlike")


class Tables:
    """The open tables; see ``open_tables``."""

    def __init__(self, files: Mapping[str, TextIO], classes: Sequence[str], coco: CocoWriter | None) -> None:
        self._files, self._classes, self.coco = files, classes, coco
        self._detections: Any = csv.writer(_UnixRows(files[DETECTIONS_FILE]))
        self._counts: Any = csv.writer(_UnixRows(files[COUNTS_FILE]))
        if files[COUNTS_FILE].tell() == 0:  # new
            self._detections.writerow(DETECTION_COLUMNS)
            self._counts.writerow(COUNT_COLUMNS)

    def add(
        self,
        name: str,
        size: tuple[int, int],
        found: Detections,
        labels: Sequence[str],
        at_limit: bool | None,
        intervals: Sequence[float],
    ) -> None:
        """Adds one image: its name in the results, (width, height), its detections and their class names.

        ``at_limit``: see ``Predictor.at_limit``; the cell is empty for ``None``. ``intervals``: see
        ``Finder.intervals``; the cells are empty without them. ``unlike`` is 1 for an image that differs more from the
        training images than all validation images do, else 0; empty if the model can't say.
        """
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), labels, strict=True):
            self._detections.writerow((name, *(f"{value:.4f}" for value in box), label, f"{score:.6f}"))
        counts = Counter(labels)
        marked = "" if at_limit is None else int(at_limit)
        unlike = "" if found.unlike is None else int(found.unlike > 1)
        labels = self._classes or ("",)
        for label, factor in zip(labels, intervals or [None] * len(labels), strict=True):
            ends = ("", "") if factor is None else interval(counts[label], factor)
            self._counts.writerow((name, label, counts[label], marked, *ends, unlike))
        if self.coco is not None:
            self.coco.add(name, *size, found)

    @property
    def coco_counts(self) -> CocoCounts:
        """The entries of the COCO file so far."""
        return NOTHING_YET if self.coco is None else self.coco.counts

    def lengths(self) -> dict[str, int]:
        """The length of each file in bytes, after writing them to disk."""
        files = {**self._files, **({} if self.coco is None else self.coco.files)}
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        return {name: os.fstat(file.fileno()).st_size for name, file in files.items()}


@contextlib.contextmanager
def open_tables(
    folder: Path, classes: Sequence[str], coco: bool, lengths: Mapping[str, int], counts: CocoCounts
) -> Iterator[Tables]:
    """Opens the tables of a prediction, new or to continue.

    Args:
        coco: whether to write a COCO file too, which is completed when the block ends without an error.
        lengths: what ``Tables.lengths`` returned; later rows are cut off. Empty for new tables.
        counts: the entries of the COCO file at that time.
    """
    for name, length in lengths.items():
        os.truncate(folder / name, length)
    mode = "a" if lengths else "w"
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(coco_file(folder / COCO_FILE, classes, counts)) if coco else None
        files = {
            # surrogateescape: on Linux a file name may be invalid UTF-8; its bytes are written unchanged.
            name: stack.enter_context(open(folder / name, mode, encoding="utf-8", errors="surrogateescape", newline=""))
            for name in (DETECTIONS_FILE, COUNTS_FILE)
        }
        tables = Tables(files, classes, writer)
        yield tables
        tables.lengths()  # flushed to the disk before they get their final names


class _UnixRows:
    r"""A file for the csv writer that ends rows with "\n".

    The writer itself must end them with "\r\n": otherwise Python before 3.13 leaves a lone "\r" unquoted.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")
