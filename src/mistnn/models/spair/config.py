"""What a SPAIR network is made of; see README.md here for the source of every value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mistnn.errors import MistError
from mistnn.ops.render import Edge, Importance

Background = Literal["black", "median", "shared"]
KERNEL = 4
"""Side of the strided convolutions' kernels: SPAIR, supplement, D.2."""

LARGEST_DEVIATION = 2.0
"""A standard deviation is this times a sigmoid. Not stated in the paper; value of the released code."""


@dataclass(frozen=True)
class SpairConfig:
    """The network. Its values are those of the paper's supplement, D.2 and table 1, where that has them.

    Attributes:
        channels: of the images, 1 or 3.
        strides: of the first convolutions, kernel 4; their product is the side of a cell in pixels, 12 x 12.
        width: filters of all convolutions but the last.
        features: filters of the last one, and numbers that a network of a cell hands to the next.
        base_box: side in pixels of the base box, of which a box is a share.
        bounds: least and largest place of a box's centre, in cells from the upper left corner of its own.
        first_side: logit of a box's sides, as shares of the base box, that an untrained network starts at; 0 is half of
            it. Like the prior's -2.2, it is a number before the sigmoid.
        object_size: side of an object's maps.
        attributes: A, the length of z_what.
        first_presence: logit of z_pres that an untrained network starts at; 0 is half of the cells. A higher one shows
            objects clearly while the training wheels hold.
        first_deviation: standard deviation of z_what that an untrained network starts at, below 2. At 1, the prior's,
            z_what is noise at first, and may stay so for long.
        look_back: how many rows and columns before a cell it sees the objects of; 0 for cells that don't see each
            other, the ablation.
        hidden: hidden layers of the networks for box, depth and presence.
        encoder: hidden layers of the object encoder.
        decoder: hidden layers of the object decoder.
        colour_gain: factor of the decoder's logits for colours.
        alpha_gain: the same for transparency.
        alpha_start: what is added to these: at first an object is opaque.
        temperature: of the relaxed z_pres.
        background: "black"; "median", each image's own median colour; or "shared", one picture that is behind all
            images, of a fixed camera for instance: before the training, the median of many images at each pixel.
        background_side: of the images whose background is shared, in pixels; 0 for the others.
        importance: how depth weighs, see ``mistnn.ops.render.importance_maps``.
        edge: how the border of a box is drawn, see ``mistnn.ops.render.render_objects``. With a hard edge, "box", no
            gradient says that a box is too small: the prior shrinks it, and the picture is lost.
    """

    channels: int = 1
    strides: tuple[int, ...] = (2, 2, 3)
    width: int = 128
    features: int = 100
    base_box: float = 48.0
    bounds: tuple[float, float] = (-0.5, 1.5)
    first_side: float = 0.0
    object_size: int = 14
    attributes: int = 50
    first_presence: float = 0.0
    first_deviation: float = 1.0
    look_back: int = 1
    hidden: tuple[int, ...] = (100, 100)
    encoder: tuple[int, ...] = (512, 256)
    decoder: tuple[int, ...] = (256, 512)
    colour_gain: float = 2.0
    alpha_gain: float = 0.1
    alpha_start: float = 5.0
    temperature: float = 1.0
    background: Background = "black"
    background_side: int = 0
    importance: Importance = "paper"
    edge: Edge = "fade"

    def __post_init__(self) -> None:
        """Refuses values that no network can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if self.channels not in (1, 3):
            raise MistError(f"model.channels={self.channels} must be 1 (grey) or 3 (colour)")
        if not self.strides or not all(1 <= stride <= KERNEL for stride in self.strides):
            raise MistError(f"model.strides={self.strides} must be numbers from 1 to {KERNEL}, e.g. 2 2 3")
        for name in ("width", "features", "object_size", "attributes"):
            if getattr(self, name) < 1:
                raise MistError(f"model.{name}={getattr(self, name)} must be 1 or more")
        for name in ("hidden", "encoder", "decoder"):
            if any(width < 1 for width in getattr(self, name)):
                raise MistError(f"model.{name}={getattr(self, name)} must be widths of 1 or more")
        if self.look_back < 0:
            raise MistError(f"model.look_back={self.look_back} is negative: give 0 for cells that don't see each other")
        for name in ("base_box", "colour_gain", "alpha_gain", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise MistError(f"model.{name}={getattr(self, name)} must be a finite number above 0")
        for name in ("alpha_start", "first_side", "first_presence"):
            if not math.isfinite(getattr(self, name)):
                raise MistError(f"model.{name}={getattr(self, name)} must be a finite number")
        if not 0 < self.first_deviation < LARGEST_DEVIATION:
            raise MistError(f"model.first_deviation={self.first_deviation} must lie between 0 and {LARGEST_DEVIATION}")
        if self.background not in get_args(Background):
            raise MistError(f"model.background={self.background!r} is unknown: use {', '.join(get_args(Background))}")
        if (self.background == "shared") != (self.background_side > 0):
            raise MistError(
                f"model.background={self.background} and model.background_side={self.background_side} don't fit: a "
                "shared background needs the side of the images in pixels, the others 0"
            )
        if not -math.inf < self.bounds[0] < self.bounds[1] < math.inf:
            raise MistError(f"model.bounds={self.bounds} must be two places in cells, the smaller first, e.g. -0.5 1.5")

    @property
    def cell(self) -> int:
        """Side of a cell in pixels."""
        return math.prod(self.strides)

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: nothing is named."""
        return ()

    @property
    def given(self) -> bool:
        """Whether the number of objects is told: never."""
        return False

    @property
    def k(self) -> int:
        """The least number of objects that can be asked for: SPAIR finds as many as there are."""
        return 1

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
