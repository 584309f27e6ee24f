"""Presets: a name for every experiment of the papers, and the one place where model, data, step and metrics meet."""

from __future__ import annotations

import difflib

from mistnn.errors import MistError
from mistnn.presets import air, house_numbers, mist_digits, mist_discover, my_folder, natural, rivals, spair, stn
from mistnn.presets.evaluation import evaluate
from mistnn.presets.experiment import (
    Experiment,
    Preset,
    build,
    describe,
    evaluate_stored,
    mist_parts,
    read_log,
    restore,
    train,
)
from mistnn.presets.systems import open_data
from mistnn.presets.unknown_k import evaluate_unknown_k

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        *mist_digits.PRESETS,
        *mist_discover.PRESETS,
        *rivals.PRESETS,
        *air.PRESETS,
        *spair.PRESETS,
        *house_numbers.PRESETS,
        *natural.PRESETS,
        *stn.PRESETS,
        *my_folder.PRESETS,
    )
}


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        MistError: if there is none, with the nearest names.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {near[0]}?" if near else "`mist presets` lists them"
    raise MistError(f"no preset is called {name!r}: {hint}")


__all__ = [
    "PRESETS",
    "Experiment",
    "Preset",
    "build",
    "describe",
    "evaluate",
    "evaluate_stored",
    "evaluate_unknown_k",
    "find_preset",
    "mist_parts",
    "open_data",
    "read_log",
    "restore",
    "train",
]
