"""The parts of a paper's table: rows, columns, the paper's numbers and the size of our runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        name: the preset, and the name of the ledger entries that reproduce the row.
        paper: the paper's numbers, in the order of the table's columns; ``None`` where it has none.
        unknown_k: whether the run is also measured without the number of objects, see ``evaluate_unknown_k``.
        curve: whether the run is also measured by the number of digits, see ``transfer_curve``.
        comparable: whether the images are those of the paper.
        holds_data: whether a folder holds the row's images; ``None`` if the folder needs no check.
        photographs: how many photographs the row's data have; ``None`` if the folder needs no check.
    """

    system: str
    data: str
    name: str
    paper: tuple[float | None, ...]
    unknown_k: bool = False
    curve: bool = False
    comparable: bool = True
    holds_data: Callable[[Path], bool] | None = None
    photographs: int | None = None


class Least(NamedTuple):
    """The value of a metric that a run must reach, of systems whose name begins with ``system``; of all if empty."""

    metric: str
    value: float
    system: str = ""


class Size(NamedTuple):
    """The size of a table's runs.

    Attributes:
        images: test images.
        loop: iterations (at most the preset's) and images per step; ``None`` for each preset's own.
    """

    images: int = 1000
    loop: tuple[int, int] | None = None


class Table(NamedTuple):
    """A table of a paper.

    Attributes:
        command: its name in ``mist reproduce``.
        title: includes the paper's own number of the table.
        columns: metrics, as the ledger's entries name them.
        note: what a reader of the table should know.
        decimals: of the printed numbers.
        least: what a run must reach; failures are listed below the table.
        tuned: whether all rows whose heat map has a strength are read as `mist tune` chooses on validation images; if
            not, all are read as they were trained.
        photographs: whether it needs a folder of photographs and the weights of a backbone.
        start_preset: a preset that is trained first and whose weights all rows start from; "" for none.
        headline: the measure by which rows are compared with the paper; "" for the last that has a number.
        tested_on_training_images: whether a run is measured on the images of its own seed, not on those of seed 0.
    """

    command: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    size: Size = Size()
    decimals: int = 3
    least: Least | None = None
    tuned: bool = False
    photographs: bool = False
    start_preset: str = ""
    tested_on_training_images: bool = False
    headline: str = ""

    def measure(self, row: Row) -> str:
        """The measure by which a row is compared with the paper: the last column where the paper has no number."""
        given = [name for name, paper in zip(self.columns, row.paper, strict=True) if paper is not None]
        names = given or list(self.columns)
        return self.headline if self.headline in names else names[-1]
