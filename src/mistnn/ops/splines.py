"""Thin plate splines: the smoothest map of the plane that takes given control points to given targets."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def control_grid(rows: int, columns: int) -> Float[Tensor, "points 2"]:
    """Control points (x, y) on a regular grid that reaches from 0 to 1 in both directions, row by row.

    Raises:
        ValueError: with fewer than 2 rows or columns.
    """
    if rows < 2 or columns < 2:
        raise ValueError(f"a grid of control points needs 2 rows and columns or more, got {rows} x {columns}")
    y, x = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    return torch.stack((x, y), dim=-1).reshape(-1, 2)


def thin_plate_spline(
    control: Float[Tensor, "points 2"], targets: Float[Tensor, "batch points 2"], at: Float[Tensor, "batch n 2"]
) -> Float[Tensor, "batch n 2"]:
    """Where the spline that takes ``control`` to ``targets`` takes other points.

    Convention: the kernel is r^2 log r^2, and the affine part is a^T (1, x, y); differentiable in all arguments.

    Args:
        control: of one set for the whole batch, not all on a line.
        targets: where each of them goes.
        at: the points to map.

    Raises:
        ValueError: if the shapes don't fit.

    Reference: Bookstein (1989).
    """
    if targets.shape[1:] != control.shape or at.shape[0] != targets.shape[0] or at.shape[-1] != 2:
        raise ValueError(
            f"control must be (points, 2), targets (batch, points, 2) and at (batch, n, 2), got "
            f"{tuple(control.shape)}, {tuple(targets.shape)} and {tuple(at.shape)}"
        )
    count = len(control)
    affine = torch.cat((control.new_ones(count, 1), control), dim=1)
    system = control.new_zeros(count + 3, count + 3)
    system[:count, :count] = _kernel(control, control)
    system[:count, count:] = affine
    system[count:, :count] = affine.T
    right = torch.cat((targets, targets.new_zeros(len(targets), 3, 2)), dim=1)
    weights = torch.linalg.solve(system.double(), right.double()).to(at.dtype)
    basis = torch.cat((_kernel(at, control), at.new_ones(*at.shape[:-1], 1), at), dim=-1)
    return basis @ weights


def _kernel(points: Tensor, control: Tensor) -> Tensor:
    squared = (points.unsqueeze(-2) - control).square().sum(-1)
    return squared * squared.clamp(min=torch.finfo(squared.dtype).tiny).log()
