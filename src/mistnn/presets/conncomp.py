"""ConnComp on scattered digits (SPAIR, AAAI 2019, supplement, D.3)."""

from __future__ import annotations

from mistnn.experiments import Experiment, Preset
from mistnn.models.conncomp import ConnCompConfig, ConnCompStepConfig
from mistnn.presets.scattered import SCATTERED, digits_in_words
from mistnn.training import TrainConfig

SEARCH = TrainConfig(steps=10, batch_size=64, log_every=1, save_every=0)

PRESETS = tuple(
    Preset(
        f"conncomp-{count}",
        f"SPAIR's baseline ConnComp on {digits_in_words(count)} in 48 x 48: tau by grid search",
        Experiment(ConnCompConfig(), data, ConnCompStepConfig(), SEARCH, evaluation_images=1000),
    )
    for count, data in SCATTERED.items()
)
