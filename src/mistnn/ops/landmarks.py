"""Differentiable positions of heat maps, as means over pixels, and the losses of unsupervised landmarks.

Convention: ``soft_argmax`` returns pixels. All others, as in Zhang et al. (2018), use fractions of the image's sides.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def soft_argmax(scores: Float[Tensor, "batch k height width"]) -> Float[Tensor, "batch k 2"]:
    """The mean position of each map under a softmax over its pixels, x and y in pixels (Zhang et al. 2018, 3.1)."""
    height, width = scores.shape[-2:]
    weights = scores.flatten(2).softmax(-1).view(scores.shape)
    x = torch.arange(width, device=scores.device, dtype=scores.dtype) + 0.5
    y = torch.arange(height, device=scores.device, dtype=scores.dtype) + 0.5
    return torch.stack(((weights.sum(-2) * x).sum(-1), (weights.sum(-1) * y).sum(-1)), dim=-1)


class Landmarks(NamedTuple):
    """Landmarks of K channels.

    Attributes:
        maps: (batch, k + 1, height, width), the share of each landmark in a pixel; the last is the background.
        places: (batch, k, 2), mean x and y of each map, in [0, 1].
        variances: (batch, k, 2), of x and y.
    """

    maps: Tensor
    places: Tensor
    variances: Tensor


def landmarks_of(scores: Tensor) -> Landmarks:
    """(batch, k + 1, height, width) scores to landmarks: a softmax over channels, then means over pixels (3.1)."""
    maps = scores.softmax(1)
    height, width = scores.shape[-2:]
    x = (torch.arange(width, device=scores.device, dtype=scores.dtype) + 0.5) / width
    y = (torch.arange(height, device=scores.device, dtype=scores.dtype) + 0.5) / height
    places, variances = [], []
    for axis, positions in ((-2, x), (-1, y)):
        share = maps[:, :-1].sum(axis)
        share = share / share.sum(-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        mean = (share * positions).sum(-1, keepdim=True)
        places.append(mean.squeeze(-1))
        variances.append((share * (positions - mean).square()).sum(-1))
    return Landmarks(maps, torch.stack(places, dim=-1), torch.stack(variances, dim=-1))


def concentration(variances: Tensor) -> Tensor:
    """(batch, k, 2) to (batch,): 2 pi e sigma^2 summed over landmarks, the exponential of a Gaussian's entropy.

    sigma is the mean of the standard deviations along x and y, as in the official code.
    """
    spread = (variances + 1e-12).sqrt().mean(-1)
    return 2 * math.pi * math.e * spread.square().sum(-1)


def separation(places: Tensor, bandwidth: float) -> Tensor:
    """(batch, k, 2) to (batch,): a Gaussian of the distance, summed over ordered pairs of landmarks."""
    squared = (places.unsqueeze(1) - places.unsqueeze(2)).square().sum(-1)
    near = torch.exp(-squared / (2 * bandwidth**2))
    return near.sum((1, 2)) - places.shape[1]
