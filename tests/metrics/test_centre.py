from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.metrics import centre_scores
from tests.metrics.scenes import as_tensors, images
from tests.reference import metrics as reference

BOX = [10.0, 10.0, 8.0, 4.0]


@given(images(), st.sampled_from([None, 0, 2]))
@settings(max_examples=60, deadline=None)
def test_reference(cases, background):
    found = centre_scores(*as_tensors(cases), background=background)
    assert tuple(found) == pytest.approx(reference.centre_scores(cases, background), nan_ok=True)


@pytest.mark.parametrize(
    ("x", "y", "hit"), [(10, 10, 1), (14, 10, 1), (14.01, 10, 0), (10, 12, 1), (10, 12.01, 0), (6, 8, 1), (5.9, 8, 0)]
)
def test_border_of_the_box_is_inside(x, y, hit):
    cases = [([[x, y, 100.0, 100.0]], [0.5], [1], [BOX], [1])]  # the size of the detection is irrelevant
    assert centre_scores(*as_tensors(cases)).recall == hit


def test_a_detection_is_used_once():
    assert centre_scores(*as_tensors([([BOX], [0.5], [1], [BOX, BOX], [1, 1])])) == pytest.approx((1.0, 0.5, 2 / 3))
    assert centre_scores(*as_tensors([([BOX, BOX], [0.5, 0.5], [1, 1], [BOX], [1])])) == pytest.approx((0.5, 1, 2 / 3))


def test_background_is_left_out():
    cases = [([BOX, BOX], [0.5, 0.5], [0, 1], [BOX, BOX], [0, 1])]
    assert centre_scores(*as_tensors(cases), background=0) == (1.0, 1.0, 1.0)
    wrong = [([BOX, BOX], [0.5, 0.5], [0, 0], [BOX, BOX], [0, 1])]
    found = centre_scores(*as_tensors(wrong), background=0)
    assert math.isnan(found.precision) and found.recall == 0.0 and found.f1 == 0.0


def test_the_class_must_agree():
    assert centre_scores(*as_tensors([([BOX], [0.5], [2], [BOX], [1])])) == (0.0, 0.0, 0.0)


def test_a_box_without_size_holds_no_centre():
    point = [10.0, 10.0, 0.0, 0.0]
    assert centre_scores(*as_tensors([([point], [0.5], [1], [point], [1])])).recall == 0.0
