"""Configurations of ConnComp and of the search for its threshold; README.md here gives the sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from mistnn.config import above, at_least, one_of
from mistnn.errors import MistError
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig
from mistnn.nn.finder import Finder


@dataclass(frozen=True)
class ConnCompConfig(ModelConfig):
    """The method.

    Attributes:
        channels: channels of the images, 1 (grey) or 3 (colour).
        background: "black", or "median", the median colour of each image.
    """

    kind: ClassVar[str] = "conncomp"
    class_names: ClassVar[tuple[str, ...]] = ()
    k: ClassVar[int] = 1
    channels: Annotated[int, one_of(1, 3)] = 1
    background: Literal["black", "median"] = "black"

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.conncomp.network import ConnComp

        return ConnComp(self)


@dataclass(frozen=True)
class ConnCompStepConfig(TrainingStepConfig):
    """The grid of thresholds. Defaults are the values of the released code.

    Attributes:
        low: smallest tau.
        high: largest tau; the sum over three channels in [0, 1] is at most 3.
        values: number of values at equal distances, both ends included.
    """

    kind: ClassVar[str] = "conncomp"
    trains: ClassVar[tuple[str, ...]] = ("conncomp",)
    low: Annotated[float, above(0)] = 0.01
    high: Annotated[float, above(0)] = 3.0
    values: Annotated[int, at_least(2)] = 100

    def check(self) -> None:
        """See ``Config.check``."""
        if self.low >= self.high:
            raise MistError(f"step.low={self.low} must be below step.high={self.high}")

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.conncomp.step import ConnCompStep

        return ConnCompStep(model, self)
