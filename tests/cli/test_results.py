from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from mistnn.cli.main import main
from mistnn.reports import demo
from mistnn.reproduce.figures import Request
from mistnn.reproduce.figures import scenes as figures
from mistnn.reproduce.ledger import read_ledger
from mistnn.reproduce.results_page import results_page
from tests.cli.runs import only_line

Captured = pytest.CaptureFixture[str]


def test_a_measured_run_ends_up_on_the_page(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    ledger, page = tmp_path / "results", tmp_path / "docs" / "results.md"
    ledger.mkdir()
    evaluate = ["evaluate", str(trained), "--images", "4"]
    assert main([*evaluate, "--record", str(ledger / "mist-mnist-3-seed0.json")]) == 0
    more = ["--seed", "5", "--split", "validation", "--json", str(tmp_path / "metrics.json")]
    assert main([*evaluate, *more, "--record", str(ledger / "mist-mnist-3-seed1.json")]) == 0
    first, second = read_ledger(ledger)
    assert first.name == second.name == "mist-mnist-3"
    assert (first.images, first.seed, first.train_seed, first.steps, first.batch_size) == (4, 0, 0, 2, 2)
    assert first.train_seconds > 0 and first.peak_memory_mib > 0
    assert first.command == f"mist evaluate {trained} --images 4"
    assert second.seed == 5 and second.command == f"{first.command} --seed 5 --split validation"
    measured = json.loads((tmp_path / "metrics.json").read_text())
    assert all(second.metrics[name] == pytest.approx(measured[name], abs=1e-5) for name in second.metrics)
    assert {"iou50", "classified", "both"} <= second.metrics.keys()
    capsys.readouterr()

    assert main(["results", "--ledger", str(ledger), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}: 2 entries\n"
    assert page.read_text(encoding="utf-8") == results_page([first, second])
    (row,) = [line for line in page.read_text().splitlines() if line.startswith("| MIST, small classifier (*other")]
    assert "| MNIST-3 digits | 2 | 0.995 |" in row and "not run" not in row, "their reading was not chosen by the table"
    assert first.note == "The command measures a run again and trains nothing."
    assert second.note.endswith("trains nothing. Measured on validation scenes.")


def test_a_demo_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> None:
    asked: list[object] = []

    def run(
        out: Path, seed: int, steps: int | None, force: bool, start: float, task: str, device: str
    ) -> dict[str, float]:
        asked.append((out, seed, steps, force, task))
        return {"iou50": 0.9, "classified": 0.8, "both": 0.7, "images": 500, "seconds": 9.5, "seed": 6, "steps": 2}

    monkeypatch.setattr(demo, "run_demo", run)
    record = tmp_path / "demo-seed6.json"
    assert main(["demo", "--out", str(trained), "--seed", "6", "--steps", "2", "--record", str(record)]) == 0
    assert asked == [(trained, 6, 2, False, "classify")]
    (entry,) = read_ledger(tmp_path)
    assert entry.metrics == {"iou50": 0.9, "classified": 0.8, "both": 0.7, "seconds": 9.5}
    assert (entry.name, entry.images, entry.seed) == ("demo", 500, 6)
    assert entry.command == "mist demo --seed 6 --steps 2"
    assert "| demo |" in results_page([entry])


def test_a_record_that_cannot_be_written_is_told_first(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("minutes of work, and then no record")

    monkeypatch.setattr(demo, "run_demo", never)
    monkeypatch.setattr("mistnn.experiments.evaluate_stored", never)
    for record in (tmp_path, tmp_path / "gone" / "entry.json"):
        for command in (["demo"], ["evaluate", str(trained)]):
            assert main([*command, "--record", str(record)]) == 2
            only_line(capsys.readouterr().err, f"--record={record}", "folder that exists")
    assert not list(tmp_path.iterdir())


def test_mistakes(tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "page.md"
    assert main(["results", "--ledger", str(tmp_path / "gone"), "--out", str(page)]) == 2
    only_line(capsys.readouterr().err, "--ledger", "gone")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert main(["results", "--ledger", str(tmp_path), "--out", str(page)]) == 2
    only_line(capsys.readouterr().err, str(broken), "missing key 'name'")
    assert not page.exists()
    broken.unlink()
    assert main(["results", "--ledger", str(tmp_path), "--out", str(tmp_path)]) == 2
    only_line(capsys.readouterr().err, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_sheet_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Every kind of scene is drawn, here from the embedded digits; no model is read."""
    embedded = {title: dataclasses.replace(config, source="embedded") for title, config in figures.SHEET.items()}
    monkeypatch.setattr(figures, "SHEET", embedded)
    monkeypatch.setattr(figures, "SHEET_COLUMNS", 2)
    given = ["figure", "samples", "--model", "no-such-model", "--out", str(tmp_path)]
    assert main(given) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "samples.png"), str(tmp_path / "samples.pdf")]
    with Image.open(tmp_path / "samples.png") as image:
        assert image.height > 400
    sheet = figures.sample_sheet(Request("no-such-model"))
    assert len([axes for axes in sheet.axes if axes.get_images()]) == 2 * len(figures.SHEET)
    titles = [axes.get_title() for axes in sheet.axes if axes.get_title()]
    assert titles == [f"{name} ({kind.canvas} x {kind.canvas} px)" for name, kind in figures.SHEET.items()]


def test_sheet_of_samples_without_mnist(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "empty").mkdir()
    given = ["figure", "samples", "--out", str(tmp_path / "out"), "--data-root", str(tmp_path / "empty")]
    assert main(given) == 2
    only_line(capsys.readouterr().err, str(tmp_path / "empty"), "--data-root")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sheet_of_samples_of_mnist(mnist_root: Path, tmp_path: Path) -> None:
    assert main(["figure", "samples", "--out", str(tmp_path), "--data-root", str(mnist_root)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.pdf", "samples.png"]
