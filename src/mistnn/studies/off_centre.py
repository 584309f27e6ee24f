"""The off-centre trap: classification alone lets all keypoints settle beside their objects; what helps against it.

Every combination of objective, start of the heat-map network and window on the patch, on the demo's scenes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

from mistnn.presets import find_preset, mist_parts
from mistnn.presets.mist_digits import EMBEDDED_THREE
from mistnn.studies.ablation import Cell

STEPS = 200
BATCH = 16
WINDOW = 0.3
"""Standard deviation of the Gaussian window on the patch, as a fraction of its side."""
METRICS = ("iou50", "both", "offset")


def off_centre_cells() -> Iterator[Cell]:
    """All eight combinations."""
    for objective in ("eq9", "joint"):
        for start in ("energy", "random"):
            for window in (0.0, WINDOW):
                yield _cell(objective, start, window)


def _cell(objective: Literal["eq9", "joint"], start: Literal["energy", "random"], window: float) -> Cell:
    demo, joint = find_preset("demo").experiment, objective == "joint"
    model, step = mist_parts(demo)
    experiment = dataclasses.replace(
        demo,
        data=EMBEDDED_THREE,  # digits as they are: what is asked is where keypoints settle
        model=dataclasses.replace(
            model,
            decoder=model.decoder if joint else 0,
            patch_window=window,
            heatmap=dataclasses.replace(model.heatmap, start=start),
        ),
        step=dataclasses.replace(step, reconstruction=step.reconstruction if joint else 0.0),
        train=dataclasses.replace(demo.train, batch_size=BATCH),
    )
    words = f"equation 9 + {step.reconstruction:g} x equation 8" if joint else "equation 9 alone"
    return Cell(
        f"off-centre-{objective}-{start}-{'window' if window else 'plain'}",
        f"{words}, start {start}, window {window:g}",
        experiment,
    )
