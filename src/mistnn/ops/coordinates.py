"""The one coordinate convention of the package.

Convention:
    * x points right, y points down; positions are (x, y).
    * Pixel (column j, row i) covers [j, j + 1) x [i, i + 1); its centre is (j + 0.5, i + 0.5).
    * An image of width W and height H covers [0, W] x [0, H].
    * A box is (centre x, centre y, width, height) in pixels of the image it belongs to.
    * Sampling grids are normalised so that [0, W] maps to [-1, 1]: PyTorch's ``align_corners=False``, always.
    * "Round to the nearest pixel" in the papers, whose pixel centres are integers, is ``floor`` in this frame.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_of(points: Tensor, height: int, width: int) -> Tensor:
    """The index of the pixel that contains each point; for points outside the image, of the nearest border pixel.

    Args:
        points: (..., 2), x and y in pixels.
        height: rows of the image.
        width: columns of the image.

    Returns:
        (..., 2) int64, (column, row).
    """
    column = points[..., 0].floor().long().clamp(0, width - 1)
    row = points[..., 1].floor().long().clamp(0, height - 1)
    return torch.stack((column, row), dim=-1)


def centre_of(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Centres of pixels given as (..., 2) integer (column, row)."""
    return pixels.to(dtype) + 0.5


def normalise(points: Tensor, height: int, width: int) -> Tensor:
    """Pixel positions to the [-1, 1] frame of ``grid_sample(align_corners=False)``.

    Args:
        points: (..., 2), x and y in pixels.
        height: rows of the sampled image.
        width: columns of the sampled image.

    Returns:
        (..., 2); 0 maps to -1 and the far edge (W or H) to 1.
    """
    return points * points.new_tensor((2.0 / width, 2.0 / height)) - 1.0


def boxes_at(points: Tensor, size: float | Tensor) -> Tensor:
    """Square boxes centred at points.

    Args:
        points: (..., k, 2).
        size: the side in pixels: one for all, or (..., k).

    Returns:
        (..., k, 4), differentiable in both arguments.
    """
    side = torch.as_tensor(size, dtype=points.dtype, device=points.device).expand(points.shape[:-1])
    return torch.cat((points, side.unsqueeze(-1), side.unsqueeze(-1)), dim=-1)


def inside_of(sizes: Tensor, height: int, width: int) -> Tensor:
    """The pixels of padded images that belong to the image.

    Args:
        sizes: (batch, 2), height and width of each image, whose first pixel is that of the padded one.
        height: rows of the padded images.
        width: columns of the padded images.

    Returns:
        (batch, height, width) bool.
    """
    rows, columns = (torch.arange(side, device=sizes.device) for side in (height, width))
    return (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])


def corners_of(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) to (left, top, right, bottom)."""
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), dim=-1)
