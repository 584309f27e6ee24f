"""Latent variables of variational models: independent normal variables with samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Normal(NamedTuple):
    """Independent normal variables, with one sample of each; shapes (batch, objects, d)."""

    mean: Tensor
    deviation: Tensor
    sample: Tensor


def normal(mean: Tensor, deviation: Tensor, training: bool) -> Normal:
    """Normal variables, sampled in training; in evaluation the sample is the mean."""
    return Normal(mean, deviation, mean + deviation * torch.randn_like(mean) if training else mean)


def joined(parts: Sequence[Any], finish: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Any:
    """Concatenates nested named tuples of tensors along dimension 1; ``finish`` is applied to each joined tensor."""
    first = parts[0]
    if isinstance(first, Tensor):
        return finish(torch.cat(list(parts), dim=1))
    return type(first)(*(joined(group, finish) for group in zip(*parts, strict=True)))
