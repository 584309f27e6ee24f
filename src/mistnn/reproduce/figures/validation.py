"""The validation curves of the runs in the ledger: whether a run was long enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mistnn.errors import MistError
from mistnn.reproduce.figures.source import Request
from mistnn.reproduce.ledger import read_ledger
from mistnn.reproduce.results_page import LOWER_IS_BETTER
from mistnn.reproduce.tables import TABLES
from mistnn.viz.curves import Curve, draw_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEDGER = Path("results")  #: Default folder of the entries.


def figure_validation(request: Request) -> Figure:
    """The measure of each run with which its table compares it with the paper, on validation images during training.

    Raises:
        MistError: if the ledger holds no run with a curve.
    """
    folder = LEDGER if request.model is None else Path(request.model)
    if not folder.is_dir():
        raise MistError(f"{folder} is not a folder: give the one that holds the entries of the ledger with --model")
    measures: dict[str, list[str]] = {}  # of all tables that have the row
    for table in TABLES:
        for row in table.rows:
            measures.setdefault(row.name, []).append(table.measure(row))
    curves: dict[str, Curve] = {}
    for entry in read_ledger(folder):
        measure = next((name for name in measures.get(entry.name, ()) if name in entry.curve), "")
        points = entry.curve.get(measure, [])
        if len(points) > 1:
            scale = "amount" if measure in LOWER_IS_BETTER else "linear"
            steps, values = zip(*points, strict=True)
            curves[f"{entry.name}\nseed {entry.train_seed}"] = Curve(steps, values, scale=scale, unit=measure)
    if not curves:
        raise MistError(f"{folder} has no run with a validation curve: `mist reproduce TABLE --budget full` makes them")
    return draw_curves(curves)
