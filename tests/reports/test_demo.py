"""The demo: two steps of the real preset, and everything that it writes."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from mistnn.errors import MistError
from mistnn.experiments import evaluate, restore
from mistnn.models.mist import Mist
from mistnn.presets import find_preset
from mistnn.reports import demo
from mistnn.reports.demo import demo_experiment, run_demo
from mistnn.training import FitResult
from mistnn.weights import load_model
from tests.reports.test_demo_page import Page

KEYS = ["iou50", "classified", "both", "images", "seconds", "seed", "steps"]
IMAGES = 12


class Run(NamedTuple):
    folder: Path
    metrics: dict[str, float]


@pytest.fixture(scope="module", autouse=True)
def _few_images() -> Iterator[None]:
    """Two steps say nothing about quality, so few test images do; the training is the preset's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "TEST_IMAGES", IMAGES)
        patch.setattr(demo, "SHOWN_SCENES", 2)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("demo") / "run"
    return Run(folder, run_demo(folder, seed=3, steps=2))


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    return Page((run.folder / "report.html").read_text(encoding="utf-8"))


def test_metrics_are_what_the_issue_names(run: Run) -> None:
    written = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert list(written) == KEYS and written == run.metrics
    assert all(type(written[name]) is int for name in ("images", "seed", "steps"))
    assert (written["images"], written["seed"], written["steps"]) == (IMAGES, 3, 2)
    assert all(type(written[name]) is float and 0 <= written[name] <= 1 for name in ("iou50", "classified", "both"))
    assert written["both"] <= min(written["iou50"], written["classified"])
    assert 0 < written["seconds"] < 600


def test_metrics_are_those_of_the_saved_model(run: Run) -> None:
    model, experiment = load_model(run.folder), restore(run.folder)
    assert isinstance(model, Mist)
    measured = evaluate(model, experiment.data, "test", IMAGES)
    for name in ("iou50", "classified", "both"):
        assert run.metrics[name] == measured[name]


def test_the_folder_is_a_run(run: Run) -> None:
    names = {"config.json", "model.safetensors", "metrics.jsonl", "checkpoint", "report.html", "metrics.json"}
    assert {path.name for path in run.folder.iterdir()} == names
    assert restore(run.folder) == demo_experiment(3, 2).resolved()


def test_the_report_says_what_was_told_and_what_not(page: Page, run: Run) -> None:
    text = " ".join(" ".join(page.text).split())
    assert "How many of each digit it holds." in text
    assert "Where any digit is: no box and no point was used in training." in text
    assert "mist demo --seed 3 --steps 2" in text
    assert f"{run.metrics['both']:.0%}" in text
    for word in ("preset", "objective", "Counting loss", "Reconstruction loss", "Heat-map loss"):
        assert word in text


def test_the_report_is_one_page_with_pictures(page: Page) -> None:
    images = page.all("img")
    assert images and all((image["src"] or "").startswith("data:image/") for image in images)
    for tag in ("link", "iframe"):
        assert not page.all(tag)
    assert all("src" not in script for script in page.all("script"))


def test_a_run_is_kept_unless_forced_and_the_seed_decides(run: Run, tmp_path: Path) -> None:
    """One more run, which must give the same numbers, replaces another's folder."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text("{}")
    (out / "mine.txt").write_text("kept")
    with pytest.raises(MistError, match="already holds a run"):
        run_demo(out, seed=3, steps=2)
    assert {path.name for path in out.iterdir()} == {"config.json", "mine.txt"}
    again = run_demo(out, seed=3, steps=2, force=True)
    assert {**again, "seconds": 0} == {**run.metrics, "seconds": 0}
    assert restore(out) == restore(run.folder)
    assert (out / "mine.txt").read_text() == "kept"
    first, second = (load_model(folder).state_dict() for folder in (run.folder, out))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_seed_and_steps_go_everywhere_they_belong() -> None:
    preset = find_preset("demo").experiment
    assert demo_experiment(preset.train.seed, None) == preset, "without arguments it is the preset"
    other = demo_experiment(7, 11).resolved()
    assert (other.train.seed, other.data.seed, other.train.steps, other.step.decay_steps) == (7, 7, 11, 11)
    assert other.model == preset.model


def test_an_interrupted_run_writes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "train", lambda *arguments, **options: FitResult(1, 0.1, interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "run", steps=2)
    assert not (tmp_path / "run").exists()


def test_note_and_whole_time_are_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``start`` is when the command began, here a while before the training."""
    usual = demo_experiment(0, 1)
    short = dataclasses.replace(usual, train=dataclasses.replace(usual.train, batch_size=2))
    monkeypatch.setattr(demo, "demo_experiment", lambda seed, steps, task: short)
    monkeypatch.setattr("mistnn.experiments.mist.off_centre_note", lambda values, box_size: "they stand beside")
    metrics = run_demo(tmp_path / "run", steps=1, start=time.monotonic() - 3000)
    assert metrics["seconds"] > 3000
    text = " ".join(Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).text)
    assert "they stand beside" in text and re.search(r"In 5\d min \d+ s", text)


def test_the_unlabelled_demo(tmp_path: Path) -> None:
    """``--task discover``: nothing is classified, and the page shows the reconstructions."""
    metrics = run_demo(tmp_path / "run", seed=1, steps=1, task="discover")
    keys = ["iou50", "rmse", "rmse_black", "rmse_mean", "r2", "images", "seconds", "seed", "steps"]
    assert list(metrics) == keys == list(json.loads((tmp_path / "run" / "metrics.json").read_text()))
    assert restore(tmp_path / "run") == demo_experiment(1, 1, "discover").resolved()
    page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    assert "mist demo --task discover --seed 1 --steps 1" in text and "without a single label" in text
    for word in ("auto-encoder", "Reconstruction loss", "That it is made of three parts."):
        assert word in text
    for word in ("Counting loss", "How many of each digit"):
        assert word not in text
