"""Names and tables as users have them: each is read right or named, and none is taken for another silently."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from mistnn.cli.main import main
from mistnn.data import read_folder
from mistnn.data.folder.files import NameMatcher
from mistnn.errors import MistError, MistWarning
from mistnn.inference import Predictor, predict_folder
from tests.data.layouts import counts_of, make, noted, refused, voc, write
from tests.inference.fakes import FakeDetector

LINUX = pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="needs names of bytes")


def notes_of(root: Path) -> str:
    return "\n".join(read_folder(root).notes)


@LINUX
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_names_that_are_not_utf_8(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As from a ZIP archive of old Windows: the table may be in either encoding."""
    root = make(tmp_path / "own", "a.png")
    name = os.fsdecode("z\u00e4hl.png".encode("cp1252"))
    Image.new("L", (8, 6)).save(root / "images" / name)
    (root / "counts.csv").write_bytes("file,class,count\na.png,red,1\nz\u00e4hl.png,red,2\n".encode(encoding))
    assert counts_of(read_folder(root)) == {"a.png": (1,), name: (2,)}
    assert main(["inspect", str(root), "--no-estimate", "--out", str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().err == ""


@LINUX
def test_names_with_line_breaks_stay_on_one_line(tmp_path: Path) -> None:
    root = make(tmp_path / "own", "a\nb.png", "c.png")
    (root / "images" / "d\ne.png").write_bytes(b"no image")
    folder = read_folder(write(root, 'file,class,count\n"a\nb.png",red,1\nc.png,red,2\n'))
    assert counts_of(folder)["a\nb.png"] == (1,)
    assert any(r"d\ne.png is left out" in note for note in folder.notes)
    assert not any("\n" in note for note in folder.notes)


def test_an_exact_name_means_its_image() -> None:
    composed, apart = (unicodedata.normalize(form, "z\u00e4hl.png") for form in ("NFC", "NFD"))
    both = NameMatcher([composed, apart])
    assert both.match(composed) == [composed] and both.match(apart) == [apart]
    assert NameMatcher([apart]).match(composed) == [apart]
    assert sorted(both.match(f"images/{composed}")) == sorted([composed, apart])
    spaces = NameMatcher(["a.png", " a.png"])
    assert spaces.match(" a.png") == [" a.png"] and spaces.match("a.png") == ["a.png"]
    with pytest.raises(MistError, match=r"'A\.png' or 'a\.PNG'"):
        NameMatcher(["A.png", "a.PNG"]).find("A.PNG", "row 2")


def test_names_with_different_folders_are_said(tmp_path: Path) -> None:
    root = make(tmp_path / "own", "a.png", "b.png")
    table = "file,cell\n{}a.png,1\n{}b.png,2\n"
    said = "have different folders that the images don't have: '{}' is taken for"
    assert said.format("siteB/b.png") in notes_of(write(root, table.format("", "siteB/")))
    assert said.format("C:/data/a.png") in notes_of(write(root, table.format("C:/data/", "siteB/")))
    assert "folders" not in notes_of(write(root, table.format("C:/data/", "C:/data/")))


def test_every_kind_of_annotations_is_named(tmp_path: Path) -> None:
    root = write(make(tmp_path / "own"), "file,cell\na.png,1\n")
    coco = '{"images": [], "annotations": [], "categories": []}'
    write(write(root, coco, "annotations.json"), coco, "boxes.json")
    notes = notes_of(root)
    assert "annotations.json" in notes and "COCO JSON under another name (boxes.json): not read" in notes


def test_a_second_table_is_named(tmp_path: Path) -> None:
    root = make(tmp_path / "own")
    table = "file,class,count\na.png,red,1\n"
    write(write(root, table), table.replace("1", "2"), "images/counts.csv")
    assert counts_of(read_folder(root))["a.png"] == (1,)
    assert "images/counts.csv isn't used: counts.csv is" in notes_of(root)


@pytest.mark.parametrize("name", ["counts.csv.txt", "count.csv", "counts (1).csv", "Zahlen.csv"])
def test_a_table_of_another_name_is_named(tmp_path: Path, name: str) -> None:
    root = write(make(tmp_path / "own"), "Image;cells\na.png;3\n", name)
    assert f"{name}: not read; if it holds the counts of the images, call it counts.csv" in notes_of(root)
    write(root, "Image;cells\na.png;3\n".encode("utf-16"), name)
    assert f"{name}: not read" in notes_of(root)
    write(root, "file,cells\na.png,3\n")
    assert name not in notes_of(root)


def test_images_and_folders_that_are_not_used_are_named(tmp_path: Path) -> None:
    root = make(tmp_path / "own", "train/a.png", "val/b.png", "c.png")
    assert "the folders train, val are no splits, because other images lie elsewhere (c.png)" in notes_of(root)
    (root / "images" / "c.png").rename(root / "d.png")
    assert "1 images beside the folder images are not used (d.png)" in notes_of(root)
    assert "no splits" not in notes_of(root)


def test_true_is_no_count(tmp_path: Path) -> None:
    """As a spreadsheet writes it: it says that there are objects, not how many."""
    with pytest.raises(MistError, match=r"'TRUE' says only whether there are objects: .*labels\.csv"):
        read_folder(write(make(tmp_path / "own"), "file,cells\na.png,TRUE\nb.png,FALSE\nc.jpg,TRUE\n"))


def test_counts_that_differ_from_boxes_are_named(tmp_path: Path) -> None:
    root = write(make(tmp_path / "own"), voc(("red", (1, 1, 3, 3))), "Annotations/a.xml")
    write(root, "file,class,count\na.png,red,3\n")
    assert "differ from the numbers of boxes in 1 images (a.png: 3 red and 1 boxes)" in notes_of(root)
    write(root, "file,class,count\na.png,red,1\n")
    assert "differ" not in notes_of(root)


def test_classes_that_are_almost_alike_are_named(tmp_path: Path) -> None:
    root = make(tmp_path / "own")
    write(root, "file,class,count\na.png,Red cell,3\nb.png,red-cell,2\n")
    assert "classes with almost the same name ('Red cell' and 'red-cell')" in notes_of(root)
    write(root, "file,Red,red\na.png,3,1\nb.png,1,2\n")
    assert "('Red' and 'red')" in notes_of(root)
    write(root, "file,red,white\na.png,3,1\nb.png,1,2\n")
    assert "almost" not in notes_of(root)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_named(tmp_path: Path, suffix: str) -> None:
    first, empty = Image.radial_gradient("L").resize((20, 16)).convert("P"), Image.new("P", (20, 16))
    for name, frames in (("a", (first, empty)), ("empty", (empty, first))):
        frames[0].save(tmp_path / f"{name}.{suffix}", save_all=True, append_images=frames[1:])
    out = tmp_path / "found"
    paths = [tmp_path / f"{one}.{suffix}" for one in ("a", "empty")]
    with pytest.warns(MistWarning, match=rf"1 files hold several pages \(a.{suffix}: 2\): only the first"):
        summary = predict_folder(Predictor(FakeDetector()), paths, out, 1)
    assert summary.images == 1 and "first of its 2 frames is empty" in summary.skipped[0].reason
    assert f"2 files hold several pages (a.{suffix}: 2, empty.{suffix}: 2)" in notes_of(tmp_path)


@pytest.mark.parametrize("other", ["gru\u0308n", "grÃ¼n"])
def test_one_class_that_is_stored_in_two_ways_is_noted(tmp_path: Path, other: str) -> None:
    """Composed and decomposed accents look the same; a table with two encodings is read in one."""
    root = write(make(tmp_path), f"file,class,count\na.png,grün,1\nb.png,{other},2\n")
    first, second = sorted(["grün", other])
    assert f"classes with almost the same name ('{first}' and '{second}')" in notes_of(root)


@pytest.mark.parametrize("sign", [",", ";"])
def test_a_quotation_mark_that_is_not_closed_is_refused(tmp_path: Path, sign: str) -> None:
    """It would swallow rows in silence."""
    rows = ["file,count,remark", 'a.png,1,"cut off', "b.png,2,", 'c.jpg,3,"ok"']
    write(make(tmp_path), "\n".join(rows).replace(",", sign))
    refused(tmp_path, "quotation mark is not closed", "row of b.png")
    write(tmp_path, 'file,count,remark\na.png,1,"cut off\nb.png, too"\nb.png,2,\nc.jpg,3,\n')
    assert [image.counts for image in read_folder(tmp_path).images] == [(1,), (2,), (3,)], "lines of a remark are none"


def test_columns_without_a_name_are_named(tmp_path: Path) -> None:
    """Those below a header of merged cells."""
    write(make(tmp_path), ",file,cells,,\n0,a.png,1,5,\n1,b.png,2,0,\n2,c.jpg,3,1,\n")
    folder = read_folder(tmp_path)
    noted(folder, "columns without a name are not used: column 4 ('5', ...); if one holds counts, name it")
    write(tmp_path, "file,class,count,\na.png,red,1,x\n")
    noted(read_folder(tmp_path), "column 4 ('x', ...)")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("red;blue", "'red;blue' is learned as one: if it lists several, write a row for each"),
        ('"red, blue"', "'red, blue' is learned as one"),
        ("None", "'None' is learned as any other: if it means that there is no object, leave the class empty"),
    ],
)
def test_odd_names_of_classes_are_named(tmp_path: Path, name: str, words: str) -> None:
    rows = ["a.png,green", f"b.png,{name}", f"c.jpg,{name}"]
    noted(read_folder(write(make(tmp_path), "\n".join(["file,class", *rows]), "labels.csv")), words)


