"""Spatial Transformer Networks (Jaderberg 2015) as its supplement has them; see README.md here."""

from mistnn.models.stn.network import Classified, StnClassifier, StnConfig
from mistnn.models.stn.step import StnStep, StnStepConfig, stepped_share, target_of

__all__ = [
    "Classified",
    "StnClassifier",
    "StnConfig",
    "StnStep",
    "StnStepConfig",
    "stepped_share",
    "target_of",
]
