"""Annotations of Label Studio, as it exports them: counts, and boxes where there are some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mistnn.data.folder.content import OwnFolder, read_folder
from tests.data.annotated import blank_image, summary, write

SIZE = {"original_width": 100, "original_height": 50, "image_rotation": 0}
BOX = {"x": 10, "y": 20, "width": 20, "height": 40, "rotation": 0, "rectanglelabels": ["cell"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        blank_image(tmp_path / "images" / f"{name}.png")
    return tmp_path


def shape(value: dict[str, Any], kind: str = "rectanglelabels", key: str = "x1", **more: Any) -> dict[str, Any]:
    return {"id": key, "type": kind, "from_name": "label", "to_name": "image", "value": value, **SIZE, **more}


def task(image: str, *results: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": one} for one in results], **more}


def read(root: Path, *tasks: Any) -> OwnFolder:
    write(root / "project-1-at-2026-05-01.json", list(tasks))
    return read_folder(root)


def test_every_shape(root: Path) -> None:
    shapes = [
        shape(BOX),
        shape({"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "ellipselabels": ["cell"]}, "ellipselabels"),
        shape({"points": [[0, 0], [8, 0], [4, 12]], "polygonlabels": ["dirt"]}, "polygonlabels"),
        {"type": "choices", "value": {"choices": ["blurred"]}},
        {"type": "relation", "from_id": "x1", "to_id": "x2"},
    ]
    point = shape({"x": 3, "y": 3, "width": 0.5, "keypointlabels": ["dirt"]}, "keypointlabels")
    folder = read(root, task("/data/upload/1/0123abcd-a.png", shapes), task("b.png", [point]), task("c.png", []))
    assert summary(folder) == {
        "a.png": ({"cell": 2, "dirt": 1}, [[10, 10, 30, 30], [40, 20, 60, 30], [0, 0, 8, 6]]),
        "b.png": ({"cell": 0, "dirt": 1}, None),
        "c.png": ({"cell": 0, "dirt": 0}, []),
    }
    assert any("c.png" in note and "nobody has annotated" in note for note in folder.notes)


def test_shapes_and_labels_apart(root: Path) -> None:
    """The tag Rectangle with the tag Labels: one object, in two entries of one id."""
    plain = {key: value for key, value in BOX.items() if key != "rectanglelabels"}
    entries = [shape(plain, "rectangle"), shape({**plain, "labels": ["cell"]}, "labels")]
    found = summary(read(root, task("a.png", [*entries, shape(plain, "rectangle", "x2")])))["a.png"]
    assert found == ({"cell": 1, "object": 1}, [[10, 10, 30, 30]] * 2)


def test_turned_boxes(root: Path) -> None:
    """By 90 degrees, clockwise about the upper left corner; half the height of the image is a quarter of its width."""
    folder = read(root, task("a.png", [shape({**BOX, "x": 60, "rotation": 90})]))
    assert summary(folder)["a.png"] == ({"cell": 1}, [[40, 10, 60, 30]])
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 40, "rotation": 90, "ellipselabels": ["cell"]}
    folder = read(root, task("a.png", [shape(ellipse, "ellipselabels")]))
    assert summary(folder)["a.png"] == ({"cell": 1}, [[30, 15, 70, 35]])


@pytest.mark.parametrize(
    ("image", "more"),
    [
        ("https://example.org/x/a.png?token=1", {}),
        ("s3://bucket/some%20folder/a.png", {}),
        ("/data/local-files/?d=images/a.png", {}),
        ("C:\\photos\\a.png", {}),
        ("x", {"file_upload": "89abcdef-a.png"}),
    ],
)
def test_names_of_images(root: Path, image: str, more: dict[str, Any]) -> None:
    assert summary(read(root, task(image, [shape(BOX)], **more)))["a.png"] == ({"cell": 1}, [[10, 10, 30, 30]])


def test_local_files_keep_their_folder(tmp_path: Path) -> None:
    for name in ("x/1.png", "y/1.png"):
        blank_image(tmp_path / "images" / name)
    tasks = [task("/data/local-files/?d=x/1.png", [shape(BOX)]), task("/data/local-files/?d=y/1.png", [])]
    counts = {name: found[0] for name, found in summary(read(tmp_path, *tasks)).items()}
    assert counts == {"x/1.png": {"cell": 1}, "y/1.png": {"cell": 0}}


def test_what_nobody_has_annotated_is_not_counted(root: Path) -> None:
    skipped = {**task("b.png"), "annotations": [{"result": [shape(BOX)], "was_cancelled": True}]}
    predicted = {**task("c.png"), "predictions": [{"result": [shape(BOX)]}]}
    counts = {
        name: found[0] for name, found in summary(read(root, task("a.png", [shape(BOX)]), skipped, predicted)).items()
    }
    assert counts == {"a.png": {"cell": 1}, "b.png": None, "c.png": None}


def test_two_annotations_of_an_image(root: Path) -> None:
    twice = task("b.png", [shape(BOX)], [shape(BOX), shape(BOX)])
    folder = read(root, task("a.png", [shape(BOX)]), twice)
    assert summary(folder)["b.png"] == (None, None)
    assert any("image b.png has 2 annotations" in note and "ground truth" in note for note in folder.notes)
    twice["annotations"][1]["ground_truth"] = True
    assert summary(read(root, task("a.png", [shape(BOX)]), twice))["b.png"][0] == {"cell": 2}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (shape({"format": "rle", "rle": [1], "brushlabels": ["cell"]}, "brushlabels"), "brush 2 is a shape that isn't"),
        (shape(BOX, "cuboidlabels"), "cuboid 2 is a shape that isn't"),
        (shape(BOX, image_rotation=90), "turned image"),
        (shape({**BOX, "x": "left"}), "expected"),
        (shape(BOX, original_width=None), "the size"),
        (shape({"points": [], "polygonlabels": ["cell"]}, "polygonlabels"), "no points"),
        (shape({"points": [[1]], "polygonlabels": ["cell"]}, "polygonlabels"), "expected"),
    ],
)
def test_what_is_not_read_is_named_with_its_image(root: Path, entry: dict[str, Any], words: str) -> None:
    folder = read(root, task("a.png", [shape(BOX)]), task("b.png", [shape(BOX), entry]))
    assert summary(folder)["b.png"] == (None, None) and summary(folder)["a.png"][0] == {"cell": 1}
    assert any("left out" in note and "image b.png" in note and words in note for note in folder.notes), folder.notes


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"data": 3, "annotations": 3, "result": 0}]', "["])
def test_broken_exports_are_named(root: Path, content: str) -> None:
    write(root / "good.json", json.dumps([task("a.png", [shape(BOX)])]))
    write(root / "bad.json", content.replace("{}", '{"annotations": 1, "data": 1, "result": 1}'))
    folder = read_folder(root)
    assert summary(folder)["a.png"][0] == {"cell": 1} and "Traceback" not in "".join(folder.notes)
