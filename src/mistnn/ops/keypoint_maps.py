"""G on a coarse map: a Gaussian at the cell of each keypoint, and the keypoint's offset within its cell.

Convention: points are in cells, in the frame of ``mistnn.ops.coordinates``: cell (column j, row i) is centred at
(j + 0.5, i + 0.5). The papers' "rounded" keypoint is the cell that contains it, ``floor`` in this frame. Offsets are
relative to the centre of the cell, in [-0.5, 0.5]. (In the released code, to its upper left corner, in [0, 1].)

Points are (batch, k, 2) and offset maps (batch, 2, height, width), x and y; all functions raise ``ValueError`` on other
shapes.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.ops.coordinates import centre_of, pixel_of
from mistnn.records import Heatmap, Points

OffsetMaps = Float[Tensor, "batch 2 height width"]


def ideal_response(points: Points, height: int, width: int, variance: float) -> Heatmap:
    """G of the response channel: the sum over keypoints of a Gaussian around the keypoint's cell.

    It is at least 1 at the keypoints, since overlapping Gaussians add up, as in the paper.

    Args:
        points: in cells; outside the map, the nearest border cell is used.
        variance: of the Gaussian, in cells^2, above 0. For a patch of P cells it is P / 8 in the paper ("as the values
            of the covariance"), and (P / 8)^2 in the released code, where P / 8 is the standard deviation.

    Reference: MIST supplement, section B, "Backbone-based heatmap network".
    """
    _check_points(points)
    if not 0 < variance < math.inf:
        raise ValueError(f"the variance must be a finite number above 0, got {variance}")
    cell = pixel_of(points.detach(), height, width)
    # The Gaussian is separable, which avoids a map for each keypoint.
    columns = torch.arange(width, device=points.device) - cell[..., 0, None]
    rows = torch.arange(height, device=points.device) - cell[..., 1, None]
    along_x = (-0.5 * columns.to(points.dtype).square() / variance).exp()
    along_y = (-0.5 * rows.to(points.dtype).square() / variance).exp()
    return torch.einsum("bky,bkx->byx", along_y, along_x)


def offset_targets(points: Points, height: int, width: int) -> Points:
    """Equation 10: the offset of each keypoint from the centre of its cell; in [-0.5, 0.5] for points on the map.

    Reference: MIST supplement, equation 10.
    """
    _check_points(points)
    points = points.detach()
    return points - centre_of(pixel_of(points, height, width), points.dtype)


def read_offsets(offsets: OffsetMaps, points: Points) -> Points:
    """The offsets, (batch, k, 2), at the cells that contain the points."""
    _check_points(points)
    if offsets.dim() != 4 or offsets.shape[1] != 2:
        raise ValueError(f"offsets must be (batch, 2, height, width), got {tuple(offsets.shape)}")
    height, width = offsets.shape[-2:]
    cell = pixel_of(points.detach(), height, width)
    site = (cell[..., 1] * width + cell[..., 0]).unsqueeze(1).expand(-1, 2, -1)
    return offsets.flatten(2).gather(2, site).transpose(1, 2)


def huber(difference: Tensor) -> Tensor:
    """Equation 11, element by element: half the square of a difference below 1, else its absolute value minus 0.5.

    Reference: MIST supplement, equation 11.
    """
    size = difference.abs()
    return torch.where(size < 1, 0.5 * difference.square(), size - 0.5)


def offset_loss(offsets: OffsetMaps, points: Points) -> Float[Tensor, " batch"]:
    """Equations 10 and 11: the Huber loss of the offset channels, at the cells that contain the optimised keypoints.

    Averaged over x and y, as in the released code, and over keypoints. Several keypoints of one cell all count; they
    get no gradient.
    """
    target = offset_targets(points, offsets.shape[-2], offsets.shape[-1])
    return huber(read_offsets(offsets, points) - target).mean((-1, -2))


def _check_points(points: Tensor) -> None:
    if points.dim() != 3 or points.shape[-1] != 2:
        raise ValueError(f"points must be (batch, k, 2), got {tuple(points.shape)}")
