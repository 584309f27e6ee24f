"""The configurations of the toy paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import nn

from mistnn.config import above, at_least, odd
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig


@dataclass(frozen=True)
class BrightestConfig(ModelConfig):
    """The network.

    Attributes:
        k: objects per image.
        channels: of the images.
        class_names: none.
        window: side of the blur in pixels.
        box_size: side of the boxes in pixels.
    """

    kind: ClassVar[str] = "brightest"
    k: Annotated[int, at_least(1)] = 3
    channels: int = 1
    class_names: tuple[str, ...] = ()
    window: Annotated[int, odd(31)] = 9
    box_size: Annotated[float, above(0)] = 20.0

    def build(self) -> nn.Module:
        """The network."""
        from mistnn.models.toy.network import Brightest

        return Brightest(self)


@dataclass(frozen=True)
class BrightestStepConfig(TrainingStepConfig):
    """How it is trained.

    Attributes:
        rate: learning rate.
        decay_steps: not used by this step; shows that ``None`` becomes the length of the run.
    """

    kind: ClassVar[str] = "brightest"
    trains: ClassVar[tuple[str, ...]] = ("brightest",)
    rate: Annotated[float, above(0)] = 0.1
    decay_steps: int | None = None

    def build(self, model: Any) -> Step:
        """The step."""
        from mistnn.models.toy.step import BrightestStep

        return BrightestStep(model, self)
