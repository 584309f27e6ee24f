"""Labels of YOLO: counts, boxes and the names of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mistnn.data.folder.content import read_folder
from mistnn.data.folder.yolo_names import yolo_names
from tests.data.annotated import blank_image, summary, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        blank_image(tmp_path / "images" / f"{name}.png")
    return tmp_path


def test_yolo(root: Path) -> None:
    write(root / "labels" / "a.txt", "0 0.2 0.5 0.2 0.4\n1 0.5 0.5 0.1 0.1 0.87\n1 0 0 0.1 0 0.1 0.2\n")
    write(root / "labels" / "b.txt", "")
    write(root / "labels" / "c.txt", "0 0.5 0.5 0.1\n")
    write(root / "data.yaml", "train: images\nnames:\n  0: cell  # red\n  1: 'dirt'\nnc: 2\n")
    folder = read_folder(root)
    assert summary(folder) == {
        "a.png": ({"cell": 1, "dirt": 2}, [[10, 15, 30, 35], [45, 22.5, 55, 27.5], [0, 0, 10, 10]]),
        "b.png": ({"cell": 0, "dirt": 0}, []),
        "c.png": (None, None),
    }
    assert any("labels/c.txt, row 1: 3 numbers" in note for note in folder.notes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "cell\ndirt\n"),
        ("data.yaml", "names: [cell, 'dirt']\n"),
        ("data.yaml", "names: [cell, dirt]  # two\n"),
        ("data.yaml", "names: {0: cell, 1: 'dirt'}\nnc: 2\n"),
        ("data.yaml", "names: {1: dirt,\n  0: cell}  # two\n"),
        ("data.yaml", "names:\n  0: cell\n  1: dirt\n  " + "9" * 500 + ": x\n"),
        ("data.yaml", "path: x\nnames:\n- cell\n- dirt\n"),
        ("data.yaml", 'nc: 2\nnames:\n  0: "cell"\n  1: dirt\nother: 3\n'),
    ],
)
def test_names_of_yolo(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / name, text)
    assert yolo_names(tmp_path / "labels" / "train" / "a.txt") == {0: "cell", 1: "dirt"}
    assert yolo_names(tmp_path / "far" / "labels" / "train" / "a.txt") == {}


@pytest.mark.parametrize("number", ["²", "٣", "9" * 5000, "-1", "1.0"])
def test_wrong_numbers_of_yolo_classes(root: Path, number: str) -> None:
    write(root / "labels" / "a.txt", "0 0.2 0.5 0.2 0.4\n")
    write(root / "labels" / "b.txt", f"{number} 0.5 0.5 0.1 0.1\n")
    folder = read_folder(root)
    assert summary(folder)["b.png"] == (None, None) and summary(folder)["a.png"][0] == {"class 0": 1}
    assert any(f"labels/b.txt, row 1: {number[:40]!r} is no number of a class" in note for note in folder.notes)


@pytest.mark.parametrize("text", ["", "1 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 1e-1 0.9\n"])
def test_labels_of_an_image_called_classes(tmp_path: Path, text: str) -> None:
    write(tmp_path / "classes.txt", "cell\n2\n")
    write(tmp_path / "labels" / "classes.txt", text)
    assert yolo_names(tmp_path / "labels" / "a.txt") == {0: "cell", 1: "2"}


def test_yolo_in_pixels_is_left_out(root: Path) -> None:
    write(root / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1\n")
    write(root / "labels" / "b.txt", "0 30 20 8 8\n")
    folder = read_folder(root)
    assert [image.counts for image in folder.images] == [(1,), None, None]
    assert any("b.txt, row 1: 30 20 8 8 are no shares of the image" in note for note in folder.notes)
    assert any("class 0 without a name: write it into classes.txt" in note for note in folder.notes)


@pytest.mark.parametrize("row", ["cell 0.5 0.5 0.1 0.1", "0.0 0.5 0.5 0.1 0.1", "0,0.5,0.5,0.1,0.1"])
def test_texts_that_are_almost_yolo_are_named(root: Path, row: str) -> None:
    write(root / "labels" / "a.txt", row)
    folder = read_folder(root)
    assert folder.counts_from == "nothing"
    assert any(note.startswith("labels/a.txt: not read; for annotations of YOLO") for note in folder.notes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names:\n  # mine\n  0: a, b\n\n  1: dot # small\n"),
        ("data.yaml", "names: ['a, b', \"dot\"]\n"),
        ("data.yaml", "'names' :\n- 'a, b'\n# and\n- dot\n"),
        ("data.yaml", "names: {0: 'a, b', 1: dot}\n"),
        ("classes.txt", "a, b\ndot\n\n"),
    ],
)
def test_names_of_yolo_in_other_forms(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / name, text)
    assert yolo_names(tmp_path / "labels" / "x.txt") == {0: "a, b", 1: "dot"}


@pytest.mark.parametrize("form", ["names: [baker's yeast, E. coli]\n", "names: {0: baker's yeast, 1: E. coli}\n"])
def test_apostrophes_in_names_of_yolo(tmp_path: Path, form: str) -> None:
    write(tmp_path / "data.yaml", form)
    assert yolo_names(tmp_path / "labels" / "x.txt") == {0: "baker's yeast", 1: "E. coli"}
    for broken in ("names: [a\n", "names:\n  " + "9" * 5000 + ": x\n", "names: &a [*a]\n", "[" * 5000):
        write(tmp_path / "data.yaml", broken)
        assert yolo_names(tmp_path / "labels" / "x.txt") == {}


def test_an_empty_line_among_the_names_of_yolo_keeps_its_number(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "cell\n\ndot\n")
    assert yolo_names(tmp_path / "labels" / "x.txt") == {0: "cell", 2: "dot"}


@pytest.mark.parametrize(
    ("row", "yaml", "words"),
    [
        ("0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1", "", "keypoints of a pose"),
        ("0 0.5 0.5 0.2 0.2 0.4 0.4 1 0.6 0.6 1", "kpt_shape: [2, 3]", "keypoints of a pose"),
        ("0 0.5 0.5 0.2 0.2 0.9 17", "", "number of a track"),
    ],
)
def test_yolo_rows_that_are_no_polygons(root: Path, row: str, yaml: str, words: str) -> None:
    write(root / "data.yaml", f"names: [cell]\n{yaml}\n")
    write(root / "labels" / "a.txt", f"{row}\n")
    write(root / "labels" / "b.txt", "0 0.5 0.5 0.2 0.2\n")
    folder = read_folder(root)
    assert any(words in note for note in folder.notes) and summary(folder)["a.png"] == (None, None)
    assert summary(folder)["b.png"][0] == {"cell": 1}


def test_empty_labels_of_yolo_are_images_without_objects(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "a/deep/x.png", "b/y.jpg", "b/y.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((50, 100), np.uint8)).save(path)
    write(tmp_path / "classes.txt", "cell\ndirt\n")
    write(tmp_path / "labels" / "a" / "x.txt", "1 0.5 0.5 0.2 0.2\n")
    write(tmp_path / "labels" / "a" / "deep" / "x.txt", "0 0.5 0.5 0.2 0.2\n")
    for name in ("x", "y.jpg", "y.png"):  # all files of this folder are empty
        write(tmp_path / "labels" / "b" / f"{name}.txt", "")
    folder = read_folder(tmp_path)
    assert any(note.startswith("3 images have no object in annotations of YOLO and count 0") for note in folder.notes)
    none = {"cell": 0, "dirt": 0}
    assert {name: counts for name, (counts, _) in summary(folder).items()} == {
        "a/x.png": none | {"dirt": 1},
        "a/deep/x.png": none | {"cell": 1},
        "b/x.png": none,
        "b/y.jpg": none,
        "b/y.png": none,
    }


@pytest.mark.parametrize("names", ["[dirt, cell]", "[seed, dirt]", "{1: seed}"])
def test_names_that_differ_are_said(root: Path, names: str) -> None:
    write(root / "labels" / "a.txt", "0 .5 .5 .1 .1\n1 .2 .2 .1 .1\n")
    write(root / "labels" / "classes.txt", "cell\ndirt\n")
    write(root / "data.yaml", "names: [cell, dirt, more]\n")
    assert not any("differently" in note for note in read_folder(root).notes)
    write(root / "data.yaml", f"names: {names}\n")
    folder = read_folder(root)
    assert folder.class_names == ("cell", "dirt")
    assert any("labels/classes.txt and data.yaml name the classes differently" in note for note in folder.notes)


def test_names_that_differ_between_folders_are_said(tmp_path: Path) -> None:
    for split in ("train", "val"):
        blank_image(tmp_path / "images" / split / f"{split}.png")
        write(tmp_path / "labels" / split / f"{split}.txt", "0 .5 .5 .1 .1\n")
    write(tmp_path / "labels" / "train" / "classes.txt", "cell\ndirt\n")
    write(tmp_path / "labels" / "val" / "classes.txt", "dirt\ncell\n")
    notes = " ".join(read_folder(tmp_path).notes)
    assert "labels/train/classes.txt and labels/val/classes.txt name the classes differently" in notes
    for split in ("train", "val"):
        (tmp_path / "labels" / split / "classes.txt").unlink()
    write(tmp_path / "data.yaml", "names: [cell, dirt]\n")
    write(tmp_path / "dataset.yaml", "names: [dirt, cell]\n")
    assert "data.yaml and dataset.yaml name the classes differently" in " ".join(read_folder(tmp_path).notes)


def test_rows_of_predictions_are_said(root: Path) -> None:
    write(root / "labels" / "a.txt", "0 .5 .5 .1 .1 0.9\n0 .2 .2 .1 .1 0.4\n")
    write(root / "labels" / "b.txt", "0 .5 .5 .1 .1\n")
    said = "annotations of YOLO: 2 boxes have a sixth value, as the confidence of predictions, and are used as the true"
    assert sum(note.startswith(said) and "(a.png)" in note for note in read_folder(root).notes) == 1
    write(root / "labels" / "a.txt", "0 .5 .5 .1 .1\n0 .2 .2 .1 .1 .3 .1\n")
    assert not any("sixth" in note for note in read_folder(root).notes)
