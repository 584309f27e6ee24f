"""The sizes of objects from features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mistnn.models.photos.extents import FAR, NEAR, learn_extent, measured_boxes, near_and_far


def ellipses(shape: tuple[int, int], *given: tuple[float, float, float, float]) -> Tensor:
    """1 inside ellipses (centre x and y, width and height, in cells), 0 elsewhere."""
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in shape), indexing="ij")
    inside = [((x - a) / (w / 2)) ** 2 + ((y - b) / (h / 2)) ** 2 <= 1 for a, b, w, h in given]
    return torch.stack(inside).any(0).float()


def test_an_ellipse_is_measured() -> None:
    extent = ellipses((40, 50), (20.0, 15, 14, 8))
    found = measured_boxes(torch.tensor([[21.0, 15.0]]), extent, 10)
    assert found[0, 0] == pytest.approx(20.5, abs=0.1)  # half the way to its middle
    assert found[0, 1:].tolist() == pytest.approx([15, 14, 8], abs=0.7)


def test_objects_that_touch_are_divided() -> None:
    """Each cell belongs to the nearest keypoint."""
    extent = ellipses((30, 40), (12.0, 15, 10, 10), (22.0, 15, 10, 10))
    alone = measured_boxes(torch.tensor([[12.0, 15]]), extent, 11)
    both = measured_boxes(torch.tensor([[12.0, 15], [22.0, 15]]), extent, 11)
    assert both[:, 2:].flatten().tolist() == pytest.approx([10] * 4, abs=0.5)
    assert alone[0, 2] > 14


def test_what_is_too_small_or_outside_keeps_the_usual_size() -> None:
    nothing = torch.zeros(20, 20)
    points = torch.tensor([[0.5, 0.5], [10.2, 9.9]])
    usual = torch.cat((points, torch.full((2, 2), 6.0)), 1)
    torch.testing.assert_close(measured_boxes(points, nothing, 6), usual)
    outside = torch.ones(20, 20).masked_fill(torch.arange(20) >= 10, -torch.inf)
    box = measured_boxes(torch.tensor([[7.0, 10.0]]), outside, 8)[0]
    assert box[2] < box[3] and box[0] + box[2] / 2 < 12
    assert measured_boxes(torch.zeros(0, 2), nothing, 6).shape == (0, 4)


def test_near_and_far() -> None:
    near, far = near_and_far(torch.tensor([[5.5, 5.5]]), (11, 11), 10)
    y, x = torch.meshgrid(torch.arange(11) - 5, torch.arange(11) - 5, indexing="ij")
    distance = (x**2 + y**2).sqrt()
    assert torch.equal(near, distance < NEAR * 10) and torch.equal(far, distance > FAR * 10)
    assert not (near & far).any() and near.any() and far.any()
    near, far = near_and_far(torch.zeros(0, 2), (3, 4), 10)
    assert not near.any() and far.all()


@pytest.mark.parametrize("shown", [True, False])
def test_the_map_is_learned_where_features_show_objects(shown: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    places = [torch.tensor([[10.0 + index, 12], [25, 14 + index]]) for index in range(6)]
    masks = [ellipses((30, 36), *((*place.tolist(), 8, 8) for place in points)) for points in places]

    def features(index: int) -> Tensor:
        noise = torch.randn(5, 30, 36, generator=torch.Generator().manual_seed(index))
        return torch.cat((noise, (masks[index] * 2 - 1)[None] + 0.1 * torch.randn(1, 30, 36, generator=generator)))

    found = learn_extent(features if shown else lambda index: features(index)[:5], places.__getitem__, 6, 8)
    assert (found.accuracy > 0.99) if shown else (0.35 < found.accuracy < 0.65)
    if shown:
        extent = torch.einsum("c,chw->hw", found.weight, features(0)) + found.bias
        assert measured_boxes(places[0], extent, 8)[:, 2:].flatten().tolist() == pytest.approx([8] * 4, abs=1)


def test_without_objects_nothing_is_learned() -> None:
    found = learn_extent(lambda index: torch.ones(3, 8, 8), lambda index: torch.zeros(0, 2), 4, 5)
    assert found.accuracy == 0 and not found.weight.any()
    one = learn_extent(lambda index: torch.rand(3, 20, 20), lambda index: torch.tensor([[5.0, 5.0]]), 1, 5)
    assert one.accuracy == 0  # no other image to try it on
