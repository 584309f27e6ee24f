"""The preset of the toy paper."""

from __future__ import annotations

from mistnn.models.toy import BrightestConfig, BrightestStepConfig

from mistnn.experiments import Experiment, Preset
from mistnn.presets.images import EMBEDDED_THREE
from mistnn.training import TrainConfig

PRESETS = (
    Preset(
        "toy-scenes",
        "three embedded digits, found where it is bright",
        Experiment(BrightestConfig(), EMBEDDED_THREE, BrightestStepConfig(), TrainConfig(steps=20, batch_size=4), 8),
    ),
)
