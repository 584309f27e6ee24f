"""Heat maps: the local spatial softmax, non-maximum suppression, and the ideal heat map G.

Convention: a heat map is (batch, height, width), with one value per pixel; see ``mistnn.ops.coordinates``. With several
scales there is one per scale, (batch, scales, height, width), all of the size of the image. All functions raise
``ValueError`` on other shapes, and on windows that are even or below 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mistnn.ops.coordinates import pixel_of
from mistnn.records import Heatmap, Heatmaps, Keypoints, Points

SCALE_EPSILON = 1e-6
"""Keeps the pooling over scales from dividing by zero (MIST supplement, section A)."""
LEAST_EXPONENT = -87.0
"""Its exponential, 1.6e-38, is about the smallest number that float32 has at full precision."""


def local_spatial_softmax(scores: Heatmap, window: int = 15, strength: float = 10.0) -> Heatmap:
    """Sharpens scores: the exponential of each pixel divided by the sum over the window around it, in [0, 1].

    Computed in the log domain with the maximum of each window: exact for scores of any size. (The released code
    subtracts the maximum of the whole image and adds 1e-6 to the sum. An object whose score is 1.4 below the best then
    has value 0 and no gradient, and one object of an image finally attracts all keypoints.)

    Convention: scores are padded with the nearest pixel, so constant scores give 1 / window^2 everywhere.

    Args:
        window: side in pixels, odd (paper: 15).
        strength: factor on the scores (not stated in the paper; value of the released code).

    Reference: MIST supplement, section A; Ono et al., LF-Net (2018).
    """
    _check(scores, window)
    reach = window // 2
    logits = strength * scores
    padded = F.pad(logits.unsqueeze(1), (reach, reach, reach, reach), mode="replicate")
    # Summing rows, then columns, takes 2 * window terms per pixel instead of window^2.
    rows = _log_sum_of_windows(padded.squeeze(1), window, dim=-2)
    return (logits - _log_sum_of_windows(rows, window, dim=-1)).exp()


def _log_sum_of_windows(values: Tensor, window: int, dim: int) -> Tensor:
    """The log-sum-exp of each run of ``window`` values along a dimension."""
    count = values.shape[dim] - window + 1
    shifted = [values.narrow(dim, start, count) for start in range(window)]
    # The maximum keeps the exponentials in range; neither result nor gradient depends on it.
    top = shifted[0].detach()
    for part in shifted[1:]:
        top = torch.maximum(top, part.detach())
    total = torch.zeros_like(top)
    for part in shifted:
        # Below, exponentials underflow, which takes processors ten times as long. The sum, at least 1, does not see it.
        total = total + (part - top).clamp(min=LEAST_EXPONENT).exp()
    return top + total.log()


def non_maximum_suppression(heatmap: Heatmap, window: int = 5) -> Bool[Tensor, "batch height width"]:
    """Marks the pixels that are the maximum of the window around them. The heat map must be finite.

    Convention: windows are cut off at the border, so border pixels can be maxima. Among equal values in a window, the
    first in reading order is the maximum: of a convex plateau one pixel survives, and never two within a window.

    Args:
        window: side in pixels, odd (not stated in the paper; 5 in the released code).

    Reference: MIST (CVPR 2021), section 4.1, "Top-K patch selection".
    """
    _check(heatmap, window)
    height, width = heatmap.shape[-2:]
    _, first = F.max_pool2d(heatmap.unsqueeze(1), window, stride=1, padding=window // 2, return_indices=True)
    site = torch.arange(height * width, device=heatmap.device).view(height, width)
    return first.squeeze(1) == site


def pool_scales(heatmaps: Heatmaps) -> Heatmaps:
    """The "softmax pooling" over scales: each heat map h_s, weighted by its share of the pixel's sum.

    h'_s = h_s * h_s / sum_s (h_s + ``SCALE_EPSILON``), without exponentials, since the h_s are exponentials already.
    The sum of the h'_s over scales is the pooled heat map, whose maxima are the keypoints. The paper writes h' for
    both; here, h'_s is the result of this function and of G, and what equation 7 compares.

    Reference: MIST supplement, section A.
    """
    _check_scales(heatmaps)
    return heatmaps.square() / (heatmaps + SCALE_EPSILON).sum(1, keepdim=True)


def ideal_heatmaps(
    keypoints: Keypoints,
    scales: Sequence[float],
    height: int,
    width: int,
    *,
    presence: Float[Tensor, "batch k"] | None = None,
    spread: float = 0.0,
) -> Heatmaps:
    """G: 0 except at the pixels of keypoints (x, y, scale), where the 1 is split over the two nearest scales.

    Convention: the centre of mass over ``scales`` is the keypoint's scale, clamped to their range. A pixel shared by
    several keypoints has their mean. ``top_k`` of the sum over scales and ``scale_moment`` return the keypoints, with x
    and y rounded to pixel centres.

    Args:
        scales: the values of the discrete scales, in rising order.
        presence: the value at each keypoint, for keypoints that may not be objects; by default 1 (paper).
        spread: standard deviation in pixels of a Gaussian of height 1 in place of each value; 0 for single pixels.

    Raises:
        ValueError: also on scales not in rising order, or a negative or infinite spread.

    Reference: MIST supplement, section B, "Standard architecture".
    """
    if not 0 <= spread < math.inf:
        raise ValueError(f"the spread must be a finite number of pixels, 0 or more, got {spread}")
    if keypoints.dim() != 3 or keypoints.shape[-1] != 3:
        raise ValueError(f"keypoints must be (batch, k, 3), got {tuple(keypoints.shape)}")
    if not scales or any(low >= high for low, high in pairwise(scales)):
        raise ValueError(f"the scales must be in rising order, got {tuple(scales)}")
    if presence is not None and presence.shape != keypoints.shape[:2]:
        raise ValueError(f"presence must be (batch, k), got {tuple(presence.shape)} for {tuple(keypoints.shape)}")
    keypoints = keypoints.detach()
    pixel = pixel_of(keypoints[..., :2], height, width)
    site = pixel[..., 1] * width + pixel[..., 0]
    weights = _scale_weights(keypoints[..., 2], scales)
    values = weights if presence is None else weights * presence.detach().unsqueeze(-1)
    shape = (len(keypoints), len(scales), height * width)
    sites = site.unsqueeze(1).expand(-1, len(scales), -1)
    total = keypoints.new_zeros(shape).scatter_add(2, sites, values.transpose(1, 2))
    hits = keypoints.new_zeros(shape).scatter_add(2, sites, torch.ones_like(weights).transpose(1, 2))
    ideal = (total / hits.clamp(min=1)).view(*shape[:2], height, width)
    return ideal if spread == 0 else _spread_out(ideal, spread)


def _spread_out(maps: Tensor, spread: float) -> Tensor:
    """Replaces each pixel by a Gaussian of height 1, applied along each axis in turn."""
    for dim in (-2, -1):
        place = torch.arange(maps.shape[dim], device=maps.device, dtype=maps.dtype)
        gaussian = (-0.5 * ((place[:, None] - place) / spread).square()).exp()
        maps = gaussian @ maps if dim == -2 else maps @ gaussian
    return maps


def _scale_weights(scale: Tensor, scales: Sequence[float]) -> Tensor:
    """(batch, k) to (batch, k, scales): linear interpolation weights, nonzero at the two nearest scales only."""
    values = scale.new_tensor(list(scales))
    if len(scales) == 1:
        return torch.ones_like(scale).unsqueeze(-1)
    scale = scale.clamp(values[0], values[-1])
    upper = torch.searchsorted(values, scale.contiguous()).clamp(1, len(scales) - 1)
    low, high = values[upper - 1], values[upper]
    share = (scale - low) / (high - low)
    weights = scale.new_zeros(*scale.shape, len(scales))
    weights = weights.scatter(-1, (upper - 1).unsqueeze(-1), (1 - share).unsqueeze(-1))
    return weights.scatter(-1, upper.unsqueeze(-1), share.unsqueeze(-1))


def scale_moment(heatmaps: Heatmaps, points: Points, scales: Sequence[float]) -> Float[Tensor, "batch k"]:
    """The scale at each point: the first-order moment of the heat maps h'_s, divided by their sum.

    The paper's moment has no division, with which a weak response would mean a small scale. Where all responses are 0,
    the scale is the mean of the scales.

    Reference: MIST (CVPR 2021), section 4.1, "Top-K patch selection".
    """
    _check_scales(heatmaps)
    if heatmaps.shape[1] != len(scales):
        raise ValueError(f"{heatmaps.shape[1]} heat maps and {len(scales)} scales differ")
    height, width = heatmaps.shape[-2:]
    pixel = pixel_of(points, height, width)
    site = (pixel[..., 1] * width + pixel[..., 0]).unsqueeze(1).expand(-1, len(scales), -1)
    responses = heatmaps.flatten(2).gather(2, site) + torch.finfo(heatmaps.dtype).tiny
    values = heatmaps.new_tensor(list(scales))[:, None]
    return (responses * values).sum(1) / responses.sum(1)


def _check_scales(heatmaps: Tensor) -> None:
    if heatmaps.dim() != 4:
        raise ValueError(f"heat maps of several scales must be (batch, scales, height, width), got {heatmaps.shape}")


def _check(heatmap: Tensor, window: int) -> None:
    if heatmap.dim() != 3:
        raise ValueError(f"a heat map must be (batch, height, width), got {tuple(heatmap.shape)}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window must be odd and at least 1, got {window}")
