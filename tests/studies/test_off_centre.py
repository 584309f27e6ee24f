"""The study of the off-centre trap, with one step for each run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistnn.presets import Experiment, build, find_preset
from mistnn.presets.experiment import check
from mistnn.studies import off_centre
from mistnn.studies.ledger import read_ledger
from mistnn.studies.off_centre import WINDOW, Cell, cells, experiment_of, run_off_centre

JOINT = Cell("joint", "random", WINDOW)


def test_every_combination_once() -> None:
    found = list(cells())
    assert len(found) == len(set(found)) == 8
    assert len({cell.name for cell in found}) == 8, "two combinations would share a file"
    assert JOINT in found and JOINT.name == "off-centre-joint-random-window"


@pytest.mark.parametrize("cell", list(cells()), ids=lambda cell: cell.name)
def test_a_combination_changes_what_it_says_and_nothing_else(cell: Cell) -> None:
    demo, made = find_preset("demo").experiment, experiment_of(cell, 4, 9)
    check(made)
    assert made.step.reconstruction == (demo.step.reconstruction if cell.objective == "joint" else 0)
    assert bool(made.model.decoder) == (cell.objective == "joint")
    assert made.model.heatmap.start == cell.start and made.model.patch_window == cell.window
    assert (made.train.seed, made.data.seed, made.train.steps, made.step.decay_steps) == (4, 4, 9, 9)
    assert (made.data.canvas, made.data.counts, made.train.batch_size) == (48, (3,), off_centre.BATCH)
    assert build(made).config == made.step


def test_writes_an_entry_and_skips_it_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_centre, "cells", lambda: iter([JOINT]))
    monkeypatch.setattr(off_centre, "TEST_IMAGES", 4)
    monkeypatch.setattr(off_centre, "BATCH", 4)
    said: list[str] = []
    ledger = tmp_path / "new" / "results"
    (entry,) = run_off_centre(ledger, seeds=1, steps=1, say=said.append)
    assert read_ledger(ledger) == [entry]
    assert [path.name for path in ledger.iterdir()] == [f"{JOINT.name}.json"]
    assert (entry.name, entry.images, entry.steps, entry.batch_size) == (JOINT.name, 4, 1, 4)
    assert entry.metrics.keys() == {"iou50", "both", "offset", "iou50_worst", "both_worst", "iou50_seed0"}
    assert entry.metrics["iou50"] == entry.metrics["iou50_worst"] == entry.metrics["iou50_seed0"]
    assert 0 <= entry.metrics["offset"] < 30 and entry.train_seconds > 0
    assert entry.command == "mist reproduce off-centre --seeds 1 --steps 1"
    assert len(said) == 1 and said[0].startswith(f"{JOINT.name}: ")
    before = (ledger / f"{JOINT.name}.json").stat().st_mtime_ns

    def never(experiment: Experiment) -> dict[str, float]:
        raise AssertionError("measured again")

    monkeypatch.setattr(off_centre, "measure", never)
    assert run_off_centre(ledger, seeds=1, steps=1, say=said.append) == []
    assert (ledger / f"{JOINT.name}.json").stat().st_mtime_ns == before
    assert "kept" in said[-1]


def test_mean_worst_and_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Experiment] = []

    def measured(experiment: Experiment) -> dict[str, float]:
        asked.append(experiment)
        seed = experiment.train.seed
        return {"iou50": (0.9, 0.3, 0.6)[seed], "both": (0.8, 0.1, 0.3)[seed], "offset": (1.0, 4.0, 1.0)[seed]}

    monkeypatch.setattr(off_centre, "measure", measured)
    entries = run_off_centre(tmp_path, seeds=3, steps=7, say=lambda text: None)
    assert len(entries) == 8 and len(read_ledger(tmp_path)) == 8 and len(asked) == 24
    assert [one.train.seed for one in asked[:3]] == [0, 1, 2] and {one.train.steps for one in asked} == {7}
    for entry in entries:
        expected = {"iou50": 0.6, "both": 0.4, "offset": 2.0, "iou50_worst": 0.3, "both_worst": 0.1}
        expected |= {"iou50_seed0": 0.9, "iou50_seed1": 0.3, "iou50_seed2": 0.6}
        assert entry.metrics == pytest.approx(expected)
