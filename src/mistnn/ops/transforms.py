"""Grid generators of spatial transformers: the sampling positions of output pixels, for parameters theta; the sampler.

Convention: theta maps the output to the input, both in the normalised frame of ``mistnn.ops.coordinates``: x right, y
down, the image from -1 to 1 in both directions, pixel centres half a pixel inside (``align_corners=False``). Output
pixel (row i, column j) of H x W is (u, v) = ((2 j + 1) / W - 1, (2 i + 1) / H - 1); the grid has the (x, y) at which it
samples the input. For the identity, (x, y) = (u, v) for every size, one pixel included. A shift by 2 / W is one input
pixel to the right. In memory, a grid is (batch, 2, height, width), with separate planes for x and y.

Every generator takes theta of each image and the rows (``height``) and columns (``width``) of the output, and raises
``ValueError`` on another number of parameters or an empty output.

Reference: Jaderberg et al., Spatial Transformer Networks (NeurIPS 2015), cited as Jaderberg 2015; section numbers refer
to its supplement.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mistnn.ops.splines import spline_basis, spline_system

Grid = Float[Tensor, "batch height width 2"]

HORIZON = 1e-3
"""Smallest denominator of a projective transform (ours); it is 0 at the horizon and negative behind it."""
APART = 1e-4
"""Smallest distance between control points, and from a line through them, as a share of their spread (ours)."""
REGULARISATION = 1e-6
"""Added to the diagonal of the spline's system (ours); control points are met to about a millionth of the image."""


class ThinPlate(NamedTuple):
    """A solved thin plate spline for one output size and any parameters.

    Attributes:
        control: the control points (x, y), in the frame of the output.
        influence: the movement of each output pixel when a control point moves by 1.
    """

    control: Float[Tensor, "points 2"]
    influence: Float[Tensor, "points height width"]


def affine_grid(parameters: Float[Tensor, "batch 6"], height: int, width: int) -> Grid:
    """Grids of affine transforms (Jaderberg 2015).

    Convention: theta = (a, b, c, d, e, f), x = a u + b v + c and y = d u + e v + f; the identity is (1, 0, 0, 0, 1, 0).
    """
    u, v = _axes(parameters, 6, height, width)
    rows = parameters.view(-1, 2, 3)
    # Separate terms for columns and rows: no matrix product, hence no reduced precision.
    across = rows[..., 0, None] * u
    down = rows[..., 1, None] * v + rows[..., 2, None]
    return (across.unsqueeze(-2) + down.unsqueeze(-1)).permute(0, 2, 3, 1)


def attention_grid(parameters: Float[Tensor, "batch 3"], height: int, width: int) -> Grid:
    """Grids of attention: a window of any size at any position (Jaderberg 2015; supplement, section 1.2, 3 parameters).

    Convention: theta = (s, c, f), x = s u + c and y = s v + f; the identity is (1, 0, 0). The window is centred at
    (c, f), with s times the sides of the input.
    """
    u, v = _axes(parameters, 3, height, width)
    return _window(parameters[:, :1] * u, parameters[:, :1] * v, parameters[:, 1:])


