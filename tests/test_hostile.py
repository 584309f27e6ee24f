"""Input that should do harm: formulas, paths out of the folder, XML bombs, deep JSON, letters that aren't any.

That reports escape HTML is tested in ``tests/reports``.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mistnn.cli.main import main
from mistnn.data import read_folder
from mistnn.data.text_files import as_cell, from_cell, read_json, read_xml
from mistnn.errors import MistError
from mistnn.inference import Predictor, predict_folder
from tests.cli.runs import only_line
from tests.data.layouts import counts_of, make, refused, voc, write
from tests.inference.fakes import FakeDetector


@given(st.text())
def test_a_cell_is_read_back_and_is_never_a_formula(text: str) -> None:
    written = as_cell(text)
    assert from_cell(written) == text
    assert not written.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_tables_hold_no_formula(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = ["=cmd().png", "+1.png", "-1.png", "@x.png", "'=x.png", "usual.png"]
    for name in names:
        Image.new("L", (24, 20)).save(tmp_path / "in" / name)
    predictor = Predictor(FakeDetector(class_names=("=1+1", "odd")))
    predict_folder(predictor, [tmp_path / "in"], tmp_path / "out", 2)
    seen = set()
    for table in ("counts.csv", "detections.csv"):
        with (tmp_path / "out" / table).open(newline="") as file:
            for row in csv.DictReader(file):
                cells = [row["file"], row.get("class") or row.get("label") or ""]
                assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
                seen.add(from_cell(cells[0]))
    assert seen == set(names)
    # The counts, corrected by hand, are the labels of a training: the names are those of the images again.
    with (tmp_path / "out" / "counts.csv").open(newline="") as file:
        rows = [(row["file"], row["class"], row["count"]) for row in csv.DictReader(file)]
    text = "file,class,count\n" + "".join(",".join(row) + "\n" for row in rows)
    folder = read_folder(write(tmp_path / "in", text))
    assert folder.class_names == ("=1+1", "odd") and all(counts_of(folder).values())


@pytest.mark.parametrize("name", ["../secret.png", "{parent}/secret.png", "..\\secret.png", "images/../../secret.png"])
def test_names_never_leave_the_folder(tmp_path: Path, name: str) -> None:
    root = make(tmp_path / "folder")
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    name = name.replace("{parent}", str(tmp_path))
    refused(write(root, f"file,class,count\n{name},red,1\n"), "secret.png")
    (root / "counts.csv").unlink()
    coco = {
        "images": [{"id": 1, "file_name": name, "width": 4, "height": 4}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
        "categories": [{"id": 1, "name": "red"}],
    }
    folder = read_folder(write(root, json.dumps(coco), "annotations.json"))
    assert all(image.path.is_relative_to(root) and image.counts is None for image in folder.images)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_entities_is_refused(tmp_path: Path, encoding: str) -> None:
    bomb = '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {one} "&{last};&{last};">' for last, one in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (tmp_path / "secret.txt").write_text("secret")
    outside = f'<!ENTITY i SYSTEM "{(tmp_path / "secret.txt").as_uri()}">'
    for entities in (bomb, outside):
        text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE x [{entities}]><annotation>&i;</annotation>'
        (tmp_path / "a.xml").write_bytes(text.encode(encoding))
        with pytest.raises(MistError, match="declares an entity") as error:
            read_xml(tmp_path / "a.xml", "a.xml")
        assert "secret" not in str(error.value)
    root = make(tmp_path / "folder", "a.png")
    write(root, voc(("red", (1, 1, 3, 3))), "Annotations/a.xml")
    assert counts_of(read_folder(root)) == {"a.png": (1,)}


def test_deep_json_is_refused(tmp_path: Path) -> None:
    for text in ("[" * 200_000, '{"a":' * 200_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(MistError, match="broken JSON"):
            read_json(tmp_path / "a.json", "a.json")
    (tmp_path / "config.json").write_text("[" * 200_000)
    assert main(["evaluate", str(tmp_path)]) == 2


def test_a_huge_cell_is_refused(tmp_path: Path) -> None:
    huge = "x" * 140_000
    refused(write(make(tmp_path / "a"), f"file,class,count\na.png,{huge},1\n"), "counts.csv, row", "field larger")
    refused(write(make(tmp_path / "b"), f"file,{huge}\na.png,1\n"), "counts.csv, row 1", "field larger")


def test_class_names_that_cannot_be_written_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(write(make(tmp_path / "a"), "file,class,count\na.png,re\x07d,1\n"), r"'re\x07d'", "rename it")
    entry = {"file": "a.png", "width": 8, "height": 6, "boxes": [[0, 0, 4, 4]], "labels": ["\ud800"]}
    root = write(make(tmp_path / "b"), json.dumps([entry]), "boxes.json")
    assert main(["inspect", str(root), "--no-estimate", "--out", str(tmp_path / "x.png")]) == 2
    only_line(capsys.readouterr().err, "ud800", "rename it")


def test_an_error_can_always_be_written(tmp_path: Path) -> None:
    """Also where JSON holds a lone surrogate, or a file name bytes that are no UTF-8."""
    root = write(make(tmp_path / "a"), '[{"file": "\\ud800", "width": 8, "height": 6}]', "boxes.json")
    with pytest.raises(MistError, match="boxes.json, entry 1") as caught:
        read_folder(root)
    assert "(\\ud800)" in str(caught.value)
    name = os.fsdecode(b"n\xff")
    assert str(MistError(f"{name}: gone")).encode() == b"n\\udcff: gone"
