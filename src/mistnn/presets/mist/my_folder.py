"""The preset for your own image folder: most settings are chosen from what the folder holds (``plan_folder``)."""

from __future__ import annotations

import dataclasses

from mistnn.data import FolderConfig
from mistnn.experiments import Experiment, Preset
from mistnn.experiments.folder_plan import plan_folder, plan_shapes
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.training import TrainConfig

STEPS = 1500

MY_FOLDER = Preset(
    "my-folder",
    "your own images and their counts, see `mist inspect`; sizes, K and classes are chosen from what the folder holds",
    Experiment(
        MistConfig(class_names=("object",), channels=3, decoder=16),
        FolderConfig(),
        LiftedStepConfig(decay=0.05),
        TrainConfig(steps=STEPS, batch_size=16, log_every=20, save_every=100, evaluate_every=250),
    ),
    plan_folder,
)
MY_SHAPES = dataclasses.replace(
    MY_FOLDER,
    name="my-shapes",
    summary="as my-folder, always by small networks trained from scratch: for digits, symbols and simple shapes",
    plan=plan_shapes,
)
PRESETS = (MY_FOLDER, MY_SHAPES)
