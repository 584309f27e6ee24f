"""Overlap of boxes and one-to-one matching of detections with objects.

Convention (see ``mistnn.ops.coordinates``): a box is (centre x, centre y, width, height) in pixels. A matching has one
integer per detection: the index of its object, or ``UNMATCHED``. Rows of an affinity are detections, columns are
objects. All functions raise ``ValueError`` on other shapes.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

UNMATCHED = -1
"""The entry of a detection without an object."""


def box_iou(a: Float[Tensor, "*batch n 4"], b: Float[Tensor, "*batch m 4"]) -> Float[Tensor, "*batch n m"]:
    """Intersection over union of each box of one set (rows) with each box of another (columns), in [0, 1].

    Convention: the IoU of a box of zero or negative size is 0, with itself too. Half precision is computed in float32,
    since the area of a box of 300 pixels overflows float16, and returned in the input's dtype.

    Raises:
        ValueError: also if the coordinates are integers.
    """
    for name, boxes in (("a", a), ("b", b)):
        if boxes.ndim < 2 or boxes.shape[-1] != 4:
            raise ValueError(f"{name} must have the shape (..., boxes, 4), got {tuple(boxes.shape)}")
        if not boxes.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {boxes.dtype}: convert it with .float()")
    kept = torch.promote_types(a.dtype, b.dtype)
    work = torch.promote_types(kept, torch.float32)
    rows, columns = a.to(work).unsqueeze(-2), b.to(work).unsqueeze(-3)
    row_size, column_size = rows[..., 2:].clamp(min=0), columns[..., 2:].clamp(min=0)
    low = torch.maximum(rows[..., :2] - row_size / 2, columns[..., :2] - column_size / 2)
    high = torch.minimum(rows[..., :2] + row_size / 2, columns[..., :2] + column_size / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    union = row_size.prod(-1) + column_size.prod(-1) - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1), 0).to(kept)


def _allowed(affinity: Tensor, threshold: float, eligible: Tensor | None) -> Tensor:
    """The pairs that may be matched; never those with a NaN affinity."""
    if affinity.ndim < 2:
        raise ValueError(f"affinity must have the shape (..., detections, objects), got {tuple(affinity.shape)}")
    above = affinity > threshold
    if eligible is None:
        return above
    if eligible.shape != affinity.shape:
        raise ValueError(f"eligible must have the shape {tuple(affinity.shape)}, got {tuple(eligible.shape)}")
    return above & eligible


def greedy_match(
    affinity: Float[Tensor, "*batch n m"], threshold: float = 0.5, eligible: Bool[Tensor, "*batch n m"] | None = None
) -> Int[Tensor, "*batch n"]:
    """Matches pairs in order of falling affinity; each detection and each object is used once.

    Convention: a pair can be matched if its affinity is strictly above the threshold (paper: "over 50%"). Ties are
    broken by the lowest detection index, then the lowest object index. Scores have no influence.

    Args:
        affinity: larger for a better match, for example the IoU.
        threshold: pairs at or below it are never matched.
        eligible: False for pairs that must not be matched, for example because the classes differ.

    Reference: MIST (CVPR 2021), section 5.2. The released code matches the objects in their stored order, on which its
        result therefore depends.
    """
    left = torch.where(_allowed(affinity, threshold, eligible), affinity, -torch.inf)
    detections, objects = affinity.shape[-2:]
    rows = torch.arange(detections, device=affinity.device)
    columns = torch.arange(objects, device=affinity.device)
    match = torch.full(affinity.shape[:-1], UNMATCHED, dtype=torch.int64, device=affinity.device)
    for _ in range(min(detections, objects)):
        best, index = left.flatten(-2).max(-1, keepdim=True)
        row = rows == index.div(objects, rounding_mode="floor")
        column = index % objects
        match = torch.where(row & (best > -torch.inf), column, match)
        # Removes the row and the column of the pair; nothing where no pair was left.
        left = left.masked_fill(row.unsqueeze(-1) | (columns == column).unsqueeze(-2), -torch.inf)
    return match


def optimal_match(
    affinity: Float[Tensor, "*batch n m"], threshold: float = 0.5, eligible: Bool[Tensor, "*batch n m"] | None = None
) -> Int[Tensor, "*batch n"]:
    """Matches the largest possible number of pairs; among such matchings, the one of largest total affinity.

    ``greedy_match`` can match fewer pairs; the difference measures the influence of the matching rule on a result.

    Convention: arguments and result are those of ``greedy_match``. Runs on the CPU.

    Raises:
        ValueError: also if the affinity of a pair that may be matched is outside [0, 1].
    """
    from scipy.optimize import linear_sum_assignment

    allowed = _allowed(affinity, threshold, eligible)
    outside = affinity[allowed & ((affinity < 0) | (affinity > 1))]
    if outside.numel():
        raise ValueError(f"optimal_match needs affinities in [0, 1], got {outside[0].item()}")
    # An additional pair gains more than any exchange of pairs: the scaled sum of at most min(n, m) affinities is
    # below 1.
    scale = min(affinity.shape[-2:]) + 1
    gain = torch.where(allowed, 1 + affinity.double() / scale, 0).detach().cpu()
    match = torch.full(affinity.shape[:-1], UNMATCHED, dtype=torch.int64)
    if gain.numel():
        flat = match.flatten(0, -2) if match.ndim > 1 else match.unsqueeze(0)
        for row, profit in zip(flat, gain.flatten(0, -3) if gain.ndim > 2 else gain.unsqueeze(0), strict=True):
            chosen, column = (torch.from_numpy(part) for part in linear_sum_assignment(profit.numpy(), maximize=True))
            real = profit[chosen, column] > 0
            row[chosen[real]] = column[real]
    return match.to(affinity.device)
