"""SPAIR: generative inference of the objects of every cell (Crawford and Pineau, AAAI 2019); see README.md here."""

from mistnn.models.spair.config import SpairConfig, SpairStepConfig
from mistnn.models.spair.network import Drawn, Spair
from mistnn.models.spair.step import SpairStep, collapse_note

MODELS = (SpairConfig,)
STEPS = (SpairStepConfig,)

__all__ = ["MODELS", "STEPS", "Drawn", "Spair", "SpairConfig", "SpairStep", "SpairStepConfig", "collapse_note"]
