"""One protocol for each table: what an entry must share with the others of its row before they are averaged."""

from __future__ import annotations

from mistnn.interfaces import ModelConfig
from mistnn.reproduce.ledger import Entry
from mistnn.reproduce.table import Table

UNTUNED = "strength of the heat map not chosen by this table's search"


def chooses_reading(table: Table, model: ModelConfig) -> bool:
    """Whether a row's heat map is read as ``mist tune`` chooses: in such a table, every one with a strength."""
    return table.tuned and bool(model.reading_strengths)


def difference(table: Table, model: ModelConfig, entry: Entry) -> str:
    """What sets an entry apart from the present protocol of a table, in a few words; empty if nothing does.

    Args:
        table: of the row.
        model: of the row's preset.
        entry: with the row's name.
    """
    return entry.differs or (UNTUNED if chooses_reading(table, model) and not entry.reading else "")


def stands(model: ModelConfig, entry: Entry, measure: str) -> bool:
    """Whether an entry has a measure by the present protocol.

    An unknown K (``..._free_k``) once used the reading for a given K; such an entry names no strength of its own.

    Args:
        model: of the row's preset.
        entry: of any protocol.
        measure: its name.
    """
    own = not (measure.endswith("_free_k") and model.reading_strengths) or "strength_free_k" in entry.metrics
    return measure in entry.metrics and own
