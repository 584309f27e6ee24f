"""Thin plate splines: the smoothest map of the plane from control points to targets."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def control_grid(rows: int, columns: int) -> Float[Tensor, "points 2"]:
    """Control points (x, y) on a regular grid from 0 to 1, row by row; ``ValueError`` below 2 rows or columns."""
    if rows < 2 or columns < 2:
        raise ValueError(f"a grid of control points needs 2 rows and columns or more, got {rows} x {columns}")
    y, x = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    return torch.stack((x, y), dim=-1).reshape(-1, 2)


def thin_plate_spline(
    control: Float[Tensor, "points 2"], targets: Float[Tensor, "batch points 2"], at: Float[Tensor, "batch n 2"]
) -> Float[Tensor, "batch n 2"]:
    """Maps the points ``at`` by the spline that maps ``control`` (not collinear) to ``targets``, all differentiable.

    Convention: the kernel is r^2 log r^2, and the affine part is a^T (1, x, y).

    Raises:
        ValueError: if the shapes don't fit.

    Reference: Bookstein (1989).
    """
    if targets.shape[1:] != control.shape or at.shape[0] != targets.shape[0] or at.shape[-1] != 2:
        raise ValueError(
            f"control must be (points, 2), targets (batch, points, 2) and at (batch, n, 2), got "
            f"{tuple(control.shape)}, {tuple(targets.shape)} and {tuple(at.shape)}"
        )
    right = torch.cat((targets, targets.new_zeros(len(targets), 3, 2)), dim=1)
    weights = torch.linalg.solve(spline_system(control).double(), right.double()).to(at.dtype)
    return spline_basis(at, control) @ weights


def spline_system(
    control: Float[Tensor, "points 2"], regularisation: float = 0.0
) -> Float[Tensor, "points+3 points+3"]:
    """The symmetric system that gives the weights of a spline; its right side is the targets and three zeros.

    ``regularisation`` is added to the kernel's diagonal: 0 meets the targets exactly, larger values bend less.

    Reference: Bookstein (1989); Wahba (1990) for the regularised form.
    """
    count = len(control)
    system = control.new_zeros(count + 3, count + 3)
    system[:count] = spline_basis(control, control)
    system[:count, :count].diagonal().add_(regularisation)
    system[count:, :count] = system[:count, count:].T
    return system


def spline_basis(
    points: Float[Tensor, "*batch n 2"], control: Float[Tensor, "points 2"]
) -> Float[Tensor, "*batch n points+3"]:
    """The basis of a spline: r^2 log r^2 for each control point, then 1, x and y."""
    squared = (points.unsqueeze(-2) - control).square().sum(-1)
    bent = squared * squared.clamp(min=torch.finfo(squared.dtype).tiny).log()
    return torch.cat((bent, points.new_ones(*points.shape[:-1], 1), points), dim=-1)
