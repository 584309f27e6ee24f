"""MIST on digits: Tables 2 and 3 of the paper (CVPR 2021), and the demo."""

from __future__ import annotations

import dataclasses

from mistnn.experiments import Experiment, Preset
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.presets.images import EMBEDDED_THREE, HARD, SIX_TO_NINE, THREE, THREE_TO_NINE
from mistnn.training import TrainConfig

PAPER_HEATMAP = HeatmapConfig(network="paper", channels=32, blocks=4)
SMALL = MistConfig(
    k=9, patch_size=24, heatmap=PAPER_HEATMAP, encoder=EncoderConfig(network="small", width=32, code=128)
)
"""The paper's heat-map network with the small classifier."""

PAPER = MistConfig(k=9, heatmap=PAPER_HEATMAP)
"""The paper's heat-map network and classifier, 32 px patches."""

RELEASED = MistConfig(k=9, heatmap=HeatmapConfig(network="released"), encoder=EncoderConfig(network="released"))
"""The released code's heat-map network and classifier, 32 px patches."""


FAST = dataclasses.replace(SMALL, heatmap=HeatmapConfig(network="half", channels=32, blocks=3), softmax_strength=3.0)
"""Ours: the heat map at half resolution, where three blocks see as far as six at full resolution. At a strength of 10,
weak digits fade as soon as the heat map is trained (docs/logbook.md)."""


STEP = LiftedStepConfig(heatmap_rate=1e-4, decay=0.02, precision="auto")
"""The heat map's rate of the released code: at 2e-4 its scores grow so much that weak objects fade
(docs/logbook.md)."""

FAST_STEP = dataclasses.replace(
    STEP, inner_steps=1, order="single-pass", mirrored=True, keypoint_step=62.5, heatmap_start=1000
)
"""One gradient of the task loss in a step, with the move of two inner steps. Before it is trained, the heat map detects
0.99 of the digits (docs/logbook.md), so it waits until the classes are learnt."""

DEEP_STEP = dataclasses.replace(STEP, task_rate=2e-4)
"""At 1e-3 the paper's deep classifier keeps predicting equal proportions for every patch (docs/logbook.md)."""


def _train(steps: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=32, log_every=50, save_every=250, evaluate_every=500)


PAPER_DEMO = Experiment(
    MistConfig(
        k=3,
        patch_size=24,
        heatmap=HeatmapConfig(network="paper", channels=16, blocks=4),
        encoder=EncoderConfig(network="small", width=32, code=128),
        decoder=16,
    ),
    dataclasses.replace(EMBEDDED_THREE, warp=0.25),  # 1,200 digits are few: without warping they are memorised
    LiftedStepConfig(reconstruction=0.5, task_rate=2e-3, heatmap_warmup=50, decay=0.05, precision="auto"),
    TrainConfig(steps=1200, batch_size=32, log_every=20, save_every=0),
    evaluation_images=0,
)

# The digits have 8 x 8 pixels: patches of 16 px hold all that there is to see. A step of 16 images teaches as much as
# one of 32. The initial heat map detects well, and at a strength of 10 its scores would soon hide weak digits
# (docs/logbook.md).
DEMO_STEPS = 3000
DEMO = Experiment(
    dataclasses.replace(
        PAPER_DEMO.model,
        patch_size=16,
        heatmap=HeatmapConfig(network="half", channels=16, blocks=3),
        softmax_strength=3.0,
    ),
    PAPER_DEMO.data,
    LiftedStepConfig(
        inner_steps=1,
        order="single-pass",
        mirrored=True,
        reconstruction=0.5,
        keypoint_step=62.5,
        task_rate=2e-3,
        heatmap_rate=1e-4,
        heatmap_start=300,
        heatmap_warmup=50,
        decay=0.05,
        precision="auto",
    ),
    TrainConfig(steps=DEMO_STEPS, batch_size=16, log_every=25, save_every=0),
    evaluation_images=0,
)

PRESETS = (
    Preset(
        "demo",
        "what `mist demo` trains: three embedded digits on 48x48, equations 9 + 0.5 x 8, our fast network and step",
        DEMO,
    ),
    Preset("demo-paper", "the same with a narrow heat-map network of the paper and its arithmetic", PAPER_DEMO),
    Preset(
        "mist-mnist-hard",
        "Tables 2 and 3: nine MNIST digits on 80x80, class counts only (paper's heat map, small classifier)",
        Experiment(SMALL, HARD, STEP, _train(4000)),
    ),
    Preset(
        "mist-mnist-hard-fast",
        "the same with our networks and arithmetic for few operations: heat map at half resolution, single pass",
        Experiment(FAST, HARD, FAST_STEP, _train(2000)),
    ),
    Preset(
        "mist-mnist-hard-paper",
        "the same with the paper's classifier (supplement C.1) on 32 px patches",
        Experiment(PAPER, HARD, DEEP_STEP, _train(1200)),
    ),
    Preset(
        "mist-mnist-hard-released",
        "the same with both networks as in the released code, on 32 px patches",
        Experiment(RELEASED, HARD, DEEP_STEP, _train(1200)),
    ),
    Preset(
        "mist-mnist-3",
        "Table 3: three MNIST digits on 48x48, class counts only (paper's heat map, small classifier)",
        Experiment(dataclasses.replace(SMALL, k=3), THREE, STEP, _train(4000)),
    ),
    Preset(
        "mist-mnist-6-9",
        "Table 5: trained with K = 6 on scenes of 6 to 9 digits (the paper doesn't state this K; ours)",
        Experiment(dataclasses.replace(SMALL, k=6), SIX_TO_NINE, STEP, _train(4000)),
    ),
    Preset(
        "mist-mnist-3-9",
        "Table 5: trained with K = 6 on scenes of 3 to 9 digits",
        Experiment(dataclasses.replace(SMALL, k=6), THREE_TO_NINE, STEP, _train(4000)),
    ),
    *(
        Preset(
            f"{name}-fast",
            f"{table}: {digits} as `mist-mnist-hard-fast` does, with K = {k}",
            Experiment(dataclasses.replace(FAST, k=k), data, FAST_STEP, _train(2000)),
        )
        for name, table, digits, k, data in (
            ("mist-mnist-3", "Table 3", "three MNIST digits on 48x48", 3, THREE),
            ("mist-mnist-6-9", "Table 5", "6 to 9 digits", 6, SIX_TO_NINE),
            ("mist-mnist-3-9", "Table 5", "3 to 9 digits", 6, THREE_TO_NINE),
        )
    ),
)
