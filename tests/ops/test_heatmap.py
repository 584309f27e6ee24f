from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.heatmap import ideal_heatmaps, local_spatial_softmax, non_maximum_suppression, pool_scales, scale_moment
from mistnn.ops.topk import top_k
from tests.reference import heatmap as reference

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
windows = st.sampled_from([1, 3, 5, 15])


def ideal_heatmap(points, height, width):
    """G with the single scale 1, (batch, height, width)."""
    keypoints = torch.cat((points, torch.ones_like(points[..., :1])), dim=-1)
    return ideal_heatmaps(keypoints, (1.0,), height, width)[:, 0]


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
    """For any sign of the map: windows end at the border, without zero padding."""
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
@pytest.mark.parametrize("shape", [(3, 3), (1, 3, 4), (1, 1, 3, 3)])
def test_bad_keypoints_are_named(shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        ideal_heatmaps(torch.rand(shape), (1.0,), 5, 5)


SCALES = (0.7, 1.0, 1.4, 2.0)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_pooling_reference(scales, height, width, seed):
    maps = torch.rand(2, scales, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    maps[0, :, 0, 0] = 0.0  # where all are silent the epsilon decides
    found = pool_scales(maps)
    for index in range(2):
        torch.testing.assert_close(found[index], reference.pool_scales(list(maps[index])))
    assert found[0, :, 0, 0].tolist() == [0.0] * scales


def test_pooling_gradcheck():
    maps = torch.rand(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pool_scales, (maps,))


@given(st.floats(0.1, 3.0), st.sampled_from([(1.0,), (0.7, 1.0), SCALES]))
@settings(max_examples=60, deadline=None)
def test_ideal_scales_reference(scale, scales):
    """One at the pixel, split over the two nearest scales so that the centre of mass is the scale."""
    keypoint = torch.tensor([[[3.2, 1.9, scale]]], dtype=torch.float64)
    found = ideal_heatmaps(keypoint, scales, 4, 5)
    assert found.shape == (1, len(scales), 4, 5)
    weights = found[0, :, 1, 3]
    torch.testing.assert_close(
        weights, torch.tensor(reference.split_over_scales(scale, scales), dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert found.sum().item() == pytest.approx(1.0)
    inside = min(max(scale, scales[0]), scales[-1])
    mass = (weights * torch.tensor(scales, dtype=torch.float64)).sum().item()
    assert mass == pytest.approx(inside if len(scales) > 1 else scales[0])


@given(st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_e_k_of_g_is_x_with_scale(seed):
    """{x_k} = E_K(G({x_k})), section B of the supplement: the keypoints and their scales are restored."""
    random = torch.Generator().manual_seed(seed)
    cells = torch.randperm(16, generator=random)[:6]
    points = torch.stack((cells % 4, cells // 4), -1) * 6 + torch.randint(0, 3, (6, 2), generator=random) + 0.5
    scale = torch.rand(6, 1, generator=random) * (SCALES[-1] - SCALES[0]) + SCALES[0]
    keypoints = torch.cat((points, scale), dim=-1)[None].double()
    ideal = ideal_heatmaps(keypoints, SCALES, 24, 26)
    best = top_k(ideal.sum(1), 6, window=3)
    found = torch.cat((best.points, scale_moment(ideal, best.points, SCALES)[..., None]), dim=-1)
    expected = sorted(map(tuple, keypoints[0].tolist()))
    for one, other in zip(sorted(map(tuple, found[0].tolist())), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-9)


def test_two_keypoints_on_one_pixel_share_it():
    keypoints = torch.tensor([[[1.5, 1.5, 0.7], [1.6, 1.4, 1.4]]])
    ideal = ideal_heatmaps(keypoints, SCALES, 3, 3)
    assert ideal.sum().item() == pytest.approx(1.0)
    moment = scale_moment(ideal, keypoints[..., :2], SCALES)
    torch.testing.assert_close(moment, torch.full((1, 2), 1.05))


def test_moment_is_a_mean():
    """A weak response does not mean a small scale; without responses, the mean of the scales."""
    maps = torch.zeros(1, 2, 1, 2)
    maps[0, :, 0, 0] = torch.tensor([0.003, 0.001])
    moment = scale_moment(maps, torch.tensor([[[0.5, 0.5], [1.5, 0.5]]]), (1.0, 2.0))
    torch.testing.assert_close(moment, torch.tensor([[1.25, 1.5]]))


@pytest.mark.plain
def test_scale_mistakes_are_named():
    with pytest.raises(ValueError, match="rising"):
        ideal_heatmaps(torch.rand(1, 2, 3), (1.0, 0.5), 4, 4)
    with pytest.raises(ValueError, match="differ"):
        scale_moment(torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2), (1.0,))
    with pytest.raises(ValueError, match="scales"):
        pool_scales(torch.rand(2, 4, 4))
    with pytest.raises(ValueError, match=r"\(batch, k, 3\)"):
        ideal_heatmaps(torch.rand(1, 2, 2), (1.0,), 4, 4)


def test_ideal_with_presence_reference():
    """The 1 of each keypoint becomes its presence; a shared pixel has the mean; there is no gradient."""
    random = torch.Generator().manual_seed(0)
    keypoints = torch.rand(2, 5, 3, generator=random, dtype=torch.float64) * torch.tensor([7.0, 6.0, 3.0])
    keypoints[0, 1, :2] = keypoints[0, 0, :2]
    presence = torch.rand(2, 5, generator=random, dtype=torch.float64).requires_grad_()
    scales = (0.5, 1.0, 2.5)
    found = ideal_heatmaps(keypoints, scales, 6, 7, presence=presence)
    assert not found.requires_grad
    expected = torch.zeros_like(found)
    hits = torch.zeros(2, 6, 7)
    for image in range(2):
        for number in range(5):
            alone = ideal_heatmaps(keypoints[image : image + 1, number : number + 1], scales, 6, 7)[0]
            expected[image] += alone * presence[image, number].item()
            hits[image] += (alone.sum(0) > 0).float()
    torch.testing.assert_close(found, expected / hits.clamp(min=1)[:, None])
    whole = ideal_heatmaps(keypoints, scales, 6, 7, presence=torch.ones_like(presence))
    torch.testing.assert_close(whole, ideal_heatmaps(keypoints, scales, 6, 7))


@pytest.mark.parametrize("spread", [0.7, 3.0])
def test_ideal_heatmaps_spread_is_a_gaussian_at_each_pixel_weighted_by_scale(spread: float) -> None:
    scales = (1.0, 2.0)
    keypoints = torch.tensor([[[1.2, 2.9, 1.25], [5.5, 0.1, 2.0]]])
    found = ideal_heatmaps(keypoints, scales, 5, 7, spread=spread)
    for scale, shares in enumerate(((0.75, 0.0), (0.25, 1.0))):
        for row in range(5):
            for column in range(7):
                wanted = sum(
                    share * math.exp(-0.5 * ((column - x) ** 2 + (row - y) ** 2) / spread**2)
                    for share, (x, y) in zip(shares, ((1, 2), (5, 0)), strict=True)
                )
                assert found[0, scale, row, column].item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("spread", [-1.0, math.inf, math.nan])
def test_ideal_heatmaps_refuses_a_spread_that_is_no_length(spread: float) -> None:
    with pytest.raises(ValueError, match="spread"):
        ideal_heatmaps(torch.rand(1, 2, 3), (1.0,), 4, 4, spread=spread)
