"""ConnComp: connected components of the foreground (SPAIR, AAAI 2019, section 5.1); see README.md here."""

from mistnn.models.conncomp.config import ConnCompConfig, ConnCompStepConfig
from mistnn.models.conncomp.network import ConnComp
from mistnn.models.conncomp.step import ConnCompStep

MODELS = (ConnCompConfig,)
STEPS = (ConnCompStepConfig,)

__all__ = ["MODELS", "STEPS", "ConnComp", "ConnCompConfig", "ConnCompStep", "ConnCompStepConfig"]
