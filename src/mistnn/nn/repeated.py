"""A linear layer that is used many times in one pass, for networks that are computed step by step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_Uses = list[tuple[Tensor, Tensor]]
"""Inputs and the gradients of outputs of each use, both (rows, ...)."""


class RepeatedLinear:
    """x W^T + b for several x, one after the other; the gradients of W and b are computed once, from all of them.

    Autograd computes a gradient of W for each use and adds it to the others. With few rows per use, starting these
    operations takes most of the time. Here each use keeps its gradient, and one product of matrices gives the sum. In
    half precision, only the sum is rounded, not the gradient of each use.

    For one pass, forward and backward: make a new one for the next.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,), or ``None``.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._uses: _Uses | None = None
        self._weight, self._bias = weight, bias
        if torch.is_grad_enabled() and weight.requires_grad:
            self._uses = []
            self._weight, self._bias = _Whole.apply(self._uses, weight, bias)

    def __call__(self, values: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        if self._uses is None:
            return F.linear(values, self._weight, self._bias)
        return _Use.apply(values, self._weight, self._bias, self._uses)


def repeated(network: nn.Sequential, dtype: torch.dtype | None = None, skip: int = 0) -> nn.Sequential:
    """The layers of a network after the first ``skip``, whose linear layers are ``RepeatedLinear``, in a dtype."""
    return nn.Sequential(*(_Layer(layer, dtype) if isinstance(layer, nn.Linear) else layer for layer in network[skip:]))


class _Layer(nn.Module):
    """A linear layer as a ``RepeatedLinear``; it has no parameters of its own."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.linear = RepeatedLinear(layer.weight.to(dtype=dtype), layer.bias.to(dtype=dtype))

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values)


class _Whole(torch.autograd.Function):
    """The weights; backward comes after that of all uses."""

    @staticmethod
    def forward(ctx: Any, uses: _Uses, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        ctx.uses = uses
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), None if bias is None else bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *_: Tensor | None) -> tuple[None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of weight and bias."""
        if not ctx.uses:
            return None, None, None
        values, gradients = (torch.cat(parts) for parts in zip(*ctx.uses, strict=True))
        ctx.uses.clear()
        needed = ctx.needs_input_grad
        return None, gradients.T @ values if needed[1] else None, gradients.sum(0) if needed[2] else None


class _Use(torch.autograd.Function):
    """One use; its backward keeps what ``_Whole`` needs, and gives the gradient of the values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None, uses: _Uses) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.uses = uses
        return F.linear(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient of the values."""
        values, weight = ctx.saved_tensors
        flat = gradients[0].flatten(0, -2)
        ctx.uses.append((values.flatten(0, -2), flat))
        wanted = (flat @ weight).view(values.shape) if ctx.needs_input_grad[0] else None
        return wanted, None, None, None
