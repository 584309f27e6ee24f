"""Spatial Transformer Networks (Jaderberg 2015) as its supplement has them; see README.md here."""

from mistnn.models.stn.birds import BirdClassifier, BirdsConfig, tiled
from mistnn.models.stn.colocalise import Colocaliser, ColocaliserConfig, ColocaliseStep, ColocaliseStepConfig
from mistnn.models.stn.network import Classified, StnClassifier, StnConfig, count_parameters
from mistnn.models.stn.numbers import NumberReader, NumberReaderConfig, Told, sequence_of
from mistnn.models.stn.step import StnStep, StnStepConfig, stepped_share, target_of, wrong

__all__ = [
    "BirdClassifier",
    "BirdsConfig",
    "Classified",
    "ColocaliseStep",
    "ColocaliseStepConfig",
    "Colocaliser",
    "ColocaliserConfig",
    "NumberReader",
    "NumberReaderConfig",
    "StnClassifier",
    "StnConfig",
    "StnStep",
    "StnStepConfig",
    "Told",
    "count_parameters",
    "sequence_of",
    "stepped_share",
    "target_of",
    "tiled",
    "wrong",
]
