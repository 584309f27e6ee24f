"""The comparison of the parts of MIST on photographs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import photo_parts
from benchmarks.photo_parts import PARTS, main, prepared, scores, studies, trained
from mistnn.data.folder.content import read_folder
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
