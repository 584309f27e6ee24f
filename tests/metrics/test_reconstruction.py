from __future__ import annotations

import math

import pytest
import torch

from mistnn.metrics import reconstruction_errors
from tests.metrics.scenes import random_pictures
from tests.reference import metrics as reference


@pytest.mark.parametrize(("number", "shape"), [(1, (1, 1, 1)), (3, (1, 4, 5)), (4, (3, 2, 2))])
def test_reference(number, shape):
    made, truth = random_pictures(number, seed=2, shape=shape)
    expected = reference.reconstruction_errors(made.flatten(1).tolist(), truth.flatten(1).tolist())
    assert tuple(reconstruction_errors(made, truth)) == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_what_the_comparisons_mean():
    _, truth = random_pictures(50, seed=3)
    black = reconstruction_errors(torch.zeros_like(truth), truth)
    assert black.rmse == pytest.approx(black.rmse_black)
    mean = reconstruction_errors(truth.mean(0, keepdim=True).expand_as(truth), truth)
    assert mean.rmse == pytest.approx(mean.rmse_mean, rel=1e-5) and mean.r2 == pytest.approx(0, abs=1e-5)
    perfect = reconstruction_errors(truth, truth)
    assert perfect.rmse == 0 and perfect.r2 == 1 and perfect.rmse_black > perfect.rmse_mean > 0


def test_images_that_do_not_vary():
    truth = torch.full((7, 1, 3, 3), 0.3)
    found = reconstruction_errors(truth + 0.1, truth)
    assert found.rmse == pytest.approx(0.1) and found.rmse_mean == pytest.approx(0, abs=1e-7)
    assert math.isnan(found.r2)


def test_range_of_the_images():
    truth = torch.rand(2, 1, 3, 3)
    reconstruction_errors(truth * 3 - 1, truth)  # only the images must lie in [0, 1]
    with pytest.raises(ValueError, match=r"got 255"):
        reconstruction_errors(truth, torch.full_like(truth, 255))


@pytest.mark.plain
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 1, 3, 3\) and \(2, 1, 3, 4\)"):
        reconstruction_errors(torch.rand(2, 1, 3, 3), torch.rand(2, 1, 3, 4))
