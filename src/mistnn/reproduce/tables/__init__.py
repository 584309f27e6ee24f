"""The tables of the papers, one module for each group of papers."""

from __future__ import annotations

from mistnn.errors import MistError
from mistnn.reproduce.table import Row, Table
from mistnn.reproduce.tables.digits import DIGIT_TABLES
from mistnn.reproduce.tables.generative import GENERATIVE_TABLES
from mistnn.reproduce.tables.photographs import HOUSE_NUMBERS, NATURAL_TABLES
from mistnn.reproduce.tables.stn import STN_TABLES

TABLES = (*DIGIT_TABLES, HOUSE_NUMBERS, *GENERATIVE_TABLES, *NATURAL_TABLES, *STN_TABLES)


def find_table(command: str) -> Table:
    """The table with a name. Raises ``MistError`` if there is none."""
    tables = {table.command: table for table in TABLES}
    if command not in tables:
        raise MistError(f"no table is called {command!r}: choose one of {', '.join(tables)}")
    return tables[command]


def rows_of(table: Table, only: str | None) -> list[Row]:
    """The rows whose preset or system contains a word; all rows without one. A preset's whole name selects that row.

    Raises:
        MistError: if no row matches.
    """
    word = (only or "").lower()
    rows = [row for row in table.rows if word in row.name or word in row.system.lower()]
    rows = [row for row in rows if row.name == word] or rows
    if not rows:
        systems = ", ".join(dict.fromkeys(row.system.partition(",")[0] for row in table.rows))
        raise MistError(f"--only {only}: {table.command} has no such system or preset; it has {systems}")
    return rows
