from __future__ import annotations

import csv
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mistnn.errors import MistError
from mistnn.inference import Predictor, folder, predict_folder
from tests.inference.fakes import CountingDetector, FakeDetector


def _image(path: Path, spot: tuple[int, int] = (5, 3), size: tuple[int, int] = (16, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size)
    image.putpixel((min(spot[0], size[0] - 1), min(spot[1], size[1] - 1)), 255)
    image.save(path)
    return path


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_results(tmp_path: Path) -> None:
    _image(tmp_path / "in" / "b.png", (5, 3))
    _image(tmp_path / "in" / "a" / "x.png", (8, 2))
    summary = predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "out", k=1)
    assert summary == (2, 2, (), 0, 0, 0, 0)
    text = (tmp_path / "out" / "detections.csv").read_text()
    assert text.startswith("file,x,y,w,h,label,score\na/x.png,8.5000,2.5000,4.0000,4.0000,even,1.000000\n")
    assert text.count("\n") == 3
    assert (tmp_path / "out" / "counts.csv").read_text() == (
        "file,class,count,at_limit,low,high,unlike\n"
        "a/x.png,even,1,,,,\na/x.png,odd,0,,,,\nb.png,even,0,,,,\nb.png,odd,1,,,,\n"
    )
    assert _tree(tmp_path / "out") == [
        "counts.csv", "detections.csv", "overlays", "overlays/a", "overlays/a/x.png", "overlays/b.png"
    ]  # fmt: skip
    with Image.open(tmp_path / "out" / "overlays" / "b.png") as drawn:
        assert drawn.format == "PNG" and drawn.size == (128, 96)


def test_boxes_are_named_only_if_there_are_several_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[Any] = []
    monkeypatch.setattr(folder, "write_overlay", lambda path, picture, found, names: named.append(list(names)))
    for classes in (("even", "odd"), ("cell",)):
        detector = FakeDetector(class_names=classes)
        predict_folder(Predictor(detector), [_image(tmp_path / "a.png", (4, 3))], tmp_path / classes[0], k=1)
    assert named == [["even"], [""]]


