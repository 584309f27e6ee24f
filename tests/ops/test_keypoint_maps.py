"""G with Gaussians and offsets, against loops written from the equations of the supplement's section B."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.keypoint_maps import huber, ideal_response, offset_loss, offset_targets, read_offsets
from mistnn.ops.topk import top_k

numbers = st.floats(-2, 9)
several = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)


def cell_of(value: float, size: int) -> int:
    return min(max(math.floor(value), 0), size - 1)


def response_by_loops(points, height, width, variance):
    rows = []
    for row in range(height):
        line = []
        for column in range(width):
            total = 0.0
            for x, y in points:
                dx, dy = cell_of(x, width) - column, cell_of(y, height) - row
                total += math.exp(-0.5 * (dx * dx / variance + dy * dy / variance))
            line.append(total)
        rows.append(line)
    return rows


def offset_loss_by_loops(offsets, points):
    """``offsets`` [channel][row][column]; the mean over keypoints and over x and y of equation 11, as released."""
    height, width = len(offsets[0]), len(offsets[0][0])
    total = 0.0
    for x, y in points:
        column, row = cell_of(x, width), cell_of(y, height)
        for channel, wanted in ((0, x - (column + 0.5)), (1, y - (row + 0.5))):
            difference = abs(offsets[channel][row][column] - wanted)
            total += 0.5 * difference**2 if difference < 1 else difference - 0.5
    return total / (2 * len(points))


def test_shapes():
    points = torch.rand(2, 3, 2)
    assert ideal_response(points, 5, 7, 0.5).shape == (2, 5, 7)
    assert offset_targets(points, 5, 7).shape == (2, 3, 2)
    assert offset_loss(torch.rand(2, 2, 5, 7), points).shape == (2,)


@given(several, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.1, 0.875, 3.0]))
@settings(max_examples=60, deadline=None)
def test_response_reference(points, height, width, variance):
    found = ideal_response(torch.tensor([points], dtype=torch.float64), height, width, variance)[0]
    expected = torch.tensor(response_by_loops(points, height, width, variance), dtype=torch.float64)
    torch.testing.assert_close(found, expected)


@given(several, st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_offset_loss_reference(points, height, width, seed):
    random = torch.Generator().manual_seed(seed)
    offsets = 3 * torch.randn(1, 2, height, width, generator=random, dtype=torch.float64)
    found = offset_loss(offsets, torch.tensor([points], dtype=torch.float64))
    assert found.item() == pytest.approx(offset_loss_by_loops(offsets[0].tolist(), points))


def test_offsets_undo_the_rounding():
    """The centre of the cell plus its offset is exactly the keypoint."""
    points = torch.tensor([[[0.2, 3.9], [4.5, 1.0], [6.999, 0.0]]], dtype=torch.float64)
    target = offset_targets(points, 5, 7)
    assert target.abs().max() <= 0.5
    torch.testing.assert_close(points.floor() + 0.5 + target, points, rtol=0, atol=1e-12)


def test_top_k_of_the_response_gives_the_cells_back():
    points = torch.tensor([[[1.3, 1.8], [8.6, 2.2], [4.0, 8.9]]])
    found = top_k(ideal_response(points, 10, 10, 7 / 8), 3, 5).points[0]
    assert {tuple(point) for point in found.tolist()} == {(1.5, 1.5), (8.5, 2.5), (4.5, 8.5)}


def test_huber_by_hand():
    given_values = torch.tensor([0.0, 0.5, -0.5, 1.0, -1.0, 3.0])
    torch.testing.assert_close(huber(given_values), torch.tensor([0.0, 0.125, 0.125, 0.5, 0.5, 2.5]))


def test_gradcheck():
    offsets = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    points = 3 * torch.rand(2, 3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda maps: offset_loss(maps, points), (offsets,))


def test_gradient_is_at_the_keypoints_alone():
    offsets = torch.ones(1, 2, 4, 4, requires_grad=True)
    offset_loss(offsets, torch.tensor([[[1.2, 2.7]]])).sum().backward()
    assert offsets.grad is not None
    assert offsets.grad.nonzero().tolist() == [[0, 0, 2, 1], [0, 1, 2, 1]]


def test_read_offsets():
    maps = torch.arange(2 * 2 * 3, dtype=torch.float32).view(1, 2, 2, 3)
    assert read_offsets(maps, torch.tensor([[[2.9, 0.1], [0.0, 1.5]]])).tolist() == [[[2.0, 8.0], [3.0, 9.0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(dtype):
    points = torch.rand(1, 2, 2, dtype=dtype)
    assert ideal_response(points, 3, 3, 1.0).dtype == offset_targets(points, 3, 3).dtype == dtype


@pytest.mark.plain
def test_wrong_input():
    with pytest.raises(ValueError, match=r"points must be .* got \(3, 2\)"):
        ideal_response(torch.rand(3, 2), 3, 3, 1.0)
    with pytest.raises(ValueError, match="variance must be .* got 0"):
        ideal_response(torch.rand(1, 3, 2), 3, 3, 0)
    with pytest.raises(ValueError, match=r"offsets must be .* got \(1, 3, 4, 4\)"):
        read_offsets(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 2))
