"""MIST: the network, its lifted training step, its configuration (README.md maps the paper to the code)."""

from mistnn.models.mist.network import Mist, MistConfig, MistOutput, TaskOutput
from mistnn.models.mist.step import LiftedStep, StepConfig, off_centre_note

__all__ = ["LiftedStep", "Mist", "MistConfig", "MistOutput", "StepConfig", "TaskOutput", "off_centre_note"]
