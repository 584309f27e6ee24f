"""A convolution with large filters by Fourier transforms, for CPUs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

WORTH = 1.3
"""The factor by which Fourier transforms must save multiplications to be used."""


class Transforms(NamedTuple):
    """Real matrices between a square image and its frequencies, first along its columns, then along its rows.

    The vertical frequencies a and -a are conjugate, so only one of them is kept.

    Attributes:
        down: (2 kept, side), from a column to the real and imaginary part of each kept frequency in turn.
        across: (2 side, 2 side), from the real, then the imaginary parts of a row to both parts of each frequency in
            turn.
        across_back: (2 results, 2 side), the inverse, to the pixels of the result: real, then imaginary parts.
        down_back: (results, 2 kept), the inverse, to real pixels.
    """

    down: Tensor
    across: Tensor
    across_back: Tensor
    down_back: Tensor


class FourierConvolution(nn.Conv2d):
    """A convolution of stride 1 without padding.

    Parameters and, up to rounding, results are those of ``nn.Conv2d``. Filters are multiplied with images frequency by
    frequency where that takes clearly fewer multiplications: large filters with many channels on small square maps, in
    float32 or float64 on a CPU. The transforms are matrix products, which on such small maps are faster than the fast
    transform. Under autocast and while compiling, the plain convolution is used.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel)

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        """(batch, inputs, height, width) to (batch, outputs, height - kernel + 1, width - kernel + 1)."""
        if not self.pays(input):
            return super().forward(input)
        kernel, (batch, _, side, _) = self.kernel_size[0], input.shape
        results = side - kernel + 1
        matrices, kept = transforms(side, kernel, input.dtype), side // 2 + 1
        read = _transform(input, matrices)
        filters = _transform(self.weight, matrices).unflatten(2, (2, -1))
        real, imaginary = filters.permute(2, 1, 3, 0)
        # torch's convolution is a correlation: multiply by the conjugate of the filter.
        conjugate = torch.cat((torch.cat((real, -imaginary), dim=2), torch.cat((imaginary, real), dim=2)), dim=1)
        product = torch.bmm(read.transpose(0, 1), conjugate).transpose(0, 1)
        rows = matrices.across_back @ product.reshape(batch * kept, 2 * side, self.out_channels)
        found = matrices.down_back @ rows.view(batch, 2 * kept, results * self.out_channels)
        found = found.view(batch, results, results, self.out_channels)
        return (found if self.bias is None else found + self.bias).permute(0, 3, 1, 2)

    def pays(self, input: Tensor) -> bool:
        """Whether Fourier transforms are used for this input."""
        if input.device.type != "cpu" or input.dtype not in (torch.float32, torch.float64) or input.dim() != 4:
            return False
        if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return False
        (batch, inputs, height, side), kernel, outputs = input.shape, self.kernel_size[0], self.out_channels
        if batch == 0 or height != side or side < kernel or inputs != self.in_channels:
            return False
        results = side - kernel + 1
        plain = results**2 * kernel**2 * inputs * outputs
        return plain > WORTH * _multiplications(batch, inputs, outputs, side, kernel)


def _multiplications(batch: int, inputs: int, outputs: int, side: int, kernel: int) -> float:
    """Multiplications of the Fourier transforms per image."""
    kept, results = side // 2 + 1, side - kernel + 1
    images = 6 * kept * side**2 * inputs
    filters = 2 * kept * kernel * (kernel + 2 * side) * inputs * outputs / batch
    product = 4 * kept * side * inputs * outputs
    return images + filters + product + 2 * kept * results * (2 * side + results) * outputs


def _transform(images: Tensor, matrices: Transforms) -> Tensor:
    """(batch, channels, height, width), padded with 0 right and below, to (batch, frequencies, 2 channels)."""
    batch, channels, height, width = images.shape
    columns = matrices.down[:, :height] @ images.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    side = matrices.across.shape[1] // 2
    across = matrices.across.view(-1, 2, side)[:, :, :width].reshape(-1, 2 * width)
    rows = across @ columns.view(-1, 2 * width, channels)
    return rows.view(batch, -1, 2 * channels)


@lru_cache(maxsize=16)
def transforms(side: int, kernel: int, dtype: torch.dtype) -> Transforms:
    """The matrices for images and filters with these sides in pixels."""
    with torch.inference_mode(False), torch.no_grad():  # cached, and used in training later
        place = torch.arange(side, dtype=torch.float64, device="cpu")  # not the default device
        kept, results = side // 2 + 1, side - kernel + 1
        angle = 2 * math.pi / side * (place[:, None] * place)  # symmetric in frequency and place
        cos, sin = angle.cos(), angle.sin()
        down = torch.stack((cos[:kept], -sin[:kept]), dim=1).flatten(0, 1)
        across = torch.stack((torch.cat((cos, sin), dim=1), torch.cat((-sin, cos), dim=1)), dim=1).flatten(0, 1)
        # A kept frequency and its conjugate sum to twice the real part; some are their own conjugates.
        weight = torch.where(2 * place[:kept] % side == 0, 1.0, 2.0).double() / side**2
        pixels, waves = cos[:results], sin[:results]
        across_back = torch.cat((torch.stack((pixels, -waves), dim=2), torch.stack((waves, pixels), dim=2))).flatten(1)
        down_back = (weight[:, None] * torch.stack((pixels, -waves), dim=2)[:, :kept]).flatten(1)
        return Transforms(*(matrix.to(dtype) for matrix in (down, across, across_back, down_back)))
