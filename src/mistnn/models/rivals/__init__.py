"""The systems that MIST is compared with in its paper: Grid, Channel-wise, Zha18, Xie20; see README.md here."""

from mistnn.models.rivals.channelwise import Channelwise
from mistnn.models.rivals.config import (
    ChannelwiseConfig,
    GridConfig,
    NaturalXie20Config,
    RivalStepConfig,
    Xie20Config,
    Zha18Config,
    Zha18StepConfig,
)
from mistnn.models.rivals.grid import Grid
from mistnn.models.rivals.step import RivalStep, Zha18Step
from mistnn.models.rivals.xie20 import Xie20
from mistnn.models.rivals.xie20_natural import NaturalXie20
from mistnn.models.rivals.zha18 import Zha18

MODELS = (GridConfig, ChannelwiseConfig, Xie20Config, NaturalXie20Config, Zha18Config)
STEPS = (RivalStepConfig, Zha18StepConfig)

__all__ = [
    "MODELS",
    "STEPS",
    "Channelwise",
    "ChannelwiseConfig",
    "Grid",
    "GridConfig",
    "NaturalXie20",
    "NaturalXie20Config",
    "RivalStep",
    "RivalStepConfig",
    "Xie20",
    "Xie20Config",
    "Zha18",
    "Zha18Config",
    "Zha18Step",
    "Zha18StepConfig",
]
