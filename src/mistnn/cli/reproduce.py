"""``mist reproduce``: runs a study of several trainings and writes it to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mistnn.cli.parsing import Folder, Number, OptionalNumber, parse
from mistnn.errors import MistError

DESCRIPTION = """\
Trains and measures what a study compares, skips what the ledger already holds, and writes an entry for the rest.

  off-centre  how often classification alone settles beside the objects, and what helps:
              objective x start of the heat map x window on the patch, on the demo's scenes

`mist results` then makes the page."""
STUDIES = ("off-centre",)


@dataclass(frozen=True)
class Reproduce:
    """The arguments.

    Attributes:
        name: which study: off-centre.
        ledger: folder of the entries, made if it is missing.
        seeds: how many runs of each combination.
        steps: of each run; the study's own number if not given.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    ledger: Folder = Path("results")
    seeds: Number = 3
    steps: OptionalNumber = None

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.name not in STUDIES:
            raise MistError(f"no study is called {self.name!r}: choose one of {', '.join(STUDIES)}")
        if self.seeds < 1:
            raise MistError(f"--seeds {self.seeds} runs nothing: give 1 or more")
        if self.steps is not None and self.steps < 1:
            raise MistError(f"--steps {self.steps} trains nothing: give 1 or more")


def run(arguments: Sequence[str]) -> int:
    """Runs the study."""
    request = parse(Reproduce, arguments, "mist reproduce", DESCRIPTION)
    from mistnn.studies.off_centre import STEPS, run_off_centre

    done = run_off_centre(request.ledger, request.seeds, STEPS if request.steps is None else request.steps)
    print(f"{len(done)} new entries in {request.ledger}")
    return 0