@pytest.mark.parametrize("place", ["train.txt", "ImageSets/train.txt", "splits/train.txt", "images/train.txt"])
def test_lists_of_splits_elsewhere_are_named(tmp_path: Path, place: str) -> None:
    write(write(make(tmp_path), "file,count\na.png,1\nb.png,2\n"), "a.png\n", place)
    noted(read_folder(tmp_path), f"{place}: not read; if they list the images of each split, put them into ImageSets")


INVISIBLE = "\u200b\ufeff\u2060\u00ad\u200e\u200f\u2066"


@pytest.mark.parametrize("kind", ["rows", "columns", "labels", "voc", "coco", "boxes", "labelme", "yolo"])
def test_invisible_characters_of_a_class_are_removed(tmp_path: Path, kind: str) -> None:
    name = f"\u200dce{INVISIBLE}ll \u200b"
    make(tmp_path, size=(40, 40))
    shape = {"label": name, "shape_type": "rectangle", "points": [[1, 2], [11, 22]]}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20]}
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [box], "categories": [{"id": 1, "name": name}]}
    files = {
        "rows": ("counts.csv", f"file,class,count\na.png,cell,1\nb.png,{name},1\n"),
        "columns": ("counts.csv", f"\u200bfile,{name}\na.png,1\nb.png,1\n"),
        "labels": ("labels.csv", f"file,class\na.png,cell\nb.png,{name}\n"),
        "voc": ("Annotations/a.xml", voc((name, (2, 3, 11, 22)), size=(40, 40))),
        "coco": ("annotations.json", json.dumps(coco)),
        "boxes": ("boxes.json", json.dumps([{"file": "a.png", "boxes": [[1, 2, 11, 22]], "labels": [name]}])),
        "labelme": ("images/a.json", json.dumps({"imagePath": "a.png", "shapes": [shape]})),
        "yolo": ("labels/a.txt", "0 0.5 0.5 0.1 0.1\n"),
    }
    write(tmp_path, files[kind][1], files[kind][0])
    write(tmp_path, f"{name}\n", "classes.txt")
    folder = read_folder(tmp_path)
    assert folder.class_names == ("cell",) and folder.images[0].present == (True,)


