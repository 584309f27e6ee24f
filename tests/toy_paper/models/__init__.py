"""Brightest: finds objects at the brightest pixels of a blurred image."""

from mistnn.models.toy.config import BrightestConfig, BrightestStepConfig

MODELS = (BrightestConfig,)
STEPS = (BrightestStepConfig,)
