"""What a table of a paper is made of."""

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


class Table(NamedTuple):
    """A table of the paper, theirs beside ours.

    Attributes:
        command: what ``mist reproduce`` calls it.
        title: with the paper's own number of the table.
        columns: the metrics, as the ledger's entries name them.
        rows: of the table.
        unknown_k: whether K that is not told is measured too.
        note: what a reader of the table should know.
    """

    command: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    unknown_k: bool = False
    note: str = ""
