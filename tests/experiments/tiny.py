"""An experiment so small that it takes no time; also a script, for runs that are launched in several processes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from mistnn.data import ScenesConfig
from mistnn.experiments import Experiment, train
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.nn.encoders import EncoderConfig
from mistnn.nn.heatmap import HeatmapConfig
from mistnn.training import TrainConfig

TINY = Experiment(
    model=MistConfig(
        k=2,
        box_size=12.0,
        patch_extent=12.0,
        patch_size=16,
        heatmap=HeatmapConfig(network="paper", channels=4, blocks=1),
        encoder=EncoderConfig(network="small", width=4, code=8),
        decoder=4,
        softmax_window=7,
    ),
    data=ScenesConfig(source="embedded", canvas=32, counts=(2,), object_size=(12, 12), min_distance=12.0),
    step=LiftedStepConfig(reconstruction=1.0, heatmap_warmup=0),
    train=TrainConfig(steps=4, batch_size=4, seed=3, log_every=1, save_every=2, threads=1, device="cpu"),
    evaluation_images=0,
)
"""Two embedded digits on 32x32, the joint objective."""


def changed(steps: int = 4, batch_size: int = 4, seed: int = 3) -> Experiment:
    """The tiny experiment with another loop."""
    loop = dataclasses.replace(TINY.train, steps=steps, batch_size=batch_size, seed=seed)
    return dataclasses.replace(TINY, train=loop)


def with_counts(*counts: int) -> ScenesConfig:
    """Its scenes, with other numbers of digits."""
    return dataclasses.replace(TINY.data, counts=counts)


if __name__ == "__main__":
    train(changed(), Path(sys.argv[1]))
