"""The off-centre trap: classification alone lets all keypoints settle beside their objects; what helps against it.

    python -m benchmarks.off_centre [--seeds 3] [--steps 200] [--ledger results]

Each combination of objective, initial heat-map network and window on the patch, on the demo's scenes.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

if not __package__:  # run as a file: import from the repository's root, as `python -m` does
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.ablation import Variant, main
from mistnn.experiments import lifted_parts
from mistnn.presets import find_preset
from mistnn.presets.mist.digits import EMBEDDED_THREE

STEPS = 200
BATCH = 16
WINDOW = 0.3
"""Standard deviation of the Gaussian window on the patch, as a share of its side."""
METRICS = ("iou50", "both", "offset")


def variants() -> Iterator[Variant]:
    for objective in ("eq9", "joint"):
        for start in ("energy", "random"):
            for window in (0.0, WINDOW):
                yield _variant(objective, start, window)


def _variant(objective: Literal["eq9", "joint"], start: Literal["energy", "random"], window: float) -> Variant:
    demo, joint = find_preset("demo").experiment, objective == "joint"
    model, step = lifted_parts(demo)
    experiment = dataclasses.replace(
        demo,
        data=EMBEDDED_THREE,  # undistorted digits: the question is where keypoints settle
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
    return Variant(
        f"off-centre-{objective}-{start}-{'window' if window else 'plain'}",
        f"{words}, start {start}, window {window:g}",
        experiment,
    )


if __name__ == "__main__":
    main("off_centre", __doc__, variants(), METRICS, STEPS)
