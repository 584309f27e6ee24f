"""Birds told apart by parts that nobody marked (S003, section 1.5): 2 x 224, 2 x 448 and 4 x 448 px.

The supplement names no value of the training ("cross-validation"). Rates, drops, weight decay and dropout are those of
a public summary of the paper; its last drop, at 25,000, is left out, for ours are at equal distances. The batch is our
choice; no momentum is named, and there is none. The paper's Inception was trained by its authors; ``googlenet`` is the
nearest in torchvision.
"""

from __future__ import annotations

from mistnn.data import CubConfig
from mistnn.experiments import Experiment, Preset
from mistnn.models.stn import BirdsConfig, StnStepConfig
from mistnn.training import TrainConfig

STEPS, BATCH = 30_000, 32


def _preset(number: int, side: int) -> Preset:
    step = StnStepConfig(
        rate=0.1, momentum=0.0, weight_decay=1e-5, localisation_share=1e-4, decay=0.01, precision="auto"
    )
    loop = TrainConfig(steps=STEPS, batch_size=BATCH, log_every=50, save_every=500)
    return Preset(
        f"stn-birds-{number}x{side}",
        f"STN paper, {number}xST-CNN {side}px: 200 kinds of birds, on pretrained Inceptions (needs CUB-200-2011)",
        # All training images teach, as in the paper: none is left to measure on meanwhile.
        Experiment(BirdsConfig(number, side=side), CubConfig(side=side), step, loop, evaluation_images=0),
    )


PRESETS = (_preset(2, 224), _preset(2, 448), _preset(4, 448))
