"""``mist results``: the page of all measured results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mistnn.cli.parsing import Folder, parse
from mistnn.errors import MistError

DESCRIPTION = (
    "Makes the page of results from the ledger: a table for each table of the papers, with the paper's numbers beside "
    "ours, then every measured run with its seed, steps, time, hardware, versions and commit. `mist evaluate --record` "
    "and `mist demo --record` write entries of the ledger."
)


@dataclass(frozen=True)
class Results:
    """The arguments.

    Attributes:
        ledger: folder of the entries.
        out: the page, in Markdown.
    """

    ledger: Folder = Path("results")
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/results.md")


def run(arguments: Sequence[str]) -> int:
    """Writes the page."""
    request = parse(Results, arguments, "mist results", DESCRIPTION)
    from mistnn.reproduce.ledger import read_ledger
    from mistnn.reproduce.results_page import results_page
    from mistnn.training.runfolder import write_atomically

    if not request.ledger.is_dir():
        raise MistError(f"--ledger {request.ledger} is not a folder: give the one that holds the entries")
    entries = read_ledger(request.ledger)
    write_atomically(request.out, results_page(entries).encode())
    print(f"{request.out}: {len(entries)} entries")
    return 0
