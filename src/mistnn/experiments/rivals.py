"""The baselines of MIST: how they are checked and measured."""

from __future__ import annotations

from typing import Any, ClassVar

from mistnn.data import GaborConfig, ScatterConfig, ScenesConfig
from mistnn.errors import MistError
from mistnn.experiments.checks import check_channels, check_classes, check_k
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.measuring import ImpulseMeasurement, SceneMeasurement
from mistnn.experiments.photographs import PhotographSystem
from mistnn.experiments.system import System
from mistnn.models.rivals import ChannelwiseConfig, GridConfig, NaturalXie20Config, Xie20Config, Zha18Config


class BaselineSystem(System):
    """Grid, Channel-wise and Zha18."""

    measured_on: ClassVar = {
        ScenesConfig: SceneMeasurement,
        ScatterConfig: SceneMeasurement,
        GaborConfig: ImpulseMeasurement,
    }
    images = "digits or Gabor noise"

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Compares classes, channels and K."""
        check_classes(model, data)
        check_k(model, data)
        check_channels(model, data)


class Xie20System(BaselineSystem):
    """Xie20, which chooses among the cells of its heat map."""

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Checks that there are more cells than objects."""
        super().check_parts(model, data, experiment)
        height, width = data.size
        cells = (height // model.stride) * (width // model.stride)
        if model.k >= cells:
            raise MistError(
                f"model.k={model.k} must be below the {cells} positions that model.stride={model.stride} leaves in an "
                f"image of {width} x {height} px: give a smaller stride or K"
            )


SYSTEMS = {
    GridConfig: BaselineSystem(),
    ChannelwiseConfig: BaselineSystem(),
    Zha18Config: BaselineSystem(),
    Xie20Config: Xie20System(),
    NaturalXie20Config: PhotographSystem(),
}
