"""Heat maps: the local spatial softmax, non-maximum suppression, and the ideal heat map G.

Convention: a heat map is (batch, height, width) and has one value a pixel; see ``mistnn.ops.coordinates``.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mistnn.ops.coordinates import pixel_of
from mistnn.records import Heatmap, Points


def local_spatial_softmax(scores: Heatmap, window: int = 15, strength: float = 10.0) -> Heatmap:
    """Sharpens scores: each pixel's exponential over the sum of those in the window around it.

    Computed on logarithms, with the maximum of each window: exact for scores of any size. (Subtracting the maximum of
    the whole image and adding 1e-6 to the sum, as the released code does, gives 0 and no gradient to every object whose
    score is 1.4 below the best one's; in the end one object of an image wins all keypoints.)

    Args:
        scores: (batch, height, width), any range.
        window: side in pixels, odd (paper: 15).
        strength: factor on the scores (not stated in the paper; value of the released code).

    Convention: beyond the border the scores are continued by the nearest pixel.

    Returns:
        (batch, height, width) in [0, 1]; 1 / window^2 where the scores are flat.

    Raises:
        ValueError: if the window is even or below 1.

    Reference: MIST supplement, section A; Ono et al., LF-Net (2018).
    """
    _check(scores, window)
    reach = window // 2
    logits = strength * scores
    padded = F.pad(logits.unsqueeze(1), (reach, reach, reach, reach), mode="replicate")
    # A sum over a square is a sum of sums over lines: 2 * window terms a pixel instead of window^2.
    rows = _log_sum_of_windows(padded.squeeze(1), window, dim=-2)
    return (logits - _log_sum_of_windows(rows, window, dim=-1)).exp()


def _log_sum_of_windows(values: Tensor, window: int, dim: int) -> Tensor:
    """The logarithm of the sum of exponentials over every run of ``window`` values along a dimension."""
    count = values.shape[dim] - window + 1
    shifted = [values.narrow(dim, start, count) for start in range(window)]
    # The maximum only keeps the exponentials in range: the result, and so the gradient, does not depend on it.
    top = shifted[0].detach()
    for part in shifted[1:]:
        top = torch.maximum(top, part.detach())
    total = torch.zeros_like(top)
    for part in shifted:
        total = total + (part - top).exp()
    return top + total.log()


def non_maximum_suppression(heatmap: Heatmap, window: int = 5) -> Bool[Tensor, "batch height width"]:
    """Marks the pixels that are the largest of the window around them.

    Args:
        heatmap: (batch, height, width), finite.
        window: side in pixels, odd (not stated in the paper; 5 in the released code).

    Convention: windows are cut off at the border, so border pixels compete on equal terms. Of equal values within a
    window the first in reading order (row by row) wins: one pixel of a
    convex plateau survives, and never two within a window.

    Returns:
        (batch, height, width) bool.

    Raises:
        ValueError: if the window is even or below 1.

    Reference: MIST (CVPR 2021), section 4.1, "Top-K patch selection".
    """
    _check(heatmap, window)
    height, width = heatmap.shape[-2:]
    _, first = F.max_pool2d(heatmap.unsqueeze(1), window, stride=1, padding=window // 2, return_indices=True)
    site = torch.arange(height * width, device=heatmap.device).view(height, width)
    return first.squeeze(1) == site


def ideal_heatmap(keypoints: Points, height: int, width: int) -> Float[Tensor, "batch {height} {width}"]:
    """G: zero everywhere except 1 at the pixel of each keypoint.

    Args:
        keypoints: (batch, k, 2), x and y in pixels; a keypoint outside the image marks the nearest border pixel.
        height: rows of the heat map.
        width: columns of the heat map.

    Returns:
        (batch, height, width) of zeros and ones. ``top_k`` of it gives the keypoints back, rounded to pixel centres, if
        they are more than the suppression's reach apart.

    Raises:
        ValueError: on a shape that is not as above.

    Reference: MIST supplement, section B, "Standard architecture".
    """
    if keypoints.dim() != 3 or keypoints.shape[-1] != 2:
        raise ValueError(f"keypoints must be (batch, k, 2), got {tuple(keypoints.shape)}")
    pixel = pixel_of(keypoints.detach(), height, width)
    site = pixel[..., 1] * width + pixel[..., 0]
    heatmap = keypoints.new_zeros(keypoints.shape[0], height * width)
    return heatmap.scatter(1, site, 1.0).view(-1, height, width)


def _check(heatmap: Tensor, window: int) -> None:
    if heatmap.dim() != 3:
        raise ValueError(f"a heat map must be (batch, height, width), got {tuple(heatmap.shape)}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window must be odd and at least 1, got {window}")
