"""``mist reproduce all``: what is missing, how long it takes, and working through it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from mistnn.cli.main import main
from mistnn.errors import MistError
from mistnn.presets import find_preset
from mistnn.reproduce import everything
from mistnn.reproduce import tables as paper_tables
from mistnn.reproduce.everything import Speeds, fill_everything, listing, missing_runs, own_data, step_seconds
from mistnn.reproduce.fill import Filler
from mistnn.reproduce.ledger import read_ledger
from mistnn.reproduce.table import Row, Size, Table
from mistnn.reproduce.tables import TABLES
from mistnn.reproduce.tables.photographs import HOUSE_NUMBERS, NATURAL_TABLES

# Presets on embedded digits, so that other processes find them and their images.
DEMO, DISCOVER = Row("MIST", "digits", "demo", (0.9,)), Row("MIST, K alone", "digits", "demo-discover", (0.9,))
SIZE = Size(images=4, loop=(2, 2))
FIRST = Table("table8", "Table 8: tiny", ("iou50",), (DEMO,), size=SIZE)
SECOND = Table("table9", "Table 9: tiny", ("iou50",), (DEMO, DISCOVER), size=SIZE)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The time of a step of each preset, which is not measured here."""
    times = {"demo": 2.0, "demo-discover": 1.0}
    monkeypatch.setattr(everything.Speeds, "of", lambda self, name, experiment, device: times[name])
    return times


def filler(folder: Path, say: Callable[[str], None] = print) -> Filler:
    return Filler(FIRST, "full", folder / "results", folder / "runs", None, say, None, "cpu")


def here(calls: Mapping[str, Callable[[], Any]], jobs: int, finished: Callable[[str, Future[Any]], None]) -> None:
    """``in_processes`` in this process."""
    for key, call in calls.items():
        future: Future[Any] = Future()
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)
        finished(key, future)


@pytest.mark.usefixtures("seconds")
def test_a_run_of_two_tables_is_listed_once_and_the_shortest_first(tmp_path: Path) -> None:
    runs = missing_runs((FIRST, SECOND), 2, filler(tmp_path))
    assert [run.name for run in runs] == [
        "demo-discover, seed 0", "demo-discover, seed 1", "demo, seed 0", "demo, seed 1"
    ]  # fmt: skip
    assert [run.seconds for run in runs] == [2.0, 2.0, 4.0, 4.0]
    lines = listing([run._replace(seconds=run.seconds * 1800) for run in runs])
    assert lines[1].split() == ["1.00", "2", "table9", "demo-discover,", "seed", "0"]
    assert lines[-1] == "4 runs, 6.0 hours of one core of this machine"
    assert [run.name for run in missing_runs((FIRST, SECOND), None, filler(tmp_path), "k alone")] == [
        "demo-discover, seed 0"
    ]
    with pytest.raises(MistError, match="--only spair: no table"):
        missing_runs((FIRST, SECOND), None, filler(tmp_path), "spair")


def test_rows_that_need_a_folder_are_left_out() -> None:
    assert not own_data(NATURAL_TABLES[0]) and not own_data(HOUSE_NUMBERS)
    assert sum(len(own_data(table)) for table in TABLES) > 90


@pytest.mark.usefixtures("seconds")
def test_what_ships_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mistnn.reproduce.fill.shipped_names", lambda: ("demo",))
    runs = missing_runs((SECOND,), 2, filler(tmp_path))
    assert (runs[0].name, runs[0].seconds) == ("demo, seed 0", 0.0)
    assert "shipped" in listing(runs)[1]


@pytest.mark.usefixtures("seconds")
def test_several_at_a_time_fill_the_ledger(tmp_path: Path) -> None:
    said: list[str] = []
    own = filler(tmp_path, said.append)
    assert fill_everything(missing_runs((FIRST, SECOND), 1, own), own, jobs=2) == (2, [])
    assert {entry.name for entry in read_ledger(tmp_path / "results")} == {"demo", "demo-discover"}
    assert "2 of 2 in the ledger" in said and any(line.startswith("demo, seed 0: iou50") for line in said)
    assert not missing_runs((FIRST, SECOND), 1, own)


@pytest.mark.usefixtures("seconds")
def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "in_processes", here)
    said: list[str] = []
    own = filler(tmp_path, said.append)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo-discover-seed0").write_text("a file where the run's folder should be")
    done, failed = fill_everything(missing_runs((SECOND,), 1, own), own, jobs=1)
    assert (done, failed) == (1, ["demo-discover, seed 0"])
    assert any("demo-discover, seed 0: failed: " in line and "to train it anew, remove" in line for line in said)
    assert [entry.name for entry in read_ledger(tmp_path / "results")] == ["demo"]


def test_ctrl_c_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(calls: Mapping[str, object], jobs: int, finished: Callable[[str, Future[Any]], None]) -> None:
        future: Future[Any] = Future()
        future.set_exception(KeyboardInterrupt())
        finished(next(iter(calls)), future)

    monkeypatch.setattr(everything, "in_processes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill_everything([everything.Missing(FIRST, DEMO, 0, 1.0)], filler(tmp_path), jobs=1)


def test_a_step_is_measured_once_for_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    experiment = find_preset("demo").experiment.with_steps(4)
    measured = Speeds(tmp_path / "speeds.json", said.append).of("demo", experiment, "cpu")
    assert measured > 0 and said == ["measuring a step of demo"]

    def never(*arguments: object) -> float:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(everything, "step_seconds", never)
        assert Speeds(tmp_path / "speeds.json", said.append).of("demo", experiment, "cpu") == measured
    for content in ("{", "[]", json.dumps({"machine": "another", "seconds": {"demo": 5.0}})):
        (tmp_path / "speeds.json").write_text(content)
        monkeypatch.setattr(everything, "step_seconds", lambda *arguments: 0.5)
        assert Speeds(tmp_path / "speeds.json", said.append).of("demo", experiment, "cpu") == 0.5


def test_the_time_of_a_step_is_measured_where_all_networks_train() -> None:
    """The demo's heat map is trained from a later step on; the middle of the run is after that."""
    assert step_seconds(find_preset("demo").experiment, "cpu") > 0


@pytest.mark.usefixtures("seconds")
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(paper_tables, "TABLES", (FIRST, SECOND))
    monkeypatch.setattr(everything, "in_processes", here)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    assert main(["reproduce", "all", "--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert "2 runs" in said and "--budget full" in said and not (tmp_path / "results").exists()
    (tmp_path / "runs" / "tables").mkdir(parents=True)
    broken = tmp_path / "runs" / "tables" / "demo-seed0"
    broken.write_text("a file where the run's folder should be")
    assert main(["reproduce", "all", "--seeds", "1", "--budget", "full"]) == 1
    said = capsys.readouterr().out
    assert "1 new entries in results" in said and "failed: demo, seed 0" in said
    assert "**demo-discover**" in (tmp_path / "docs" / "results.md").read_text()
    broken.unlink()
    assert main(["reproduce", "all", "--seeds", "1", "--budget", "full"]) == 0
    assert main(["reproduce", "all", "--seeds", "1"]) == 0
    assert "nothing is missing" in capsys.readouterr().out


def test_a_step_is_measured_before_the_weights_that_it_starts_from_exist() -> None:
    """Co-localisation starts from an encoder, which may not have been trained yet."""
    experiment = find_preset("stn-coloc-t-0").experiment
    data = dataclasses.replace(experiment.data, source="embedded", images=8)
    loop = dataclasses.replace(experiment.train, batch_size=4)
    assert step_seconds(dataclasses.replace(experiment, data=data, train=loop), "cpu") > 0
