"""The preset for your own photographs and their counts: most settings are chosen from what the folder holds."""

from __future__ import annotations

from mistnn.data import FolderConfig
from mistnn.experiments import Experiment, Preset
from mistnn.experiments.photo_plan import plan_photos
from mistnn.models.photos import PhotoConfig, PhotoStepConfig
from mistnn.training import TrainConfig

MY_PHOTOS = Preset(
    "my-photos",
    "your own photographs and their counts, by pretrained features: what my-folder chooses for photographs",
    Experiment(
        PhotoConfig(),
        FolderConfig(),
        PhotoStepConfig(),
        TrainConfig(steps=600, batch_size=32, log_every=20, save_every=200, evaluate_every=300),
    ),
    plan_photos,
)
PRESETS = (MY_PHOTOS,)