def test_model_without_classes(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    predict_folder(Predictor(FakeDetector(class_names=(), k=3)), [tmp_path / "a.png"], tmp_path / "out")
    assert _rows(tmp_path / "out" / "counts.csv") == [
        {"file": "a.png", "class": "", "count": "3", "at_limit": "", "low": "", "high": "", "unlike": ""}
    ]
    assert [row["label"] for row in _rows(tmp_path / "out" / "detections.csv")] == [""] * 3


def test_images_that_reach_the_most_that_is_reported_are_marked(tmp_path: Path) -> None:
    _image(tmp_path / "in" / "one.png")
    Image.new("L", (16, 12), 90).save(tmp_path / "in" / "many.png")
    summary = predict_folder(Predictor(CountingDetector(k=3)), [tmp_path / "in"], tmp_path / "out")
    rows = _rows(tmp_path / "out" / "counts.csv")
    assert [(row["file"], row["at_limit"]) for row in rows] == [
        ("many.png", "1"), ("many.png", "1"), ("one.png", "0"), ("one.png", "0")
    ]  # fmt: skip
    assert summary.detections == 4 and (summary.at_limit, summary.limit) == (1, 3)
    assert summary.limit_note.startswith(
        "in 1 of 2 images the model found as many objects as it can report (at most K = 3)"
    )
    given = predict_folder(Predictor(CountingDetector(k=3)), [tmp_path / "in"], tmp_path / "three", 3)
    assert {row["at_limit"] for row in _rows(tmp_path / "three" / "counts.csv")} == {""}
    assert given.detections == 6 and given.at_limit == 0 and given.limit_note == ""


def test_bad_images_among_good_ones_are_skipped_and_named(tmp_path: Path) -> None:
    for name in ("a.png", "c.png", "e.png"):
        _image(tmp_path / "in" / name)
    whole = (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "d.png").write_text("no image")
    _image(tmp_path / "in" / "f.png", size=(2, 2))
    steps: list[tuple[int, int]] = []
    summary = predict_folder(
        Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "out", 5, progress=lambda *step: steps.append(step)
    )
    assert summary.images == 3 and summary.detections == 15
    assert [skipped.file for skipped in summary.skipped] == ["b.png", "d.png", "f.png"]
    assert "can't be read" in summary.skipped[0].reason
    assert summary.skipped[2].reason == (
        "has room for 4 objects in this model, fewer than the 5 to find: give k = 4 or less"
    )
    assert {row["file"] for row in _rows(tmp_path / "out" / "counts.csv")} == {"a.png", "c.png", "e.png"}
    assert _tree(tmp_path / "out" / "overlays") == ["a.png", "c.png", "e.png"]
    assert steps[-1] == (6, 6)


def test_only_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("")
    summary = predict_folder(Predictor(FakeDetector()), [tmp_path / "a.png"], tmp_path / "out")
    assert summary.images == 0 and len(summary.skipped) == 1
    assert _rows(tmp_path / "out" / "detections.csv") == []


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "gif", "tif", "webp", "pgm", "ppm"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_format_has_an_overlay_under_its_own_name(tmp_path: Path, suffix: str, mode: str) -> None:
    Image.new(mode, (9, 9)).save(tmp_path / f"a.{suffix}")
    predict_folder(Predictor(FakeDetector()), [tmp_path / f"a.{suffix}"], tmp_path / "out")
    with Image.open(tmp_path / "out" / "overlays" / f"a.{suffix}") as drawn:
        assert drawn.convert("RGB").getcolors() != [(72 * 72, (0, 0, 0))]


def test_unknown_suffix_and_odd_names(tmp_path: Path) -> None:
    image = _image(tmp_path / "x.png")
    names = ['comma, "quote".png', "new\nline.png", "ümlaut é.png", os.fsdecode(b"bytes\xff.png")]
    for name in names:
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(image.read_bytes())
    image.rename(tmp_path / "scan")
    predict_folder(Predictor(FakeDetector()), [tmp_path / "in", tmp_path / "scan"], tmp_path / "out")
    with (tmp_path / "out" / "counts.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert {row["file"] for row in csv.DictReader(file)} == {*names, "scan"}
    assert (tmp_path / "out" / "overlays" / "scan.png").is_file()


def test_a_lone_carriage_return_is_quoted(tmp_path: Path) -> None:
    """Python before 3.13 leaves it bare when rows end in a line feed alone, and then refuses to read it."""
    _image(tmp_path / "in" / "a\rb.png")
    _image(tmp_path / "in" / "c.png")
    predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "out", k=1)
    assert [row["file"] for row in _rows(tmp_path / "out" / "detections.csv")] == ["a\rb.png", "c.png"]
    data = (tmp_path / "out" / "counts.csv").read_bytes()
    assert b'"a\rb.png",' in data and b"\r\n" not in data and data.endswith(b"\n")


def test_no_two_drawings_share_a_file(tmp_path: Path) -> None:
    """A name without the suffix of an image gets one, which may be the name of another image."""
    sizes = {"a": (16, 12), "a.png": (14, 12), "a-2.png": (12, 12), "b.dat": (18, 12)}
    for name, size in sizes.items():
        _image(tmp_path / "x.png", size=size).rename(tmp_path / name)
    predict_folder(Predictor(FakeDetector()), [tmp_path / name for name in sizes], tmp_path / "out", k=1)
    drawn = {"a": "a-3.png", "a.png": "a.png", "a-2.png": "a-2.png", "b.dat": "b.dat.png"}
    assert _tree(tmp_path / "out" / "overlays") == sorted(drawn.values())
    for name, size in sizes.items():
        with Image.open(tmp_path / "out" / "overlays" / drawn[name]) as drawing:
            assert drawing.width / drawing.height == pytest.approx(size[0] / size[1]), name


def test_overlay_names() -> None:
    assert folder.overlay_names(["a.png", "d/b.JPG", "c.txt"]) == {
        "a.png": "a.png", "d/b.JPG": "d/b.JPG", "c.txt": "c.txt.png"
    }  # fmt: skip
    assert folder.overlay_names(["x", "x.png", "x-2.png/y.png"])["x"] == "x-3.png", "a folder has that name"
    assert folder.overlay_names(["x.png", "x.png/y.png"])["x.png"] == "x.png.png"
    assert folder.overlay_names(["A.png", "a.PNG"]) == {"A.png": "A.png", "a.PNG": "a.PNG.png"}, "one file on a Mac"
    name = "d/" + 125 * "\u00fc"
    long = folder.overlay_names([f"{name}.jp2", f"{name}.avif"])
    assert len(set(long.values())) == 2 and all(len(one[2:].encode()) <= 255 for one in long.values())


def test_16_bit_overlay_is_bright(tmp_path: Path) -> None:
    values = np.full((330, 330), 4095, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    predict_folder(Predictor(FakeDetector()), [tmp_path / "a.png"], tmp_path / "out")
    with Image.open(tmp_path / "out" / "overlays" / "a.png") as drawn:
        assert drawn.getpixel((300, 300)) == (255, 255, 255)


def test_results_among_the_images_are_not_read(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    predictor = Predictor(FakeDetector())
    for force in (False, True):
        summary = predict_folder(predictor, [tmp_path], tmp_path / "out", force=force)
        assert summary.images == 1


def test_without_overlays(tmp_path: Path) -> None:
    predict_folder(Predictor(FakeDetector()), [_image(tmp_path / "a.png")], tmp_path / "out", overlays=False)
    assert _tree(tmp_path / "out") == ["counts.csv", "detections.csv", "overlays"]


def test_neighbours_of_one_size_share_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        _image(tmp_path / "in" / f"a{index}.png", (index, index))
    _image(tmp_path / "in" / "b.png", size=(12, 16))
    _image(tmp_path / "in" / "c.png")
    monkeypatch.setattr(folder, "BATCH_SIZE", 3)
    model = FakeDetector()
    predict_folder(Predictor(model), [tmp_path / "in"], tmp_path / "out", k=1)
    assert [shape[0] for shape in model.seen] == [3, 2, 1, 1]
    expected = (tmp_path / "out" / "detections.csv").read_text()
    model.seen.clear()
    predict_folder(Predictor(model, max_pixels=2 * 16 * 12), [tmp_path / "in"], tmp_path / "out2", k=1)
    assert [shape[0] for shape in model.seen] == [2, 1, 2, 1, 1], "no batch reaches over a block of three files"
    assert (tmp_path / "out2" / "detections.csv").read_text() == expected


def test_images_of_one_size_in_a_block_need_not_be_neighbours(tmp_path: Path) -> None:
    for index in range(6):
        _image(tmp_path / "in" / f"{index}.png", size=(16, 12) if index % 2 else (12, 16))
    model = FakeDetector()
    predict_folder(Predictor(model), [tmp_path / "in"], tmp_path / "out", k=1)
    assert [shape[0] for shape in model.seen] == [3, 3]
    assert [row["file"] for row in _rows(tmp_path / "out" / "detections.csv")] == [f"{index}.png" for index in range(6)]


@pytest.mark.parametrize("size", [(10_000, 100), (1000, 1500)])
def test_large_images_go_in_tiles(tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    spot = (size[0] - 3, size[1] - 4)
    model = FakeDetector()
    predict_folder(Predictor(model), [_image(tmp_path / "a.png", spot, size)], tmp_path / "whole", 1, overlays=False)
    assert len(model.seen) == (2 if size == (1000, 1500) else 1)
    summary = predict_folder(Predictor(model, 1 << 16), [tmp_path / "a.png"], tmp_path / "tiled", 1, overlays=False)
    assert len(model.seen) > 10 and summary.approximate == 0
    rows = _rows(tmp_path / "tiled" / "detections.csv")
    assert rows == _rows(tmp_path / "whole" / "detections.csv")
    assert (float(rows[0]["x"]), float(rows[0]["y"])) == (spot[0] + 0.5, spot[1] + 0.5)
    monkeypatch.setattr(FakeDetector, "tiles_are_exact", False)
    again = predict_folder(Predictor(model, 1 << 16), [tmp_path / "a.png"], tmp_path / "again", 1, overlays=False)
    assert again.approximate == 1


def test_memory_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(40):
        _image(tmp_path / "in" / f"{index:02}.png")
    opened: list[weakref.ref[Image.Image]] = []  # an image has no hash, so no WeakSet
    most = 0
    real = folder.open_image

    def counted(path: Path, **more: Any) -> Image.Image:
        nonlocal most
        image = real(path, **more)
        # Without the cycle collector: memory that waits for it is not flat either.
        opened.append(weakref.ref(image))
        most = max(most, sum(one() is not None for one in opened))
        return image

    monkeypatch.setattr(folder, "open_image", counted)
    monkeypatch.setattr(folder, "BATCH_SIZE", 4)
    assert predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "out").images == 40
    assert 4 <= most <= 4 * 4 + 1, "read ahead, in the network, drawn"


@pytest.mark.parametrize(
    ("k", "word"), [(0, "--k must be at least 1, got 0"), (-3, "got -3"), (193, "--k 193 is too large.*at most 192")]
)
def test_bad_k_leaves_nothing(tmp_path: Path, k: int, word: str) -> None:
    _image(tmp_path / "in" / "a.png")
    _image(tmp_path / "in" / "b.png", size=(3, 3))
    with pytest.raises(MistError, match=word):
        predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "new" / "out", k)
    assert _tree(tmp_path) == ["in", "in/a.png", "in/b.png"]


def test_no_images_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MistError, match="no image in folder"):
        predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], tmp_path / "out")
    assert _tree(tmp_path) == ["in"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "metrics.jsonl"])
