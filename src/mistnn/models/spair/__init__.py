"""SPAIR: objects of every cell by generative inference (Crawford and Pineau, AAAI 2019); see README.md here."""

from mistnn.models.spair.collapse import collapse_note
from mistnn.models.spair.config import SpairConfig
from mistnn.models.spair.network import Drawn, Spair
from mistnn.models.spair.step import SpairStep, SpairStepConfig

__all__ = ["Drawn", "Spair", "SpairConfig", "SpairStep", "SpairStepConfig", "collapse_note"]
