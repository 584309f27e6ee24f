"""SPAIR on scattered digits: 48 x 48 pixels with a fixed number of digits, and transfer to larger, fuller images.

The data are those of AIR, DAIR and ConnComp (``mistnn.presets.scattered``). The paper trains for up to 300,000 steps;
for laptops there is a shorter schedule at a higher rate, with a backbone of half the width.
"""

from __future__ import annotations

import dataclasses

from mistnn.data import ScatterConfig
from mistnn.experiments import Experiment, Preset
from mistnn.models.spair import SpairConfig, SpairStepConfig
from mistnn.training import TrainConfig

STEPS = 8000
"""Our choice; up to 300,000 in the paper's experiments."""

SMALL = SpairConfig(width=64, first_side=-0.8, first_presence=2.0, temperature=0.4)
"""For few steps: half the paper's 128 filters, since the backbone takes most of a step's time; boxes that are initially
all present and as large as a digit; and a lower temperature of z_pres. At temperature 1, z_pres stays between 0 and 1
for thousands of steps, acts as one more transparency, and counts too few objects (docs/logbook.md)."""

SHORT = SpairStepConfig(rate=1e-3, decay=0.05, schedule_scale=0.75, wheels=400, gradient_noise=0.0, precision="auto")
"""Ten times the paper's rate, falling to half of it; no training wheels after 300 steps; s is .5 after 4,500."""

LOOP = TrainConfig(steps=STEPS, batch_size=32, log_every=50, save_every=500, evaluate_every=2000)

FIVE = ScatterConfig()
LARGE = ScatterConfig(canvas=84, crop=48)
"""Trained on random crops of 48 x 48 pixels, measured on whole images."""


def _scattered(data: ScatterConfig, model: SpairConfig = SMALL) -> Experiment:
    return Experiment(model, data, SHORT, LOOP, evaluation_images=200)


def _digits(number: int) -> Preset:
    noun = "digit" if number == 1 else "digits"
    return Preset(
        f"spair-{number}",
        f"SPAIR on {number} scattered {noun}, 48 x 48: found by drawing the image, without labels",
        _scattered(dataclasses.replace(FIVE, counts=(number,))),
    )


def _transfer(least: int, most: int) -> Preset:
    return Preset(
        f"spair-transfer-{most}",
        f"SPAIR on 84 x 84 with {least} to {most} digits, trained on crops of 48 x 48",
        _scattered(dataclasses.replace(LARGE, counts=tuple(range(least, most + 1)))),
    )


PRESETS = (
    *(_digits(number) for number in (1, 3, 5, 7, 9)),
    Preset(
        "spair-5-no-look-back",
        "SPAIR on five digits, each cell blind to the others: the paper's ablation",
        _scattered(FIVE, dataclasses.replace(SMALL, look_back=0)),
    ),
    Preset(
        "spair-5-paper",
        "SPAIR on five digits at the paper's size, rate and schedules; for an accelerator",
        Experiment(
            SpairConfig(),
            FIVE,
            SpairStepConfig(),
            dataclasses.replace(LOOP, steps=300_000, log_every=100, save_every=1000, evaluate_every=5000),
            evaluation_images=1000,
        ),
    ),
    _transfer(1, 5),
    _transfer(6, 10),
    _transfer(11, 15),
)
