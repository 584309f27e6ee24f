from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.cli.main import main
from mistnn.cli.predict import run
from mistnn.inference.other_formats import WRITERS
from mistnn.weights import load_model, save_model
from tests.cli.runs import only_line, read_config, train_tiny, write_config

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with images of every kind, one of them in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 256, (24, 30), dtype=np.uint8)
    grey = Image.fromarray(values)
    grey.save(folder / "grey.png")
    grey.convert("RGBA").save(folder / "rgba.png")
    grey.convert("P").save(folder / "below" / "palette.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(folder / "deep.png")
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files_and_summary(trained: Path, pictures: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(pictures), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    names = ["below/palette.png", "deep.png", "grey.png", "rgba.png"]
    detections = _rows(out / "detections.csv")
    assert list(detections[0]) == ["file", "x", "y", "w", "h", "label", "score"]
    assert [row["file"] for row in detections] == [name for name in names for _ in range(2)], "K of the training"
    for row in detections:
        assert 0 <= float(row["x"]) <= 30 and 0 <= float(row["y"]) <= 24 and 0 <= float(row["score"]) <= 1
        assert row["label"] in list("0123456789")
    counts = _rows(out / "counts.csv")
    assert list(counts[0]) == ["file", "class", "count", "at_limit", "low", "high", "unlike"]
    assert {row["at_limit"] for row in counts} == {""}, "a model that finds K by design"
    assert len(counts) == 10 * len(names) and sum(int(row["count"]) for row in counts) == len(detections)
    assert all((out / "overlays" / name).is_file() for name in names)
    assert "8 objects in 4 images" in captured.out and str(out) in captured.out


def test_a_kill_while_other_formats_are_written(
    trained: Path, pictures: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    given = ["predict", str(trained), str(pictures), "--out", str(out), "--no-overlays", "--formats", "yolo"]
    assert main(given) == 0
    written = (out / "yolo" / "labels" / "grey.txt").read_bytes()
    (out / "yolo").rename(out / ".yolo.part")  # as the kill leaves it
    (out / ".yolo.part" / "labels" / "grey.txt").unlink()
    capsys.readouterr()
    assert main([*given, "--resume"]) == 0
    assert "the other formats are now in" in capsys.readouterr().out
    assert (out / "yolo" / "labels" / "grey.txt").read_bytes() == written
    assert not list(out.glob(".yolo*")) and main([*given, "--resume"]) == 2


def test_a_kill_and_then_other_images_or_another_model(
    trained: Path, copy: Path, pictures: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are complete and say nothing about added images, nor about weights."""
    out = tmp_path / "out"
    given = [str(pictures), "--out", str(out), "--no-overlays", "--formats", "yolo", "labelme"]
    with monkeypatch.context() as patch:

        def kill(*_: object) -> bytes:
            raise KeyboardInterrupt

        patch.setitem(WRITERS, "labelme", kill)
        with pytest.raises(KeyboardInterrupt):
            run([str(trained), *given])
    assert (out / ".labelme.part").exists()
    model = load_model(copy)
    with torch.no_grad():
        next(iter(model.parameters())).add_(0.1)
    config = read_config(copy)
    save_model(copy, model, config["model"], config["experiment"])
    capsys.readouterr()
    assert main(["predict", str(copy), *given, "--resume"]) == 2
    only_line(capsys.readouterr().err, "are those of another model", "--force")
    shutil.copy2(pictures / "grey.png", pictures / "added.png")
    assert main(["predict", str(trained), *given, "--resume"]) == 2
    only_line(capsys.readouterr().err, "are those of other images, or some were changed", "--force")
    (pictures / "added.png").unlink()
    assert main(["predict", str(trained), *given, "--resume"]) == 0
    assert (out / "labelme").is_dir() and not [one for one in out.iterdir() if one.name.startswith(".")]


@pytest.mark.parametrize("name", ["overlays", "predicted.html", "detections.json", "detections.csv", "counts.csv"])
def test_force_replaces_only_what_a_prediction_wrote(
    trained: Path, pictures: Path, tmp_path: Path, capsys: Captured, name: str
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    mine = out / name / "mine.png" if name == "overlays" else out / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    for force in ([], ["--force"]):
        assert main(["predict", str(trained), str(pictures / "grey.png"), "--out", str(out), *force]) == 2
        only_line(capsys.readouterr().err, f"holds {name} that no prediction wrote", "give another folder")
        assert mine.read_text() == "mine"


def test_k_and_no_overlays(trained: Path, pictures: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    files = [str(pictures / "grey.png"), str(pictures / "rgba.png")]
    assert main(["predict", str(trained), *files, "--k", "1", "--out", str(out), "--no-overlays"]) == 0
    assert [row["file"] for row in _rows(out / "detections.csv")] == ["grey.png", "rgba.png"]
    assert not any((out / "overlays").rglob("*.png"))
    assert main(["predict", str(trained), files[0], "--out", str(out)]) == 2
    only_line(capsys.readouterr().err, str(out), "detections.csv", "--force")
    assert main(["predict", str(trained), files[0], "--out", str(out), "--force"]) == 0
    assert {row["file"] for row in _rows(out / "detections.csv")} == {"grey.png"}


def test_a_model_says_where_its_count_reached_k(copy: Path, pictures: Path, tmp_path: Path, capsys: Captured) -> None:
    config = read_config(copy)
    config["model"]["threshold"] = 1e-9  # everything counts
    write_config(copy, config)
    out = tmp_path / "out"
    assert main(["predict", str(copy), str(pictures), "--out", str(out), "--report"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("in 4 of 4 images the model found as many objects as it can report (at most K = 2): there")
    assert "--k" in last and "at_limit" in last and last.split("(at")[0] in (out / "predicted.html").read_text()
    assert {row["at_limit"] for row in _rows(out / "counts.csv")} == {"1"}
    assert main(["predict", str(copy), str(pictures), "--out", str(out), "--report", "--k", "2", "--force"]) == 0
    assert "results in" in capsys.readouterr().out.splitlines()[-1]
    assert "there may be more" not in (out / "predicted.html").read_text()


def test_bad_images_are_skipped_and_named(trained: Path, pictures: Path, tmp_path: Path, capsys: Captured) -> None:
    data = (pictures / "grey.png").read_bytes()
    (pictures / "cut.png").write_bytes(data[: len(data) // 2])
    (pictures / "text.png").write_text("no image")
    Image.new("L", (1, 1)).save(pictures / "dot.png")
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(pictures), "--out", str(out)]) == 1
    captured = capsys.readouterr()
    for name in ("cut.png", "text.png", "dot.png"):
        assert f"mist: skipped {name}: " in captured.err
    assert captured.err.splitlines()[-1] == "mist: 3 images skipped"
    assert "8 objects in 4 images" in captured.out
    assert len(_rows(out / "detections.csv")) == 8


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--k", "0"], ["--k", "at least 1", "0"]),
        (["--k", "-3"], ["--k", "-3"]),
        (["--k", "721"], ["--k 721", "720"]),
        (["--k", "x"], ["--k", "'x'"]),
        (["--kk", "3"], ["'--kk'", "--k"]),
    ],
)
def test_impossible_k(
    more: list[str], words: list[str], trained: Path, pictures: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(trained), str(pictures), "--out", str(out), *more]) == 2
    only_line(capsys.readouterr().err, *words)
    assert not out.exists()


def test_no_images(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    for paths, word in (([], "no image"), ([str(empty)], str(empty)), ([str(tmp_path / "gone")], "gone")):
        assert main(["predict", str(trained), *paths, "--out", str(out)]) == 2
        only_line(capsys.readouterr().err, word)
    assert not out.exists()


def test_out_is_a_file_or_a_run(trained: Path, pictures: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", trained):
        assert main(["predict", str(trained), str(pictures), "--out", str(out)]) == 2
        only_line(capsys.readouterr().err, f"--out {out}")
    assert (tmp_path / "file").read_text() == "mine"


def test_released_network_takes_images_smaller_than_its_border(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train_tiny(run, "--model.heatmap.network", "released", "--model.heatmap.blocks", "4") == 0
    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5) * 17).save(tmp_path / "small.png")
    assert main(["predict", str(run), str(tmp_path / "small.png"), "--k", "15", "--out", str(tmp_path / "out")]) == 0
    rows = _rows(tmp_path / "out" / "detections.csv")
    assert len({(row["x"], row["y"]) for row in rows}) == 15
    assert json.loads((run / "config.json").read_text())["model"]["heatmap"]["network"] == "released"
