"""ConnComp: a pixel is foreground if it differs from the background by tau; each connected component is an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.ops.components import component_boxes
from mistnn.records import Detections, Explanation

Background = Literal["black", "median"]


@dataclass(frozen=True)
class ConnCompConfig:
    """The method.

    Attributes:
        channels: of the images, 1 or 3.
        background: "black", or "median", each image's own median colour.
    """

    channels: int = 1
    background: Background = "black"

    def __post_init__(self) -> None:
        """Refuses values that can't be.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if self.channels not in (1, 3):
            raise MistError(f"model.channels={self.channels} must be 1 (grey) or 3 (colour)")
        if self.background not in get_args(Background):
            raise MistError(f"model.background={self.background!r} is unknown: use {', '.join(get_args(Background))}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: nothing is named."""
        return ()

    @property
    def k(self) -> int:
        """The least number of objects that can be asked for: as many are found as there are components."""
        return 1

    @property
    def given(self) -> bool:
        """Never: the number of components is what it is."""
        return False


class ConnComp(nn.Module):
    """One number, tau; before training it is 1, at which only what differs wholly from the background is foreground."""

    tau: Tensor

    def __init__(self, config: ConnCompConfig) -> None:
        super().__init__()
        self.config = config
        # Without a gradient, but a parameter: stored, moved and counted as those of the networks.
        self.tau = nn.Parameter(torch.tensor(1.0), requires_grad=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: nothing is named."""
        return ()

    @property
    def reconstructs(self) -> bool:
        """Never: it finds, and draws nothing."""
        return False

    @property
    def counts_itself(self) -> bool:
        """Always: the number of components is what it is."""
        return True

    def refusal(self, height: int, width: int) -> str | None:
        """Any size will do."""
        return None

    def most(self, height: int, width: int) -> int:
        """As many components as pixels that don't touch."""
        return (height * width + 1) // 2

    def difference(self, images: Tensor) -> Tensor:
        """How far each pixel is from the background, (batch, height, width): the sum over the channels."""
        if self.config.background == "median":
            images = images - images.flatten(2).median(2).values[..., None, None]
        return images.abs().sum(1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(batch, channels, height, width) to the boxes of each image, (found, 4)."""
        return component_boxes(self.difference(images) >= self.tau)

    def detect(self, images: Tensor, counts: Tensor | None = None) -> Explanation:
        """All components of each image, the largest box first; their number isn't taken from anywhere."""
        return self.explain(images, images.shape[-1] * images.shape[-2])

    def explain(self, images: Tensor, k: int) -> Explanation:
        """The K largest boxes at most."""
        found = []
        for boxes in self(images):
            largest = boxes[:, 2:].prod(1).argsort(descending=True, stable=True)[:k]
            found.append(Detections(boxes[largest], torch.ones_like(boxes[largest, 0])))
        return Explanation(found, None)
