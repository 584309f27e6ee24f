"""``mist presets``: the experiments that can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mistnn.cli.parsing import parse
from mistnn.cli.screen import show_table

DESCRIPTION = "Lists the presets of `mist train`, with their number of steps and the images per step."


@dataclass(frozen=True)
class Presets:
    """Takes no arguments."""


def run(arguments: Sequence[str]) -> int:
    """Prints the table."""
    parse(Presets, arguments, "mist presets", DESCRIPTION)
    from mistnn.presets import PRESETS

    loops = {name: preset.experiment.train for name, preset in PRESETS.items()}
    rows = [(name, f"{loop.steps:,}", str(loop.batch_size), PRESETS[name].summary) for name, loop in loops.items()]
    show_table(("preset", "steps", "images per step", "summary"), rows, numbers=("steps", "images per step"))
    return 0
