from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.heatmap import ideal_heatmap, local_spatial_softmax, non_maximum_suppression
from tests.reference import heatmap as reference

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
windows = st.sampled_from([1, 3, 5, 15])


@st.composite
def maps(draw, values=(-2.0, 0.0, 0.5, 0.5, 1.0)):
    """Few values, so that plateaus and ties are frequent; one pixel and constant maps included."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    value = st.just(draw(st.sampled_from(values))) if draw(st.booleans()) else st.sampled_from(values)
    return torch.tensor([[draw(value) for _ in range(width)] for _ in range(height)], dtype=torch.float64)


def test_shapes():
    scores = torch.rand(2, 5, 7)
    assert local_spatial_softmax(scores).shape == (2, 5, 7)
    assert non_maximum_suppression(scores).shape == (2, 5, 7)
    assert non_maximum_suppression(scores).dtype == torch.bool
    assert ideal_heatmap(torch.rand(2, 3, 2), 5, 7).shape == (2, 5, 7)


@given(maps(), windows, st.sampled_from([1.0, 10.0]))
@settings(max_examples=30, deadline=None)
def test_softmax_reference(scores, window, strength):
    found = local_spatial_softmax(scores[None], window, strength)[0]
    expected = reference.local_spatial_softmax(scores.tolist(), window, strength)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@given(maps(), windows)
@settings(max_examples=100, deadline=None)
def test_suppression_reference(heatmap, window):
    found = non_maximum_suppression(heatmap[None], window)[0]
    assert found.tolist() == reference.non_maximum_suppression(heatmap.tolist(), window)


@given(st.lists(st.tuples(st.floats(-2, 9), st.floats(-2, 9)), min_size=1, max_size=6), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_ideal_reference(points, height):
    found = ideal_heatmap(torch.tensor([points], dtype=torch.float64), height, 5)[0]
    assert found.tolist() == reference.ideal_heatmap(points, height, 5)


def test_softmax_gradcheck():
    scores = (torch.rand(1, 4, 5, dtype=torch.float64) * 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: local_spatial_softmax(s, 3), (scores,))


def test_a_weak_object_keeps_its_response_and_gradient_beside_a_strong_one():
    scores = torch.zeros(1, 40, 40)
    scores[0, 5, 5], scores[0, 30, 30] = 1.0, 80.0
    alone = scores.clone()
    alone[0, 30, 30] = 0.0
    scores.requires_grad_()
    heatmap = local_spatial_softmax(scores)
    assert heatmap[0, 5, 5] > 0.9
    assert heatmap[0, 5, 5] == local_spatial_softmax(alone)[0, 5, 5]
    heatmap[0, 5, 5].backward()
    assert scores.grad[0, 5, 5] > 0.01


def test_gradient_not_missing():
    scores = torch.rand(2, 6, 6, requires_grad=True)
    (local_spatial_softmax(scores, 5) * torch.rand(2, 6, 6)).sum().backward()
    assert (scores.grad != 0).all() and scores.grad.isfinite().all()


def test_softmax_of_a_constant_map_is_uniform():
    heatmap = local_spatial_softmax(torch.full((1, 20, 20), 3.7))
    torch.testing.assert_close(heatmap, torch.full_like(heatmap, 1 / 225))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e3, 1e6])
def test_softmax_is_finite_and_within_bounds(scale):
    scores = (torch.rand(2, 9, 9) - 0.5) * scale
    scores.requires_grad_()
    heatmap = local_spatial_softmax(scores)
    assert heatmap.isfinite().all() and heatmap.min() >= 0 and heatmap.max() <= 1 + 1e-6
    heatmap.sum().backward()
    assert scores.grad.isfinite().all()


def test_softmax_knows_no_batch_mates():
    scores = torch.randn(3, 8, 8) * torch.tensor([1.0, 100.0, 0.01]).view(3, 1, 1)
    singles = torch.cat([local_spatial_softmax(one[None]) for one in scores])
    assert torch.equal(local_spatial_softmax(scores), singles)


@pytest.mark.parametrize("place", [(0, 0), (0, 6), (6, 0), (6, 6), (3, 0), (0, 3)])
@pytest.mark.parametrize("offset", [0.0, -10.0])
def test_border_peaks_survive(place, offset):
    """Whatever the sign of the map: beyond the border there is nothing, not zeros."""
    heatmap = torch.full((1, 7, 7), offset)
    heatmap[0, place[0], place[1]] += 1
    assert non_maximum_suppression(heatmap)[0, place[0], place[1]]


def test_a_pixel_beside_a_border_peak_is_suppressed():
    heatmap = torch.zeros(1, 6, 6)
    heatmap[0, 0, 0], heatmap[0, 1, 2], heatmap[0, 5, 5] = 3.0, 2.0, 1.0
    kept = non_maximum_suppression(heatmap) & (heatmap > 0)
    assert kept.nonzero().tolist() == [[0, 0, 0], [0, 5, 5]]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_one_pixel_of_a_constant_map_survives(value):
    assert non_maximum_suppression(torch.full((1, 80, 80), value)).nonzero().tolist() == [[0, 0, 0]]


def test_one_pixel_of_a_plateau_survives():
    heatmap = torch.zeros(1, 12, 12)
    heatmap[0, 3:9, 2:11] = 1.0
    kept = non_maximum_suppression(heatmap) & (heatmap > 0)
    assert kept.nonzero().tolist() == [[0, 3, 2]]


@given(maps(), st.sampled_from([3, 5]))
@settings(max_examples=60, deadline=None)
def test_survivors_are_more_than_the_reach_apart(heatmap, window):
    places = non_maximum_suppression(heatmap[None], window)[0].nonzero().double()
    assert len(places) >= 1
    distance = torch.cdist(places, places, p=torch.inf).fill_diagonal_(torch.inf)
    assert distance.min() > window // 2


def test_ideal_marks_the_pixel_that_holds_the_point():
    points = torch.tensor([[[2.0, 0.0], [3.999, 4.5], [7.0, 5.0], [-4.0, 2.2]]])
    marked = ideal_heatmap(points, 5, 7)[0].nonzero().tolist()
    assert sorted(marked) == [[0, 2], [2, 0], [4, 3], [4, 6]]


def test_ideal_is_no_path_for_gradients():
    points = torch.rand(1, 2, 2, requires_grad=True)
    assert not ideal_heatmap(points, 4, 4).requires_grad


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_device(device, dtype):
    scores = torch.rand(1, 6, 6, dtype=dtype, device=device)
    for result in (local_spatial_softmax(scores), ideal_heatmap(scores[..., :2], 6, 6)):
        assert result.dtype == dtype and result.device.type == device
    assert non_maximum_suppression(scores).device.type == device


@pytest.mark.plain
@pytest.mark.parametrize("function", [local_spatial_softmax, non_maximum_suppression])
def test_bad_input_is_named(function):
    with pytest.raises(ValueError, match=r"\(5, 5\)"):
        function(torch.rand(5, 5))
    with pytest.raises(ValueError, match=r"\(1, 1, 5, 5\)"):
        function(torch.rand(1, 1, 5, 5))
    for window in (0, 4, -1):
        with pytest.raises(ValueError, match=str(window)):
            function(torch.rand(1, 5, 5), window)


@pytest.mark.plain
@pytest.mark.parametrize("shape", [(3, 2), (1, 3, 4), (1, 1, 3, 2)])
def test_bad_keypoints_are_named(shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        ideal_heatmap(torch.rand(shape), 5, 5)
