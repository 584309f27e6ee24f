"""Filling a table of the paper, with tiny experiments in place of the presets."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mistnn.cli import reproduce
from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.experiments import Experiment, check
from mistnn.models.air import AirStepConfig
from mistnn.models.conncomp import ConnCompStepConfig
from mistnn.models.rivals import GridConfig, RivalStepConfig
from mistnn.models.spair import SpairStepConfig
from mistnn.presets import PRESETS, Preset
from mistnn.reproduce import fill, results_page
from mistnn.reproduce import tables as paper_tables
from mistnn.reproduce.fill import Budget, experiment_of, fill_table
from mistnn.reproduce.ledger import QUICK, read_entry, read_ledger, write_entry
from mistnn.reproduce.results_page import table_lines
from mistnn.reproduce.table import Row, Size, Table
from mistnn.reproduce.tables import TABLES, find_table, rows_of
from tests.experiments.tiny import TINY

GRID = dataclasses.replace(
    TINY, model=GridConfig(cells=2, patch_size=16, encoder=TINY.model.encoder, decoder=4), step=RivalStepConfig()
)
SIZE = Size(steps=2, batch=3, images=5, full_images=4)
MIST_ROW = Row("MIST", "tiny", "tiny-mist", (0.9, None), unknown_k=True)
TABLE = Table("table9", "Table 9: tiny", ("iou50", "rmse"), (MIST_ROW,), size=SIZE, searched_by="both")
GRIDS = Table("table8", "Table 8: tiny", ("iou50", "rmse"), (Row("Grid", "tiny", "tiny-grid", (None, 0.1)),), size=SIZE)


@pytest.fixture(autouse=True)
def _tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"tiny-mist": Preset("tiny-mist", "", TINY), "tiny-grid": Preset("tiny-grid", "", GRID)}
    for module in (fill, results_page):
        monkeypatch.setattr(module, "find_preset", lambda name: {**PRESETS, **tiny}[name])
    monkeypatch.setattr(fill, "SEARCH_IMAGES", 5)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.command)
@pytest.mark.parametrize("budget", ["quick", "full"])
def test_every_row_is_an_experiment_that_fits(table: Table, budget: Budget) -> None:
    for row in table.rows:
        made, preset = experiment_of(table, row, budget, 2, None), PRESETS[row.name].experiment
        check(made)
        assert made.train.seed == 2 and made.model == preset.model
        own = (preset.train.steps, preset.train.batch_size)
        steps, batch = (table.size.steps, table.size.batch) if budget == "quick" else table.size.full or own
        assert (made.train.steps, made.train.batch_size) == (min(steps, own[0]), batch)
        check_schedule(made.step, preset.step, made.train.steps / preset.train.steps, made.train.steps)


def check_schedule(made: object, preset: object, share: float, steps: int) -> None:
    """A schedule ends with the run, or is as many times shorter as the run is."""
    if isinstance(made, AirStepConfig) and isinstance(preset, AirStepConfig):
        assert made.annealing == pytest.approx(preset.annealing * share)
    elif isinstance(made, ConnCompStepConfig):
        assert made == preset
    else:
        constant = getattr(preset, "decay", 0.0) == 1
        assert made.for_run(steps).decay_steps == (None if constant else steps)
    if isinstance(made, SpairStepConfig) and isinstance(preset, SpairStepConfig):
        assert made.schedule_scale == pytest.approx(preset.schedule_scale * share)
        assert made.wheels * made.schedule_scale == pytest.approx(preset.wheels * preset.schedule_scale, abs=1)


def test_the_systems_of_a_table_of_one_size_see_as_many_images() -> None:
    for budget, loop in (("quick", (2000, 32)), ("full", (8000, 32))):
        for row in find_table("spair").rows:
            made, preset = experiment_of(find_table("spair"), row, budget, 0, None), PRESETS[row.name].experiment
            assert made.train.batch_size == 32
            learns = not isinstance(made.step, ConnCompStepConfig)
            assert made.train.steps == (loop[0] if learns else preset.train.steps)
            check_schedule(made.step, preset.step, made.train.steps / preset.train.steps, made.train.steps)


def test_fills_keeps_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, runs, said = tmp_path / "results", tmp_path / "runs", []
    for table in (TABLE, GRIDS):
        assert fill_table(table, "quick", 2, results, runs, say=said.append) == 2
    entries = read_ledger(results)
    tries = [entry for entry in entries if entry.name.startswith("search-")]
    assert [entry.name for entry in tries] == [f"search-tiny-mist-{factor}" for factor in ("x0.3", "x1", "x3")]
    entries = [entry for entry in entries if entry not in tries]
    assert [entry.name for entry in entries] == ["tiny-grid-quick"] * 2 + ["tiny-mist-quick"] * 2
    tried = {entry.name.removeprefix("search-tiny-mist-"): entry.metrics["both"] for entry in tries}
    best = max(tried, key=lambda factor: (tried[factor], factor == "x1"))
    assert f"rates {best} of" in entries[2].note and "rates" not in entries[0].note
    for entry in entries:
        assert (entry.steps, entry.batch_size, entry.images, entry.seed) == (2, 3, 5, 0)
        assert "Quick size: 2 steps of 3 images" in entry.note and "--budget quick" in entry.command
    assert {entry.train_seed for entry in entries} == {0, 1}

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(fill, "train", never)
    for table in (TABLE, GRIDS):
        assert fill_table(table, "quick", 2, results, runs, say=said.append) == 0
    assert sum("already" in line for line in said) == 4
    assert not (runs / "tiny-grid-quick-x3-seed0").exists(), "what does not read is not searched"
    lines = table_lines(TABLE, entries, QUICK)
    assert len(lines) == 3 and lines[2].startswith("| MIST | tiny | 2 | 0.900 |")
    assert "not run" in table_lines(TABLE, entries)[2]


@pytest.mark.parametrize("tables", [(GRIDS,), pytest.param((TABLE, GRIDS), marks=pytest.mark.slow)], ids=["one", "two"])
def test_several_at_a_time_make_the_same_table(tmp_path: Path, tables: tuple[Table, ...]) -> None:
    alone, together, said = tmp_path / "alone", tmp_path / "together", []
    for table in tables:
        fill_table(table, "quick", 2, alone, tmp_path / "a", say=lambda text: None)
        assert fill_table(table, "quick", 2, together, tmp_path / "b", say=said.append, jobs=2) == 2
    assert [line[:6] for line in said if " trained: " in line] == [
        *(f"{place} of 3" for place in (1, 2, 3) if TABLE in tables),
        *(f"{place} of 2" for place in (1, 2) * len(tables)),
    ]
    first, second = (
        {(entry.name, entry.train_seed): entry.metrics for entry in read_ledger(folder)} for folder in (alone, together)
    )
    assert first == second and len(first) == (7 if TABLE in tables else 2)
    (together / "tiny-grid-quick-seed0.json").unlink()
    smaller = GRIDS._replace(size=SIZE._replace(batch=2))
    with pytest.raises(MistError, match="to train it anew, remove .*tiny-grid-quick-x1-seed0"):
        fill_table(smaller, "quick", 2, together, tmp_path / "b", say=said.append, jobs=2)


def test_when_a_training_fails_those_in_the_queue_never_begin(tmp_path: Path) -> None:
    seeds = range(5)
    filler = fill._Filler(GRIDS, "full", tmp_path / "results", tmp_path / "runs", None, print, None)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny-grid-seed0").write_text("a file where the run's folder should be")
    with pytest.raises(MistError, match="to train it anew, remove .*tiny-grid-seed0"):
        filler._train_in_processes([(GRIDS.rows[0], seed, "x1") for seed in seeds], jobs=1)
    # One is always handed to the process before it asks.
    assert not [seed for seed in seeds[2:] if (tmp_path / "runs" / f"tiny-grid-seed{seed}").exists()]


def test_nothing_read_keeps_the_presets_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "evaluate_stored", lambda *arguments, **options: {"both": 0.0, "images": 5.0})
    fill_table(TABLE, "quick", 1, tmp_path / "results", tmp_path / "runs", only="mist", say=lambda text: None)
    assert "Learning rates x1 of" in read_entry(tmp_path / "results" / "tiny-mist-quick-seed0.json").note


def test_a_table_without_k_measures_again_what_another_table_trained(tmp_path: Path) -> None:
    arguments = ("quick", 1, tmp_path / "results", tmp_path / "runs", "mist")
    fill_table(TABLE, *arguments, say=lambda text: None)
    file = tmp_path / "results" / "tiny-mist-quick-seed0.json"
    entry = read_entry(file)
    assert {"ap50_free_k", "ap50_fixed_k", "count_error_free_k", "threshold"} <= entry.metrics.keys()
    older = {name: value for name, value in entry.metrics.items() if not name.endswith("_k")}
    write_entry(dataclasses.replace(entry, metrics=older), file)
    assert fill_table(TABLE, *arguments, say=lambda text: None) == 0
    assert fill_table(TABLE._replace(columns=(*TABLE.columns, "ap50_free_k")), *arguments, say=lambda text: None) == 1
    assert read_entry(file).metrics == entry.metrics


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run folder with a checkpoint and no entry is resumed, not begun again."""
    real, resumed = fill.train, []

    def train(experiment: Experiment, out: Path, resume: bool) -> object:
        resumed.append(resume)
        return real(experiment, out, resume=resume)

    monkeypatch.setattr(fill, "train", train)
    fill_table(GRIDS, "quick", 1, tmp_path / "a", tmp_path / "runs", say=lambda text: None)
    fill_table(GRIDS, "quick", 1, tmp_path / "b", tmp_path / "runs", say=lambda text: None)
    assert resumed == [False, True]
    assert [entry.name for entry in read_ledger(tmp_path / "b")] == ["tiny-grid-quick"]


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny-grid-quick-x1-seed0"
    fill_table(GRIDS, "quick", 1, tmp_path / "a", tmp_path / "runs", say=lambda text: None)
    for entry in folder.iterdir():
        if entry.name not in ("config.json", "metrics.jsonl"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    fill_table(GRIDS, "quick", 1, tmp_path / "b", tmp_path / "runs", say=lambda text: None)
    first, second = (read_ledger(tmp_path / name)[0].metrics for name in "ab")
    assert first == second


def test_a_run_of_another_size_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_table(GRIDS, "quick", 1, tmp_path / "a", tmp_path / "runs", say=lambda text: None)
    smaller = GRIDS._replace(size=SIZE._replace(batch=2))
    with pytest.raises(MistError, match="to train it anew, remove .*tiny-grid-quick-x1-seed0"):
        fill_table(smaller, "quick", 1, tmp_path / "b", tmp_path / "runs", say=lambda text: None)


def test_an_interrupted_row_stops_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object, **options: object) -> object:
        return SimpleNamespace(interrupted=True)

    monkeypatch.setattr(fill, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        fill_table(TABLE, "quick", 1, tmp_path / "a", tmp_path / "runs", say=lambda text: None)
    assert not (tmp_path / "a").exists()


def test_a_try_without_its_metric_is_told(tmp_path: Path) -> None:
    arguments = ("quick", 1, tmp_path / "results", tmp_path / "runs", "mist")
    fill_table(TABLE, *arguments, say=lambda text: None)
    file = tmp_path / "results" / "search-tiny-mist-x1.json"
    write_entry(dataclasses.replace(read_entry(file), metrics={"iou50": 1.0}), file)
    (tmp_path / "results" / "tiny-mist-quick-seed0.json").unlink()
    with pytest.raises(MistError, match="search-tiny-mist-x1.json: the entry has no 'both': remove the file"):
        fill_table(TABLE, *arguments, say=lambda text: None)


def test_the_command_fills_the_table_and_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paper_tables, "TABLES", (GRIDS,))
    monkeypatch.setattr(reproduce, "TABLE_NAMES", ("table8",))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    assert main(["reproduce", "table8", "--seeds", "1", "--only", "grid"]) == 0
    said = capsys.readouterr().out
    assert "| Grid | tiny | 1 |" in said and "1 new entries in results" in said
    assert "**tiny-grid-quick**" in (tmp_path / "docs" / "results.md").read_text()
    for arguments, words in (
        (["--steps", "3"], "--steps"),
        (["--ledger", str(tmp_path / "docs" / "results.md")], "is not a folder"),
        (["--only", "nobody"], "no such system"),
    ):
        assert main(["reproduce", "table8", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_only() -> None:
    assert [row.name for row in rows_of(TABLES[2], "xie20")] == [
        "xie20-mnist-3", "xie20-mnist-hard", "xie20-stride4-mnist-hard"
    ]  # fmt: skip
    assert [row.name for row in rows_of(TABLES[1], "mist-mnist-hard")] == ["mist-mnist-hard"]
    assert len(rows_of(TABLES[0], None)) == len(TABLES[0].rows)
    assert [row.name for row in rows_of(TABLES[0], "esl16")] == ["esl16-mnist-easy", "esl16-mnist-hard"]
    with pytest.raises(MistError, match=r"no such system or preset; it has MIST, Grid, Ch.-wise, Esl16 \(AIR\), Zha18"):
        rows_of(TABLES[0], "spair")
    with pytest.raises(MistError, match="no table is called.*table1"):
        find_table("table7")
