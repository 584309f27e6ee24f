"""Detections as files of other programs, read back by the readers of folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.data.folder.content import read_folder
from mistnn.data.folder.tables import ONLY_CLASS
from mistnn.errors import MistError, MistWarning
from mistnn.inference import Predictor, predict_folder
from mistnn.inference.coco import NOTHING_YET
from mistnn.inference.other_formats import check_formats, check_same, write_formats
from mistnn.inference.tables import open_tables
from mistnn.records import Detections
from tests.inference.fakes import FakeDetector

ROWS = "file,x,y,w,h,label,score\na.png,20,15,20,10,red,0.9\na.png,50.5,25,9,8,blue,0.5\nsub/b.png,5,5,10,10,red,0.8\n"
COUNTS = {"a.png": {"blue": 1, "red": 1}, "sub/b.png": {"blue": 0, "red": 1}, "c.png": {"blue": 0, "red": 0}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in COUNTS:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((50, 100), np.uint8)).save(path)
    (tmp_path / "images" / "broken.png").write_bytes(b"x")
    out = tmp_path / "out"
    out.mkdir()
    (out / "detections.csv").write_text(ROWS, encoding="utf-8")
    write_counts(out, *COUNTS)
    return out


def write_counts(out: Path, *names: str) -> None:
    """The first columns of a table of counts that names the predicted images."""
    (out / "counts.csv").write_text("file,class,count\n" + "".join(f"{name},,0\n" for name in names), encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "folder"), [("yolo", "yolo"), ("labelme", "labelme"), ("imagej", "rois"), ("napari", "napari")]
)
def test_round_trip(out: Path, kind: str, folder: str) -> None:
    if kind == "imagej":
        pytest.importorskip("roifile", reason="the extra files writes ROIs")
    images = out.parent / "images"
    write_formats(out, [images], ("red", "blue"), [kind])  # pyright: ignore[reportArgumentType]
    assert sorted(path.name for path in out.iterdir()) == sorted(["counts.csv", "detections.csv", folder])
    target = out.parent if kind == "yolo" else images
    shutil.copytree(out / folder, target, dirs_exist_ok=True)
    found = read_folder(out.parent)
    names = {"red": "group 1", "blue": "group 2"} if kind == "imagej" else {"red": "red", "blue": "blue"}
    for image in found.images:
        assert image.counts is not None
        counts = dict(zip(found.class_names, image.counts, strict=True))
        assert {name: counts[names[name]] for name in names} == COUNTS[image.name]
    boxes = next(image.boxes for image in found.images if image.name == "a.png")
    assert boxes is not None
    np.testing.assert_allclose(boxes, [[20, 15, 20, 10], [50.5, 25, 9, 8]], atol=0.51 if kind == "imagej" else 0.01)


def test_objects_without_a_class_come_back_from_imagej(out: Path) -> None:
    pytest.importorskip("roifile", reason="the extra files writes ROIs")
    rows = ROWS.replace(",red,", f",{ONLY_CLASS},").replace(",blue,", f",{ONLY_CLASS},")
    (out / "detections.csv").write_text(rows, encoding="utf-8")
    write_formats(out, [out.parent / "images"], (ONLY_CLASS,), ["imagej"])
    shutil.copytree(out / "rois", out.parent / "images", dirs_exist_ok=True)
    assert read_folder(out.parent).class_names == (ONLY_CLASS,)


def test_skipped_images_have_no_file(out: Path) -> None:
    """An empty one would say that they hold no objects."""
    write_counts(out, "a.png", "sub/b.png")
    write_formats(out, [out.parent / "images"], ("red", "blue"), ["yolo", "labelme", "napari"])
    for folder in ("yolo/labels", "labelme", "napari"):
        assert sorted(path.stem for path in (out / folder).rglob("*.*") if path.name[0] != ".") == ["a", "b"]


def test_one_class_and_existing_folders(out: Path) -> None:
    (out / "detections.csv").write_text("file,x,y,w,h,label,score\na.png,20,15,20,10,,0.9\n", encoding="utf-8")
    write_formats(out, [out.parent / "images"], (), ["labelme"])
    content = json.loads((out / "labelme" / "a.json").read_text(encoding="utf-8"))
    assert content["shapes"][0]["label"] == "object" and content["shapes"][0]["points"] == [[10, 10], [30, 20]]
    with pytest.raises(MistError, match="already holds labelme"):
        check_formats(out, ["labelme", "yolo"], force=False)
    check_formats(out, ["labelme"], force=True)
    (out / "labelme" / "old.json").write_text("{}", encoding="utf-8")
    write_formats(out, [out.parent / "images"], (), ["labelme"])
    assert not (out / "labelme" / "old.json").exists()


@pytest.mark.parametrize("linked", [False, True])
def test_folders_of_others_stay(out: Path, linked: bool) -> None:
    drawn = out.parent / "drawn" if linked else out / "yolo"
    drawn.mkdir()
    (drawn / "mine.txt").write_text("0", encoding="utf-8")
    if linked:
        (drawn / ".mistnn").touch()
        (out / "yolo").symlink_to(drawn)
    with pytest.raises(MistError, match="yolo was not written by .*: rename or remove it"):
        check_formats(out, ["yolo"], force=True)
    with pytest.raises(MistError, match="yolo was not written by .*: rename or remove it"):
        write_formats(out, [out.parent / "images"], ("red", "blue"), ["labelme", "yolo"])
    assert (out / "yolo" / "mine.txt").read_text(encoding="utf-8") == "0" and not (out / "labelme").exists()


def test_an_image_called_classes_has_its_file(out: Path) -> None:
    images = out.parent / "images"
    shutil.copy(images / "c.png", images / "classes.png")
    with (out / "detections.csv").open("a", encoding="utf-8") as file:
        file.write("classes.png,20,15,20,10,blue,0.9\n")
    write_counts(out, *COUNTS, "classes.png")
    write_formats(out, [images], ("red", "blue"), ["yolo"])
    assert (out / "yolo" / "classes.txt").read_text(encoding="utf-8") == "red\nblue\n"
    assert (out / "yolo" / "labels" / "classes.txt").read_text(encoding="utf-8").startswith("1 0.2")


def test_images_that_differ_in_suffix_only(out: Path) -> None:
    images = out.parent / "images"
    shutil.copy(images / "c.png", images / "a.gif")
    shutil.copy(images / "c.png", images / "a.png.png")  # without its suffix it is a.png
    write_counts(out, *COUNTS, "a.gif", "a.png.png")
    with pytest.warns(MistWarning, match="a.gif, a.png, a.png.png share a name"):
        write_formats(out, [images], ("red", "blue"), ["yolo"])
    labels = out / "yolo" / "labels"
    files = sorted(path.relative_to(labels).as_posix() for path in labels.rglob("*.txt"))
    assert files == ["a.gif.txt", "a.png.png.txt", "a.png.txt", "c.txt", "sub/b.txt"]
    assert len((labels / "a.png.txt").read_text(encoding="utf-8").splitlines()) == 2


def test_names_that_look_like_formulas(tmp_path: Path) -> None:
    names, classes = ("-a.png", "=b.png"), ("+ve", "@x")
    images, out = tmp_path / "images", tmp_path / "out"
    for folder in (images, out):
        folder.mkdir()
    found = Detections(torch.tensor([[20.0, 15, 20, 10], [50, 25, 10, 8]]), torch.tensor([0.9, 0.5]))
    with open_tables(out, classes, False, {}, NOTHING_YET) as tables:
        for name in names:
            Image.fromarray(np.zeros((50, 100), np.uint8)).save(images / name)
            tables.add(name, (100, 50), found, classes, None, ())
    write_formats(out, [images], classes, ["labelme"])
    for name in names:
        content = json.loads((out / "labelme" / name).with_suffix(".json").read_text(encoding="utf-8"))
        assert [shape["label"] for shape in content["shapes"]] == list(classes)


def test_force_removes_the_files_of_earlier_detections(tmp_path: Path) -> None:
    """Beside new tables they would be taken for the new detections; a folder that is not ours stays."""
    image, results, predictor = tmp_path / "a.png", tmp_path / "out", Predictor(FakeDetector())
    Image.new("L", (24, 20)).save(image)
    predict_folder(predictor, [image], results)
    write_formats(results, [image], predictor.model.class_names, ["yolo"])
    (results / "labelme").mkdir()
    predict_folder(predictor, [image], results, force=True)
    assert sorted(path.name for path in results.iterdir() if path.name in ("yolo", "labelme")) == ["labelme"]


def test_killed_while_a_folder_is_replaced(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half removed, it would lack the file that says that it is ours, and could never be replaced."""
    images = [out.parent / "images"]

    def killed(folder: Path, **more: object) -> None:
        if Path(folder).exists():
            (Path(folder) / ".mistnn").unlink()
            raise KeyboardInterrupt

    write_formats(out, images, ("red", "blue"), ["yolo"])
    wanted = {path.relative_to(out) for path in out.rglob("*")}
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        write_formats(out, images, ("red", "blue"), ["yolo"])
    monkeypatch.undo()
    check_formats(out, ["yolo"], force=True)
    write_formats(out, images, ("red", "blue"), ["yolo"])
    assert {path.relative_to(out) for path in out.rglob("*")} == wanted


def test_complete_tables_are_those_of_the_same_images_and_classes(out: Path) -> None:
    images = out.parent / "images"
    rows = "".join(f"{name},{kind},0\n" for name in COUNTS for kind in ("red", "blue"))
    (out / "counts.csv").write_text("file,class,count\n" + rows, encoding="utf-8")
    check_same(out, [images], ("red", "blue"))
    with pytest.raises(MistError, match="another model"):
        check_same(out, [images], ("red", "green"))
    later = (out / "counts.csv").stat().st_mtime + 1
    os.utime(images / "broken.png", (later, later))
    with pytest.raises(MistError, match=r"changed after .*broken.png"):
        check_same(out, [images], ("red", "blue"))
    with pytest.raises(MistError, match="other images, such as"):
        check_same(out, [images / "a.png"], ("red", "blue"))


def test_images_that_exif_turns_are_named(out: Path) -> None:
    images = out.parent / "images"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (100, 50)).save(images / "turned.jpg", exif=exif)
    write_counts(out, *COUNTS, "turned.jpg")
    with pytest.warns(MistWarning, match=r"yolo: EXIF turns turned.jpg, .* upright image"):
        write_formats(out, [images], ("red", "blue"), ["yolo"])
