"""What the papers leave open in the unlabelled case: scales, code size, width, keypoint step, one at a time.

    python -m benchmarks.choices [--seeds 3] [--steps 300] [--ledger results]

Three embedded digits of 14 to 28 px on 56 x 56.
"""

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.ablation import Variant, main
from mistnn.data import ScenesConfig
from mistnn.experiments import lifted_parts
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
    loop = replace(find_preset("demo-discover-paper").experiment.train, batch_size=BATCH)
    base = replace(preset, model=replace(model, k=3), data=SCENES, train=loop, evaluation_images=0)
    listed = ", ".join(f"{scale:g}" for scale in SCALES)
    note = f"scales {listed} x 14 px, code 32, 16 channels, scale moves with 4 x the step"
    yield Variant("choices-base", note, base)
    for name, note, changes in (
        ("one-scale", "one scale, 21 px", {"scales": (1.5,)}),
        ("five-scales", "five scales, 1.25 to 2.05", {"scales": (1.25, 1.4, 1.6, 1.8, 2.05)}),
        ("fine-scales", "scales from 14 px: 1, 1.4, 2", {"scales": (1.0, 1.4, 2.0)}),
        ("code-8", "a code of 8 numbers", {"encoder": replace(model.encoder, code=8)}),
        ("code-128", "a code of 128 numbers", {"encoder": replace(model.encoder, code=128)}),
        (
            "32-channels",
            "the paper's 32 channels in the heat-map network",
            {"heatmap": replace(model.heatmap, channels=32)},
        ),
    ):
        yield Variant(f"choices-{name}", note, replace(base, model=replace(base.model, **changes)))
    for name, note, scale_step in (
        ("scale-x-1", "scale moves like the position", 1.0),
        ("scale-frozen", "scale is not lifted", 0.0),
    ):
        yield Variant(f"choices-{name}", note, replace(base, step=replace(step, scale_step=scale_step)))


if __name__ == "__main__":
    main("choices", __doc__, variants(), METRICS, STEPS)
