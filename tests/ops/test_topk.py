from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.coordinates import centre_of, inside_of, pixel_of
from mistnn.ops.heatmap import ideal_heatmaps, non_maximum_suppression
from mistnn.ops.topk import top_k
from tests.reference import heatmap as reference

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def ideal_heatmap(points, height, width):
    """G with the single scale 1, (batch, height, width)."""
    keypoints = torch.cat((points, torch.ones_like(points[..., :1])), dim=-1)
    return ideal_heatmaps(keypoints, (1.0,), height, width)[:, 0]


@st.composite
def problems(draw):
    """A heat map with many ties, or none, and a K from 1 to all pixels."""
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    values = draw(st.sampled_from([(0.0,), (0.0, 1.0), (-1.0, 0.0, 0.25, 2.0), tuple(i / 7 for i in range(40))]))
    table = [[draw(st.sampled_from(values)) for _ in range(width)] for _ in range(height)]
    k = draw(st.one_of(st.just(1), st.just(height * width), st.integers(1, height * width)))
    return torch.tensor(table, dtype=torch.float64), k, draw(st.sampled_from([1, 3, 5]))


def distinct(points):
    return all(len({tuple(point) for point in image}) == len(image) for image in points.tolist())


def test_shapes():
    found = top_k(torch.rand(2, 5, 7), 3)
    assert found.points.shape == (2, 3, 2) and found.responses.shape == (2, 3)


@given(problems())
@settings(max_examples=100, deadline=None)
def test_reference(problem):
    heatmap, k, window = problem
    found = top_k(heatmap[None], k, window)
    assert found.responses[0].tolist() == reference.top_k_responses(heatmap.tolist(), k, window)
    pixels = pixel_of(found.points, *heatmap.shape)[0]
    assert torch.equal(heatmap[pixels[:, 1], pixels[:, 0]], found.responses[0])
    assert torch.equal(centre_of(pixels, torch.float64), found.points[0])
    # Survivors come before the suppressed.
    survives = non_maximum_suppression(heatmap[None], window)[0][pixels[:, 1], pixels[:, 0]].tolist()
    assert survives == sorted(survives, reverse=True)


@given(problems())
@settings(max_examples=60, deadline=None)
def test_k_distinct_pixels(problem):
    heatmap, k, window = problem
    assert distinct(top_k(heatmap[None], k, window).points)


def test_reference_without_ties():
    heatmap = torch.rand(2, 12, 10, dtype=torch.float64)
    found = pixel_of(top_k(heatmap, 5).points, 12, 10)
    for image, pixels in zip(heatmap, found, strict=True):
        assert [tuple(pixel) for pixel in pixels.tolist()] == reference.top_k_pixels(image.tolist(), 5, 5)


