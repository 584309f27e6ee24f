"""Line 4 of Algorithm 1: gradient descent on the keypoints, for digits (pixels) and photographs (cells) alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mistnn.ops.losses import lifting_penalty


def lift(
    anchors: Tensor,
    objective: Callable[[Tensor], Tensor],
    *,
    steps: int,
    rate: float | Tensor,
    reach: float,
    penalty: float,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """Moves keypoints down the gradient of the task loss of their image (MIST, equation 6).

    Args:
        anchors: (batch, k, coordinates), where the keypoints start; all coordinates in one unit of length.
        objective: the task loss of each image, (batch,), at keypoints.
        steps: gradient steps.
        rate: step size in units^2, one for all coordinates or (coordinates,).
        reach: longest move of a keypoint in one step, in units; 0 for no limit.
        penalty: lambda of equation 6.
        low: smallest coordinates, broadcast to the keypoints; every step is clamped to them.
        high: largest coordinates, likewise.

    Returns:
        The moved keypoints, detached.
    """
    keypoints = anchors
    for _ in range(steps):
        keypoints = keypoints.detach().requires_grad_()
        loss = objective(keypoints)
        if penalty:
            loss = loss + penalty * lifting_penalty(keypoints, anchors)
        (gradient,) = torch.autograd.grad(loss.sum(), keypoints)  # of the keypoints only, not of the weights
        keypoints = moved(keypoints, gradient, rate=rate, reach=reach, low=low, high=high)
    return keypoints.detach()


def moved(
    keypoints: Tensor, gradient: Tensor, *, rate: float | Tensor, reach: float, low: Tensor, high: Tensor
) -> Tensor:
    """One gradient step on keypoints, detached; see ``lift``.

    Args:
        keypoints: (batch, k, coordinates).
        gradient: of the loss of each keypoint's image, likewise.
        rate: see ``lift``, like all others.
    """
    move = rate * gradient
    if reach:
        move = move * (reach / move.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    return (keypoints.detach() - move).clamp(low, high)
