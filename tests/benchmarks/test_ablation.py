"""The studies of several short trainings, with one step for each run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks import ablation, choices, off_centre, precision
from benchmarks.ablation import Variant, fill_ledger, variant_entry
from mistnn.experiments import Experiment, build, check
from mistnn.presets import find_preset
from mistnn.presets.mist.digits import EMBEDDED_THREE
from mistnn.reproduce.ledger import Entry, read_ledger
from tests.experiments.tiny import TINY

VARIANTS = [*off_centre.variants(), *choices.variants(), *precision.variants()]
TINY_VARIANT = Variant("off-centre-tiny", "tiny", TINY)


def test_every_cell_has_its_own_file() -> None:
    assert len(list(off_centre.variants())) == 8 and len(list(choices.variants())) == 9
    assert len({one.name for one in VARIANTS}) == len(VARIANTS) == len({one.note for one in VARIANTS})


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_is_an_experiment_that_starts(variant: Variant) -> None:
    made = variant.experiment.with_seed_and_steps(4, 9).resolved()
    check(made)
    assert (made.train.seed, made.data.seed, made.train.steps, made.step.decay_steps) == (4, 4, 9, 9)
    assert build(made).config == made.step


def test_off_centre_changes_what_it_says() -> None:
    demo = find_preset("demo-paper").experiment
    for cell in off_centre.variants():
        model, step = cell.experiment.model, cell.experiment.step
        joint = "joint" in cell.name
        assert step.reconstruction == (demo.step.reconstruction if joint else 0) and bool(model.decoder) == joint
        assert model.heatmap.start in cell.name
        assert model.patch_window == (off_centre.WINDOW if cell.name.endswith("window") else 0)
        assert cell.experiment.data == EMBEDDED_THREE, "the demo's scenes, digits as they are"


def test_choices_differ_from_the_base_in_one_thing() -> None:
    base, *others = choices.variants()
    for cell in others:
        changed = [
            name for name in ("model", "step") if getattr(cell.experiment, name) != getattr(base.experiment, name)
        ]
        assert len(changed) == 1 and cell.experiment.data == choices.SCENES


def test_writes_an_entry_and_skips_it_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    ledger = tmp_path / "new" / "results"
    names = ("iou50", "both", "offset", "rmse")

    def run() -> list[Entry]:
        entry = partial(variant_entry, TINY_VARIANT, "python -m benchmarks.off_centre", names, 1, 1, 4)
        return fill_ledger(ledger, {TINY_VARIANT.name: entry}, said.append)

    (entry,) = run()
    assert read_ledger(ledger) == [entry]
    assert [path.name for path in ledger.iterdir()] == ["off-centre-tiny.json"]
    assert (entry.name, entry.images, entry.steps, entry.batch_size) == ("off-centre-tiny", 4, 1, 4)
    assert entry.metrics.keys() == {"iou50", "both", "offset", "rmse", "iou50_worst", "both_worst", "iou50_seed0"}
    assert entry.metrics["iou50"] == entry.metrics["iou50_worst"] == entry.metrics["iou50_seed0"]
    assert 0 <= entry.metrics["offset"] < 30 and entry.train_seconds > 0
    assert entry.command == "python -m benchmarks.off_centre --seeds 1 --steps 1"
    before = (ledger / "off-centre-tiny.json").stat().st_mtime_ns

    def never(experiment: Experiment, images: int) -> dict[str, float]:
        raise AssertionError("measured again")

    monkeypatch.setattr(ablation, "measure", never)
    assert run() == []
    assert (ledger / "off-centre-tiny.json").stat().st_mtime_ns == before
    assert "already" in said[-1]


def test_mean_worst_and_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Experiment] = []

    def measured(experiment: Experiment, images: int) -> dict[str, float]:
        asked.append(experiment)
        seed = experiment.train.seed
        return {"iou50": (0.9, 0.3, 0.6)[seed], "both": (0.8, 0.1, 0.3)[seed], "offset": (1.0, 4.0, 1.0)[seed]}

    monkeypatch.setattr(ablation, "measure", measured)
    studies = {one.name: partial(variant_entry, one, "x", off_centre.METRICS, 3, 7) for one in off_centre.variants()}
    entries = fill_ledger(tmp_path, studies)
    assert len(entries) == 8 and len(read_ledger(tmp_path)) == 8 and len(asked) == 24
    assert [one.train.seed for one in asked[:3]] == [0, 1, 2] and {one.train.steps for one in asked} == {7}
    for entry in entries:
        expected = {"iou50": 0.6, "both": 0.4, "offset": 2.0, "iou50_worst": 0.3, "both_worst": 0.1}
        expected |= {"iou50_seed0": 0.9, "iou50_seed1": 0.3, "iou50_seed2": 0.6}
        assert entry.metrics == pytest.approx(expected)
