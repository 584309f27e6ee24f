"""ConnComp: connected components of what is not background (SPAIR, AAAI 2019, section 5.1); see README.md here."""

from mistnn.models.conncomp.network import ConnComp, ConnCompConfig
from mistnn.models.conncomp.step import ConnCompStep, ConnCompStepConfig

__all__ = ["ConnComp", "ConnCompConfig", "ConnCompStep", "ConnCompStepConfig"]
