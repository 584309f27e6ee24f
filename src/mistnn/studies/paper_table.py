"""What a table of a paper is: its rows, its columns, its numbers."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A row of a table of the paper.

    Attributes:
        system: as the paper prints it.
        data: the data set.
        name: of the ledger entries that repeat it.
        paper: the paper's numbers, in the order of the table's columns; ``None`` where it has none.
    """

    system: str
    data: str
    name: str
    paper: tuple[float | None, ...]


class Least(NamedTuple):
    """What a run must reach, or it has failed.

    Attributes:
        metric: as the ledger's entries name it.
        value: the least that is no failure.
        system: of which systems it is asked: those whose name begins so; all of them if empty.
    """

    metric: str
    value: float
    system: str = ""


class Size(NamedTuple):
    """What the runs of a table are, and on how many test images they are measured.

    Attributes:
        steps: iterations at quick size. No row takes more than its preset, here and at full size.
        batch: images an iteration at quick size.
        images: of a test at quick size.
        full_images: of a test at full size.
        full: iterations, and images an iteration, of every row at full size; the presets' own if not given.
    """

    steps: int
    batch: int
    images: int
    full_images: int
    full: tuple[int, int] | None = None


class Table(NamedTuple):
    """A table of the paper, theirs beside ours.

    Attributes:
        command: what ``mist reproduce`` calls it.
        title: with the paper's own number of the table.
        columns: the metrics, as the ledger's entries name them.
        rows: of the table.
        unknown_k: whether K that is not told is measured too.
        note: what a reader of the table should know.
        size: of its runs, where it is not that of the tables of digits.
        decimals: of the numbers.
        least: what a run must reach; those that don't are told below the table.
    """

    command: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    unknown_k: bool = False
    note: str = ""
    size: Size | None = None
    decimals: int = 3
    least: Least | None = None