def test_joiners_in_the_name_of_a_class_stay(tmp_path: Path) -> None:
    names = ["\U0001f469\u200d\U0001f52c", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]
    write(make(tmp_path), "\n".join(["file,class,count", *(f"a.png,{name},1" for name in names)]))
    assert set(read_folder(tmp_path).class_names) == set(names)


def test_rows_without_any_number_are_images_without_counts(tmp_path: Path) -> None:
    root = make(tmp_path / "own", "a.png", "b.png", "c.png")
    (root / "counts.csv").write_text("file,red,blue\na.png,1,2\nb.png,,\nc.png,0,0\n")
    assert counts_of(read_folder(root)) == {"a.png": (1, 2), "b.png": None, "c.png": (0, 0)}
    assert "counts.csv: b.png: no number in the row, so not counted" in notes_of(root)
    (root / "counts.csv").write_text("file,red,blue\na.png,1,2\nb.png,3,\n")
    with pytest.raises(MistError, match="row 3, blue: the value is missing"):
        read_folder(root)
    (root / "counts.csv").write_text("file,red,blue\na.png,1,2\nb.png,,\nb.png,1,1\n")
    with pytest.raises(MistError, match=r"b\.png already has a row"):
        read_folder(root)
    (root / "counts.csv").write_text("file,count\na.png,\nb.png,\n")
    with pytest.raises(MistError, match="no row holds a count"):
        read_folder(root)


