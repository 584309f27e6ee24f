from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mistnn.ops.coordinates import boxes_at, centre_of, corners_of, mirror, normalise, pixel_of

sides = st.integers(1, 9)


def test_shapes():
    points = torch.rand(2, 3, 2)
    assert pixel_of(points, 5, 7).shape == (2, 3, 2) and pixel_of(points, 5, 7).dtype == torch.int64
    assert centre_of(torch.zeros(3, 2, dtype=torch.int64)).shape == (3, 2)
    assert normalise(points, 5, 7).shape == (2, 3, 2)
    assert boxes_at(points, 4.0).shape == (2, 3, 4)
    assert corners_of(boxes_at(points, 4.0)).shape == (2, 3, 4)


@given(st.floats(-3, 12), st.floats(-3, 12), sides, sides)
@settings(max_examples=100, deadline=None)
def test_pixel_reference(x, y, height, width):
    column, row = pixel_of(torch.tensor([x, y], dtype=torch.float64), height, width).tolist()
    assert column == min(max(math.floor(x), 0), width - 1)
    assert row == min(max(math.floor(y), 0), height - 1)


@given(sides, sides)
@settings(max_examples=30, deadline=None)
def test_round_trip(height, width):
    pixels = torch.tensor([(column, row) for row in range(height) for column in range(width)])
    assert torch.equal(pixel_of(centre_of(pixels), height, width), pixels)


def test_the_far_edge_belongs_to_the_last_pixel():
    assert pixel_of(torch.tensor([[7.0, 5.0]]), 5, 7).tolist() == [[6, 4]]
    assert pixel_of(torch.tensor([[0.0, 0.0]]), 5, 7).tolist() == [[0, 0]]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (7, 1), (5, 8), (80, 80)])
def test_identity_grid(height, width, dtype, tolerance):
    """The grid of all pixel centres returns the image."""
    image = torch.rand(1, 2, height, width, dtype=dtype)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = normalise(centre_of(torch.stack((columns, rows), -1), dtype), height, width)[None]
    read = F.grid_sample(image, grid, align_corners=False)
    assert (read - image).abs().max() <= tolerance


def test_edges_map_to_one():
    edges = normalise(torch.tensor([[0.0, 0.0], [7.0, 5.0], [3.5, 2.5]], dtype=torch.float64), 5, 7)
    torch.testing.assert_close(edges, torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64))


def test_boxes_and_corners_by_hand():
    points = torch.tensor([[[3.0, 4.0], [1.0, 2.0]]])
    assert boxes_at(points, 2.0).tolist() == [[[3.0, 4.0, 2.0, 2.0], [1.0, 2.0, 2.0, 2.0]]]
    assert boxes_at(points, torch.tensor([[2.0, 6.0]])).tolist() == [[[3.0, 4.0, 2.0, 2.0], [1.0, 2.0, 6.0, 6.0]]]
    assert corners_of(torch.tensor([3.0, 4.0, 2.0, 6.0])).tolist() == [2.0, 1.0, 4.0, 7.0]


def test_gradient_not_missing():
    points = torch.rand(1, 3, 2, dtype=torch.float64, requires_grad=True)
    side = torch.rand(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, s: corners_of(boxes_at(p, s)), (points, side))
    corners_of(boxes_at(points, side))[..., 2:].sum().backward()
    assert torch.equal(points.grad, torch.ones_like(points)) and torch.equal(side.grad, torch.ones_like(side))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(dtype):
    points = torch.rand(2, 3, 2, dtype=dtype)
    assert normalise(points, 5, 7).dtype == boxes_at(points, 2.0).dtype == dtype
    assert centre_of(torch.zeros(1, 2, dtype=torch.int64), dtype).dtype == dtype


def test_mirror_moves_each_map_by_its_own_coins_and_back():
    maps = torch.arange(24.0).view(4, 1, 2, 3)
    which = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    found = mirror(maps, which)
    expected = [maps[0], maps[1].flip(-1), maps[2].flip(-2), maps[3].flip(-1, -2)]
    assert torch.equal(found, torch.stack(expected))
    assert torch.equal(mirror(found, which), maps)
