"""Presets: a name for every row of a table and every figure of the papers.

``mistnn.presets.<paper>`` holds the presets of a paper as ``PRESETS``.
"""

from __future__ import annotations

import difflib
import shlex
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
    if Path(name).is_dir():
        raise MistError(
            f"no preset is called {name!r}, but there is a folder {name}: to train on the images in it, type "
            f"`mist train my-folder --data-root {shlex.quote(name)}`"
        )
    hint = f"did you mean {near[0]}?" if near else "`mist presets` lists them"
    raise MistError(f"no preset is called {name!r}: {hint}")


__all__ = ["PRESETS", "Experiment", "Preset", "find_preset"]
