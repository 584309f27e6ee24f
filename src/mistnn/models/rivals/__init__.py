"""The systems that MIST is measured against in its paper: Grid, Channel-wise, Xie20; see README.md in this folder."""

from mistnn.models.rivals.channelwise import Channelwise, ChannelwiseConfig, soft_argmax
from mistnn.models.rivals.common import RivalStep, RivalStepConfig
from mistnn.models.rivals.grid import Grid, GridConfig
from mistnn.models.rivals.xie20 import Xie20, Xie20Config

__all__ = [
    "Channelwise",
    "ChannelwiseConfig",
    "Grid",
    "GridConfig",
    "RivalStep",
    "RivalStepConfig",
    "Xie20",
    "Xie20Config",
    "soft_argmax",
]
