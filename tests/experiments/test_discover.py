"""Presets and parts of the unlabelled case."""

from __future__ import annotations

import dataclasses
import json

import cattrs
import pytest
import torch

from mistnn.data import GaborConfig, ScenesConfig
from mistnn.errors import MistError
from mistnn.experiments import Experiment, check, describe, evaluate, restore, train
from mistnn.models.mist import Mist
from mistnn.presets import PRESETS
from mistnn.weights import load_model
from mistnn.weights.strict import structure_whole
from tests.experiments.tiny import TINY

GABOR = GaborConfig(canvas=32, counts=(4,), margin=8.0, box_size=12.0, bandwidth=0.16, min_distance=5.0)
PLAIN = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, class_names=()))
SCALED = dataclasses.replace(PLAIN, model=dataclasses.replace(PLAIN.model, scales=(0.8, 1.2)))
NOISE = dataclasses.replace(PLAIN, model=dataclasses.replace(PLAIN.model, k=4), data=GABOR)


@pytest.mark.parametrize("experiment", [PLAIN, SCALED, NOISE], ids=["one scale", "two scales", "gabor"])
def test_train_and_evaluate_without_labels(experiment, tmp_path):
    result = train(experiment, tmp_path / "run")
    assert result.steps == 4
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "reconstruction" in lines[-1] and "classification" not in lines[-1]
    assert ("scale" in lines[-1]) == (len(experiment.model.scales) > 1)
    assert describe(restore(tmp_path / "run")) == describe(experiment)
    model = load_model(tmp_path / "run")
    assert isinstance(model, Mist)
    metrics = evaluate(model, experiment.data, "test", 6)
    assert {"iou50", "rmse", "rmse_black", "rmse_mean", "r2"} <= set(metrics) and "both" not in metrics
    assert ("precision" in metrics) == isinstance(experiment.data, GaborConfig)
    assert ("size_error" in metrics) == (len(experiment.model.scales) > 1)
    assert 0 < metrics["rmse_mean"] < metrics["rmse_black"]


def test_evaluation_is_that_of_the_forward_pass():
    """The error of ``evaluate`` is that of the model's own reconstruction of the same images."""
    torch.manual_seed(0)
    model = Mist(NOISE.model)
    metrics = evaluate(model, GABOR, "test", 3)
    from mistnn.data import GaborNoise

    samples = GaborNoise(GABOR, "test", 3)
    images = torch.stack([samples[index].image for index in range(3)])
    with torch.no_grad():
        expected = (model(images).reconstruction - images).square().mean().sqrt().item()
    assert metrics["rmse"] == pytest.approx(expected, rel=1e-5)


def test_perfect_impulses_and_chance():
    """A model that sits on the impulses has precision and recall 1, beyond what random places reach."""

    class Told(Mist):
        def detect_from_heatmaps(self, images, heatmaps, k=None):
            from mistnn.data import GaborNoise
            from mistnn.records import Detections

            samples = GaborNoise(GABOR, "test", 5)
            return [Detections(samples[index].boxes, torch.ones(4)) for index in range(len(images))]

    metrics = evaluate(Told(NOISE.model), GABOR, "test", 5)
    assert metrics["precision"] == metrics["recall"] == metrics["recall_close"] == 1
    assert metrics["recall_close_chance"] < 0.7 and metrics["precision_chance"] <= 1


def test_configurations_of_two_kinds_are_told_apart():
    for experiment in (PLAIN, NOISE):
        stored = json.loads(json.dumps(describe(experiment)))
        content = {"model": stored["model"], **stored["experiment"]}
        read = structure_whole(content, Experiment)
        assert type(read.data) is type(experiment.data)
        content["data"]["surprise"] = 1
        with pytest.raises(cattrs.BaseValidationError):
            structure_whole(content, Experiment)


def test_grey_noise_cannot_be_redrawn_on_black():
    with pytest.raises(MistError, match="background of 0.5"):
        check(dataclasses.replace(NOISE, data=dataclasses.replace(GABOR, ground="grey")))


def test_one_image_and_one_part_with_scales_trains(tmp_path):
    """The spread of a single scale is 0, not undefined."""
    model = dataclasses.replace(SCALED.model, k=1)
    loop = dataclasses.replace(SCALED.train, batch_size=1, steps=1)
    result = train(dataclasses.replace(SCALED, model=model, train=loop), tmp_path / "run")
    assert result.steps == 1


def test_classes_and_noise_do_not_fit():
    with pytest.raises(MistError, match="no classes"):
        check(dataclasses.replace(TINY, data=GABOR))


def test_presets_say_what_they_are():
    scaled = PRESETS["mist-discover-mnist-hard"].experiment
    assert isinstance(scaled.data, ScenesConfig)
    low, high = (scaled.model.box_size * scale for scale in (scaled.model.scales[0], scaled.model.scales[-1]))
    # Every size of the data is within IoU .5 of a box that the scales can say.
    for side in range(scaled.data.object_size[0], scaled.data.object_size[1] + 1):
        nearest = min(max(side, low), high)
        assert min(side / nearest, nearest / side) ** 2 > 0.5
    for name, preset in PRESETS.items():
        if "discover" in name:
            assert preset.experiment.model.class_names == () and preset.experiment.step.reconstruction == 1.0
