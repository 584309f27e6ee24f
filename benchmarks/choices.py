"""What the papers leave open in the unlabelled case: scales, code size, width, keypoint step, one at a time.

    python -m benchmarks.choices [--seeds 3] [--steps 300] [--ledger results]

Three embedded digits of 14 to 28 px on 56 x 56.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, as `python -m` does
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.ablation import Variant, main
from mistnn.data import ScenesConfig
from mistnn.experiments import Experiment, lifted_parts
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.presets import find_preset
from mistnn.presets.mist.discover import SCALES

STEPS = 300
BATCH = 16
METRICS = ("iou50", "rmse", "rmse_black", "r2")
SCENES = ScenesConfig(layout="hard", source="embedded", canvas=56, counts=(3,), object_size=(14, 28))


def variants() -> Iterator[Variant]:
    """The base, and each choice by itself."""
    preset = find_preset("mist-discover-mnist-hard").experiment
    model, step = lifted_parts(preset)
    loop = dataclasses.replace(find_preset("demo-discover").experiment.train, batch_size=BATCH)
    model, step = dataclasses.replace(model, k=3), dataclasses.replace(step, decay_steps=loop.steps)
    base = dataclasses.replace(preset, data=SCENES, step=step, train=loop, evaluation_images=0)

    def variant(name: str, note: str, model: MistConfig, step: LiftedStepConfig = step) -> Variant:
        experiment: Experiment = dataclasses.replace(base, model=model, step=step)
        return Variant(f"choices-{name}", note, experiment)

    def coded(code: int) -> MistConfig:
        return dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, code=code))

    listed = ", ".join(f"{scale:g}" for scale in SCALES)
    yield variant("base", f"scales {listed} x 14 px, code 32, 16 channels, scale moves with 4 x the step", model)
    yield variant("one-scale", "one scale, 21 px", dataclasses.replace(model, scales=(1.5,)))
    yield variant(
        "five-scales", "five scales, 1.25 to 2.05", dataclasses.replace(model, scales=(1.25, 1.4, 1.6, 1.8, 2.05))
    )
    yield variant("fine-scales", "scales from 14 px: 1, 1.4, 2", dataclasses.replace(model, scales=(1.0, 1.4, 2.0)))
    yield variant("code-8", "a code of 8 numbers", coded(8))
    yield variant("code-128", "a code of 128 numbers", coded(128))
    wide = dataclasses.replace(model, heatmap=dataclasses.replace(model.heatmap, channels=32))
    yield variant("32-channels", "the paper's 32 channels in the heat-map network", wide)
    yield variant("scale-x-1", "scale moves like the position", model, dataclasses.replace(step, scale_step=1.0))
    yield variant("scale-frozen", "scale is not lifted", model, dataclasses.replace(step, scale_step=0.0))


if __name__ == "__main__":
    main("choices", __doc__, variants(), METRICS, STEPS)
