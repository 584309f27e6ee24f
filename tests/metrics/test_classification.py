from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings

from mistnn.metrics import both, classified, classified_paper
from mistnn.metrics.scenes import pad_scenes
from tests.metrics.scenes import as_tensors, images
from tests.reference import metrics as reference


def histograms(predicted, true, classes=10):
    return tuple(torch.tensor(labels).bincount(minlength=classes)[None] for labels in (predicted, true))


@given(images())
@settings(max_examples=60, deadline=None)
def test_reference(cases):
    detections, boxes, labels = as_tensors(cases)
    predicted, true = pad_scenes(detections, boxes, labels).histograms()
    strict = classified(predicted, true)
    assert strict == pytest.approx(reference.classified(cases), nan_ok=True)
    assert classified_paper(predicted, true) == pytest.approx(reference.classified_paper(cases), nan_ok=True)
    if not math.isnan(strict):
        assert both(detections, boxes, labels) <= strict <= classified_paper(predicted, true) <= 1


def test_nine_zeros_predicted_as_ones():
    predicted, true = histograms([1] * 9, [0] * 9)
    assert classified(predicted, true) == 0.0
    assert classified_paper(predicted, true) == 1.0  # the defect of the released code


def test_nine_ones_predicted_as_zeros():
    predicted, true = histograms([0] * 9, [1] * 9)
    assert classified(predicted, true) == 0.0
    assert classified_paper(predicted, true) == 0.0


def test_by_hand():
    predicted, true = histograms([1, 1, 2, 3, 4], [0, 1, 2, 2, 4])
    assert classified(predicted, true) == pytest.approx(3 / 5)  # 1, 2 and 4; a zero and a two are lacking
    assert classified_paper(predicted, true) == pytest.approx(4 / 5)  # the zero is forgiven


def test_more_detections_than_objects():
    assert classified(*histograms([1, 1, 1, 2], [1, 2])) == 1.0


def test_images_do_not_lend_each_other():
    predicted, true = torch.tensor([[0, 2], [0, 0]]), torch.tensor([[0, 1], [0, 1]])
    assert classified(predicted, true) == 0.5


def test_no_objects():
    nothing = torch.zeros(2, 3, dtype=torch.int64)
    assert math.isnan(classified(nothing, nothing)) and math.isnan(classified_paper(nothing, nothing))


@pytest.mark.plain
def test_bad_shapes_are_named():
    for metric in (classified, classified_paper):
        with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
            metric(torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64))
