"""A convolution that trains faster on large maps of few channels, on processors without AVX-512."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

PIXELS = 4_096
"""How many pixels a thread multiplies at once. Fewer make small products, more leave the cache."""
LEAST_VALUES = 50_000
CHANNELS = (32, 128)
"""How many values an image must have, and how many channels, for matrix products to be faster (docs/logbook.md)."""


class Convolution(nn.Conv2d):
    """A convolution of stride 1, whose gradients are computed otherwise where that is faster.

    Parameters and results are those of ``nn.Conv2d``, apart from rounding. Without AVX-512, torch takes more than twice
    as long for the gradient of the weights as for the convolution itself, if maps are large and channels few; and a
    border of the nearest pixels is cut off the gradient of the image in a pass of its own. Images in NCHW layout are
    left to torch.
    """

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        """(batch, inputs, height, width) to (batch, outputs, rows, columns)."""
        if torch.compiler.is_compiling() and self.padding_mode == "replicate" and self.padding == (1, 1):
            return F.conv2d(padded_images(input, 1, nearest=True), self.weight, self.bias, self.stride)
        if not self._faster(input):
            return super().forward(input)
        result, _ = _Convolve.apply(input, self.weight, self.bias, self.padding[0], self.padding_mode == "replicate")
        return result

    def _faster(self, input: Tensor) -> bool:
        least, most = CHANNELS
        return (
            self.weight.requires_grad
            and torch.is_grad_enabled()
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and input.is_contiguous(memory_format=torch.channels_last)
            and least <= self.in_channels <= most
            and least <= self.out_channels <= most
            and input[0].numel() >= LEAST_VALUES
            and self.kernel_size == (3, 3)
            and self.padding in ((0, 0), (1, 1))
            and self.padding_mode in ("zeros", "replicate")
            and (*self.stride, *self.dilation, self.groups) == (1,) * 5
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and torch.backends.cpu.get_cpu_capability() == "AVX2"
        )


def padded_images(images: Tensor, border: int, nearest: bool) -> Tensor:
    """Images with a border of zeros or of the nearest pixels, channels last."""
    if not border:
        return images
    if nearest and torch.compiler.is_compiling():  # torch 2.15 can't compile the gradient of its own border
        images = torch.cat((images[:, :, :1], images, images[:, :, -1:]), 2)
        return torch.cat((images[..., :1], images, images[..., -1:]), 3)
    return F.pad(images, (border,) * 4, mode="replicate" if nearest else "constant")


class _Convolve(torch.autograd.Function):
    """A 3x3 convolution; see ``Convolution``."""

    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, bias: Tensor | None, border: int, nearest: bool
    ) -> tuple[Tensor, Tensor]:
        padded = padded_images(images, border, nearest)
        return F.conv2d(padded, weight, bias), padded

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        images, weight, _, ctx.border, ctx.nearest = inputs
        ctx.save_for_backward(images, output[1], weight)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # else zeros are made for the padded images in each backward pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad, _), (images, padded, weight), border = grads, ctx.saved_tensors, ctx.border
        if grad is None:
            return None, None, None, None, None
        of_images = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_images = gradient_of_images(grad, weight, border, ctx.nearest)
        if ctx.needs_input_grad[1] and torch.is_grad_enabled():  # ``create_graph=True``: differentiable itself
            of_weight = conv2d_weight(padded_images(images, border, ctx.nearest), weight.shape, grad)
        elif ctx.needs_input_grad[1]:
            of_weight = gradient_of_weights(padded, grad)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_images, of_weight, of_bias, None, None


def gradient_of_images(grad: Tensor, weight: Tensor, border: int, nearest: bool) -> Tensor:
    """The gradient of the images, without a border, of a 3x3 convolution.

    Args:
        grad: of the result, (batch, outputs, height, width).
        weight: (outputs, inputs, 3, 3).
        border: the pixels around an image, 0 or 1.
        nearest: if the border repeats the nearest pixels, whose gradients therefore add up; else it is zero.
    """
    filters = weight.transpose(0, 1).flip(2, 3)
    of_images = F.conv2d(grad, filters, padding=2 - border)
    if border and nearest:
        rows = _lines(grad[:, :, 0], grad[:, :, -1], filters[:, :, 2], filters[:, :, 0])
        columns = _lines(grad[..., 0], grad[..., -1], filters[..., 2], filters[..., 0])
        for edge, row, column in zip((0, -1), rows, columns, strict=True):
            of_images[:, :, edge] += row[:, :, 1:-1]
            of_images[:, :, edge, 0] += row[:, :, 0]  # the corners
            of_images[:, :, edge, -1] += row[:, :, -1]
            of_images[..., edge] += column[:, :, 1:-1]
    return of_images


def _lines(first: Tensor, last: Tensor, of_first: Tensor, of_last: Tensor) -> Tensor:
    """Two lines, (batch, outputs, length), by three taps each, (inputs, outputs, 3), as one product.

    Returns (2, batch, inputs, length + 2): the results of all places that a tap meets.
    """
    pixels = F.pad(torch.stack((first, last)).transpose(2, 3), (0, 0, 2, 2))
    taps = torch.stack((of_first, of_last)).permute(0, 3, 2, 1).flatten(1, 2)
    products = side_by_side(pixels).reshape(2, -1, taps.shape[1]) @ taps
    return products.view(*pixels.shape[:2], -1, taps.shape[2]).transpose(2, 3)


def gradient_of_weights(padded: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the weights, (outputs, inputs, 3, 3), of a 3x3 convolution of padded images, by products.

    Two rows of the result meet the three rows of the filters in four products instead of six: Winograd's minimal
    filtering F(3, 2), applied to the rows. The pixels below the three columns of the filters are copied side by side,
    for a few images at once, which then lie in the cache.

    Args:
        padded: (batch, inputs, height + 2, width + 2).
        grad: of the result, (batch, outputs, height, width).

    Reference: Winograd, Arithmetic Complexity of Computations (1980); Lavin & Gray (2016), section 4.
    """
    (batch, outputs, height, width), inputs = grad.shape, padded.shape[1]
    pixels, of_result = padded.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    most = min(batch, torch.get_num_threads() * -(-PIXELS // (height * width)))
    images = next(number for number in range(most, 0, -1) if batch % number == 0)
    pairs = height // 2
    last = 2 * pairs
    mixed = grad.new_empty(4, images, pairs, width + 2, inputs)
    of_mixed = grad.new_empty(4, images, pairs, width, outputs)
    columns = grad.new_empty(images, pairs, width, 3, inputs)
    products = grad.new_zeros(4, images, outputs, 3 * inputs)
    m0, m1, m2, m3 = mixed
    f0, f1, f2, f3 = of_mixed
    matrix = columns.view(images, pairs * width, 3 * inputs)
    factors = list(zip(products, of_mixed.flatten(2, 3).transpose(2, 3), side_by_side(mixed), strict=True))
    for x, g in zip(pixels.split(images), of_result.split(images), strict=True):
        x0, x1, x2, x3 = (x[:, row : row + last : 2] for row in range(4))
        g0, g1 = g[:, 0:last:2], g[:, 1:last:2]
        torch.sub(x0, x2, out=m0)
        torch.add(x1, x2, out=m1)
        torch.sub(x2, x1, out=m2)
        torch.sub(x3, x1, out=m3)
        f0.copy_(g0)
        torch.add(g0, g1, out=f1)
        torch.sub(g0, g1, out=f2)
        f3.copy_(g1)
        for product, of_rows, rows in factors:
            columns.copy_(rows)
            product.baddbmm_(of_rows, matrix)
    p0, p1, p2, p3 = products.sum(1)
    filters = torch.stack((p0 + (p1 + p2) / 2, (p1 - p2) / 2, (p1 + p2) / 2 + p3))
    if height > last:  # the last of an odd number of rows
        of_row = of_result[:, last].flatten(0, 1).T
        filters += torch.stack(
            [of_row @ side_by_side(pixels[:, row]).reshape(batch * width, -1) for row in range(last, last + 3)]
        )
    return filters.view(3, outputs, 3, inputs).permute(1, 3, 0, 2)


def side_by_side(pixels: Tensor) -> Tensor:
    """(..., width + 2, channels) to (..., width, 3, channels): each pixel with the two to the right of it; a view."""
    return pixels.unfold(-2, 3, 1).transpose(-1, -2)
