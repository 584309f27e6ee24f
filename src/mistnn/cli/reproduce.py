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
  choices     what the papers leave open in the unlabelled case (scales, code size, width, step of the scale), one at a
              time, on three digits of 14 to 28 px
  precision   the demo with the heat-map network's convolutions in float32 and in bfloat16

`mist results` then makes the page."""
STUDIES = ("off-centre", "choices", "precision")


@dataclass(frozen=True)
class Reproduce:
    """The arguments.

    Attributes:
        name: which study: off-centre, choices or precision.
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
    from mistnn.studies import choices, off_centre, precision
    from mistnn.studies.ablation import run_cells

    if request.name == "off-centre":
        cells, metrics, steps = off_centre.off_centre_cells(), off_centre.METRICS, off_centre.STEPS
    elif request.name == "precision":
        cells, metrics, steps = precision.precision_cells(), precision.METRICS, precision.STEPS
    else:
        cells, metrics, steps = choices.choice_cells(), choices.METRICS, choices.STEPS
    steps = steps if request.steps is None else request.steps
    command = f"mist reproduce {request.name}"
    done = run_cells(cells, request.ledger, command, metrics, request.seeds, steps)
    print(f"{len(done)} new entries in {request.ledger}")
    return 0
