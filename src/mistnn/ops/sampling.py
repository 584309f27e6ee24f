"""The bilinear patch sampler S and its inverse S^-1.

Convention: see ``mistnn.ops.coordinates``. Pixel (row i, column j) of a P x P patch is at the fraction
((j + 0.5) / P, (i + 0.5) / P) of its box. Beyond its border, an image continues for half a pixel and then fades to zero
within one pixel, so a box that touches the border keeps its last row and column.

Half precision is computed in single precision and returned in half precision. Both functions raise ``ValueError`` on
other shapes; ``extract_patches`` also on a size below 1.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.ops.coordinates import corners_of, in_single, normalise
from mistnn.records import Boxes, Images, Patches


def extract_patches(images: Images, boxes: Boxes, size: int) -> Patches:
    """S: resamples boxes to square patches of ``size`` x ``size`` patch pixels, without copies of the image.

    Outside the image, zeros are sampled. Differentiable in ``images`` and in all four box coordinates.

    Reference: MIST (CVPR 2021), section 4.1, "Patch resampling".
    """
    _check(images, boxes)
    try:
        size = operator.index(size)
    except TypeError:
        raise ValueError(f"the patch size must be one whole number, since patches are square, got {size}") from None
    if size < 1:
        raise ValueError(f"the patch size must be at least 1, got {size}")
    kind, images, boxes = images.dtype, in_single(images), in_single(boxes)
    batch, channels, height, width = images.shape
    k = boxes.shape[1]
    fraction = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size - 0.5
    x = boxes[..., 0, None] + fraction * boxes[..., 2, None]
    y = boxes[..., 1, None] + fraction * boxes[..., 3, None]
    points = torch.stack(
        (x[:, :, None, :].expand(batch, k, size, size), y[:, :, :, None].expand(batch, k, size, size)), dim=-1
    )
    # A border of one replicated pixel keeps border samples whole. The K grids are stacked along the rows of one grid,
    # which avoids copies of the image.
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    grid = normalise(points + 1.0, height + 2, width + 2).reshape(batch, k * size, size, 2)
    sampled = F.grid_sample(padded, grid.to(padded.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.reshape(batch, channels, k, size, size).transpose(1, 2).to(kind)


def place_patches(patches: Patches, boxes: Boxes, height: int, width: int, window: int | None = None) -> Images:
    """S^-1: places each patch in its box on a canvas of zeros, by the inverse warp, and sums all patches.

    Computes a window around each box instead of a full canvas for each patch; parts outside the canvas are cut off.
    Differentiable in patches and boxes.

    Args:
        window: side in pixels of the square that a patch can reach; larger boxes are cut off. By default from the
            largest box, which waits for the device.

    Reference: MIST (CVPR 2021), section 4.2 and equation 8.
    """
    if patches.dim() != 5 or patches.shape[-1] != patches.shape[-2]:
        raise ValueError(f"patches must be (batch, k, channels, size, size), got {tuple(patches.shape)}")
    if boxes.shape != (*patches.shape[:2], 4):
        raise ValueError(f"boxes must be {(*patches.shape[:2], 4)} for these patches, got {tuple(boxes.shape)}")
    batch, k, channels, size, _ = patches.shape
    if patches.numel() == 0:
        return patches.new_zeros(batch, channels, height, width)
    kind, patches, boxes = patches.dtype, in_single(patches), in_single(boxes)
    if window is None:
        # A patch fades within half a patch pixel beyond its box: box / size / 2 on each side, plus one for the floor.
        window = int((boxes[..., 2:].detach().nan_to_num(0, 0, 0).max() * (1 + 1 / size)).ceil()) + 1
    top_left = (boxes[..., :2] - boxes[..., 2:] * (0.5 + 0.5 / size)).detach().floor()
    offsets = torch.arange(window, device=boxes.device, dtype=boxes.dtype)
    column, row = top_left[..., 0, None] + offsets, top_left[..., 1, None] + offsets
    corner = corners_of(boxes)
    u = (column + 0.5 - corner[..., 0, None]) / boxes[..., 2, None].clamp(min=1e-6) * 2 - 1
    v = (row + 0.5 - corner[..., 1, None]) / boxes[..., 3, None].clamp(min=1e-6) * 2 - 1
    shape = (batch, k, window, window)
    grid = torch.stack((u[:, :, None, :].expand(shape), v[:, :, :, None].expand(shape)), dim=-1)
    placed = F.grid_sample(
        patches.flatten(0, 1), grid.flatten(0, 1).to(patches.dtype), padding_mode="zeros", align_corners=False
    )
    inside = ((column >= 0) & (column < width))[:, :, None, :] & ((row >= 0) & (row < height))[:, :, :, None]
    placed = placed.view(batch, k, channels, window, window) * inside[:, :, None].to(placed.dtype)
    # A box that is not finite makes its values NaN, which the loss shows; the index must stay valid.
    rows, columns = row.nan_to_num(0).clamp(0, height - 1).long(), column.nan_to_num(0).clamp(0, width - 1).long()
    site = rows[:, :, :, None] * width + columns[:, :, None, :]
    canvas = placed.new_zeros(batch, channels, height * width)
    values = placed.transpose(1, 2).reshape(batch, channels, -1)
    summed = canvas.scatter_add(2, site.reshape(batch, 1, -1).expand(-1, channels, -1), values)
    return summed.view(batch, channels, height, width).to(kind)


def _check(images: Tensor, boxes: Tensor) -> None:
    if images.dim() != 4:
        raise ValueError(f"images must be (batch, channels, height, width), got {tuple(images.shape)}")
    if boxes.dim() != 3 or boxes.shape[-1] != 4 or boxes.shape[0] != images.shape[0]:
        raise ValueError(f"boxes must be ({images.shape[0]}, k, 4) for these images, got {tuple(boxes.shape)}")
