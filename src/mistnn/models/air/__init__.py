"""AIR and DAIR: objects one after the other (Eslami et al., NeurIPS 2016); see README.md here."""

from mistnn.models.air.config import AirConfig, AirStepConfig
from mistnn.models.air.network import Air, AirOutput
from mistnn.models.air.step import AirStep, collapse_note

MODELS = (AirConfig,)
STEPS = (AirStepConfig,)

__all__ = ["MODELS", "STEPS", "Air", "AirConfig", "AirOutput", "AirStep", "AirStepConfig", "collapse_note"]
