"""What an AIR network is made of; see README.md here for the source of every value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mistnn.errors import MistError

Recurrence = Literal["lstm", "feedforward"]


@dataclass(frozen=True)
class AirConfig:
    """The network. Its values are those of AIR's original setting.

    Attributes:
        channels: of the images, 1 or 3.
        canvas: side of the images in pixels: the network sees all of their pixels at once, and no other size.
        k: K, the steps it makes, one an object: most objects that it can find.
        given: the number of objects of each image is told, in training and at test; else it is inferred.
        recurrence: "lstm" (AIR), or "feedforward" (DAIR): a network that sees the image minus what is drawn so far.
        units: numbers that the recurrent network gives at each step.
        hidden: hidden layers of DAIR's network; an LSTM has none.
        head: hidden layers between it and z_where and z_pres.
        sides: 1 for square windows, 2 for windows of any width and height.
        window: side of the glimpse and of a decoded object, in pixels of their own.
        attributes: length of z_what.
        encoder: hidden layers from a glimpse to z_what.
        decoder: hidden layers from z_what to an object.
        noise: standard deviation of what is added to the decoder's logits in training.
        temperature: of the relaxed z_pres.
        threshold: an object counts until the sum of 1 - z_pres, over the steps so far, reaches it.
    """

    channels: int = 1
    canvas: int = 50
    k: int = 3
    given: bool = False
    recurrence: Recurrence = "lstm"
    units: int = 256
    hidden: tuple[int, ...] = ()
    head: tuple[int, ...] = (320,)
    sides: int = 1
    window: int = 28
    attributes: int = 50
    encoder: tuple[int, ...] = (512, 256)
    decoder: tuple[int, ...] = (256, 512)
    noise: float = 0.3
    temperature: float = 1.0
    threshold: float = 0.99

    def __post_init__(self) -> None:
        """Refuses values that no network can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if self.channels not in (1, 3):
            raise MistError(f"model.channels={self.channels} must be 1 (grey) or 3 (colour)")
        for name in ("canvas", "k", "units", "window", "attributes"):
            if getattr(self, name) < 1:
                raise MistError(f"model.{name}={getattr(self, name)} must be 1 or more")
        for name in ("hidden", "head", "encoder", "decoder"):
            if any(width < 1 for width in getattr(self, name)):
                raise MistError(f"model.{name}={getattr(self, name)} must be widths of 1 or more")
        if self.recurrence not in get_args(Recurrence):
            raise MistError(f"model.recurrence={self.recurrence!r} is unknown: use {', '.join(get_args(Recurrence))}")
        if self.recurrence == "lstm" and self.hidden:
            raise MistError(f"model.hidden={self.hidden} belongs to DAIR: leave it empty for an LSTM")
        if self.sides not in (1, 2):
            raise MistError(f"model.sides={self.sides} must be 1 (square windows) or 2 (width and height)")
        if not 0 <= self.noise < math.inf:
            raise MistError(f"model.noise={self.noise} must be a finite number, 0 or more")
        if not 0 < self.temperature < math.inf:
            raise MistError(f"model.temperature={self.temperature} must be a finite number above 0")
        if not 0 < self.threshold <= 1:
            raise MistError(f"model.threshold={self.threshold} must lie above 0 and be at most 1")

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: nothing is named."""
        return ()
