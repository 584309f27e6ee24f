"""AIR, DAIR and ConnComp: SPAIR's rivals (AAAI 2019), AIR's own setting, and Esl16 of MIST's Table 1."""

from __future__ import annotations

from mistnn.data import ScatterConfig
from mistnn.models.air import AirConfig, AirStepConfig
from mistnn.presets.experiment import Experiment, Preset
from mistnn.training import TrainConfig

TWO = ScatterConfig(canvas=50, counts=(0, 1, 2), side=28, overlap=0, tight=True)
"""AIR's images: no, one or two whole digits of MNIST whose ink doesn't overlap, equally often."""


def _loop(steps: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=64, log_every=100, save_every=1000, evaluate_every=2500)


PRESETS = (
    Preset(
        "air-original",
        "AIR on no, one or two digits, their number inferred",
        Experiment(AirConfig(), TWO, AirStepConfig(), _loop(30_000), evaluation_images=1000),
    ),
)
