"""The configurations of MIST build their systems and check themselves."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mistnn.errors import MistError
from mistnn.models import mist
from mistnn.models.mist import LiftedStepConfig, MistConfig, NaturalMistConfig, NaturalStepConfig, SupervisedStepConfig
from mistnn.nn.backbones import BackboneConfig
from mistnn.nn.lift import lift
from tests.models.mist.toys import JOINT, TOY, noise, toy
from tests.models.natural import MIST as NATURAL


def test_kinds_are_the_stored_names():
    assert [kind.kind for kind in mist.MODELS] == ["mist", "natural-mist", "dense-mist"]
    assert [kind.kind for kind in mist.STEPS] == ["lifted", "supervised", "natural-lifted", "dense-counts"]


@pytest.mark.parametrize(
    ("model", "step", "network", "trainer"),
    [
        (TOY, LiftedStepConfig(), mist.Mist, mist.LiftedStep),
        (TOY, SupervisedStepConfig(), mist.Mist, mist.SupervisedStep),
        (NATURAL, NaturalStepConfig(), mist.NaturalMist, mist.NaturalStep),
    ],
)
def test_configurations_build_their_systems(model, step, network, trainer):
    built = model.build()
    assert type(built) is network and built.config is model
    assert type(step.build(built)) is trainer


def test_a_step_refuses_the_other_network():
    with pytest.raises(MistError, match="'natural-mist' can't be trained by a step of kind 'lifted'"):
        LiftedStepConfig().check_model(NATURAL)


@pytest.mark.parametrize("kind", [LiftedStepConfig, SupervisedStepConfig, NaturalStepConfig])
def test_the_rates_fall_over_the_whole_run(kind):
    config, model = kind(decay=0.5), (NATURAL if kind is NaturalStepConfig else TOY).build()
    with pytest.raises(MistError, match="step.decay_steps"):
        config.build(model)
    assert config.for_run(70).decay_steps == 70 and kind(decay=0.5, decay_steps=9).for_run(70).decay_steps == 9
    config.for_run(70).build(model)


def test_a_stored_configuration_has_no_path():
    config = dataclasses.replace(NATURAL, backbone=BackboneConfig(weights="/somewhere/else/resnet.pth"))
    assert config.portable().backbone.weights == "resnet.pth"
    assert NATURAL.portable() == NATURAL and TOY.portable() is TOY


def test_impossible_values_are_named():
    for base, wrong, words in (
        (TOY, {"channels": 2}, "model.channels=2 must be 1 or 3"),
        (TOY, {"k": 0}, "model.k=0 must be 1 or more"),
        (TOY, {"box_size": float("inf")}, "model.box_size=inf"),
        (TOY, {"softmax_window": 4}, "model.softmax_window=4 must be odd"),
        (TOY, {"scales": (1.0, 1.0)}, "rising order"),
        (TOY, {"scales": ()}, "rising order"),
        (TOY, {"scales": (0.0, 1.0)}, r"model.scales=\(0.0, 1.0\) must be above 0"),
        (TOY, {"patch_size": 9}, "multiple of 8"),
        (TOY, {"class_names": ("a", "a")}, "distinct"),
        (LiftedStepConfig(), {"keypoint_step": -1.0}, "step.keypoint_step=-1.0 must be 0 or more"),
        (LiftedStepConfig(), {"penalty": 1.0}, "diverges"),
        (LiftedStepConfig(), {"task_rate": 0.0}, "step.task_rate=0.0 must be above 0"),
        (LiftedStepConfig(), {"decay": 1.5}, "step.decay=1.5 must be from 0 to 1"),
    ):
        with pytest.raises(MistError, match=words):
            dataclasses.replace(base, **wrong)


@pytest.mark.plain
def test_unknown_words_are_named():
    for kind, wrong, words in (
        (LiftedStepConfig, {"precision": "half"}, "step.precision='half' must be auto or float32 or bfloat16"),
        (LiftedStepConfig, {"order": "random"}, "step.order='random' must be keypoints-first or task-first"),
        (NaturalMistConfig, {"head": "deep"}, "model.head='deep' must be paper or released"),
    ):
        with pytest.raises(MistError, match=words):
            kind(**wrong)


def test_lift_descends_a_known_objective():
    """On the distance to a target, with a limit and a penalty, written out for two steps."""
    anchors, target = torch.zeros(1, 1, 2), torch.tensor([[[3.0, 4.0]]])
    options = {"low": torch.zeros(2), "high": torch.tensor([9.0, 1.5])}
    moved = lift(
        anchors, lambda at: (at - target).square().sum((1, 2)), steps=2, rate=0.1, reach=0.5, penalty=0.0, **options
    )
    torch.testing.assert_close(moved, target / 5)  # twice 0.5 towards the target
    moved = lift(
        anchors, lambda at: (at - target).square().sum((1, 2)), steps=2, rate=0.25, reach=0.0, penalty=1.0, **options
    )
    # To (1.5, 2), clamped to (1.5, 1.5); then by 0.25 x 2 x ((1.5, 2.5) - (1.5, 1.5)), clamped again.
    torch.testing.assert_close(moved, torch.tensor([[[1.5, 1.5]]]))
    assert not moved.requires_grad


def test_reconstruction_from_detections_is_that_of_their_keypoints():
    model, images = toy(JOINT).eval(), noise(2).images
    with torch.no_grad():
        found = model.detect(images)
        keypoints = torch.cat((torch.stack([one.boxes[:, :2] for one in found]), torch.ones(2, 2, 1)), dim=-1)
        expected = model.reconstruct(images, keypoints)
        torch.testing.assert_close(model.reconstruct_from(images, found), expected)
    with pytest.raises(ValueError, match="no decoder"):
        toy().reconstruct_from(images, found)


@pytest.mark.parametrize("config", [TOY, NATURAL], ids=["digits", "photographs"])
def test_all_images_have_the_same_k(config):
    model = config.build().eval()
    with pytest.raises(ValueError, match="give k as an int"):
        model.explain(torch.rand(1, config.channels, 64, 64), torch.tensor([1]))


def test_digits_are_the_default():
    assert MistConfig().class_names == tuple("0123456789") and MistConfig().kind == "mist"
