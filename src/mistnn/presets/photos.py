"""The preset for your own photographs and their counts: most settings are chosen from what the folder holds."""

from __future__ import annotations

from mistnn.data import FolderConfig
from mistnn.experiments import Experiment, Preset
from mistnn.experiments.photo_plan import PHOTO_TRAIN, plan_photos
from mistnn.models.photos import PhotoConfig, PhotoStepConfig

MY_PHOTOS = Preset(
    "my-photos",
    "as my-folder, always by pretrained features: for photographs with counts (pip install 'mistnn[photos]')",
    Experiment(PhotoConfig(), FolderConfig(), PhotoStepConfig(), PHOTO_TRAIN),
    plan_photos,
)
PRESETS = (MY_PHOTOS,)
