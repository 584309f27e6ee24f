"""E_K: the K best local maxima of a heat map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mistnn.ops.coordinates import centre_of, in_single
from mistnn.ops.heatmap import non_maximum_suppression
from mistnn.records import Heatmap, Points


class TopK(NamedTuple):
    """The result of E_K, highest response first.

    Attributes:
        points: (batch, k, 2), x and y in pixels, at pixel centres; of a heat map in half precision in single precision.
        responses: (batch, k), the heat map there.
    """

    points: Points
    responses: Float[Tensor, "batch k"]


def top_k(heatmap: Heatmap, k: int, window: int = 5, inside: Bool[Tensor, "batch height width"] | None = None) -> TopK:
    """E_K: non-maximum suppression, then the K highest pixels that survive it.

    If fewer than K pixels survive, the highest suppressed ones are added: the result always has K distinct pixels. It
    has no gradient to the heat map; lifting replaces it.

    Args:
        k: from 1 to height * width.
        window: side of the suppression window in pixels, odd.
        inside: the pixels of padded images that may be selected; by default all. The others suppress no pixels.

    Raises:
        ValueError: on another shape, or if k is below 1 or above the number of selectable pixels of any image.

    Reference: MIST (CVPR 2021), section 4.1.
    """
    if heatmap.dim() != 3:
        raise ValueError(f"a heat map must be (batch, height, width), got {tuple(heatmap.shape)}")
    height, width = heatmap.shape[-2:]
    if not 1 <= k <= height * width:
        raise ValueError(f"k must be from 1 to {height * width} for a {width}x{height} heat map, got {k}")
    heatmap = heatmap.detach()
    lowest = heatmap.new_tensor(-torch.inf)
    if inside is not None:
        if inside.shape != heatmap.shape:
            raise ValueError(f"inside must be {tuple(heatmap.shape)} as the heat map, got {tuple(inside.shape)}")
        least = int(inside.flatten(1).sum(1).min())
        if k > least:
            raise ValueError(f"k must be from 1 to {least}, the pixels inside the smallest image, got {k}")
        heatmap = torch.where(inside, heatmap, lowest)
    survives = non_maximum_suppression(heatmap, window) & (heatmap > lowest)
    # Two exact rankings: lowering the suppressed values by a constant would round close values to ties.
    best = torch.where(survives, heatmap, lowest).flatten(1).topk(k, dim=1).indices
    rest = torch.where(survives, lowest, heatmap).flatten(1).topk(k, dim=1).indices
    beyond = torch.arange(k, device=heatmap.device) - survives.flatten(1).sum(1, keepdim=True)
    site = torch.where(beyond < 0, best, rest.gather(1, beyond.clamp(min=0)))
    rows = site // width
    pixels = torch.stack((site - rows * width, rows), dim=-1)  # no remainder: its export to ONNX needs a fixed width
    return TopK(centre_of(pixels, in_single(lowest).dtype), heatmap.flatten(1).gather(1, site))
