"""What the papers leave open in the unlabelled case, and what it changes: scales, code size, width, keypoint step.

Three embedded digits of 14 to 28 px on 56x56; one thing differs from the first row at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from mistnn.data import ScenesConfig
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.presets import Experiment, find_preset, mist_parts
from mistnn.presets.mist_discover import SCALES
from mistnn.studies.ablation import Cell

STEPS = 300
BATCH = 16
METRICS = ("iou50", "rmse", "rmse_black", "r2")
SCENES = ScenesConfig(layout="hard", source="embedded", canvas=56, counts=(3,), object_size=(14, 28))


def choice_cells() -> Iterator[Cell]:
    """The base, and each choice on its own."""
    preset = find_preset("mist-discover-mnist-hard").experiment
    model, step = mist_parts(preset)
    model = dataclasses.replace(model, k=3)
    base = dataclasses.replace(
        preset,
        data=SCENES,
        train=dataclasses.replace(find_preset("demo-discover").experiment.train, batch_size=BATCH),
        evaluation_images=0,
    )

    def cell(name: str, note: str, model: MistConfig, step: LiftedStepConfig = step) -> Cell:
        experiment: Experiment = dataclasses.replace(base, model=model, step=step)
        return Cell(f"choices-{name}", note, experiment)

    def coded(code: int) -> MistConfig:
        return dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, code=code))

    listed = ", ".join(f"{scale:g}" for scale in SCALES)
    yield cell("base", f"scales {listed} x 14 px, code 32, 16 channels, scale moves with 4 x the step", model)
    yield cell("one-scale", "one scale, 21 px", dataclasses.replace(model, scales=(1.5,)))
    yield cell(
        "five-scales", "five scales, 1.25 to 2.05", dataclasses.replace(model, scales=(1.25, 1.4, 1.6, 1.8, 2.05))
    )
    yield cell("fine-scales", "scales from 14 px: 1, 1.4, 2", dataclasses.replace(model, scales=(1.0, 1.4, 2.0)))
    yield cell("code-8", "a code of 8 numbers", coded(8))
    yield cell("code-128", "a code of 128 numbers", coded(128))
    wide = dataclasses.replace(model, heatmap=dataclasses.replace(model.heatmap, channels=32))
    yield cell("32-channels", "the paper's 32 channels in the heat-map network", wide)
    yield cell("scale-x-1", "scale moves like the position", model, dataclasses.replace(step, scale_step=1.0))
    yield cell("scale-frozen", "scale is not lifted", model, dataclasses.replace(step, scale_step=0.0))