def test_a_table_that_a_prediction_wrote_is_named_as_one(tmp_path: Path) -> None:
    root = make(tmp_path / "own")
    predict_folder(Predictor(FakeDetector()), [root], tmp_path / "results", k=2, overlays=False)
    write(root, (tmp_path / "results/counts.csv").read_bytes())
    noted(read_folder(root), "counts.csv looks like the table of a prediction", "not ground truth")
    write(root, (tmp_path / "results/detections.csv").read_bytes(), "detections.csv")
    noted(read_folder(root), "not ground truth")


def test_folders_in_another_case_are_the_same(tmp_path: Path) -> None:
    root = write(
        make(tmp_path, "a.png", "b.png"), "file,class,count\nDay1/a.png,red,2\nday1/a.png,blue,1\nb.png,red,3\n"
    )
    assert counts_of(read_folder(root)) == {"a.png": (1, 2), "b.png": (0, 3)}


def counted(root: Path, header: str, *columns: tuple[int, ...], rows: bool = False) -> str:
    """The notes on a table with these columns, or with rows of classes."""
    make(root, *(f"{index}.png" for index in range(len(columns[0]))))
    names, lines = header.split(","), [header]
    for index, row in enumerate(zip(*columns, strict=True)):
        lines.append(",".join(map(str, (f"{index}.png", *row))))
    if rows:
        long = [
            f"{at}.png,{name},{n}" for name, one in zip(names[1:], columns, strict=True) for at, n in enumerate(one)
        ]
        lines = ["file,class,count", *long]
    return notes_of(write(root, "\n".join(lines)))


@pytest.mark.parametrize("rows", [False, True])
def test_counts_of_two_people_are_named(tmp_path: Path, rows: bool) -> None:
    anna, ben = (12, 7, 30, 4, 19, 25, 9, 15, 40, 3), (13, 7, 28, 5, 18, 25, 8, 16, 43, 9)
    said = (
        "classes Anna and Ben have nearly the same number in 9 of 10 images: if they count the same objects, keep one"
    )
    assert said in counted(tmp_path / "close", "file,Anna,Ben", anna, ben, rows=rows)
    assert "same number" not in counted(tmp_path / "far", "file,Anna,Ben", anna, ben[::-1], rows=rows)


@pytest.mark.parametrize("rows", [False, True])
def test_a_class_that_is_the_sum_of_some_others_is_named(tmp_path: Path, rows: bool) -> None:
    new, old, diff = (3, 0, 7, 2, 5, 9, 1), (4, 2, 2, 8, 0, 1, 6), (9, 3, 1, 1, 4, 0, 2)
    cells = tuple(one + other for one, other in zip(new, old, strict=True))
    notes = counted(tmp_path, "file,cells,diff,new,old", cells, diff, new, old, rows=rows)
    assert "class cells is the sum of new and old in 7 of 7 images: if it is a total, remove it" in notes
    assert notes.count("the sum of") == 1


@pytest.mark.parametrize("name", ["set", "subset", "partition", "fold", "dataset", "phase"])
@pytest.mark.parametrize("header", ["file,{},red", "file,{},class,count"])
def test_splits_under_another_name_are_named(tmp_path: Path, name: str, header: str) -> None:
    """In a table with columns of classes, and in one with rows of them."""
    place = ",red" * ("class" in header)
    text = f"{header.format(name)}\na.png,Train{place},1\nb.png,Train{place},2\nc.jpg,test{place},3\n"
    folder = read_folder(write(make(tmp_path), text))
    said = f"counts.csv: column {name!r} is not used: its values are Train and test: call it split to use them"
    assert noted(folder, repr(name)) == said
    assert counts_of(folder) == {"a.png": (1,), "b.png": (2,), "c.jpg": (3,)}


def test_other_words_of_splits(tmp_path: Path) -> None:
    make(tmp_path)
    refused(write(tmp_path, "file,set\na.png,train\nb.png,test\n"), "call it split", "no other column holds counts")
    write(tmp_path, "file,red,check\na.png,1,valid\nb.png,2,valid\n")
    assert "split" not in noted(read_folder(tmp_path), "check")
    write(tmp_path, "file,red,split,set\na.png,1,train,test\nb.png,2,test,train\n")
    assert "call it split" not in noted(read_folder(tmp_path), "'set'")
