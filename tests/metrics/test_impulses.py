from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.data import GaborConfig, GaborNoise
from mistnn.metrics import impulse_scores
from mistnn.ops.coordinates import boxes_at
from mistnn.records import Detections
from tests.metrics.scenes import as_tensors, images, random_images
from tests.reference import metrics as reference


def scores(found, true, radius=None):
    """Detections and boxes of side 20 around the places (x, y) of one image."""
    boxes = [torch.tensor([[*place, 20.0, 20.0] for place in places]).reshape(-1, 4) for places in (found, true)]
    return impulse_scores([Detections(boxes[0], torch.ones(len(found)))], boxes[1:], radius)


@given(images(), st.sampled_from([None, 0.0, 1.0, 2.5]))
@settings(max_examples=60, deadline=None)
def test_reference(cases, radius):
    detections, boxes, _ = as_tensors(cases)
    expected = reference.impulse_scores(cases, radius)
    assert tuple(impulse_scores(detections, boxes, radius)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("radius", [None, 2.0])
def test_reference_without_ties(radius):
    cases = random_images(12, seed=6)
    detections, boxes, _ = as_tensors(cases, with_labels=False)
    expected = reference.impulse_scores(cases, radius)
    assert tuple(impulse_scores(detections, boxes, radius)) == pytest.approx(expected)
    assert 0 < expected[2] < 5


@pytest.mark.parametrize(("x", "radius", "hit"), [(20, None, 1), (20.1, None, 0), (13, 3.0, 1), (13.1, 3.0, 0)])
def test_the_radius_is_inside(x, radius, hit):
    assert scores([(x, 10)], [(10, 10)], radius)[:2] == (hit, hit)
    assert scores([(x + 30, 40)], [(40, 40)], radius)[:2] == (hit, hit)


def test_the_distance_is_euclidean():
    assert scores([(13, 14)], [(10, 10)]).distance == 5.0
    assert scores([(13, 14)], [(10, 10)], 4.9).recall == 0.0


def test_a_detection_and_an_impulse_are_used_once():
    assert scores([(10, 10)], [(10, 10), (11, 10)]) == (1.0, 0.5, 0.0)
    assert scores([(10, 10), (10, 11)], [(10, 10)]) == (0.5, 1.0, 0.0)
    assert scores([(10, 10), (14, 10)], [(13, 10), (30, 10)], 5.0) == (0.5, 0.5, 1.0)


def test_micro_over_images():
    """1 of 1 and 1 of 3 make 2 of 4, not the mean of 1 and 1 / 3."""
    true = [torch.tensor([[10.0, 10, 20, 20]]), torch.tensor([[10.0, 10, 20, 20]] * 3)]
    found = [Detections(true[0], torch.ones(1)), Detections(true[0], torch.ones(1))]
    assert impulse_scores(found, true) == (1.0, 0.5, 0.0)


def test_nothing_found_and_nothing_there():
    nothing_found = scores([], [(10, 10)])
    assert math.isnan(nothing_found.precision) and nothing_found.recall == 0 and math.isnan(nothing_found.distance)
    nothing_there = scores([(10, 10)], [])
    assert nothing_there.precision == 0 and math.isnan(nothing_there.recall)


def test_chance_depends_on_the_radius():
    """Random places score high too: another image's impulses match within half a kernel."""
    noise = GaborNoise(GaborConfig(), "test", None)
    places = [torch.from_numpy(noise.impulses(index).positions) for index in range(20)]
    boxes = [boxes_at(each, 20.0) for each in places]
    others = [Detections(each, torch.ones(30)) for each in boxes[1:] + boxes[:1]]
    assert impulse_scores(others, boxes).recall > 0.75
    assert impulse_scores(others, boxes, radius=3.0).recall < 0.3
    assert impulse_scores([Detections(each, torch.ones(30)) for each in boxes], boxes) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("radius", [-1.0, math.inf, math.nan])
def test_bad_radius(radius):
    with pytest.raises(ValueError, match=str(radius)):
        scores([(10, 10)], [(10, 10)], radius)
