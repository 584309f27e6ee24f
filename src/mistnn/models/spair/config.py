"""Configurations of SPAIR and of its training; README.md here gives the source of every value."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from mistnn.config import above, at_least, below, between, one_of
from mistnn.errors import MistError
from mistnn.interfaces import ModelConfig, Step, TrainingStepConfig
from mistnn.nn.finder import Finder
from mistnn.nn.mixed_precision import Precision
from mistnn.nn.schedule import Decay, DecaySteps, LearningRate
from mistnn.ops.render import Edge, Importance

Background = Literal["black", "median", "shared"]
KERNEL = 4
"""Side of the strided convolutions' kernels: SPAIR, supplement, D.2."""

LARGEST_DEVIATION = 2.0
"""A standard deviation is this times a sigmoid. Not stated in the paper; value of the released code."""

AtLeastOne = Annotated[int, at_least(1)]
Positive = Annotated[float, above(0)]
Widths = tuple[AtLeastOne, ...]


@dataclass(frozen=True)
class SpairConfig(ModelConfig):
    """The network. Defaults are the values of the paper's supplement, D.2 and table 1, where it states them.

    Attributes:
        channels: channels of the images, 1 (grey) or 3 (colour).
        strides: strides of the first convolutions, kernel 4. Their product is the side of a cell in pixels, 12 x 12.
        width: filters of all convolutions except the last.
        features: filters of the last convolution, and values that one network of a cell passes to the next.
        base_box: side in pixels of the base box. The sides of a box are shares of it.
        bounds: smallest and largest position of a box's centre, in cells from the upper left corner of its cell.
        first_side: initial logit of the sides of a box, as shares of the base box; 0 is half of it. Like the prior's
            -2.2, it is a value before the sigmoid.
        object_size: side of an object's maps.
        attributes: A, the length of z_what.
        first_presence: initial logit of z_pres; 0 switches half of the cells on. A higher value draws objects clearly
            while the training wheels are on.
        first_deviation: initial standard deviation of z_what, below 2. At 1, as in the prior, z_what is noise at first
            and may stay so for long.
        look_back: how many rows and columns before a cell it sees the objects of; 0 for independent cells (the
            ablation).
        hidden: hidden layers of the networks for box, depth and presence.
        encoder: hidden layers of the object encoder.
        decoder: hidden layers of the object decoder.
        colour_gain: factor on the decoder's logits for colours.
        alpha_gain: factor on the decoder's logits for transparency.
        alpha_start: added to the logits for transparency, so that objects are initially opaque.
        temperature: temperature of the relaxed z_pres.
        background: "black"; "median", the median colour of each image; or "shared", one picture behind all images, for
            instance of a fixed camera: the median of many images at each pixel, computed before training.
        background_side: side in pixels of the images with a shared background; 0 otherwise.
        importance: how depth weights objects, see ``mistnn.ops.render.importance_maps``.
        edge: how the border of a box is drawn, see ``mistnn.ops.render.render_objects``. With a hard edge, "box", no
            gradient tells that a box is too small: the prior shrinks it, and the reconstruction is lost.
    """

    kind: ClassVar[str] = "spair"
    class_names: ClassVar[tuple[str, ...]] = ()
    k: ClassVar[int] = 1
    channels: Annotated[int, one_of(1, 3)] = 1
    strides: tuple[Annotated[int, between(1, KERNEL)], ...] = (2, 2, 3)
    width: AtLeastOne = 128
    features: AtLeastOne = 100
    base_box: Positive = 48.0
    bounds: tuple[float, float] = (-0.5, 1.5)
    first_side: float = 0.0
    object_size: AtLeastOne = 14
    attributes: AtLeastOne = 50
    first_presence: float = 0.0
    first_deviation: Annotated[float, above(0), below(LARGEST_DEVIATION)] = 1.0
    look_back: Annotated[int, at_least(0)] = 1
    hidden: Widths = (100, 100)
    encoder: Widths = (512, 256)
    decoder: Widths = (256, 512)
    colour_gain: Positive = 2.0
    alpha_gain: Positive = 0.1
    alpha_start: float = 5.0
    temperature: Positive = 1.0
    background: Background = "black"
    background_side: Annotated[int, at_least(0)] = 0
    importance: Importance = "paper"
    edge: Edge = "fade"

    def check(self) -> None:
        """See ``Config.check``."""
        if not self.strides:
            raise MistError("model.strides is empty: give numbers from 1 to 4, e.g. 2 2 3")
        if (self.background == "shared") != (self.background_side > 0):
            raise MistError(
                f"model.background={self.background} and model.background_side={self.background_side} don't fit: a "
                "shared background needs the side of the images in pixels, the others 0"
            )
        if not self.bounds[0] < self.bounds[1]:
            raise MistError(f"model.bounds={self.bounds} must be two positions in cells, smaller first, e.g. -0.5 1.5")

    @property
    def cell(self) -> int:
        """Side of a cell in pixels."""
        return math.prod(self.strides)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells of an image.

        Raises:
            MistError: if the image is not made of whole cells.
        """
        if height < 1 or width < 1 or height % self.cell or width % self.cell:
            raise MistError(
                f"an image of {width} x {height} pixels is not made of cells of {self.cell} x {self.cell}: crop or pad "
                f"it to multiples of {self.cell}"
            )
        return height // self.cell, width // self.cell

    def build(self) -> Finder:
        """See ``ModelConfig.build``."""
        from mistnn.models.spair.network import Spair

        return Spair(self)


@dataclass(frozen=True)
class SpairStepConfig(TrainingStepConfig):
    """The objective and the schedules. Defaults are the paper's values where it states them.

    Attributes:
        rate: learning rate of Adam.
        decay: the rate falls to this share along half a cosine over ``decay_steps``; 1 for a constant rate.
        decay_steps: length of the fall in iterations; ``None`` for the whole run.
        largest_gradient: gradients are clipped to this norm.
        place_prior: mean and standard deviation of z_x and z_y.
        size_prior: the same for the width and height, z_w and z_h.
        depth_prior: the same for z_depth.
        what_prior: the same for z_what.
        s: parameter of the prior over the number of objects, in (0, 1); scheduled if not given.
        schedule_scale: factor on the length of the released code's schedules, of s, the training wheels and the noise;
            theirs reaches s = 0.5 at iteration 6,000. Short runs need a smaller value.
        wheels: iterations, times ``schedule_scale``, in which boxes, depths and presences are not trained.
        floor: share of uniform grey that is mixed into the reconstruction before the cross-entropy, so that the loss of
            a pixel without an object is finite and has a gradient.
        gradient_noise: initial standard deviation of noise on the gradients, which falls to a tenth every 1,000
            iterations, times ``schedule_scale``; 0 for none.
        precision: precision of the backbone and of the object encoder and decoder; "auto" uses bfloat16 where that is
            faster. The other networks of the cells, rendering and losses are always in float32.
    """

    kind: ClassVar[str] = "spair"
    trains: ClassVar[tuple[str, ...]] = ("spair",)
    rate: LearningRate = 1e-4
    decay: Decay = 1.0
    decay_steps: DecaySteps = None
    largest_gradient: Positive = 1.0
    place_prior: tuple[float, float] = (0.0, 1.0)
    size_prior: tuple[float, float] = (-2.2, 0.5)
    depth_prior: tuple[float, float] = (0.0, 1.0)
    what_prior: tuple[float, float] = (0.0, 1.0)
    s: Annotated[float, above(0), below(1, "near 1 favours few objects; 0.99 in the paper")] | None = None
    schedule_scale: Positive = 1.0
    wheels: Annotated[int, at_least(0)] = 1000
    floor: Annotated[float, above(0), below(1)] = 1e-3
    gradient_noise: Annotated[float, at_least(0)] = 0.001
    precision: Precision = "float32"

    def check(self) -> None:
        """See ``Config.check``."""
        for name in ("place_prior", "size_prior", "depth_prior", "what_prior"):
            if not getattr(self, name)[1] > 0:
                raise MistError(f"step.{name}={getattr(self, name)} must be a mean and a standard deviation above 0")

    def rescale_schedule(self, before: int, steps: int) -> TrainingStepConfig:
        """See ``TrainingStepConfig.rescale_schedule``. The training wheels keep their length: objects need it."""
        scale, wheels = self.schedule_scale * steps / before, round(self.wheels * before / steps)
        scaled = dataclasses.replace(self, schedule_scale=scale, wheels=wheels)
        return TrainingStepConfig.rescale_schedule(scaled, before, steps)

    def build(self, model: Any) -> Step:
        """See ``TrainingStepConfig.build``."""
        from mistnn.models.spair.step import SpairStep

        return SpairStep(model, self)
