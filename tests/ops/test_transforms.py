from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.sampling import extract_patches
from mistnn.ops.transforms import (
    HORIZON,
    ThinPlate,
    affine_grid,
    attention_grid,
    control_lattice,
    projective_grid,
    sample,
    share_outside,
    thin_plate,
    thin_plate_grid,
    translation_grid,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIZES = st.one_of(st.integers(1, 9), st.integers(10, 150))
IDENTITY = {
    "affine": [1, 0, 0, 0, 1, 0],
    "attention": [1, 0, 0],
    "translation": [0, 0],
    "projective": [1, 0, 0, 0, 1, 0, 0, 0],
    "tps": control_lattice().flatten().tolist(),
}


def grid_of(kind, parameters, height, width, scale=1.0, regularisation=1e-6):
    if kind == "affine":
        return affine_grid(parameters, height, width)
    if kind == "attention":
        return attention_grid(parameters, height, width)
    if kind == "translation":
        return translation_grid(parameters, height, width, scale)
    if kind == "projective":
        return projective_grid(parameters, height, width)
    plate = thin_plate(control_lattice(), height, width, regularisation)
    return thin_plate_grid(parameters, ThinPlate(*(part.to(parameters) for part in plate)))


def centre(index, number):
    """A pixel's centre is half a pixel after its edge, and the image goes from -1 to 1."""
    return (index + 0.5) / number * 2 - 1


def place(kind, theta, u, v, scale):
    """The sampling position of the output point (u, v): the equations, one point at a time."""
    if kind == "affine":
        return theta[0] * u + theta[1] * v + theta[2], theta[3] * u + theta[4] * v + theta[5]
    if kind == "attention":
        return theta[0] * u + theta[1], theta[0] * v + theta[2]
    if kind == "translation":
        return scale * u + theta[0], scale * v + theta[1]
    w = theta[6] * u + theta[7] * v + 1
    w = max(w, HORIZON)
    return (theta[0] * u + theta[1] * v + theta[2]) / w, (theta[3] * u + theta[4] * v + theta[5]) / w


def read(plane, x, y):
    """Equation 5: pixels are weighted by a tent function."""
    height, width = len(plane), len(plane[0])
    column, row = (x + 1) / 2 * width - 0.5, (y + 1) / 2 * height - 0.5
    return sum(
        plane[i][j] * max(0.0, 1 - abs(column - j)) * max(0.0, 1 - abs(row - i))
        for i in range(height)
        for j in range(width)
    )


def around_identity(kind, batch, spread, dtype=torch.float64):
    start = torch.tensor(IDENTITY[kind], dtype=dtype)
    return start + spread * torch.randn(batch, len(start), dtype=dtype)


@pytest.mark.parametrize("kind", IDENTITY)
def test_shapes(kind):
    grid = grid_of(kind, around_identity(kind, 3, 0.1), 4, 7)
    assert grid.shape == (3, 4, 7, 2)
    assert sample(torch.rand(3, 2, 5, 6, dtype=torch.float64), grid).shape == (3, 2, 4, 7)
    assert grid_of(kind, around_identity(kind, 0, 0.1), 4, 7).shape == (0, 4, 7, 2)


@given(st.sampled_from(sorted(IDENTITY)), SIZES, SIZES, st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=50, deadline=None)
def test_identity(kind, height, width, dtype):
    """The identity returns grid and image, also for one pixel."""
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    grid = grid_of(kind, torch.tensor([IDENTITY[kind]], dtype=dtype), height, width)
    columns = torch.tensor([centre(j, width) for j in range(width)], dtype=torch.float64)
    rows = torch.tensor([centre(i, height) for i in range(height)], dtype=torch.float64)
    expected = torch.stack((columns.expand(height, width), rows[:, None].expand(height, width)), -1)
    torch.testing.assert_close(grid[0].double(), expected, atol=tolerance, rtol=0)
    image = torch.rand(1, 2, height, width, dtype=dtype)
    torch.testing.assert_close(sample(image, grid), image, atol=tolerance, rtol=0)
    assert share_outside(grid).tolist() == [0]


@pytest.mark.parametrize("kind", ["affine", "attention", "translation", "projective"])
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_reference(kind, height, width, seed):
    torch.manual_seed(seed)
    parameters = around_identity(kind, 2, 0.6)
    grid = grid_of(kind, parameters, height, width, scale=0.5)
    expected = [
        [[place(kind, theta, centre(j, width), centre(i, height), 0.5) for j in range(width)] for i in range(height)]
        for theta in parameters.tolist()
    ]
    torch.testing.assert_close(grid, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def spline_by_hand(control, targets, at, regularisation):
    """Solves the spline of each image separately, and sums its kernels point by point."""
    middle = [sum(point[axis] for point in control) / len(control) for axis in (0, 1)]
    spread = math.sqrt(sum((x - middle[0]) ** 2 + (y - middle[1]) ** 2 for x, y in control) / len(control))
    points = [((x - middle[0]) / spread, (y - middle[1]) / spread) for x, y in control]

    def kernel(one, other):
        squared = (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2
        return squared * math.log(squared) if squared else 0.0

    n = len(points)
    rows = [[kernel(p, q) + (regularisation if p == q else 0) for q in points] + [1, *p] for p in points]
    rows += [[1.0] * n + [0] * 3, [p[0] for p in points] + [0] * 3, [p[1] for p in points] + [0] * 3]
    right = [*targets, [0, 0], [0, 0], [0, 0]]
    weights = torch.linalg.solve(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    ).tolist()
    x, y = ((at[axis] - middle[axis]) / spread for axis in (0, 1))
    terms = [*(kernel((x, y), p) for p in points), 1, x, y]
    return [sum(term * weight[axis] for term, weight in zip(terms, weights, strict=True)) for axis in (0, 1)]


@pytest.mark.parametrize("regularisation", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (2, 5)])
def test_spline_reference(height, width, regularisation):
    parameters = around_identity("tps", 2, 0.3)
    grid = grid_of("tps", parameters, height, width, regularisation=regularisation)
    control = control_lattice().tolist()
    for theta, found in zip(parameters.view(2, 16, 2).tolist(), grid.tolist(), strict=True):
        for i in range(height):
            for j in range(width):
                at = (centre(j, width), centre(i, height))
                assert found[i][j] == pytest.approx(spline_by_hand(control, theta, at, regularisation), abs=1e-9)


@pytest.mark.parametrize(("regularisation", "tolerance"), [(0.0, 1e-12), (1e-6, 1e-5)])
def test_spline_meets_its_control_points(regularisation, tolerance):
    """With control points on pixel centres, those pixels sample exactly the positions in the parameters."""
    x = torch.tensor([centre(j, 8) for j in (0, 2, 5, 7)], dtype=torch.float64)
    control = torch.cartesian_prod(x, x).flip(-1)
    plate = thin_plate(control, 8, 8, regularisation)
    targets = control + 0.3 * torch.randn(5, 16, 2, dtype=torch.float64)
    grid = thin_plate_grid(targets.flatten(1), plate)
    picked = grid[:, [0, 2, 5, 7]][:, :, [0, 2, 5, 7]].reshape(5, 16, 2)
    torch.testing.assert_close(picked, targets, atol=tolerance, rtol=0)


def test_spline_of_an_affine_map_is_affine():
    theta = torch.tensor([[0.8, 0.3, 0.1, -0.2, 1.1, -0.3]], dtype=torch.float64)
    matrix = theta.view(2, 3)
    targets = control_lattice() @ matrix[:, :2].T + matrix[:, 2]
    for regularisation in (0.0, 0.5):
        grid = grid_of("tps", targets.view(1, -1), 6, 5, regularisation=regularisation)
        torch.testing.assert_close(grid, affine_grid(theta, 6, 5))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(-3, 3), st.integers(-3, 3))
@settings(max_examples=40, deadline=None)
def test_whole_pixels(height, width, right, down):
    """A shift by 2 / W samples one pixel further right, and zeros outside."""
    image = torch.rand(1, 1, height, width, dtype=torch.float64)
    shift = [2 * right / width, 2 * down / height]
    expected = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            if 0 <= i + down < height and 0 <= j + right < width:
                expected[..., i, j] = image[..., i + down, j + right]
    targets = control_lattice() + torch.tensor(shift, dtype=torch.float64)
    for kind, theta in (
        ("affine", [1, 0, shift[0], 0, 1, shift[1]]),
        ("attention", [1, *shift]),
        ("translation", shift),
        ("projective", [1, 0, shift[0], 0, 1, shift[1], 0, 0]),
        ("tps", targets.flatten().tolist()),
    ):
        grid = grid_of(kind, torch.tensor([theta], dtype=torch.float64), height, width)
        torch.testing.assert_close(sample(image, grid), expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("side", [1, 4, 7])
def test_quarter_turn(side):
    """(u, v) samples (-v, u): the output is the image rotated by 90 degrees counter-clockwise, as by rot90."""
    image = torch.rand(1, 2, side, side, dtype=torch.float64)
    grid = affine_grid(torch.tensor([[0.0, -1, 0, 1, 0, 0]], dtype=torch.float64), side, side)
    torch.testing.assert_close(sample(image, grid), image.rot90(1, (2, 3)), atol=1e-12, rtol=0)


def test_attention_is_a_box():
    """The window of attention is the box of the patch sampler, away from the border."""
    image = torch.rand(1, 1, 12, 12, dtype=torch.float64)
    theta = torch.tensor([[0.5, 0.2, -0.1]], dtype=torch.float64)
    box = torch.tensor([[[(0.2 + 1) * 6, (-0.1 + 1) * 6, 6.0, 6.0]]], dtype=torch.float64)
    patch = extract_patches(image, box, 5)[:, 0]
    torch.testing.assert_close(sample(image, attention_grid(theta, 5, 5)), patch)


def test_projective_takes_corners_where_they_should_go():
    """The four corners of the frame, seen through a plane that tilts away."""
    theta = torch.tensor([[1.0, 0, 0, 0, 1, 0, 0.5, 0]], dtype=torch.float64)
    grid = projective_grid(theta, 1, 2)  # pixels at u = -0.5 and 0.5
    torch.testing.assert_close(grid[0, 0], torch.tensor([[-0.5 / 0.75, 0], [0.5 / 1.25, 0]], dtype=torch.float64))


def test_sampler_reference():
    image, grid = torch.rand(2, 2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 5, 2, dtype=torch.float64)
    found = sample(image, grid)
    expected = [
        [[[read(plane, *grid[b, i, j].tolist()) for j in range(5)] for i in range(3)] for plane in image[b].tolist()]
        for b in range(2)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_share_outside():
    grid = torch.zeros(3, 2, 2, 2)
    grid[1, 0, 0, 0], grid[1, 1, 1, 1] = 1.01, -1.01
    grid[2] = math.nan
    assert share_outside(grid).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("kind", IDENTITY)
def test_gradcheck(kind):
    parameters = around_identity(kind, 2, 0.07).requires_grad_()
    assert torch.autograd.gradcheck(lambda theta: grid_of(kind, theta, 3, 4), (parameters,))
    image = torch.rand(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    grid = grid_of(kind, parameters.detach(), 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(sample, (image, grid))


@pytest.mark.parametrize("kind", IDENTITY)
def test_gradient_not_missing(kind):
    """The gradient of every parameter matches finite differences."""
    parameters = around_identity(kind, 1, 0.05)
    x, y = torch.linspace(0, 3, 9, dtype=torch.float64), torch.linspace(0, 2, 9, dtype=torch.float64)
    image = (x.sin() + (y[:, None] * 1.3).cos() + 0.2 * x * y[:, None])[None, None]
    weight = torch.linspace(0.5, 1.9, 64, dtype=torch.float64).sin().view(8, 8)

    def value(theta):
        return (sample(image, 0.8 * grid_of(kind, theta, 8, 8)) * weight).sum()

    gradient = torch.autograd.functional.jacobian(value, parameters)[0]
    differences = torch.stack(
        [
            (value(parameters + step) - value(parameters - step)) / 2e-7
            for step in 1e-7 * torch.eye(len(gradient)).double()
        ]
    )
    assert differences.abs().min() > 1e-5
    torch.testing.assert_close(gradient / differences, torch.ones_like(gradient), atol=1e-3, rtol=0)


def test_beyond_the_horizon_is_finite():
    parameters = torch.tensor([[1.0, 0, 0, 0, 1, 0, 5, -9]], requires_grad=True)
    image = torch.rand(1, 1, 6, 6, requires_grad=True)
    result = sample(image, projective_grid(parameters, 6, 6))
    result.sum().backward()
    assert result.isfinite().all() and parameters.grad.isfinite().all() and image.grad.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", IDENTITY)
def test_dtype_device(kind, dtype, device):
    grid = grid_of(kind, around_identity(kind, 1, 0.1, dtype).to(device), 3, 3)
    assert grid.dtype == dtype and grid.device.type == device


def test_control_points_that_carry_no_spline():
    line = torch.linspace(-1, 1, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="16 control points are collinear"):
        thin_plate(torch.stack((line, 0.3 * line + 0.1), -1), 4, 4)
    twice = control_lattice()
    twice[7] = twice[2]
    with pytest.raises(ValueError, match="2 and 7 are both at"):
        thin_plate(twice, 4, 4)
    with pytest.raises(ValueError, match="are both at"):
        thin_plate(torch.zeros(4, 2), 4, 4)
    with pytest.raises(ValueError, match="not finite"):
        thin_plate(torch.full((4, 2), math.nan), 4, 4)
    with pytest.raises(ValueError, match="3 or more"):
        thin_plate(control_lattice()[:2], 4, 4)


def test_refusals():
    with pytest.raises(ValueError, match="side of 2"):
        control_lattice(1)
    with pytest.raises(ValueError, match="above 0, got 0"):
        translation_grid(torch.zeros(1, 2), 3, 3, 0.0)
    with pytest.raises(ValueError, match="0 x 3"):
        attention_grid(torch.zeros(1, 3), 0, 3)
    with pytest.raises(ValueError, match="regularisation must be finite"):
        thin_plate(control_lattice(), 3, 3, -1.0)
    with pytest.raises(ValueError, match=r"not empty, got \(1, 1, 0, 4\)"):
        sample(torch.zeros(1, 1, 0, 4), torch.zeros(1, 2, 2, 2))
    with pytest.raises(ValueError, match=r"\(batch, 32\), got \(1, 30\)"):
        thin_plate_grid(torch.zeros(1, 30), thin_plate(control_lattice(), 2, 2))


@pytest.mark.plain
@pytest.mark.parametrize("kind", IDENTITY)
def test_wrong_number_of_parameters(kind):
    with pytest.raises(ValueError, match=r"got \(2, 5\)"):
        grid_of(kind, torch.zeros(2, 5), 3, 3)


@pytest.mark.plain
def test_a_grid_of_another_batch():
    with pytest.raises(ValueError, match="the grid must be"):
        sample(torch.zeros(1, 1, 4, 4), torch.zeros(2, 2, 2, 2))
