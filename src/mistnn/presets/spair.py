"""SPAIR on scattered digits: 48 x 48 pixels with a fixed number of them, and the transfer to larger, fuller images.

Same data as the presets of AIR, DAIR and ConnComp (``mistnn.presets.air``). The paper trains up to 300,000 steps; what
a laptop can do in a stated number of steps is a shorter schedule at a higher rate and half as wide a backbone.
"""

from __future__ import annotations

import dataclasses

from mistnn.data import ScatterConfig
from mistnn.models.spair import SpairConfig, SpairStepConfig
from mistnn.presets.experiment import Experiment, Preset
from mistnn.training import TrainConfig

STEPS = 8000
"""Ours; up to 300,000 in the paper's experiments."""

SMALL = SpairConfig(width=64, first_side=-0.8, first_presence=2.0, temperature=0.4)
"""For few steps: half the paper's 128 filters, since the backbone takes most of a step's time; boxes that start at the
size of a digit and are all there at first; and a harder z_pres. At temperature 1 it stays between 0 and 1 for
thousands of steps, as one more transparency, and counts too few objects (docs/logbook.md)."""

SHORT = SpairStepConfig(
    rate=1e-3,
    decay=0.05,
    decay_steps=STEPS,
    schedule_scale=0.75,
    wheels=400,
    gradient_noise=0.0,
    precision="auto",
)
"""Ten times the paper's rate, in the end half of it; the training wheels off after 300 steps; s .5 after 4,500."""

LOOP = TrainConfig(steps=STEPS, batch_size=32, log_every=50, save_every=500, evaluate_every=2000)

FIVE = ScatterConfig()
LARGE = ScatterConfig(canvas=84, crop=48)
"""Seen in random parts of 48 x 48 pixels, measured whole."""


def _scattered(data: ScatterConfig, model: SpairConfig = SMALL) -> Experiment:
    return Experiment(model, data, SHORT, LOOP, evaluation_images=200)


def _digits(number: int) -> Preset:
    noun = "digit" if number == 1 else "digits"
    return Preset(
        f"spair-{number}",
        f"SPAIR on {number} scattered {noun}, 48 x 48: found by drawing the image, nothing told",
        _scattered(dataclasses.replace(FIVE, counts=(number,))),
    )


def _transfer(least: int, most: int) -> Preset:
    return Preset(
        f"spair-transfer-{most}",
        f"SPAIR on 84 x 84 with {least} to {most} digits, trained on parts of 48 x 48",
        _scattered(dataclasses.replace(LARGE, counts=tuple(range(least, most + 1)))),
    )


PRESETS = (
    *(_digits(number) for number in (1, 3, 5, 7, 9)),
    Preset(
        "spair-5-no-look-back",
        "SPAIR on five digits, its cells blind to each other: the paper's ablation",
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
