"""MIST: the network, its lifted training step, its configuration (README.md maps the paper to the code)."""

from mistnn.models.mist.natural import NaturalMist, NaturalMistConfig, NaturalOutput
from mistnn.models.mist.natural_step import NaturalStep, NaturalStepConfig
from mistnn.models.mist.network import Mist, MistConfig, MistOutput
from mistnn.models.mist.step import LiftedStep, StepConfig, off_centre_note
from mistnn.models.mist.supervised import SupervisedStep, SupervisedStepConfig

__all__ = [
    "LiftedStep",
    "Mist",
    "MistConfig",
    "MistOutput",
    "NaturalMist",
    "NaturalMistConfig",
    "NaturalOutput",
    "NaturalStep",
    "NaturalStepConfig",
    "StepConfig",
    "SupervisedStep",
    "SupervisedStepConfig",
    "off_centre_note",
]
