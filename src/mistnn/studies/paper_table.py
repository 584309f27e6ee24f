"""What a table of a paper is: its rows, its columns, its numbers."""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    metric: str
    value: float


class Table(NamedTuple):
    """A table of the paper, theirs beside ours.

    Attributes:
        command: what ``mist reproduce`` calls it.
        title: with the paper's own number of the table.
        columns: the metrics, as the ledger's entries name them.
        rows: of the table.
        unknown_k: whether K that is not told is measured too.
        note: what a reader of the table should know.
        least: what a run must reach; those that don't are told below the table.
        loops: steps, and images a step, of every row at each budget, quick and full; the presets' own if not given. No
            row takes more steps than its preset.
    """

    command: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    unknown_k: bool = False
    note: str = ""
    least: Least | None = None
    loops: Mapping[str, tuple[int, int]] | None = None
