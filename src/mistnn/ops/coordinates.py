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
    """The pixel, (..., 2) int64 (column, row), that contains each (..., 2) point, or else is nearest."""
    column = points[..., 0].floor().long().clamp(0, width - 1)
    row = points[..., 1].floor().long().clamp(0, height - 1)
    return torch.stack((column, row), dim=-1)


def centre_of(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Centres of pixels given as (..., 2) integer (column, row)."""
    return pixels.to(dtype) + 0.5


def in_single(values: Tensor) -> Tensor:
    """Values in half precision in single precision, others as they are.

    Half precision has 8 or 11 significant bits: positions in an image of some hundred pixels would be off by pixels.
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def normalise(points: Tensor, height: int, width: int) -> Tensor:
    """Positions (..., 2) in pixels to the frame of ``grid_sample(align_corners=False)``: the edges become -1 and 1."""
    # By axis, not by a tensor of both factors: an export keeps the size of the image variable.
    return torch.stack((points[..., 0] * (2.0 / width) - 1.0, points[..., 1] * (2.0 / height) - 1.0), dim=-1)


def boxes_at(points: Tensor, size: float | Tensor) -> Tensor:
    """Square boxes (..., k, 4) centred at points (..., k, 2); the side in pixels is one for all, or (..., k)."""
    side = torch.as_tensor(size, dtype=points.dtype, device=points.device).expand(points.shape[:-1])
    return torch.cat((points, side.unsqueeze(-1), side.unsqueeze(-1)), dim=-1)


def inside_of(sizes: Tensor, height: int, width: int) -> Tensor:
    """The pixels of padded images that belong to the image, (batch, height, width) bool.

    Args:
        sizes: (batch, 2), height and width of each image, whose first pixel is that of the padded one.
    """
    rows, columns = (torch.arange(side, device=sizes.device) for side in (height, width))
    return (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])


def corners_of(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) to (left, top, right, bottom)."""
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), dim=-1)


def mirror(maps: Tensor, which: Tensor) -> Tensor:
    """Mirrors maps; the same call again undoes it.

    Args:
        maps: (batch, channels, height, width).
        which: (batch, 2) bool, whether a map is mirrored in x, and in y.
    """
    for axis, dim in ((0, -1), (1, -2)):
        maps = torch.where(which[:, axis, None, None, None], maps.flip(dim), maps)
    return maps
