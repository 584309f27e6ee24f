"""Whole house numbers: CNN, ST-CNN Single and ST-CNN Multi (S003, section 1.4), at 64 and at 128 px.

All values are the paper's, but for the crop, see ``mistnn.data.house_numbers.number_crops``. It names no momentum, and
there is none: with .9 a transformer of Multi left its map within 30 steps of a trial on painted numbers.
"""

from __future__ import annotations

from mistnn.data import NumberCropsConfig
from mistnn.experiments import Experiment, Preset
from mistnn.models.stn import NumberReaderConfig, StnStepConfig
from mistnn.models.stn.config import Where
from mistnn.training import TrainConfig

STEPS, BATCH, DROPS = 400_000, 128, 4
"""A drop by a factor of ten every 80,000 iterations."""
VALIDATION = 5000
WINDOWS = {64: 1.3, 128: 2.6}
"""Sides of a crop -> what is seen, as a multiple of the digits' box; ours."""
NAMES: dict[Where, tuple[str, str]] = {
    "none": ("cnn", "CNN"),
    "single": ("single", "ST-CNN Single"),
    "multi": ("multi", "ST-CNN Multi"),
}


def _preset(where: Where, side: int) -> Preset:
    short, title = NAMES[where]
    step = StnStepConfig(
        momentum=0.0, weight_decay=5e-4, localisation_share=0.1, decay=10.0**-DROPS, drops=DROPS, precision="auto"
    )
    loop = TrainConfig(steps=STEPS, batch_size=BATCH, log_every=100, save_every=1000, evaluate_every=10_000)
    model, data = NumberReaderConfig(where, side=side), NumberCropsConfig(side=side, window=WINDOWS[side])
    return Preset(
        f"stn-svhn-{short}" + ("" if side == 64 else f"-{side}"),
        f"STN paper, {title}: whole house numbers, crops of {side} px (needs SVHN's own files)",
        Experiment(model, data, step, loop, VALIDATION),
    )


PRESETS = tuple(_preset(where, side) for side in WINDOWS for where in NAMES)