def test_results_and_runs_are_not_overwritten(tmp_path: Path, name: str) -> None:
    image = _image(tmp_path / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(MistError, match=f"already holds {name}.*--force"):
        predict_folder(Predictor(FakeDetector()), [image], out)
    assert _tree(out) == sorted([name, "notes.txt"]) and (out / name).read_text() == "mine"
    predict_folder(Predictor(FakeDetector()), [image], out, force=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / name).read_text() == "mine"
    assert len(_rows(out / "detections.csv")) == 2
    with pytest.raises(MistError, match="already holds detections.csv.*--force"):
        predict_folder(Predictor(FakeDetector()), [image], out)


def test_force_replaces_old_overlays(tmp_path: Path) -> None:
    predictor = Predictor(FakeDetector())
    predict_folder(predictor, [_image(tmp_path / "a.png")], tmp_path / "out")
    predict_folder(predictor, [_image(tmp_path / "b.png")], tmp_path / "out", force=True)
    assert _tree(tmp_path / "out" / "overlays") == ["b.png"]


class _Breaks(FakeDetector):
    error: BaseException = KeyboardInterrupt()

    def detect(self, images, k=None, max_pixels=None):
        if len(self.seen) == 2:
            raise self.error
        return super().detect(images, k, max_pixels)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
@pytest.mark.parametrize("exists", [True, False])
def test_a_break_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, exists: bool
) -> None:
    for index in range(4):
        _image(tmp_path / "in" / f"{index}.png")
    monkeypatch.setattr(folder, "BATCH_SIZE", 1)
    out = tmp_path / "deep" / "out"
    if exists:
        predict_folder(Predictor(FakeDetector()), [tmp_path / "in"], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    model = _Breaks(k=5)
    model.error = error
    with pytest.raises(type(error)):
        predict_folder(Predictor(model), [tmp_path / "in"], out, force=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert (tmp_path / "deep").exists() == exists


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "out" / ".predict.part" / "overlays").mkdir(parents=True)
    (tmp_path / "out" / ".predict.part" / "detections.csv").write_text("half")
    predict_folder(Predictor(FakeDetector()), [_image(tmp_path / "a.png")], tmp_path / "out")
    assert _tree(tmp_path / "out") == ["counts.csv", "detections.csv", "overlays", "overlays/a.png"]


def test_unwritable_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = _image(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(MistError, match="is a file"):
        predict_folder(Predictor(FakeDetector()), [image], tmp_path / "file")
    with pytest.raises(MistError, match="can't write to --out"):
        predict_folder(Predictor(FakeDetector()), [image], tmp_path / "file" / "out")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_overlay", full)
    with pytest.raises(MistError, match="No space left on device"):
        predict_folder(Predictor(FakeDetector()), [image], tmp_path / "out")
    assert _tree(tmp_path) == ["a.png", "file"]
