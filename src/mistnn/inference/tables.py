"""The tables that a prediction writes; they can be truncated to a recorded length and continued."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from mistnn.data.images import COUNT_COLUMNS, DETECTION_COLUMNS, DETECTIONS_FILE
from mistnn.data.text_files import as_cell
from mistnn.inference.coco import NOTHING_YET, CocoCounts, CocoWriter, coco_file
from mistnn.inference.counting import interval
from mistnn.records import Detections

COUNTS_FILE, COCO_FILE = "counts.csv", "detections.json"


class Tables:
    """The open tables; see ``open_tables``."""

    def __init__(self, files: Mapping[str, TextIO], classes: Sequence[str], coco: CocoWriter | None) -> None:
        self._files, self._classes, self.coco = files, classes, coco
        self._cells = {label: _cell(label) for label in (*classes, "")}

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
        ``Finder.intervals``; the cells are empty without them, and at the limit. ``unlike`` is 1 for an image that
        differs more from the training images than all validation images do, else 0; empty if the model can't say.
        """
        file, cells = _cell(name), self._cells
        self._files[DETECTIONS_FILE].writelines(
            f"{file},{x:.4f},{y:.4f},{w:.4f},{h:.4f},{cells[label]},{score:.6f}\n"
            for (x, y, w, h), score, label in zip(found.boxes.tolist(), found.scores.tolist(), labels, strict=True)
        )
        counts = Counter(labels)
        marked = "" if at_limit is None else int(at_limit)
        unlike = "" if found.unlike is None else int(found.unlike > 1)
        classes = self._classes or ("",)
        rows = []
        for label, factor in zip(classes, intervals or [None] * len(classes), strict=True):
            low, high = ("", "") if factor is None or at_limit else interval(counts[label], factor)
            rows.append(f"{file},{cells[label]},{counts[label]},{marked},{low},{high},{unlike}\n")
        self._files[COUNTS_FILE].writelines(rows)
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

    def append(self, folder: Path) -> None:
        """Appends the tables that another process wrote into its own folder, without headings."""
        for name, file in self._files.items():
            with open(folder / name, encoding="utf-8", errors="surrogateescape", newline="") as rows:
                shutil.copyfileobj(rows, file)
        if self.coco is not None:
            self.coco.append(folder / COCO_FILE)


@contextlib.contextmanager
def open_tables(
    folder: Path, classes: Sequence[str], coco: bool, lengths: Mapping[str, int], counts: CocoCounts, part: bool = False
) -> Iterator[Tables]:
    """Opens the tables of a prediction, new or to continue.

    Args:
        coco: whether to write a COCO file too, which is completed when the block ends without an error.
        lengths: what ``Tables.lengths`` returned; later rows are cut off. Empty for new tables.
        counts: the entries of the COCO file at that time.
        part: of one process of several, for ``Tables.append``: without headings; the COCO file isn't completed.
    """
    for name, length in lengths.items():
        os.truncate(folder / name, length)
    mode = "a" if lengths else "w"
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(coco_file(folder / COCO_FILE, classes, counts, not part)) if coco else None
        files = {
            # surrogateescape: on Linux a file name may be invalid UTF-8; its bytes are written unchanged.
            name: stack.enter_context(open(folder / name, mode, encoding="utf-8", errors="surrogateescape", newline=""))
            for name in (DETECTIONS_FILE, COUNTS_FILE)
        }
        if not lengths and not part:
            files[DETECTIONS_FILE].write(",".join(DETECTION_COLUMNS) + "\n")
            files[COUNTS_FILE].write(",".join(COUNT_COLUMNS) + "\n")
        tables = Tables(files, classes, writer)
        yield tables
        tables.lengths()  # flushed to the disk before they get their final names


def _cell(text: str) -> str:
    r"""A text as a cell of a table, quoted where necessary; see ``as_cell``.

    The csv writer must itself end rows with "\r\n": otherwise Python before 3.13 leaves a lone "\r" unquoted. A second
    cell, since it quotes a lone empty one.
    """
    row = io.StringIO(newline="")
    csv.writer(row).writerow((as_cell(text), ""))
    return row.getvalue().removesuffix(",\r\n")
