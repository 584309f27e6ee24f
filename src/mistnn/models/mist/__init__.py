"""MIST: networks, training steps and their configurations; README.md maps the paper to the code."""

from mistnn.interfaces import ModelConfig, TrainingStepConfig
from mistnn.models.mist.config import (
    LiftedStepConfig,
    MistConfig,
    NaturalMistConfig,
    NaturalStepConfig,
    SupervisedStepConfig,
)
from mistnn.models.mist.dense import DenseMaps, DenseMist
from mistnn.models.mist.dense_config import DenseMistConfig, DenseStepConfig
from mistnn.models.mist.dense_step import DenseStep
from mistnn.models.mist.diagnostics import off_centre_note
from mistnn.models.mist.natural import NaturalMist, NaturalOutput
from mistnn.models.mist.natural_step import NaturalStep
from mistnn.models.mist.network import Mist, MistOutput
from mistnn.models.mist.step import LiftedStep
from mistnn.models.mist.supervised import SupervisedStep

MODELS: tuple[type[ModelConfig], ...] = (MistConfig, NaturalMistConfig, DenseMistConfig)
STEPS: tuple[type[TrainingStepConfig], ...] = (
    LiftedStepConfig,
    SupervisedStepConfig,
    NaturalStepConfig,
    DenseStepConfig,
)

__all__ = [
    "MODELS",
    "STEPS",
    "DenseMaps",
    "DenseMist",
    "DenseMistConfig",
    "DenseStep",
    "DenseStepConfig",
    "LiftedStep",
    "LiftedStepConfig",
    "Mist",
    "MistConfig",
    "MistOutput",
    "NaturalMist",
    "NaturalMistConfig",
    "NaturalOutput",
    "NaturalStep",
    "NaturalStepConfig",
    "SupervisedStep",
    "SupervisedStepConfig",
    "off_centre_note",
]
