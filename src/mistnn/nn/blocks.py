"""Residual blocks and the normalisations the papers use."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Normalisation = Literal["before", "after", "none"]
Padding = Literal["zeros", "replicate"]


def layer_norm(channels: int) -> nn.GroupNorm:
    """Layer normalisation of a feature map: over channels and positions of one image, never over the batch."""
    return nn.GroupNorm(1, channels)


class ResidualBlock(nn.Module):
    """A ResNet v1 block: two 3x3 convolutions of stride 1, added to the input, ReLU.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; a 1x1 convolution fits the skip where they differ.
        normalisation: "before" each convolution (MIST supplement, section C.1), "after" each with one module shared by
            both (the released code), or "none".
        padding: what the convolutions see beyond the border.

    Reference: He et al. (2016); MIST supplement, sections A and C.1.
    """

    def __init__(self, inputs: int, outputs: int, normalisation: Normalisation, padding: Padding = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=padding)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, padding_mode=padding)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.norm_first: nn.Module = nn.Identity()
        self.norm_second: nn.Module = nn.Identity()
        self.after: nn.Module = nn.Identity()
        if normalisation == "before":
            self.norm_first, self.norm_second = layer_norm(inputs), layer_norm(outputs)
        elif normalisation == "after":
            self.after = layer_norm(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        hidden = F.relu(self.after(self.first(self.norm_first(features))))
        hidden = self.after(self.second(self.norm_second(hidden)))
        return F.relu(self.skip(features) + hidden)


def gaussian_window(size: int, std: float) -> Tensor:
    """(size, size) Gaussian of 1 at the centre; std as a fraction of the side."""
    position = (torch.arange(size) + 0.5) / size - 0.5
    line = torch.exp(-0.5 * (position / std).square())
    return line[:, None] * line[None, :]
