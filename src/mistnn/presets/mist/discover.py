"""MIST without labels: Table 1 of the paper (CVPR 2021), figures 3, 4 and 8, and the unlabelled demo.

Only K is given. What the papers leave open (number and values of the scales, widths, code size, all parameters of the
Gabor noise) is chosen here; ``python -m benchmarks.choices`` shows the effect of some choices.
"""

from __future__ import annotations

import dataclasses

from mistnn.data import GaborConfig
from mistnn.experiments import Experiment, Preset
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.presets.images import EASY, EMBEDDED_THREE, HARD, UNEVEN, VARYING
from mistnn.training import TrainConfig

GABOR = GaborConfig()

SCALES = (1.25, 1.6, 2.05)
"""Times 14 px: boxes of 17.5 to 28.7 px. At the start of training the finest scale wins: it must not be too small."""

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


FAST = dataclasses.replace(SMALL, heatmap=HeatmapConfig(network="half", channels=32, blocks=3), softmax_strength=3.0)
"""Ours: the heat map at half resolution; for the strength see the demo in ``digits.py``."""

STEP = LiftedStepConfig(
    reconstruction=1.0, task_rate=2e-3, keypoint_step=62.5, heatmap_warmup=50, decay=0.02, precision="auto"
)


FAST_STEP = dataclasses.replace(
    STEP, inner_steps=1, order="single-pass", mirrored=True, heatmap_rate=1e-4, heatmap_start=500
)
"""One pass through the auto-encoder in a step; the heat map waits until the digits are learnt."""


def _train(steps: int, batch_size: int = 16) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=batch_size, log_every=50, save_every=250, evaluate_every=500)


PAPER_DEMO = Experiment(
    dataclasses.replace(SMALL, k=3, encoder=EncoderConfig(network="small", width=32, code=16)),
    EMBEDDED_THREE,
    dataclasses.replace(STEP, keypoint_step=31.25),
    TrainConfig(steps=400, batch_size=32, log_every=10, save_every=0),
    evaluation_images=0,
)

DEMO_STEPS = 800
DEMO = Experiment(
    dataclasses.replace(
        PAPER_DEMO.model,
        patch_size=16,
        heatmap=HeatmapConfig(network="half", channels=16, blocks=3),
        softmax_strength=3.0,  # see the demo in ``digits.py``
    ),
    PAPER_DEMO.data,
    dataclasses.replace(
        STEP,
        inner_steps=1,
        order="single-pass",
        mirrored=True,
        keypoint_step=62.5,
        heatmap_rate=1e-4,
        heatmap_start=100,
    ),
    TrainConfig(steps=DEMO_STEPS, batch_size=16, log_every=20, save_every=0),
    evaluation_images=0,
)

PRESETS = (
    Preset(
        "demo-discover",
        "what `mist demo --task discover` trains: three embedded digits, no labels, our fast network and step",
        DEMO,
    ),
    Preset(
        "demo-discover-paper", "the same with a narrow heat-map network of the paper and its arithmetic", PAPER_DEMO
    ),
    Preset(
        "mist-discover-mnist-easy",
        "Table 1, MNIST easy: nine sorted digits on a perturbed grid, only K is given (small auto-encoder)",
        Experiment(SMALL, EASY, STEP, _train(1200)),
    ),
    Preset(
        "mist-discover-mnist-hard-one-scale",
        "Table 1, MNIST hard: nine digits of 20 px on 80x80, only K is given (small auto-encoder)",
        Experiment(SMALL, HARD, STEP, _train(2000)),
    ),
    *(
        Preset(
            f"mist-discover-mnist-{name}-fast",
            f"Table 1, MNIST {name}, with our networks and arithmetic for few operations",
            Experiment(FAST, data, FAST_STEP, _train(2000)),
        )
        for name, data in (("easy", EASY), ("hard", HARD))
    ),
    Preset(
        "mist-discover-mnist-hard",
        "nine digits of 14 to 28 px on 96x96, only K is given; finds sizes too (three scales, small auto-encoder)",
        Experiment(WITH_SCALE, VARYING, dataclasses.replace(STEP, keypoint_step=100.0, scale_step=4.0), _train(2500)),
    ),
    Preset(
        "mist-discover-mnist-hard-paper",
        "Table 1, MNIST hard, with the auto-encoder of the paper (supplement C.1) on 32 px patches",
        Experiment(PAPER, HARD, STEP, _train(2500)),
    ),
    Preset(
        "mist-discover-mnist-uneven",
        "Figure 8: nine unevenly placed digits on 80x80, only K is given (small auto-encoder)",
        Experiment(SMALL, UNEVEN, STEP, _train(2000)),
    ),
    Preset(
        "mist-discover-gabor",
        "Table 1 and figure 4: 30 impulses of Gabor noise on 80x80, only K is given (small auto-encoder)",
        # Impulses may be 6 px apart: a window of 15 px would merge several into one peak.
        Experiment(dataclasses.replace(SMALL, k=30, softmax_window=7), GABOR, STEP, _train(1500, 8)),
    ),
)
