"""Residual blocks, layer normalisation of feature maps, and fast small convolutions and averages."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.nn.convolution import Convolution

Normalisation = Literal["before", "after", "none"]
Padding = Literal["zeros", "replicate"]


def layer_norm(channels: int) -> nn.GroupNorm:
    """Layer normalisation of a feature map, over the channels and positions of each image."""
    return nn.GroupNorm(1, channels)


class ResidualBlock(nn.Module):
    """A ResNet v1 block: two 3x3 convolutions of stride 1, added to the input, ReLU.

    Args:
        inputs: channels of the input.
        outputs: channels of the output; if they differ, a 1x1 convolution adapts the skip connection.
        normalisation: "before" each convolution (MIST supplement, section C.1), "after" each, by one module that both
            share (released code), or "none".
        padding: padding mode of the convolutions.

    Reference: He et al. (2016); MIST supplement, sections A and C.1.
    """

    def __init__(self, inputs: int, outputs: int, normalisation: Normalisation, padding: Padding = "zeros") -> None:
        super().__init__()
        self.first = Convolution(inputs, outputs, 3, padding=1, padding_mode=padding)
        self.second = Convolution(outputs, outputs, 3, padding=1, padding_mode=padding)
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
        # In place: neither a convolution, nor a normalisation, nor a sum needs its result for its gradient.
        hidden = F.relu(self.after(self.first(self.norm_first(features))), inplace=True)
        hidden = self.after(self.second(self.norm_second(hidden)))
        return F.relu(self.skip(features) + hidden, inplace=True)


def gaussian_window(size: int, std: float) -> Tensor:
    """A (size, size) Gaussian with 1 at the centre; ``std`` is a fraction of the side."""
    position = (torch.arange(size) + 0.5) / size - 0.5
    line = torch.exp(-0.5 * (position / std).square())
    return line[:, None] * line[None, :]


class PooledConvolution(nn.Conv2d):
    """A convolution of stride 1 with 2 x 2 max pooling.

    Parameters are those of ``nn.Conv2d``; results equal ``nn.MaxPool2d(2)`` after it, apart from rounding. On CPUs,
    convolutions of one-channel images are slow, in particular the gradient of the input. Here each 2 x 2 pixels become
    channels of one position, and the four results that are pooled come from four shifted copies of the filters, whose
    side ``kernel`` must be odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} is even: a filter's side must be odd")
        super().__init__(inputs, outputs, kernel, padding=padding)

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        """(batch, inputs, height, width) to (batch, outputs, rows, columns).

        Convention: rows = (height + 2 padding - kernel + 1) // 2, and the same for columns.
        """
        kernel, border = self.kernel_size[0], int(self.padding[0])
        input = F.pad(input, (border,) * 4) if border else input
        height, width = ((side - kernel + 1) // 2 * 2 + kernel - 1 for side in input.shape[2:])
        filters = torch.cat(
            [F.pad(self.weight, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)]
        )
        read = F.conv2d(F.pixel_unshuffle(input[:, :, :height, :width], 2), F.pixel_unshuffle(filters, 2))
        batch, _, height, width = read.shape
        fours = read.permute(0, 2, 3, 1).reshape(batch, height * width, 4, self.out_channels).permute(0, 3, 1, 2)
        largest = F.max_pool2d(fours, (1, 4)).view(batch, self.out_channels, height, width)
        return largest if self.bias is None else largest + self.bias.to(largest.dtype)[:, None, None]


def halve(images: Tensor) -> Tensor:
    """The mean of each 2 x 2 pixels: as ``avg_pool2d`` with 2, but several times faster on CPUs with few channels.

    Convention: (..., height, width) to (..., height // 2, width // 2); an odd last row or column is dropped.
    """
    height, width = (side // 2 * 2 for side in images.shape[-2:])
    rows = images[..., 0:height:2, :width] + images[..., 1:height:2, :width]
    return (rows[..., 0::2] + rows[..., 1::2]) / 4
