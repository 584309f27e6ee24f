"""Presets: a name for every row of a table and every figure of the papers.

``mistnn.presets.<paper>`` holds the presets of a paper as ``PRESETS``.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from mistnn.errors import MistError
from mistnn.experiments import Experiment, Preset
from mistnn.papers import modules

PRESETS: dict[str, Preset] = {preset.name: preset for module in modules("mistnn.presets") for preset in module.PRESETS}


def find_preset(name: str) -> Preset:
    """The preset with a name.

    Raises:
        MistError: if there is none, with the nearest name.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f"did you mean {near[0]}?" if near else "`mist presets` lists them"
    folder = f"; to train on an image folder: `mist train my-folder --data-root {name}`" if Path(name).is_dir() else ""
    raise MistError(f"no preset is called {name!r}: {hint}{folder}")


__all__ = ["PRESETS", "Experiment", "Preset", "find_preset"]
