"""The preset for a folder of your own: most of it is chosen by what the folder holds, see ``plan_folder``."""

from __future__ import annotations

from mistnn.data import FolderConfig
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.presets.experiment import Experiment, Preset
from mistnn.training import TrainConfig

STEPS = 1500

MY_FOLDER = Preset(
    "my-folder",
    "your own images and their counts, see `mist inspect`; sizes, K and classes are chosen by what the folder holds",
    Experiment(
        MistConfig(class_names=("object",), channels=3, decoder=16),
        FolderConfig(),
        LiftedStepConfig(decay=0.05, decay_steps=STEPS),
        TrainConfig(steps=STEPS, batch_size=16, log_every=20, save_every=100, evaluate_every=250),
    ),
)
PRESETS = (MY_FOLDER,)
