"""What the commands print: tables, and a progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

PIPED_WIDTH = 160
"""Columns of a table that is written to a file or a pipe, which has no width."""


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """Prints a plain table; only its last column may wrap. ``numbers`` names the columns to align at the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in headings:
        last = heading == headings[-1]
        table.add_column(heading, justify="right" if heading in numbers else "left", no_wrap=not last)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def progress_bar(title: str) -> AbstractContextManager[Callable[[int, int], None] | None]:
    """See ``mistnn.training.runlog.progress_bar``, which is loaded late, since it loads PyTorch."""
    from mistnn.training import runlog

    return runlog.progress_bar(title)
