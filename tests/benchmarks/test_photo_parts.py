"""The comparison of the parts of MIST on photographs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import photo_parts
from benchmarks.photo_parts import PARTS, CentredFeatures, SupervisedStep, main, prepared, scores, studies, trained
from mistnn.data.folder.content import read_folder
from mistnn.data.folder.images import Flips
from mistnn.errors import MistError
from tests.experiments.test_photos import draw


def test_all_parts_are_trained_on_the_same_features(tmp_path: Path) -> None:
    folder = read_folder(draw(tmp_path / "own"))
    boxes, labels = np.array([[30.0, 30, 20, 20]]), np.array([0])
    boxed = folder._replace(images=tuple(one._replace(boxes=boxes, labels=labels) for one in folder.images))
    ready = prepared(boxed)
    for part in PARTS.values():
        model = trained(ready, part, 0, 2)
        metrics = scores(model, ready.test, part.counts)
        assert ("f1" in metrics) == part.counts and 0 <= metrics["f1_given"] <= 1
        assert (model.task_network is not None) == part.task
    first = ready.samples.order(0)
    ready.samples.seed = 1
    assert not np.array_equal(first, ready.samples.order(0))


def test_an_entry_has_means_and_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([{"f1_given": 0.5}, {"f1_given": 0.7}])
    monkeypatch.setattr(photo_parts, "trained", lambda *given: None)
    monkeypatch.setattr(photo_parts, "scores", lambda *given: next(values))
    folder = read_folder(draw(tmp_path / "own"))
    boxes, labels = np.array([[30.0, 30, 20, 20]]), np.array([0])
    boxed = folder._replace(images=tuple(one._replace(boxes=boxes, labels=labels) for one in folder.images))
    entry = studies(boxed, "own", 2, 5, "command")["photo-parts-own-search-only"]()
    assert entry.metrics == {"f1_given": 0.6, "f1_given_seed0": 0.5, "f1_given_seed1": 0.7}
    assert entry.steps == 5 and "no density" in entry.note


def test_boxes_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MistError, match="no test image has boxes"):
        prepared(read_folder(draw(tmp_path / "own")))
    monkeypatch.setattr(sys, "argv", ["x", "--name", "own"])
    with pytest.raises(SystemExit):
        main()


@pytest.mark.parametrize("flips", ["all", "mirror", "none"])
def test_centres_move_with_the_version(tmp_path: Path, flips: Flips) -> None:
    folder = read_folder(draw(tmp_path / "own"))
    dark = torch.zeros(3, 160, 224)
    dark[:, 36:44, 140:156] = 1  # centre x 148, y 40
    boxes, labels = np.array([[148.0, 40, 16, 8]]), np.array([0])
    marked = [
        one._replace(boxes=boxes, labels=labels, load=lambda channels: dark, height=160, width=224)
        for one in folder.images
    ]
    samples = prepared(folder._replace(images=tuple(marked))).samples
    samples.flips = flips
    samples._cache.clear()
    for view in range(samples.views):
        pixels = samples.images.prepared(0)
        shown = samples.changed(pixels, (samples.images.config.seed, 0, view)) if view else pixels
        weight = (shown - shown.amin()).sum(0)
        rows, columns = (torch.arange(side) + 0.5 for side in weight.shape)
        expected = torch.stack(((weight.sum(0) * columns).sum(), (weight.sum(1) * rows).sum())) / weight.sum()
        assert torch.allclose(CentredFeatures(samples).centres(0, view).float()[0], expected, atol=1.0)
    assert samples.views > 3


def test_the_bound_learns_the_true_centres(tmp_path: Path) -> None:
    folder = read_folder(draw(tmp_path / "own"))
    boxes, labels = np.array([[30.0, 50, 20, 20], [90.0, 20, 20, 20]]), np.array([0, 0])
    boxed = folder._replace(images=tuple(one._replace(boxes=boxes, labels=labels) for one in folder.images))
    ready = prepared(boxed)
    source = CentredFeatures(ready.samples)
    config: Any = ready.experiment.step.for_run(5)
    step = SupervisedStep(trained(ready, PARTS["search"], 0, 1), config)
    batch = source.batch(range(2))
    step(batch, 0)
    assert batch.boxes is not None
    found = step.keypoints(torch.zeros(2, 1, 99, 99), torch.ones(0), torch.ones(0))
    for places, centres in zip(found, batch.boxes, strict=True):
        assert torch.equal(places[:, 1:], (centres.flip(1) / step.model.config.stride).long())


def test_some_parts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(photo_parts, "report", lambda given, chosen: names.extend(chosen))
    root = str(draw(tmp_path / "own"))
    monkeypatch.setattr(sys, "argv", ["x", "--data-root", root, "--name", "own", "--only", "supervised", "dense"])
    main()
    assert names == ["photo-parts-own-dense", "photo-parts-own-supervised"]
