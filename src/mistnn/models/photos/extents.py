"""The size of each object, from where features stop looking like those of keypoints.

Cells near keypoints are on objects, and cells far from all keypoints are not. A linear map of the features learns to
tell them apart (least squares). The object at a keypoint consists of the cells around it that the map puts on an object
and that are nearer to it than to any other keypoint. Its box has their variance. Nobody draws a box. Not in the papers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

NEAR, FAR = 0.3, 0.7
"""Cells nearer to a keypoint than NEAR box sides are on the object, those farther from all than FAR are not (ours)."""
MIDDLE, WIDTH = 0.55, 0.3
"""The linear map at the rim of an object, and the width of the rim (our choice)."""
REACH = 1.0
"""An object reaches at most so many box sides from its keypoint (our choice)."""
LEAST_CELLS = 2.0
"""An object of fewer cells keeps the size of the folder's objects (our choice)."""
MOVED = 0.5
"""The share of the way from the keypoint to the mean of its cells that the centre of the box moves (our choice)."""
SIDES = 4.0
"""The sides of the box around an ellipse, in standard deviations of its points."""
RIDGE = 0.3
"""Of the least squares, for features of variance 1 (our choice)."""


class Extent(NamedTuple):
    """A linear map of features, about 1 on objects and 0 elsewhere.

    Attributes:
        weight: (channels,).
        bias: ().
        accuracy: the share of cells of other images than those it was learned from that it puts on the right side of
            0.5: the mean of that of objects and that of their surroundings. 0 if it could not be measured.
    """

    weight: Tensor
    bias: Tensor
    accuracy: float


def near_and_far(points: Float[Tensor, "n 2"], shape: tuple[int, int], side: float) -> tuple[Tensor, Tensor]:
    """Two masks of cells, (rows, columns): those near a keypoint, and those far from all.

    Args:
        points: x and y of the keypoints in cells.
        shape: rows and columns.
        side: of a box in cells.
    """
    rows, columns = (torch.arange(length) + 0.5 for length in shape)
    if not len(points):
        return torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
    cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 2).view(-1, 2)
    nearest = torch.cdist(cells, points.to(cells)).amin(1).view(shape)
    return nearest < NEAR * side, nearest > FAR * side


def learn_extent(
    features: Callable[[int], Float[Tensor, "channels rows columns"]],
    points: Callable[[int], Float[Tensor, "n 2"]],
    images: int,
    side: float,
) -> Extent:
    """Learns the map from keypoints.

    Args:
        features: of an image, given its number, normalised.
        points: x and y of its keypoints in cells.
        images: how many there are.
        side: of a box in cells.
    """
    parts = []
    for index in range(images):
        found = features(index)
        near, far = near_and_far(points(index), (found.shape[1], found.shape[2]), side)
        parts.append((found[:, near].T, found[:, far].T))
    halves = [_fitted(parts[start::2]) for start in (0, 1)]
    accuracies = [
        _accuracy(fit, parts[1 - start :: 2]) if fit is not None else None for start, fit in enumerate(halves)
    ]
    known = [one for one in accuracies if one is not None]
    whole = _fitted(parts)
    if whole is None:
        channels = features(0).shape[0]
        return Extent(torch.zeros(channels), torch.zeros(()), 0.0)
    return Extent(whole[:-1], whole[-1], min(known) if len(known) == 2 else 0.0)


def _fitted(parts: list[tuple[Tensor, Tensor]]) -> Tensor | None:
    """Weights and bias, (channels + 1,), with which objects weigh as much as surroundings; ``None`` without both."""
    totals = []
    for which in (0, 1):
        cells = [F.pad(pair[which], (0, 1), value=1.0).double() for pair in parts]
        number = sum(len(one) for one in cells)
        if not number:
            return None
        totals.append((sum(one.T @ one for one in cells) / number, sum(one.sum(0) for one in cells) / number))
    (objects, target), (others, _) = totals
    matrix = objects + others
    assert isinstance(matrix, Tensor) and isinstance(target, Tensor)
    return torch.linalg.solve(matrix + RIDGE * torch.eye(len(matrix), dtype=matrix.dtype), target).float()


def _accuracy(weights: Tensor, parts: list[tuple[Tensor, Tensor]]) -> float | None:
    """See ``Extent``; ``None`` if one kind of cells is missing."""
    if not parts:
        return None
    objects, others = (torch.cat([pair[which] for pair in parts]) @ weights[:-1] + weights[-1] for which in (0, 1))
    if not len(objects) or not len(others):
        return None
    return float(((objects > 0.5).double().mean() + (others <= 0.5).double().mean()) / 2)


def filled(extent: Tensor) -> Tensor:
    """The share of each cell that lies on an object, in [0, 1], from the linear map of any shape."""
    return ((extent - MIDDLE) / WIDTH + 0.5).clamp(0, 1)


def measured_boxes(
    points: Float[Tensor, "n 2"], extent: Float[Tensor, "rows columns"], side: float
) -> Float[Tensor, "n 4"]:
    """The box of each object, centre x and y, width and height, in cells.

    Args:
        points: x and y of the keypoints in cells.
        extent: the linear map; minus infinity outside the image.
        side: of a box whose object can't be measured, in cells.
    """
    columns = extent.shape[1]
    reach = int(REACH * side) + 1
    shifts = torch.arange(-reach, reach + 1, device=points.device)
    down, across = (one.flatten() for one in torch.meshgrid(shifts, shifts, indexing="ij"))
    x, y = points[:, :1].floor().long() + across, points[:, 1:].floor().long() + down
    offsets = torch.stack((x + 0.5 - points[:, :1], y + 0.5 - points[:, 1:]), 2)
    distances = offsets.square().sum(2)
    cells = y.clamp(0, extent.shape[0] - 1) * columns + x.clamp(0, columns - 1)
    here = (x >= 0) & (y >= 0) & (x < columns) & (y < extent.shape[0]) & (distances <= (REACH * side) ** 2)
    far = torch.where(here, distances, torch.full_like(distances, torch.inf))
    nearest = far.new_full((extent.numel(),), torch.inf).scatter_reduce(0, cells.flatten(), far.flatten(), "amin")
    shares = filled(extent.flatten()[cells])
    weights = torch.where(here & (distances <= nearest[cells]), shares, torch.zeros_like(shares))
    number = weights.sum(1, keepdim=True)
    mean = (weights[:, :, None] * offsets).sum(1) / number.clamp(min=1e-6)
    squares = (weights[:, :, None] * (offsets - mean[:, None]).square()).sum(1) / number.clamp(min=1e-6)
    boxes = torch.cat((points + MOVED * mean, SIDES * (squares + 1 / 12).sqrt()), 1)
    fixed = torch.cat((points, torch.full_like(points, side)), 1)
    return torch.where(number >= LEAST_CELLS, boxes, fixed)