@given(st.lists(st.tuples(st.floats(0, 13), st.floats(0, 9)), min_size=1, max_size=12), st.sampled_from([1, 3, 5, 7]))
@settings(max_examples=150, deadline=None)
def test_round_trip(points, window):
    """E_K(G(x)) = x, rounded to pixels, for keypoints farther apart than the suppression reaches."""
    height, width = 9, 13
    kept: list[tuple[int, int]] = []
    for column, row in pixel_of(torch.tensor(points, dtype=torch.float64), height, width).tolist():
        if all(max(abs(column - x), abs(row - y)) > window // 2 for x, y in kept):
            kept.append((column, row))
    keypoints = centre_of(torch.tensor(kept), torch.float64)[None]
    inside = keypoints + (torch.rand(1, len(kept), 2, dtype=torch.float64) - 0.5) * 0.999
    found = top_k(ideal_heatmap(inside, height, width), len(kept), window)
    assert sorted(found.points[0].tolist()) == sorted(keypoints[0].tolist())
    assert (found.responses == 1).all()


def test_round_trip_on_the_border():
    corners = torch.tensor([[[0.0, 0.0], [13.0, 0.0], [0.0, 9.0], [13.0, 9.0], [6.2, 9.0]]])
    found = top_k(ideal_heatmap(corners, 9, 13), 5).points[0].tolist()
    assert sorted(found) == sorted([[0.5, 0.5], [12.5, 0.5], [0.5, 8.5], [12.5, 8.5], [6.5, 8.5]])


@pytest.mark.parametrize("value", [0.0, 0.3, 1e8, -1e8])
def test_constant_map(value):
    found = top_k(torch.full((2, 7, 7), value), 4)
    assert distinct(found.points) and (found.responses == value).all()
    assert found.points[:, 0].tolist() == [[0.5, 0.5]] * 2  # the one survivor comes first


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_highest_suppressed_fill_up_at_every_scale(scale):
    """A ranking that lowers the suppressed values by a constant would round these differences away."""
    heatmap = torch.zeros(1, 3, 3)
    heatmap[0, 1, 1], heatmap[0, 2, 2], heatmap[0, 0, 0] = 1e9, 4 * scale, 3 * scale
    assert top_k(heatmap, 3).points[0].tolist() == [[1.5, 1.5], [2.5, 2.5], [0.5, 0.5]]


def test_suppression_is_inside():
    """Without suppression, the second keypoint would be next to the first."""
    heatmap = torch.zeros(1, 10, 10)
    heatmap[0, 2, 2], heatmap[0, 2, 3], heatmap[0, 7, 7] = 1.0, 0.9, 0.5
    assert top_k(heatmap, 2, 5).points[0].tolist() == [[2.5, 2.5], [7.5, 7.5]]
    assert top_k(heatmap, 2, 1).points[0].tolist() == [[2.5, 2.5], [3.5, 2.5]]


@given(problems(), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_of_a_padded_map_only_the_inside(problem, rows, columns):
    """As for a map cropped at the padding; the order of equal responses is free."""
    heatmap, k, window = problem
    heatmap = heatmap + torch.arange(heatmap.numel(), dtype=heatmap.dtype).view_as(heatmap) * 1e-3  # no two alike
    rows, columns = min(rows, heatmap.shape[0]), min(columns, heatmap.shape[1])
    inside = inside_of(torch.tensor([[rows, columns]]), *heatmap.shape)
    assert inside[0].tolist() == [
        [row < rows and column < columns for column in range(heatmap.shape[1])] for row in range(heatmap.shape[0])
    ]
    k = min(k, rows * columns)
    found, wanted = top_k(heatmap[None], k, window, inside), top_k(heatmap[None, :rows, :columns], k, window)
    assert torch.equal(found.points, wanted.points) and torch.equal(found.responses, wanted.responses)


@pytest.mark.plain
def test_too_few_inside():
    inside = inside_of(torch.tensor([[3, 3], [1, 2]]), 3, 3)
    with pytest.raises(ValueError, match="from 1 to 2, the pixels inside the smallest image, got 3"):
        top_k(torch.rand(2, 3, 3), 3, inside=inside)
    with pytest.raises(ValueError, match=r"inside must be \(2, 3, 3\)"):
        top_k(torch.rand(2, 3, 3), 1, inside=inside[:1])


def test_no_gradient_reaches_the_heatmap():
    heatmap = torch.rand(1, 5, 5, requires_grad=True)
    found = top_k(heatmap, 3)
    assert not found.points.requires_grad and not found.responses.requires_grad


def test_batch_equals_singles():
    heatmap = torch.rand(4, 9, 8)
    whole = top_k(heatmap, 5)
    for index in range(4):
        one = top_k(heatmap[index : index + 1], 5)
        assert torch.equal(one.points[0], whole.points[index])
        assert torch.equal(one.responses[0], whole.responses[index])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(device, dtype):
    found = top_k(torch.rand(1, 5, 5, dtype=dtype, device=device), 2)
    assert found.points.dtype == found.responses.dtype == dtype and found.points.device.type == device


@pytest.mark.plain
@pytest.mark.parametrize("k", [0, -1, 36])
def test_bad_k_is_named(k):
    with pytest.raises(ValueError, match=rf"35.*got {k}"):
        top_k(torch.rand(1, 5, 7), k)


@pytest.mark.plain
@pytest.mark.parametrize("shape", [(5,), (5, 7), (1, 1, 5, 7)])
def test_bad_shapes_are_named(shape):
    with pytest.raises(ValueError, match=r"batch, height, width"):
        top_k(torch.rand(shape), 2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_points_of_heat_maps_in_half_precision_are_exact(kind: torch.dtype) -> None:
    heatmap = torch.zeros(1, 4, 2800, dtype=kind)
    heatmap[0, 2, 301], heatmap[0, 1, 2700] = 2, 1
    found = top_k(heatmap, 2)
    assert found.points.tolist() == [[[301.5, 2.5], [2700.5, 1.5]]] and found.responses.dtype == kind
