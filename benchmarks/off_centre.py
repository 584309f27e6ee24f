"""The off-centre trap: classification alone lets all keypoints settle beside their objects; what helps against it.

    python -m benchmarks.off_centre [--seeds 3] [--steps 200] [--ledger results]

Each combination of objective, initial heat-map network and window on the patch, on the demo's scenes.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Literal

from benchmarks.ablation import Variant, main
from mistnn.experiments import lifted_parts
from mistnn.presets import find_preset
from mistnn.presets.mist.digits import EMBEDDED_THREE

STEPS = 200
BATCH = 16
WINDOW = 0.3
"""Standard deviation of the Gaussian window on the patch, as a share of its side."""
METRICS = ("iou50", "both", "offset")
STARTS: tuple[Literal["energy", "random"], ...] = ("energy", "random")


def variants() -> Iterator[Variant]:
    demo = find_preset("demo-paper").experiment
    model, step = lifted_parts(demo)
    for joint, start, window in itertools.product((False, True), STARTS, (0.0, WINDOW)):
        heatmap = dataclasses.replace(model.heatmap, start=start)
        decoder, reconstruction = (model.decoder, step.reconstruction) if joint else (0, 0.0)
        words = f"equation 9 + {step.reconstruction:g} x equation 8" if joint else "equation 9 alone"
        yield Variant(
            f"off-centre-{'joint' if joint else 'eq9'}-{start}-{'window' if window else 'plain'}",
            f"{words}, start {start}, window {window:g}",
            dataclasses.replace(
                demo,
                data=EMBEDDED_THREE,  # undistorted digits: the question is where keypoints settle
                model=dataclasses.replace(model, decoder=decoder, patch_window=window, heatmap=heatmap),
                step=dataclasses.replace(step, reconstruction=reconstruction),
                train=dataclasses.replace(demo.train, batch_size=BATCH),
            ),
        )


if __name__ == "__main__":
    main("off_centre", __doc__, variants(), METRICS, STEPS)
