"""The systems that MIST is measured against in its paper: Grid, Channel-wise, Zha18, Xie20; see README.md here."""

from mistnn.models.rivals.channelwise import Channelwise, ChannelwiseConfig
from mistnn.models.rivals.common import RivalStep, RivalStepConfig
from mistnn.models.rivals.grid import Grid, GridConfig
from mistnn.models.rivals.xie20 import Xie20, Xie20Config
from mistnn.models.rivals.xie20_natural import NaturalXie20, NaturalXie20Config
from mistnn.models.rivals.zha18 import Zha18, Zha18Config, Zha18Step, Zha18StepConfig

__all__ = [
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
