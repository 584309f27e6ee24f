"""Filling a table of the paper, with tiny experiments in place of the presets."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mistnn.cli import reproduce
from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.experiments import Experiment, check, evaluate_stored, read_log, train
from mistnn.experiments.readout import tune_readout
from mistnn.models.air import AirStepConfig
from mistnn.models.conncomp import ConnCompStepConfig
from mistnn.models.mist import MistConfig
from mistnn.models.rivals import GridConfig, RivalStepConfig
from mistnn.models.spair import SpairStepConfig
from mistnn.presets import PRESETS, Preset
from mistnn.reproduce import fill, results_page
from mistnn.reproduce import tables as paper_tables
from mistnn.reproduce.fill import Budget, experiment_of, fill_table
from mistnn.reproduce.ledger import make_entry, read_entry, read_ledger, write_entry
from mistnn.reproduce.protocol import UNTUNED
from mistnn.reproduce.results_page import table_lines
from mistnn.reproduce.table import Row, Size, Table
from mistnn.reproduce.tables import TABLES, find_table, rows_of
from tests.experiments.tiny import TINY

GRID = dataclasses.replace(
    TINY, model=GridConfig(cells=2, patch_size=16, encoder=TINY.model.encoder, decoder=4), step=RivalStepConfig()
)
SIZE = Size(images=4, loop=(2, 3))
MIST_ROW = Row("MIST", "tiny", "tiny-mist", (0.9, None), unknown_k=True)
TABLE = Table("table9", "Table 9: tiny", ("iou50", "rmse"), (MIST_ROW,), size=SIZE, tuned=True)
GRIDS = Table("table8", "Table 8: tiny", ("iou50", "rmse"), (Row("Grid", "tiny", "tiny-grid", (None, 0.1)),), size=SIZE)
SILENT: dict[str, Callable[[str], None]] = {"say": lambda text: None}


@pytest.fixture(autouse=True)
def _tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"tiny-mist": Preset("tiny-mist", "", TINY), "tiny-grid": Preset("tiny-grid", "", GRID)}
    for module in (fill, results_page):
        monkeypatch.setattr(module, "find_preset", lambda name: {**PRESETS, **tiny}[name])
    monkeypatch.setattr(MistConfig, "reading_strengths", (10.0, 1.0))
    monkeypatch.setattr(MistConfig, "reading_windows", (5,))
    for name in ("TUNING_IMAGES", "SMOKE_STEPS", "SMOKE_BATCH", "SMOKE_IMAGES"):
        monkeypatch.setattr(fill, name, 2)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.command)
@pytest.mark.parametrize("budget", ["quick", "full"])
def test_every_row_is_an_experiment_that_fits(table: Table, budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "SMOKE_STEPS", 20)
    for row in table.rows:
        made, preset = experiment_of(table, row, budget, 2, None), PRESETS[row.name].experiment
        check(made)
        assert made.train.seed == 2 and made.model == preset.model
        own = (preset.train.steps, preset.train.batch_size)
        steps, batch = (20, 2) if budget == "quick" else table.size.loop or own
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
    """But ConnComp, whose ten batches are a search for a threshold: its hours are not those of a training."""
    for row in find_table("spair").rows:
        made, preset = experiment_of(find_table("spair"), row, "full", 0, None), PRESETS[row.name].experiment
        assert made.train.batch_size == 32
        learns = not isinstance(made.step, ConnCompStepConfig)
        assert made.train.steps == (8000 if learns else preset.train.steps) and (learns or made.train.steps == 10)
        check_schedule(made.step, preset.step, made.train.steps / preset.train.steps, made.train.steps)


def test_fills_and_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, runs, said = tmp_path / "results", tmp_path / "runs", []
    for table in (TABLE, GRIDS):
        assert fill_table(table, "full", 2, results, runs, say=said.append) == 2
    entries = read_ledger(results)
    assert [entry.name for entry in entries] == ["tiny-grid"] * 2 + ["tiny-mist"] * 2
    for entry in entries:
        assert (entry.steps, entry.batch_size, entry.images, entry.seed) == (2, 3, 4, 0)
        assert "--budget full" in entry.command and not entry.differs
        assert bool(entry.reading) == (entry.name == "tiny-mist")
    assert {entry.train_seed for entry in entries} == {0, 1}

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(fill, "train", never)
    for table in (TABLE, GRIDS):
        assert fill_table(table, "full", 2, results, runs, say=said.append) == 0
    assert sum("already" in line for line in said) == 4
    lines = table_lines(TABLE, entries)
    assert len(lines) == 3 and lines[2].startswith("| MIST | tiny | 2 | 0.900 |")


def test_all_with_a_strength_are_read_by_the_search_of_mist_tune(tmp_path: Path) -> None:
    """The entry says what was chosen, and its metrics are those of the model that `mist tune` would write."""
    fill_table(TABLE, "full", 1, tmp_path / "results", tmp_path / "runs", **SILENT)
    (entry,) = read_ledger(tmp_path / "results")
    tuned = tune_readout(tmp_path / "runs" / "tiny-mist-seed0", tmp_path / "own", 2, **SILENT)
    assert entry.reading == f"{tuned.reading}: the best of 2 on 2 validation images"
    assert f"Read at {entry.reading}, by the search of `mist tune`." in entry.note
    assert (tmp_path / "runs" / "tiny-mist-seed0-read" / "model.safetensors").is_file()
    expected = evaluate_stored(tmp_path / "own", 4, 0)
    assert entry.metrics["iou50"] == pytest.approx(expected["iou50"], abs=1e-4)
    for table in TABLES:
        assert table.tuned == (table.command in ("table1", "table2", "table3", "table5"))


def test_runs_read_otherwise_are_measured_again_and_never_averaged(tmp_path: Path) -> None:
    arguments = ("full", 1, tmp_path / "results", tmp_path / "runs")
    fill_table(TABLE, *arguments, **SILENT)
    file = tmp_path / "results" / "tiny-mist-seed0.json"
    entry = read_entry(file)
    untuned = dataclasses.replace(entry, reading="", metrics={"iou50": 0.125, "rmse": 0.5})
    other = dataclasses.replace(untuned, differs="of other data", train_seed=5, metrics={"iou50": 0.25})
    assert table_lines(TABLE, [untuned, entry, other])[2:] == [
        table_lines(TABLE, [entry])[2],
        "| MIST (*other protocol: of other data*) | tiny | 1 | 0.900 | 0.250 | - | not run |",
        f"| MIST (*other protocol: {UNTUNED}*) | tiny | 1 | 0.900 | 0.125 | - | 0.500 |",
    ]
    assert "| MIST | tiny | 0 | 0.900 | not run | - | not run |" in table_lines(TABLE, [untuned])
    assert table_lines(TABLE._replace(tuned=False), [untuned])[2].startswith("| MIST | tiny | 1 | 0.900 | 0.125")
    for old in (untuned, dataclasses.replace(entry, differs="of other data")):
        write_entry(old, file)
        assert fill_table(TABLE, *arguments, **SILENT) == 1
        assert read_entry(file).metrics == entry.metrics, "measured again, and the old one is kept beside it"
    assert read_entry(file.with_name("tiny-mist-seed0-earlier.json")) == untuned
    assert read_entry(file.with_name("tiny-mist-seed0-earlier2.json")).differs == "of other data"


def test_shipped_weights_are_measured_again_and_the_entry_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "shipped_names", lambda: ("tiny-grid",))
    shipped = tmp_path / "shipped"
    train(GRID, shipped)
    monkeypatch.setattr(fill, "evaluate_stored", lambda weights, *more, **options: evaluate_stored(shipped, 3))
    monkeypatch.setattr(fill, "make_entry", lambda weights, *more: make_entry(shipped, *more))
    fill_table(GRIDS, "full", 1, tmp_path / "results", tmp_path / "runs", **SILENT)
    (entry,) = read_ledger(tmp_path / "results")
    assert entry.note == "Measures again the weights that ship with the package; trains nothing."
    assert not (tmp_path / "runs").exists()
    curve = {"rmse": [(1.0, 0.5)]}
    file = tmp_path / "results" / "tiny-grid-seed0.json"
    write_entry(dataclasses.replace(entry, curve=curve, differs="of other data"), file)
    fill_table(GRIDS, "full", 1, tmp_path / "results", tmp_path / "runs", **SILENT)
    assert read_entry(file).curve == curve, "the training is the same"


def test_a_smoke_test_leaves_no_entry(tmp_path: Path) -> None:
    said: list[str] = []
    for table in (TABLE, GRIDS):
        assert fill_table(table, "quick", 1, tmp_path / "results", tmp_path / "runs", say=said.append) == 1
    assert not (tmp_path / "results").exists()
    assert [line.partition(":")[0] for line in said] == ["tiny-mist, seed 0", "tiny-grid, seed 0"]
    assert read_log(tmp_path / "runs" / "tiny-grid-quick-seed0")[-1]["step"] == 2


@pytest.mark.parametrize("tables", [(GRIDS,), pytest.param((TABLE, GRIDS), marks=pytest.mark.slow)], ids=["one", "two"])
def test_several_at_a_time_make_the_same_table(tmp_path: Path, tables: tuple[Table, ...]) -> None:
    alone, together, said = tmp_path / "alone", tmp_path / "together", []
    for table in tables:
        fill_table(table, "full", 2, alone, tmp_path / "a", **SILENT)
        assert fill_table(table, "full", 2, together, tmp_path / "b", say=said.append, jobs=2) == 2
    assert [line[:6] for line in said if " trained: " in line] == ["1 of 2", "2 of 2"] * len(tables)
    first, second = (
        {(entry.name, entry.train_seed): entry.metrics for entry in read_ledger(folder)} for folder in (alone, together)
    )
    assert first == second and len(first) == 2 * len(tables)
    (together / "tiny-grid-seed0.json").unlink()
    smaller = GRIDS._replace(size=SIZE._replace(loop=(2, 2)))
    with pytest.raises(MistError, match="to train it anew, remove .*tiny-grid-seed0"):
        fill_table(smaller, "full", 2, together, tmp_path / "b", say=said.append, jobs=2)


def test_when_a_training_fails_those_in_the_queue_never_begin(tmp_path: Path) -> None:
    seeds = range(5)
    filler = fill.Filler(GRIDS, "full", tmp_path / "results", tmp_path / "runs", None, print, None)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny-grid-seed0").write_text("a file where the run's folder should be")
    with pytest.raises(MistError, match="to train it anew, remove .*tiny-grid-seed0"):
        filler._train_in_processes([(GRIDS.rows[0], seed) for seed in seeds], jobs=1)
    # One is always handed to the process before it asks.
    assert not [seed for seed in seeds[2:] if (tmp_path / "runs" / f"tiny-grid-seed{seed}").exists()]


def test_a_table_without_k_measures_again_what_another_table_trained(tmp_path: Path) -> None:
    arguments = ("full", 1, tmp_path / "results", tmp_path / "runs", "mist")
    fill_table(TABLE, *arguments, **SILENT)
    file = tmp_path / "results" / "tiny-mist-seed0.json"
    entry = read_entry(file)
    assert {"ap50_free_k", "ap50_fixed_k", "count_error_free_k", "threshold"} <= entry.metrics.keys()
    older = {name: value for name, value in entry.metrics.items() if not name.endswith("_k")}
    write_entry(dataclasses.replace(entry, metrics=older), file)
    assert fill_table(TABLE, *arguments, **SILENT) == 0
    assert fill_table(TABLE._replace(columns=(*TABLE.columns, "ap50_free_k")), *arguments, **SILENT) == 1
    assert read_entry(file).metrics == entry.metrics and len(read_ledger(tmp_path / "results")) == 1


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run folder with a checkpoint and no entry is resumed, not begun again."""
    real, resumed = fill.train, []

    def train(experiment: Experiment, out: Path, resume: bool) -> object:
        resumed.append(resume)
        return real(experiment, out, resume=resume)

    monkeypatch.setattr(fill, "train", train)
    fill_table(GRIDS, "full", 1, tmp_path / "a", tmp_path / "runs", **SILENT)
    fill_table(GRIDS, "full", 1, tmp_path / "b", tmp_path / "runs", **SILENT)
    assert resumed == [False, True]
    assert [entry.name for entry in read_ledger(tmp_path / "b")] == ["tiny-grid"]


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny-grid-seed0"
    fill_table(GRIDS, "full", 1, tmp_path / "a", tmp_path / "runs", **SILENT)
    for entry in folder.iterdir():
        if entry.name not in ("config.json", "metrics.jsonl"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    fill_table(GRIDS, "full", 1, tmp_path / "b", tmp_path / "runs", **SILENT)
    first, second = (read_ledger(tmp_path / name)[0].metrics for name in "ab")
    assert first == second


def test_a_run_of_another_size_is_named(tmp_path: Path) -> None:
    fill_table(GRIDS, "full", 1, tmp_path / "a", tmp_path / "runs", **SILENT)
    smaller = GRIDS._replace(size=SIZE._replace(loop=(2, 2)))
    with pytest.raises(MistError, match="to train it anew, remove .*tiny-grid-seed0"):
        fill_table(smaller, "full", 1, tmp_path / "b", tmp_path / "runs", **SILENT)


def test_an_interrupted_row_stops_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: object, **options: object) -> object:
        return SimpleNamespace(interrupted=True)

    monkeypatch.setattr(fill, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        fill_table(TABLE, "full", 1, tmp_path / "a", tmp_path / "runs", **SILENT)
    assert not (tmp_path / "a").exists()


def test_the_command_fills_the_table_and_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paper_tables, "TABLES", (GRIDS,))
    monkeypatch.setattr(reproduce, "TABLE_NAMES", ("table8",))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    assert main(["reproduce", "table8", "--only", "grid", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "1 run works: a smoke test, without entries. `--budget full` measures table8" in said and "|" not in said
    assert not (tmp_path / "docs" / "results.md").exists() and not (tmp_path / "results").exists()
    assert main(["reproduce", "table8", "--budget", "full", "--seeds", "1", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "| Grid | tiny | 1 |" in said and "1 new entries in results" in said
    assert "**tiny-grid**" in (tmp_path / "docs" / "results.md").read_text()
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
