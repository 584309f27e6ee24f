"""MIST on photographs that are supervised by counts alone; see README.md here."""

from mistnn.models.photos.config import PhotoConfig, PhotoStepConfig
from mistnn.models.photos.network import PhotoMaps, PhotoMist
from mistnn.models.photos.step import PhotoStep
from mistnn.models.photos.templates import Templates, find_templates

MODELS = (PhotoConfig,)
STEPS = (PhotoStepConfig,)

__all__ = [
    "MODELS",
    "STEPS",
    "PhotoConfig",
    "PhotoMaps",
    "PhotoMist",
    "PhotoStep",
    "PhotoStepConfig",
    "Templates",
    "find_templates",
]
