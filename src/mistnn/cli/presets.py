"""``mist presets``: the experiments that can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mistnn.cli.parsing import parse
from mistnn.cli.screen import show_table

DESCRIPTION = "Lists the experiments that `mist train` knows, with their steps and the images of each step."


@dataclass(frozen=True)
class Presets:
    """Takes nothing."""


def run(arguments: Sequence[str]) -> int:
    """Prints the table."""
    parse(Presets, arguments, "mist presets", DESCRIPTION)
    from mistnn.presets import PRESETS

    rows = [
        (name, f"{preset.experiment.train.steps:,}", str(preset.experiment.train.batch_size), preset.summary)
        for name, preset in PRESETS.items()
    ]
    show_table(("preset", "steps", "images a step", "what it is"), rows, numbers=("steps", "images a step"))
    return 0
