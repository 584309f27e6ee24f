"""Is as much read after training the heat-map network in bfloat16 as in float32? The demo's experiment, both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, get_args

from mistnn.presets import find_preset, mist_parts
from mistnn.presets.mist_digits import EMBEDDED_THREE
from mistnn.studies.ablation import Cell

STEPS = 400
METRICS = ("iou50", "classified", "both")
Precision = Literal["float32", "bfloat16"]


def precision_cells() -> Iterator[Cell]:
    """The same experiment twice."""
    demo = find_preset("demo").experiment
    for precision in get_args(Precision):
        step = dataclasses.replace(mist_parts(demo)[1], precision=precision)
        experiment = dataclasses.replace(demo, data=EMBEDDED_THREE, step=step)
        yield Cell(f"precision-{precision}", f"the demo, heat-map network in {precision}", experiment)
