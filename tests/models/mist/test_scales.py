"""The lifted step with several scales: the third coordinate of a keypoint."""

from __future__ import annotations

import pytest
import torch

from mistnn.errors import MistError
from mistnn.models.mist import LiftedStepConfig
from tests.models.mist.toys import JOINT, double_problem, finite_differences, lifted, noise, toy


@pytest.mark.parametrize("scale_step", [0.0, 1.0, 3.0])
def test_scale_moves_as_half_the_side_in_pixels(scale_step):
    """With several scales the third coordinate moves too: by (2 / box)^2 x step x gradient, since side = s x box."""
    model, batch, keypoints = double_problem(scales=(0.5, 1.0, 2.0))
    step = lifted(model, inner_steps=1, keypoint_step=0.05, reconstruction=0.5, scale_step=scale_step)
    moved = (keypoints - step.lift(batch, batch.images, keypoints)) / 0.05
    differences = finite_differences(step, batch, keypoints)
    torch.testing.assert_close(moved[..., :2], differences[..., :2], atol=1e-7, rtol=1e-4)
    expected = scale_step * (2 / model.config.box_size) ** 2 * differences[..., 2]
    torch.testing.assert_close(moved[..., 2], expected, atol=1e-7, rtol=1e-4)
    assert differences[..., 2].abs().min() > 1e-8


def test_scale_stays_between_the_ends():
    model, batch, keypoints = double_problem(scales=(0.5, 1.0, 2.0))
    found = lifted(model, keypoint_step=1e6, reconstruction=0.5).lift(batch, batch.images, keypoints)
    assert found[..., 2].min() >= 0.5 and found[..., 2].max() <= 2.0
    assert not torch.equal(found[..., 2], keypoints[..., 2])


def test_several_scales_learn_together():
    """The step with scales: finite scalars, the mean scale among them, and every heat-map weight has a gradient."""
    step = lifted(toy(JOINT, scales=(0.7, 1.0, 1.4)), reconstruction=0.5)
    logged = step(noise(), 0)
    assert all(value.isfinite() for value in logged.values()) and 0.7 <= logged["scale"] <= 1.4
    for name, part in step.model.heatmap_network.named_parameters():
        assert part.grad is not None and part.grad.isfinite().all()
        assert part.grad.any() or name == "score.bias", name


def test_the_penalty_must_not_throw_the_scale_about():
    LiftedStepConfig(keypoint_step=100.0, scale_step=4.0, penalty=0.0025)
    with pytest.raises(MistError, match="scale_step=4.0.*at most 0.0025"):
        LiftedStepConfig(keypoint_step=100.0, scale_step=4.0, penalty=0.01)
