"""Spatial Transformer Networks (Jaderberg et al., 2015), by the paper's supplement; see README.md here."""

from mistnn.models.stn.birds import BirdClassifier
from mistnn.models.stn.classifier import Classified, Classifier, count_parameters, wrong
from mistnn.models.stn.colocalise import Colocaliser
from mistnn.models.stn.config import (
    BirdsConfig,
    ColocaliserConfig,
    ColocaliseStepConfig,
    DescriberConfig,
    NumberReaderConfig,
    StnConfig,
    StnStepConfig,
)
from mistnn.models.stn.network import StnClassifier
from mistnn.models.stn.numbers import NumberReader
from mistnn.models.stn.step import ColocaliseStep, StnStep, stepped_share

MODELS = (StnConfig, NumberReaderConfig, BirdsConfig, ColocaliserConfig)
STEPS = (StnStepConfig, ColocaliseStepConfig)

__all__ = [
    "MODELS",
    "STEPS",
    "BirdClassifier",
    "BirdsConfig",
    "Classified",
    "Classifier",
    "ColocaliseStep",
    "ColocaliseStepConfig",
    "Colocaliser",
    "ColocaliserConfig",
    "DescriberConfig",
    "NumberReader",
    "NumberReaderConfig",
    "StnClassifier",
    "StnConfig",
    "StnStep",
    "StnStepConfig",
    "count_parameters",
    "stepped_share",
    "wrong",
]
