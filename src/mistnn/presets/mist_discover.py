"""MIST without labels: Table 1 of the paper (CVPR 2021), figures 3, 4, 7 and 8, and the unlabelled demo.

All that is told is K. What the papers leave open (number and values of the scales, widths, code size, every number of
the Gabor noise) is chosen here; ``benchmarks.choices`` shows the effect of some of it.
"""

from __future__ import annotations

import dataclasses

from mistnn.data import GaborConfig, ScenesConfig
from mistnn.models.mist import MistConfig, StepConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.presets.experiment import Experiment, Preset
from mistnn.training import TrainConfig

EASY = ScenesConfig(layout="easy", source="mnist", canvas=80, counts=(9,))
HARD = ScenesConfig(layout="hard", source="mnist", canvas=80, counts=(9,))
UNEVEN = ScenesConfig(layout="uneven", source="mnist", canvas=80, counts=(9,))
VARYING = ScenesConfig(layout="hard", source="mnist", canvas=96, counts=(9,), object_size=(14, 28))
EMBEDDED_THREE = ScenesConfig(layout="hard", source="embedded", canvas=48, counts=(3,))
GABOR = GaborConfig()

SCALES = (1.25, 1.6, 2.05)
"""Times 14 px: boxes of 17.5 to 28.7 px. Before anything is learnt the finest scale wins: it must not be too small."""

# Half the paper's width, for laptops; patches of 24 px; a code of 32 numbers.
NARROW = HeatmapConfig(network="paper", channels=16, blocks=4)
SMALL = MistConfig(
    class_names=(),
    k=9,
    patch_size=24,
    heatmap=NARROW,
    encoder=EncoderConfig(network="small", width=32, code=32),
    decoder=32,
)
"""The small auto-encoder, one scale."""

WITH_SCALE = dataclasses.replace(SMALL, scales=SCALES, box_size=14.0, patch_extent=14.0)
"""The small auto-encoder, three scales."""

PAPER = MistConfig(class_names=(), k=9, heatmap=HeatmapConfig(), encoder=EncoderConfig("paper", width=8), decoder=8)
"""Heat-map network and auto-encoder of the paper (supplement, A and C.1), one scale, 32 px patches."""


def _step(steps: int, **choices: float) -> StepConfig:
    plain = StepConfig(
        reconstruction=1.0,
        task_rate=2e-3,
        keypoint_step=62.5,
        heatmap_warmup=50,
        decay=0.02,
        decay_steps=steps,
        precision="auto",
    )
    return dataclasses.replace(plain, **choices)


def _train(steps: int, batch_size: int = 16) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=batch_size, log_every=50, save_every=250, evaluate_every=500)


DEMO_STEPS = 400
DEMO = Experiment(
    dataclasses.replace(SMALL, k=3, encoder=EncoderConfig(network="small", width=32, code=16)),
    EMBEDDED_THREE,
    _step(DEMO_STEPS, keypoint_step=31.25),
    TrainConfig(steps=DEMO_STEPS, batch_size=32, log_every=10, save_every=0),
    evaluation_images=0,
)

PRESETS = (
    Preset("demo-discover", "what `mist demo --task discover` trains: three embedded digits, no label", DEMO),
    Preset(
        "mist-discover-mnist-easy",
        "Table 1, MNIST easy: nine sorted digits on a perturbed grid, only K is told (small auto-encoder)",
        Experiment(SMALL, EASY, _step(1200), _train(1200)),
    ),
    Preset(
        "mist-discover-mnist-hard-one-scale",
        "Table 1, MNIST hard: nine digits of 20 px on 80x80, only K is told (small auto-encoder)",
        Experiment(SMALL, HARD, _step(2000), _train(2000)),
    ),
    Preset(
        "mist-discover-mnist-hard",
        "nine digits of 14 to 28 px on 96x96, only K is told; finds the size too (three scales, small auto-encoder)",
        Experiment(WITH_SCALE, VARYING, _step(2500, keypoint_step=100.0, scale_step=4.0), _train(2500)),
    ),
    Preset(
        "mist-discover-mnist-hard-paper",
        "Table 1, MNIST hard, with the auto-encoder of the paper (supplement C.1) on 32 px patches",
        Experiment(PAPER, HARD, _step(2500), _train(2500)),
    ),
    Preset(
        "mist-discover-mnist-uneven",
        "Figure 8: nine unevenly placed digits on 80x80, only K is told (small auto-encoder)",
        Experiment(SMALL, UNEVEN, _step(2000), _train(2000)),
    ),
    Preset(
        "mist-discover-gabor",
        "Table 1 and figure 4: 30 impulses of Gabor noise on 80x80, only K is told (small auto-encoder)",
        # Impulses are as near as 6 px: a window of 15 px would leave one peak of several.
        Experiment(dataclasses.replace(SMALL, k=30, softmax_window=7), GABOR, _step(1500), _train(1500, 8)),
    ),
)