def translation_grid(parameters: Float[Tensor, "batch 2"], height: int, width: int, scale: float) -> Grid:
    """Grids of attention at a fixed scale: a window of fixed size at any position (supplement, section 1.5).

    Convention: theta = (c, f), x = scale u + c and y = scale v + f, where ``scale``, above 0, is the window's side as a
    share of the input's; the identity is (0, 0) with scale 1.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"the scale of a window must be finite and above 0, got {scale}")
    u, v = _axes(parameters, 2, height, width)
    return _window((scale * u)[None], (scale * v)[None], parameters)


def projective_grid(parameters: Float[Tensor, "batch 8"], height: int, width: int) -> Grid:
    """Grids of projective transforms, as of a plane seen by a tilted camera (Jaderberg 2015).

    Convention: theta = (a, b, c, d, e, f, g, h), x = (a u + b v + c) / w and y = (d u + e v + f) / w with
    w = g u + h v + 1; the identity is (1, 0, 0, 0, 1, 0, 0, 0). Pixels near or behind the horizon, w < ``HORIZON``,
    get w = ``HORIZON``: they sample far away, and nothing is infinite.
    """
    u, v = _axes(parameters, 8, height, width)
    rows = torch.cat((parameters, torch.ones_like(parameters[:, :1])), dim=1).view(-1, 3, 3)
    across = rows[..., 0, None] * u
    down = rows[..., 1, None] * v + rows[..., 2, None]
    # Separate planes make the sums of the gradients faster.
    x, y, depth = (across[:, i].unsqueeze(-2) + down[:, i].unsqueeze(-1) for i in range(3))
    nearness = depth.clamp(min=HORIZON).reciprocal()
    return torch.stack((x * nearness, y * nearness), dim=1).permute(0, 2, 3, 1)


def control_lattice(side: int = 4) -> Float[Tensor, "points 2"]:
    """side x side control points (x, y), 2 x 2 or more, over the normalised frame, edges included, in float64."""
    if side < 2:
        raise ValueError(f"a lattice of control points needs a side of 2 or more, got {side}")
    line = torch.linspace(-1, 1, side, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), dim=-1).reshape(-1, 2)


def thin_plate(
    control: Float[Tensor, "points 2"], height: int, width: int, regularisation: float = REGULARISATION
) -> ThinPlate:
    """Solves the spline's system once for an output size and all parameters: the expensive part.

    Convention: the kernel is r^2 log r^2 of distances between points normalised to a spread of 1, and the affine part
    a^T (1, x, y). Computed and returned in float64.

    Args:
        control: three points or more, distinct and not collinear.
        regularisation: 0 meets the control points exactly, larger values bend less; affine maps are always exact.

    Raises:
        ValueError: on coinciding or collinear control points, an empty output, or a negative regularisation.

    Reference: Bookstein (1989); Wahba (1990) for the regularised form.
    """
    _check_size(height, width)
    if not 0 <= regularisation < math.inf:
        raise ValueError(f"the regularisation must be finite and 0 or more, got {regularisation}")
    exact = control.detach().double()
    middle, spread = _check_control(exact)
    count = len(exact)
    points = (exact - middle) / spread
    v, u = torch.meshgrid(_centres(exact, height), _centres(exact, width), indexing="ij")
    at = torch.stack((u, v), dim=-1).reshape(-1, 2)
    basis = spline_basis((at - middle) / spread, points)
    influence = torch.linalg.solve(spline_system(points, regularisation), basis.T)[:count]  # the system is symmetric
    return ThinPlate(exact, influence.view(count, height, width))


def thin_plate_grid(parameters: Float[Tensor, "batch coordinates"], plate: ThinPlate) -> Grid:
    """Grids of thin plate splines: one matrix product (Jaderberg 2015; supplement, table 1).

    Convention: theta = (x_1, y_1, x_2, y_2, ...), the position at which each control point of the output samples the
    input; the identity is the control points themselves. Only the deviation from the identity is computed, so the
    identity is exact in any precision. The plate has the dtype and device of the parameters.
    """
    points, height, width = plate.influence.shape
    u, v = _axes(parameters, 2 * points, height, width)
    moved = (parameters.view(-1, points, 2) - plate.control).transpose(1, 2)
    bending = (moved.reshape(-1, points) @ plate.influence.flatten(1)).view(-1, 2, height, width)
    frame = torch.stack((u.expand(height, width), v[:, None].expand(height, width)))
    return (bending + frame).permute(0, 2, 3, 1)


def share_outside(grid: Grid) -> Float[Tensor, " batch"]:
    """The share of each image's samples outside the input or at NaN, without gradient."""
    places = grid.detach().abs()
    farther = torch.maximum(places[..., 0], places[..., 1])
    inside = torch.le(farther, 1, out=torch.empty_like(farther))  # floats instead of booleans: half the time
    return 1 - inside.flatten(1).mean(1, dtype=torch.float32)


def sample(features: Float[Tensor, "batch channels rows columns"], grid: Grid) -> Float[Tensor, "batch channels h w"]:
    """The bilinear sampler, with zeros outside the input (Jaderberg 2015); differentiable in both arguments.

    Convention: pixels have the weight max(0, 1 - ``|distance|``) in each direction, as in the paper: the input fades
    from the centres of its border pixels outwards. (``mistnn.ops.sampling`` keeps the border whole.)

    Raises:
        ValueError: on an empty input, or a grid of another batch size.
    """
    if features.dim() != 4 or 0 in features.shape[1:]:
        raise ValueError(
            f"features must be (batch, channels, height, width) and not empty, got {tuple(features.shape)}"
        )
    if grid.shape[0] != features.shape[0] or grid.dim() != 4 or grid.shape[-1] != 2:
        raise ValueError(f"the grid must be ({features.shape[0]}, height, width, 2), got {tuple(grid.shape)}")
    return torch.nn.functional.grid_sample(features, grid, padding_mode="zeros", align_corners=False)


def _centres(like: Tensor, number: int) -> Tensor:
    """Pixel centres along one side, in the normalised frame."""
    return (torch.arange(number, dtype=like.dtype, device=like.device) * 2 + 1) / number - 1


def _axes(parameters: Tensor, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """u of the columns and v of the rows, after checks of the arguments."""
    if parameters.dim() != 2 or parameters.shape[1] != count:
        raise ValueError(f"the parameters must be (batch, {count}), got {tuple(parameters.shape)}")
    _check_size(height, width)
    return _centres(parameters, width), _centres(parameters, height)


def _window(across: Tensor, down: Tensor, centre: Tensor) -> Tensor:
    """A grid whose x depends only on the column, and y only on the row."""
    batch, height, width = centre.shape[0], down.shape[1], across.shape[1]
    x = (across + centre[:, :1])[:, None, :].expand(batch, height, width)
    y = (down + centre[:, 1:])[:, :, None].expand(batch, height, width)
    return torch.stack((x, y), dim=1).permute(0, 2, 3, 1)


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"the output must have 1 row and column or more, got {height} x {width}")


def _check_control(control: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the control points and their spread, after checks of their positions."""
    if control.dim() != 2 or control.shape[1] != 2 or len(control) < 3:
        raise ValueError(f"control points must be (points, 2), 3 or more, got {tuple(control.shape)}")
    if not bool(control.isfinite().all()):
        raise ValueError("a control point is not finite")
    middle = control.mean(0)
    spread = (control - middle).square().sum(1).mean().sqrt()
    near = torch.pdist(control)
    if float(near.min()) <= APART * float(spread):
        first, second = torch.triu_indices(len(control), len(control), 1)[:, int(near.argmin())].tolist()
        raise ValueError(f"control points {first} and {second} are both at {control[first].tolist()}: move one")
    values = torch.linalg.svdvals(control - middle)
    if float(values[1]) <= APART * float(values[0]):
        raise ValueError(f"the {len(control)} control points are collinear: move one of them off the line")
    return middle, spread
