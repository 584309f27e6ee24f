"""Configurations of AIR and DAIR and of their training; README.md here gives the source of every value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from mistnn.config import above, at_least, between, one_of
from mistnn.errors import MistError
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig
from mistnn.nn.finder import Finder
from mistnn.nn.mixed_precision import Precision
from mistnn.nn.schedule import LearningRate

AtLeastOne = Annotated[int, at_least(1)]
Positive = Annotated[float, above(0)]
Widths = tuple[AtLeastOne, ...]


@dataclass(frozen=True)
class AirConfig(ModelConfig):
    """The network. Defaults are the values of AIR's original setting.

    Attributes:
        channels: channels of the images, 1 (grey) or 3 (colour).
        canvas: side of the images in pixels. The first layer is dense, so no other size is possible.
        k: K, the number of steps. Each step finds one object, so this is the largest number of objects.
        given: the number of objects of each image is an input, in training and in prediction; else it is inferred.
        recurrence: "lstm" (AIR), or "feedforward" (DAIR): a network that sees the image minus what is drawn so far.
        units: outputs of the recurrent network at each step.
        hidden: hidden layers of DAIR's network; an LSTM has none.
        head: hidden layers between the recurrent network and z_where and z_pres.
        sides: 1 for square windows, 2 for windows of any width and height.
        window: side of the glimpse and of a decoded object in pixels.
        attributes: length of z_what.
        encoder: hidden layers from a glimpse to z_what.
        decoder: hidden layers from z_what to an object.
        noise: standard deviation of the noise added to the decoder's logits in training.
        temperature: temperature of the relaxed z_pres.
        threshold: an object counts until the sum of 1 - z_pres, over the steps so far, reaches this value.
    """

    kind: ClassVar[str] = "air"
    class_names: ClassVar[tuple[str, ...]] = ()
    channels: Annotated[int, one_of(1, 3)] = 1
    canvas: AtLeastOne = 50
    k: AtLeastOne = 3
    given: bool = False
    recurrence: Literal["lstm", "feedforward"] = "lstm"
    units: AtLeastOne = 256
    hidden: Widths = ()
    head: Widths = (320,)
    sides: Annotated[int, one_of(1, 2)] = 1
    window: AtLeastOne = 28
    attributes: AtLeastOne = 50
    encoder: Widths = (512, 256)
    decoder: Widths = (256, 512)
    noise: Annotated[float, at_least(0)] = 0.3
    temperature: Positive = 1.0
    threshold: Annotated[float, above(0), between(0, 1)] = 0.99

    def check(self) -> None:
        """See ``Config.check``."""
        if self.recurrence == "lstm" and self.hidden:
            raise MistError(f"model.hidden={self.hidden} belongs to DAIR: leave it empty for an LSTM")

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.air.network import Air

        return Air(self)


@dataclass(frozen=True)
class AirStepConfig(TrainingStepConfig):
    """The priors and the optimizer. Defaults are the values of AIR's original setting.

    Attributes:
        rate: learning rate of Adam.
        clip: largest norm of the gradient of all weights together.
        scale_prior: mean and standard deviation of a side's share of the image, before the sigmoid.
        shift_prior: the same for a centre, before tanh.
        what_prior: the same for z_what.
        annealing: factor on the length of the schedule of the prior odds of z_pres; below 1 for short runs.
        precision: precision of the dense layers; "auto" uses bfloat16 where that is faster.
    """

    kind: ClassVar[str] = "air"
    trains: ClassVar[tuple[str, ...]] = ("air",)
    rate: LearningRate = 1e-4
    clip: Positive = 1.0
    scale_prior: tuple[float, float] = (-1.0, 0.05**0.5)
    shift_prior: tuple[float, float] = (0.0, 1.0)
    what_prior: tuple[float, float] = (0.0, 1.0)
    annealing: Positive = 1.0
    precision: Precision = "float32"

    def check(self) -> None:
        """See ``Config.check``."""
        for name in ("scale_prior", "shift_prior", "what_prior"):
            if not getattr(self, name)[1] > 0:
                raise MistError(f"step.{name}={getattr(self, name)} must be a mean and a standard deviation above 0")

    def rescale_schedule(self, before: int, steps: int) -> TrainingStepConfig:
        """See ``TrainingStepConfig.rescale_schedule``."""
        return dataclasses.replace(self, annealing=self.annealing * steps / before)

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.air.step import AirStep

        return AirStep(model, self)
