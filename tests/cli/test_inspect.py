from __future__ import annotations

import dataclasses
import io
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mistnn.cli.main import main
from mistnn.data import read_folder
from mistnn.data.folder.images import evenly, measured_images
from mistnn.inference import Predictor
from mistnn.models.air import Air, AirConfig
from mistnn.models.mist import Mist, MistConfig
from mistnn.models.spair import Spair, SpairConfig
from mistnn.reports import estimate, inspection
from mistnn.reports.inspection import describe_fit, inspect_folder
from tests.cli.runs import only_line
from tests.data.folders import make_folder

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty scenes of one to three digits, 96 x 96 pixels, with counts; not to be changed."""
    return make_folder(tmp_path_factory.mktemp("own") / "digits")


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_report_and_sheet(folder: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = _files(folder)
    assert main(["inspect", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.isascii()
    rows = {line.split("  ")[0]: line for line in captured.out.splitlines()}
    assert "20, 96 x 96 px" in rows["images"] and "counts.csv" in rows["known from"]
    assert all("with counts" in rows[split] for split in ("train", "validation", "test"))
    assert "3, the most in a training image" in rows["largest count"]
    size = int(rows["object size"].split("about ")[1].split(" px")[0])
    assert 24 <= size <= 40, "digits in frames of 40 pixels"
    for name in ("zero", "one", "two"):
        assert any(row.startswith(f"{name}: 0 to ") and "median" in row and "in 20 images" in row for row in rows)
    assert any("##" in line and line.strip().startswith("0 ") for line in captured.out.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["digits-contact-sheet.png"]
    with Image.open("digits-contact-sheet.png") as sheet:
        assert sheet.width > 1000 and sheet.height > 800
        first = sheet.convert("RGB").tobytes()
    assert _files(folder) == before, "nothing is written into the folder"
    assert main(["inspect", str(folder), "--out", "again.png"]) == 0
    assert "again.png" in capsys.readouterr().out
    with Image.open("again.png") as sheet:
        assert sheet.convert("RGB").tobytes() == first


def test_a_model_and_its_slots(folder: Path, capsys: Captured) -> None:
    """Scenes of one to three digits in 96 x 96 pixels."""
    found = inspect_folder(folder)
    counts = [sum(image.counts or ()) for image in found.folder.images]

    def said(model: Air | Spair) -> list[str]:
        return describe_fit(found, Predictor(model))

    small = SpairConfig(width=4, hidden=(4,), encoder=(4,), decoder=(4,), features=4, attributes=2)
    assert said(Spair(small)) == ["model        can process all 20 images, and has slots for all known objects"]
    line, *misfits, more = said(Spair(dataclasses.replace(small, strides=(4, 4, 4))))
    assert line.endswith("can't process 20 of 20 images:") and len(misfits) == 12 and more == "  and 8 more"
    assert "000.png has 96 x 96 pixels and is not made of cells of 64 x 64" in misfits[0]
    line, *fullest = said(Air(AirConfig(canvas=96, k=2)))
    assert f"more objects than slots in {counts.count(3)} of 20 images" in line and counts.count(3) > 0
    assert len(fullest) == counts.count(3) and all("holds 3, slots in its size: 2" in one for one in fullest)
    mist = Mist(MistConfig(channels=1, k=2, threshold=0.1))
    assert "more objects than slots" in describe_fit(found, Predictor(mist))[0], "K counts, not the number of pixels"
    assert main(["inspect", str(folder), "--out", "x.png", "--model", "no-such-run"]) == 2
    assert "no-such-run" in capsys.readouterr().err and not Path("x.png").exists()


def test_a_model_is_asked_with_the_number_that_is_told(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = make_folder(tmp_path / "own", 2)
    (root / "counts.csv").unlink()
    found = inspect_folder(root, k=3)
    assert "holds 3, slots" in describe_fit(found, Predictor(Air(AirConfig(canvas=96, k=2))))[1]
    assert main(["inspect", str(root), "--no-estimate", "--k", "3", "--model", "mist-mnist-3"]) == 0
    assert "model        can process all 2 images" in capsys.readouterr().out


def test_only_images(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for index, size in enumerate(((30, 20), (60, 40), (500, 30))):
        Image.linear_gradient("L").resize(size).save(tmp_path / "mine" / f"{index}.png")
    Image.fromarray(np.arange(500 * 450, dtype=np.uint16).reshape(450, 500) % 60_000).save(
        tmp_path / "mine" / "deep.png"
    )
    assert main(["inspect", "mine"]) == 0
    out = capsys.readouterr().out
    assert "unknown: no training image has counts" in out and "without counts" in out and "known from   nothing" in out
    assert "4 sizes" in out and (tmp_path / "mine-contact-sheet.png").is_file()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_in_any_encoding(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(tmp_path / "own", 3)
    (root / "counts.csv").write_text("file,κύτταρο\n000,1\n001,2\n002,1\n", encoding="utf-8")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main(["inspect", str(root), "--no-estimate", "--out", str(tmp_path / "x.png")]) == 0
    name = "κύτταρο".encode(encoding, "replace").decode(encoding)
    assert f"{name}: 1 to 2 per image" in written.getvalue().decode(encoding)


@pytest.mark.parametrize(("low", "high", "hot"), [(100, 340, False), (30_000, 30_240, False), (100, 340, True)])
def test_16_bit_images_are_seen_on_the_sheet(tmp_path: Path, low: int, high: int, hot: bool) -> None:
    values = np.full((60, 60), low, dtype=np.uint16)
    values[20:40, 20:40] = high
    if hot:
        values[0, 0] = 65_535
    (tmp_path / "mine").mkdir()
    Image.fromarray(values).save(tmp_path / "mine" / "a.tif")
    ((picture, _),) = inspect_folder(tmp_path / "mine").sheet
    assert picture[:, 30, 30].min() > 0.95 and picture[:, 10, 10].max() < 0.05


def test_only_labels(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(folder / "images", target_is_directory=True)
    (tmp_path / "data" / "labels.csv").write_text("file,class\n000,one\n001,two\n002,two\n")
    assert main(["inspect", str(tmp_path / "data"), "--out", str(tmp_path / "x.png")]) == 0
    out = capsys.readouterr().out
    assert "one: in 1 of 3 images" in out and "two: in 2 of 3 images" in out
    assert "  - class one is in one image only" in out and "  - 17 of 20 images have no row" in out


def test_broken_images_are_noted(tmp_path: Path, capsys: Captured) -> None:
    root = make_folder(tmp_path / "own", 4)
    data = (root / "images" / "002.png").read_bytes()
    (root / "images" / "002.png").write_bytes(data[: len(data) // 2])
    arguments = ["inspect", str(root), "--out", str(tmp_path / "x.png")]
    assert main(arguments) == 0
    assert "  - 002.png can't be decoded" in capsys.readouterr().out
    for path in (root / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    assert main(arguments) == 2
    only_line(capsys.readouterr().err, "000.png", "can't be decoded")


def test_images_beyond_those_that_are_shown_are_tried(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "own", 80)
    shown = {image.name for image in (*measured_images(read_folder(root)), *evenly(read_folder(root).images, 12))}
    others = [image for image in read_folder(root).images if image.name not in shown]
    broken = next(image for image in others if image.split == "test"), others[-1]
    for image in broken:
        image.path.write_bytes(image.path.read_bytes()[:-100])
    arguments = ["inspect", str(root), "--out", str(tmp_path / "x.png"), "--no-estimate"]
    assert main(arguments) == 0
    notes = capsys.readouterr().out.split("notes\n")[1]
    assert all(f"  - {image.name} can't be decoded (" in notes for image in broken) and "not decoded" not in notes
    used = [image.path.stat().st_size for image in others if image.split != "test"]
    monkeypatch.setattr(inspection, "TRIED_BYTES", sum(used))
    assert main(arguments) == 0
    notes = capsys.readouterr().out.split("notes\n")[1]
    assert f"  - {len(others) - len(used)} images were not decoded, which would take long" in notes
    assert broken[0].name not in notes, "test images come last"


def test_never_into_the_folder(folder: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _files(folder)
    assert main(["inspect", str(folder), "--out", str(folder / "x.png")]) == 2
    only_line(capsys.readouterr().err, "--out", "x.png", "elsewhere")
    monkeypatch.chdir(folder / "images")
    assert main(["inspect", ".."]) == 0
    assert "not drawn" in capsys.readouterr().out
    assert _files(folder) == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out", "sheet.pdf"], ["--out sheet.pdf", ".png"]),
        (["--out", "gone/sheet.png"], ["--out gone/sheet.png", "folder that exists"]),
        (["--outt", "x.png"], ["'--outt'", "--out"]),
    ],
)
def test_bad_out(more: list[str], words: list[str], folder: Path, capsys: Captured) -> None:
    assert main(["inspect", str(folder), *more]) == 2
    only_line(capsys.readouterr().err, *words)


def test_bad_folder(tmp_path: Path, capsys: Captured) -> None:
    for folder, words in ((tmp_path / "gone", ["no such folder", "gone"]), (tmp_path, ["no image in folder"])):
        assert main(["inspect", str(folder), "--out", str(tmp_path.parent / "x.png")]) == 2
        only_line(capsys.readouterr().err, *words)
    root = make_folder(tmp_path / "own", 3)
    (root / "counts.csv").write_text("file,class,count\n000.png,one,-1\n")
    assert main(["inspect", str(root), "--out", str(tmp_path / "x.png")]) == 2
    only_line(capsys.readouterr().err, "counts.csv, row 2", "'-1'")
    assert not (tmp_path / "x.png").exists()


def test_help(capsys: Captured) -> None:
    assert main(["inspect", "--help"]) == 0
    out = capsys.readouterr().out
    assert "counts.csv" in out and "--out" in out and "FILE" in out


def test_the_estimate(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    out = ["--out", str(tmp_path / "x.png")]
    assert main(["inspect", str(folder), *out]) == 0
    lines = capsys.readouterr().out.splitlines()
    (place,) = (index for index, line in enumerate(lines) if line.startswith("training     about "))
    assert "on this computer" in lines[place] and "GiB of memory" in lines[place]
    assert "1,500 steps of 16 images" in lines[place + 1] and "2 measured steps" in lines[place + 1]
    assert main(["inspect", str(folder), "--no-estimate", *out]) == 0
    assert "training   " not in capsys.readouterr().out


def test_no_estimate_without_a_plan(tmp_path: Path, capsys: Captured) -> None:
    root = make_folder(tmp_path / "own", 4)
    (root / "counts.csv").rename(root / "labels.csv")
    for text, words in (("file,class\n000,one\n001,two\n", "--k N"), (None, "give counts.csv")):
        if text is None:
            (root / "labels.csv").unlink()
        else:
            (root / "labels.csv").write_text(text)
        assert main(["inspect", str(root), "--out", str(tmp_path / "x.png")]) == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("training   "))
        assert "can't be planned yet" in line and words in line


def test_the_estimate_scales_what_was_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = inspect_folder(folder)
    clock = itertools.count()
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: float(next(clock)))
    told = estimate.estimate_training(found)
    training, validation = (sum(one.split == name for one in found.folder.images) for name in ("train", "validation"))
    assert told.step_seconds == 1 and told.steps == 1500 and told.batch == 16
    a_read = 1 / min(16, training)
    few = 8
    assert told.seconds == pytest.approx(1500 + training * a_read + 7 * validation * (1 / few + a_read))
    assert told.mib > 100


def test_durations() -> None:
    assert [estimate.duration(value) for value in (0.2, 40, 100, 5000, 6000, 200_000)] == [
        "1 s", "40 s", "2 min", "83 min", "1.7 h", "2.3 days"
    ]  # fmt: skip
