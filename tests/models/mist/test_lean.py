"""The step gives the same weights as a plain step with the arithmetic as published."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from benchmarks.step import PlainStep
from mistnn.models.mist import LiftedStep, LiftedStepConfig
from tests.models.mist.toys import JOINT, noise, toy, variant


def compare(model, config, batch):
    """In float64: Adam would turn float32's rounding noise around a zero gradient into full steps."""
    config = dataclasses.replace(config, heatmap_warmup=0)
    model.double()
    plain, lean = PlainStep(copy.deepcopy(model), config), LiftedStep(copy.deepcopy(model), config)
    with torch.no_grad():
        anchors = model.keypoints(model.heatmaps(batch.images)).keypoints
    assert anchors.dtype == torch.float64
    lifted = lean.lift(batch, batch.images, anchors)
    keypoints = plain(batch, 0)
    torch.testing.assert_close(lifted, keypoints, atol=1e-5, rtol=0)
    assert not torch.equal(keypoints, anchors)

    lean(batch, 0)
    for (name, expected), (_, found), (_, start) in zip(
        plain.model.named_parameters(), lean.model.named_parameters(), model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}")
        # A constant added to all scores does not change the heat map: this gradient is zero.
        if name != "heatmap_network.score.bias":
            assert (found - start).abs().max() > 5e-5, f"{name} did not move"


@pytest.mark.parametrize(("heatmap", "encoder"), [("paper", "small"), ("paper", "paper"), ("small", "small")])
def test_lean_is_plain(heatmap, encoder):
    compare(variant(heatmap, encoder), LiftedStepConfig(), noise(dtype=torch.float64))


@pytest.mark.parametrize(
    "choices",
    [{"reconstruction": 0.4}, {"penalty": 0.001, "inner_steps": 3}, {"keypoint_reach": 0.0, "confidence": 2.5}],
)
def test_lean_is_plain_with_options(choices):
    compare(toy(JOINT), LiftedStepConfig(**{"reconstruction": 0.1, **choices}), noise(dtype=torch.float64))


def test_the_plain_step_knows_its_limits():
    with pytest.raises(ValueError, match="task-first"):
        PlainStep(toy(), LiftedStepConfig(order="task-first", heatmap_warmup=0))
    with pytest.raises(ValueError, match="constant rates"):
        PlainStep(toy(), LiftedStepConfig())
