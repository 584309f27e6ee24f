"""Folders as people have them: every format of counts, labels and splits, and every mistake in them."""

from __future__ import annotations

import os
import struct
import unicodedata
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from mistnn.data import read_folder
from tests.data.layouts import NAMES, counts_of, image_of, make, noted, refused, write

LONG = "file,class,count\na.png,red,3\na.png,white,1\nb.png,red,0\nb.png,white,2\nc.jpg,red,4\nc.jpg,white,0\n"
EXPECTED = {"a.png": (3, 1), "b.png": (0, 2), "c.jpg": (4, 0)}


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        LONG.replace(",", ";"),
        LONG.replace(",", "\t"),
        LONG.replace("\n", "\r\n"),
        "\n\n" + LONG.replace("\n", "\n\n"),
        LONG.replace(",", " , ").replace("\n", " \n "),
        LONG.replace("a.png", '"a.png"').replace("file,class", '"file","class"'),
        LONG.replace("file,class,count", "Image Name,LABEL,N"),
        "n;Filename;Label\n3;a;red\n1;a;white\n0;b;red\n2;b;white\n4;c;red\n0;c;white\n",
        LONG.replace(".png", "").replace(".jpg", ""),
        LONG.replace("a.png", "images/a.png").replace("b.png", "C:\\scans\\images\\b.png"),
        LONG.replace(",3", ",3.0").replace(",4", ",4.00"),
        LONG.replace(",", ";").replace(";3", ";3,0"),
        "sep=;\r\n" + LONG.replace(",", ";"),
        "file,red,white\na.png,3,1\nb.png,0,2\nc.jpg,4,0\n",
        "file;red;white;\na.png;3;1;\nb.png;0,0;2;\nc.jpg;4;0;\n",
        ",file,red,white\n0,a.png,3,1\n1,b.png,0,2\n2,c.jpg,4,0\n",
    ],
)
def test_counts_in_every_shape(tmp_path: Path, text: str) -> None:
    folder = read_folder(write(make(tmp_path), text))
    assert folder.class_names == ("red", "white") and folder.counts_from == "counts.csv"
    assert counts_of(folder) == EXPECTED
    assert image_of(folder, "a.png").present == (True, True) and image_of(folder, "b.png").present == (False, True)
    assert all(image.boxes is None and image.labels is None for image in folder.images)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    make(tmp_path, "zellä.png", "b.png")
    folder = read_folder(write(tmp_path, "file;größe\nzellä.png;3\nb.png;1\n".encode(encoding)))
    assert folder.class_names == ("größe",) and counts_of(folder) == {"b.png": (1,), "zellä.png": (3,)}


def test_accents_written_apart_are_the_same_name(tmp_path: Path) -> None:
    make(tmp_path, unicodedata.normalize("NFD", "zellä.png"))
    assert read_folder(write(tmp_path, "file,n\nzellä,3\n")).images[0].counts == (3,)


def test_one_class_without_a_name(tmp_path: Path) -> None:
    folder = read_folder(write(make(tmp_path), "Name\tNumber\na\t2\nb\t0\nc\t5\n"))
    assert folder.class_names == ("object",) and counts_of(folder) == {"a.png": (2,), "b.png": (0,), "c.jpg": (5,)}


def test_a_class_without_a_row_counts_0(tmp_path: Path) -> None:
    folder = read_folder(write(make(tmp_path), "file,class,count\na,red,3\nb,white,1\nc,red,2\nc,white,9\n"))
    assert counts_of(folder) == {"a.png": (3, 0), "b.png": (0, 1), "c.jpg": (2, 9)}
    noted(folder, "without a row count 0", "2 images", "a.png, b.png")


COUNTED = [3, 0, 2, 7, 1, 4]


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        *(
            (name, [7, 9, 7, 8, 12, 7], "by its name, although its values could be counts")
            for name in ("plate", "Plate No.", "well")
        ),
        *(
            (name, [64, 80, 64, 80, 64, 80], "by its name")
            for name in ("width", "Image Width", "imageHeight", "Total Area", "area_px")
        ),
        *((name, [3, 1, 4, 1, 5, 9], "by its name") for name in ("id", "cell ID", "Unnamed: 0", "time (h)", "day")),
        *((name, [12, 5, 7, 31, 2, 9], "by its name") for name in ("image", "Image Name", "name")),
        ("taken", ["2024-05-01"] * 6, "'2024-05-01' is text"),
        ("stamp", [20240501, 20240502, 20240501, 20240501, 20240507, 20240503], "'20240501' is too large"),
        ("ph_7", [7, 7.2, 7, 7, 7.4, 7], "by its name"),
        ("strength", [7, 7.2, 7, 7, 7.4, 7], "'7.2' is a fraction"),
        ("mean grey", [123.456, 98.765, 100.5, 77.001, 120.111, 80.008], "'123.456' is a fraction"),
        ("dx", [3, -1, 4, -1, 5, 9], "'-1' is negative"),
        ("observer", ["", "NA", "", "", "nan", "-"], "empty"),
        ("number", [1, 2, 3, 4, 5, 6], "consecutive numbers"),
        ("tree", [1, 1, 2, 2, 2, 3], "numbers of groups"),
        *((name, [1, 0, 1, 1, 0, 1], "by its name") for name in ("usable", "QC ok", "excluded")),
        *((name, [12000, 0, 8000, 28000, 4000, 16000], "by its name") for name in ("cells per ml", "cells_per_cm2")),
        ("breite", [64] * 6, "64 in every row"),
    ],
)
def test_a_column_that_holds_no_counts(tmp_path: Path, name: str, values: list[object], why: str) -> None:
    make(tmp_path, *(f"{index}.png" for index in range(6)))
    table = [["file", "red", name], *([f"{index}.png", COUNTED[index], values[index]] for index in range(6))]
    folder = read_folder(write(tmp_path, "\n".join(";".join(map(str, row)) for row in table)))
    assert folder.class_names == ("red",) and [image.counts for image in folder.images] == [(n,) for n in COUNTED]
    noted(folder, "counts.csv, row 1", "left out", f"'{name}' ({why})", f"'{name} count'", "file,class,count")
    assert folder.notes[0].startswith("counts.csv"), "the first note is the one that a training shows"


@pytest.mark.parametrize("name", ["width count", "plates_counted_count", "green", "5", "x"])
def test_a_column_of_counts_stays(tmp_path: Path, name: str) -> None:
    make(tmp_path, *(f"{index}.png" for index in range(6)))
    rows = [f"{index},{COUNTED[index]},{index % 3}" for index in range(6)]
    folder = read_folder(write(tmp_path, "\n".join([f"file,red,{name}", *rows])))
    assert folder.class_names == ("red", name) and not any("left out" in note for note in folder.notes)


def test_files_of_two_folders_are_not_one_image(tmp_path: Path) -> None:
    make(tmp_path, "im0.png", "im1.png")
    refused(
        write(tmp_path, "file,class,count\nsiteA/im0.png,red,2\nsiteB/im0.png,blue,1\n"),
        "'siteA/im0.png' and 'siteB/im0.png' are two files",
    )
    rows = "file,class,count\nimages/im0.png,red,2\nC:\\x\\images\\im0.png,blue,1\nim0.png,black,1\n"
    assert read_folder(write(tmp_path, rows)).images[0].counts == (1, 1, 2)


def test_a_class_that_training_images_lack_is_named(tmp_path: Path) -> None:
    make(tmp_path, *(f"{index}.png" for index in range(8)))
    splits = ["train"] * 6 + ["validation", "test"]
    rows = [
        f"{index}.png,{1 + index % 2},{int(index > 5)},{int(index in (1, 4, 7))},{splits[index]}" for index in range(8)
    ]
    folder = read_folder(write(tmp_path, "\n".join(["file,red,blue,black,split", *rows])))
    noted(folder, "class blue is in no training image", "too little to learn it")
    noted(folder, "class black is in 2 training images (1.png, 4.png)")
    assert not any("class red" in note for note in folder.notes)


def test_what_remains_of_a_table_without_classes(tmp_path: Path) -> None:
    make(tmp_path, *(f"{index}.png" for index in range(6)))
    refused(write(tmp_path, "file,width,Area\n0,64,9\n"), "row 1", "no column holds counts", "'width'", "'Area'")
    folder = read_folder(write(tmp_path, "file,count,width\n0,2,64\n1,3,64\n"))
    assert folder.class_names == ("object",), "as without the other column"
    folder = read_folder(write(tmp_path, "file,eggs,x,y\n0,2,31,5\n1,3,40,77\n"))
    assert folder.class_names == ("eggs",)
    folder = read_folder(write(tmp_path, "file,v,x,y\n0,2,1,0\n1,3,0,1\n"))
    assert folder.class_names == ("v", "x", "y"), "letters are classes too"
    in_order = "\n".join(f"{index},{index},64" for index in range(6))
    folder = read_folder(write(tmp_path, f"file,eggs,width\n{in_order}\n"))
    assert folder.class_names == ("eggs",), "the only column is that of the counts"
    refused(write(tmp_path, "file,eggs,width\n0,2,64\n1,two,64\n"), "row 3, eggs", "'two'")
    refused(write(tmp_path, "file,red,eggs\n0,2,1\n1,1,two\n2,1,0\n"), "row 3, eggs", "'two'")


def test_a_total_is_no_class(tmp_path: Path) -> None:
    make(tmp_path, *(f"{index}.png" for index in range(6)))
    rows = [f"{index},{COUNTED[index]},{index % 3},{COUNTED[index] + index % 3}" for index in range(6)]
    folder = read_folder(write(tmp_path, "\n".join(["file,red,white,Total", *rows])))
    assert folder.class_names == ("red", "white")
    noted(folder, "'Total' (the sum of the others)")


@pytest.mark.parametrize("text", [
    "file,red,white,total\n0,1,2,3\n1,2,2,4\n",
    "file,class,count\n0,red,1\n0,white,2\n0,total,3\n1,red,2\n1,white,2\n1,total,4\n",
    "file,class,count\n0,red,1\n0,total,1\n1,red,2\n1,total,2\n",
    "file,red,white,beide\n0,1,2,3\n1,2,2,4\n2,0,5,5\n3,0,0,0\n",
])  # fmt: skip
def test_a_class_that_may_be_a_total_is_noted(tmp_path: Path, text: str) -> None:
    """In few rows, in rows of classes, or under another name: it would count every object twice."""
    make(tmp_path, *(f"{index}.png" for index in range(4)))
    name = "beide" if "beide" in text else "total"
    folder = read_folder(write(tmp_path, text))
    assert name in folder.class_names
    noted(folder, f"class {name} is the sum of the others: if it is a total, remove it")
    other = read_folder(
        write(tmp_path, text.replace("total,3", "total,9").replace(",2,3", ",2,9").replace("al,1", "al,9"))
    )
    if name == "total":
        noted(other, "class total differs from the sum of the others in 0.png")
    else:
        assert not any("total" in note for note in other.notes), "a name of its own, and another number in one image"


def test_classes_that_may_count_the_same_objects_are_noted(tmp_path: Path) -> None:
    make(tmp_path, *(f"{index}.png" for index in range(10)))
    numbers = (1, 2, 4, 3, 0, 1, 2, 6, 1, 3)

    def notes(header: str, *rows: tuple[int, ...]) -> str:
        lines = [",".join(map(str, (f"{index}.png", *row))) for index, row in enumerate(rows)]
        return "\n".join(read_folder(write(tmp_path, "\n".join([header, *lines]))).notes)

    again = [(n, n + (index == 7)) for index, n in enumerate(numbers)]
    assert "classes ann and ben have the same number in 8 of 9 images" in notes("file,ann,ben", *again)
    assert "same number" not in notes("file,ann,ben", *((n, 9 - n) for n in numbers))
    said = notes("file,count,ann", *((n, n // 2) for n in numbers))
    assert "class count differs from the sum of the others" in said
    nearly = [(n, index % 4, n + index % 4 + (index == 3)) for index, n in enumerate(numbers)]
    assert "class beide differs from the sum of the others in 3.png" in notes("file,rot,weiss,beide", *nearly)
    assert "class 'background' is learned as any other" in notes("file,ann,background", *((n, 9 - n) for n in numbers))


def test_rows_of_a_class_without_a_number_are_not_counted(tmp_path: Path) -> None:
    root = write(make(tmp_path), "file,class,count\na.png,red,2\nb.png,red,\nb.png,white,\nc.jpg,white,1\n")
    folder = read_folder(root)
    assert [image.counts for image in folder.images] == [(2, 0), None, (0, 1)]
    noted(folder, "b.png: no number in the row, so not counted")
    refused(write(root, "file,class,count\na.png,red,2\na.png,white,\n"), "row 3", "missing")


def test_more_columns_beside_classes_in_rows(tmp_path: Path) -> None:
    text = LONG.replace("count", "count,width").replace("\n", ",64\n").replace("width,64", "width")
    folder = read_folder(write(make(tmp_path), text))
    assert counts_of(folder) == EXPECTED
    noted(folder, "not used", "'width'")


@pytest.mark.parametrize(
    "text", ["file,class\na,red\na,white\nb,red\nc,\n", "image,red,white\na.png,1,1\nb.png,1,0\nc.jpg,0,0\n"]
)
def test_labels(tmp_path: Path, text: str) -> None:
    folder = read_folder(write(make(tmp_path), text, "Labels.csv"))
    assert folder.class_names == ("red", "white") and folder.counts_from == "labels.csv"
    assert [image.present for image in folder.images] == [(True, True), (True, False), (False, False)]
    assert all(image.counts is None for image in folder.images)


def test_counts_go_before_labels(tmp_path: Path) -> None:
    folder = read_folder(write(write(make(tmp_path), LONG), "file,class\na,blue\n", "labels.csv"))
    assert folder.class_names == ("red", "white")
    noted(folder, "labels.csv isn't used")


def test_nothing_is_known(tmp_path: Path) -> None:
    folder = read_folder(str(make(tmp_path)))
    assert folder.counts_from == "nothing" and folder.class_names == ()
    assert all(image.counts is None and image.present is None for image in folder.images)


@pytest.mark.parametrize("place", ["images", "JPEGImages", "."])
def test_where_images_lie(tmp_path: Path, place: str) -> None:
    make(tmp_path, "b.png", "sub/a.png", ".hidden.png", folder=place, size=(7, 5))
    folder = read_folder(write(tmp_path, "file,n\nsub\\a.png,1\nb.png,2\n"))
    assert counts_of(folder) == {"b.png": (2,), "sub/a.png": (1,)}
    image = folder.images[1]
    assert (image.width, image.height) == (7, 5) and image.path == tmp_path / place / "sub" / "a.png"


def test_images_are_upright(tmp_path: Path) -> None:
    make(tmp_path)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for suffix in ("jpg", "png"):
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / f"turned.{suffix}", exif=exif)
    for image in read_folder(tmp_path).images:
        assert (image.width, image.height) == ((6, 8) if image.name.startswith("turned") else (8, 6))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,class,count\na,red,-1\n", ["counts.csv, row 2", "'-1'", "negative", "0 or more"]),
        ("file,class,count\n\na,red,1.5\n", ["counts.csv, row 3", "'1.5'", "fraction"]),
        ("file;class;count\na;red;1,5\n", ["row 2", "'1,5'", "fraction"]),
        ("file;class;count\na;red;1,000\n", ["row 2", "'1,000'", "1000", "separator"]),
        ("file,class,count\na,red,\n", ["row 2", "missing"]),
        ("file,class,count\na,red\n", ["row 2", "missing"]),
        ("file,class,count\na,,1\n", ["row 2", "class is missing"]),
        ("file,class,count\n,red,1\n", ["row 2", "no file"]),
        ("file,class,count\na,red,many\n", ["row 2", "'many'", "not a whole number"]),
        ("file,red,white\na,1,2\nb,1,NA\n", ["row 3, white", "'NA'"]),
        ("file,red\na,12345678901\n", ["row 2", "12345678901"]),
        ("file,class,count\na,red,1\nd.png,red,1\n", ["row 3", "'d.png'", "did you mean", "delete the row"]),
        ("file,class,count\na,red,1\nimages/a.png,red,1\n", ["row 3", "a.png", "already"]),
        ("file,class,count\na,red,1\nb,red,1\na.png,red,1\n", ["row 4", "a.png", "red", "already"]),
        ("file,red\na,1\na,1\n", ["row 3", "a.png", "already"]),
        ("file,red,red\na,1,2\n", ["row 1", "'red'", "two columns"]),
        ("a.png,red,1\n", ["row 1", "no column is called file", "file,class,count"]),
        ("file\na\n", ["row 1", "file,class,count"]),
        ("file,class\na,red\n", ["row 1", "count", "labels.csv"]),
        ("", ["counts.csv is empty"]),
        ("file,class,count\n", ["counts.csv", "no row"]),
        ("file,red\na,1,2\n", ["row 2", "3 values", "2 columns"]),
        ("file,red,split\na,1,trian\n", ["row 2", "'trian'", "train, validation or test"]),
        ("file,class,count,split\na,red,1,train\na,white,1,test\n", ["row 3", "a.png", "train", "test"]),
        (b"PK\x03\x04\0\0\x01\0", ["counts.csv", "save it as CSV"]),
        ('file,red\na,"' + "x" * 200_000 + '"\n', ["counts.csv, row 2", "field"]),
    ],
)
def test_bad_counts(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    refused(write(make(tmp_path), text), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,red\na,2\n", ["labels.csv, row 2", "2 is neither 0 nor 1", "counts.csv"]),
        ("file,class\na,red\na,red\n", ["row 3", "already"]),
        ("file,class\na,\nb,\n", ["no row names a class"]),
        ("file,red\na,yes\n", ["row 2", "'yes'"]),
    ],
)
def test_bad_labels(tmp_path: Path, text: str, words: list[str]) -> None:
    refused(write(make(tmp_path), text, "labels.csv"), *words)


@pytest.mark.parametrize("name", ["counts.csv", "labels.csv", "boxes.json", "ImageSets/Main/train.txt"])
@pytest.mark.parametrize("kind", ["a folder", "not a regular file", "a broken link"])
def test_what_is_called_like_a_table_and_is_none(tmp_path: Path, name: str, kind: str) -> None:
    """It isn't passed over, as if it weren't there; and reading a pipe would never end."""
    make(tmp_path, "a.png")
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a folder":
        path.mkdir()
    elif kind == "a broken link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        os.mkfifo(path)
    refused(tmp_path, f"{name} is {kind}")


def test_a_pipe_among_the_annotations(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    (tmp_path / "Annotations").mkdir()
    os.mkfifo(tmp_path / "Annotations" / "a.xml")
    refused(tmp_path, "a.xml is not a regular file")


def test_ambiguous_names(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a.jpg", "x/b.png", "y/b.png", "c.tif.png", "c.tif")
    for written, words in (("a", ["a.jpg", "a.png"]), ("b.png", ["x/b.png", "y/b.png"])):
        refused(write(tmp_path, f"file,n\n{written},1\n"), "row 2", f"'{written}' may be", *words)
    refused(write(tmp_path, "file,n\nz/b.png,1\n"), "row 2", "no image is called 'z/b.png'")
    folder = read_folder(write(tmp_path, "file,n\na.png,1\ny/b,2\nc.tif,3\n"))
    assert {name for name, counts in counts_of(folder).items() if counts} == {"a.png", "y/b.png", "c.tif"}


@pytest.mark.parametrize(
    ("written", "images", "example"),
    [
        (["A.PNG", "b.TIF", "C"], ["a.png", "b.png", "c.jpg"], "'A.PNG' is taken for 'a.png'"),
        (["a.tif", "x\\b.tif", "c.jpeg"], ["a.png", "x/b.png", "c.jpg"], "'a.tif' is taken for 'a.png'"),
        (["0", "07", "12.0"], ["000.png", "007.png", "012.tif"], "'0' is taken for '000.png'"),
        (["scans/X/a.tif", "Y\\A", "b.bmp"], ["x/a.png", "y/a.png", "b.png"], "'scans/X/a.tif' is taken for 'x/a.png'"),
    ],
)
def test_names_that_match_loosely(tmp_path: Path, written: list[str], images: list[str], example: str) -> None:
    make(tmp_path, *images)
    rows = "\n".join(f"{name},{count}" for count, name in enumerate(written))
    folder = read_folder(write(tmp_path, f"file,n\n{rows}\n"))
    assert counts_of(folder) == {name: (count,) for count, name in enumerate(images)}
    noted(folder, "counts.csv: 3 names differ", example)


def test_names_that_match_several_images_loosely(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a.jpg", "x/01.png", "y/001.png", "1.5.png")
    for written, words in (("a.tif", ["a.jpg", "a.png"]), ("1", ["x/01.png", "y/001.png"])):
        refused(write(tmp_path, f"file,n\n{written},1\n"), "row 2", f"'{written}' may be", *words)
    for written in ("b.tif", "z/01.png", "10", "1.6", "01.5"):
        refused(write(tmp_path, f"file,n\na.png,2\n{written},1\n"), "row 3", f"no image is called '{written}'")
    refused(write(tmp_path, "file,n\ny/1,1\n001,1\n"), "row 3", "y/001.png already has a row")
    lines = "".join(f"gone{number},1\n" for number in range(7))
    refused(write(tmp_path, f"file,n\na.png,2\n{lines}"), "row 3", "'gone0', and 6 more names fit none")


def test_split_lists_go_first(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png", "c.png", "d.png")
    write(tmp_path, "file,n,split\na,1,test\nb,1,test\nc,1,test\nd,1,test\n")
    for name, text in (("train", "a\n\nb.tif  -1\n"), ("val", "c\ngone\n")):
        write(tmp_path, text, f"ImageSets/Main/{name}.txt")
    folder = read_folder(tmp_path)
    assert [image.split for image in folder.images] == ["train", "train", "validation", None]
    noted(folder, "ImageSets/Main names 1 images that are not there", "gone")
    noted(folder, "ImageSets/Main: 1 names differ", "'b.tif' is taken for 'b.png'")
    noted(folder, "1 images have no split", "d.png")
    noted(folder, "no image is for test")
    write(tmp_path, "d\na\n", "ImageSets/Main/test.txt")
    refused(tmp_path, "test.txt, row 2", "a.png", "train")


def test_split_column(tmp_path: Path) -> None:
    folder = read_folder(write(make(tmp_path), "file,n,Split\na,1,Training\nb,1,VAL\nc,1,test\n"))
    assert [image.split for image in folder.images] == ["train", "validation", "test"]
    assert folder.class_names == ("object",)


def test_hashed_splits_are_stable(tmp_path: Path) -> None:
    make(tmp_path, *(f"{index}.png" for index in range(300)), size=(1, 1))
    splits = {image.name: image.split for image in read_folder(tmp_path).images}
    shares = Counter(splits.values())
    assert abs(shares["train"] - 210) < 25 and abs(shares["validation"] - 45) < 20 and shares["test"] > 25
    for index in range(0, 300, 2):
        (tmp_path / "images" / f"{index}.png").unlink()
    assert all(image.split == splits[image.name] for image in read_folder(tmp_path).images)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 20])
def test_small_folders_have_every_split(tmp_path: Path, count: int) -> None:
    make(tmp_path, *(f"{index:03}.png" for index in range(count)))
    splits = Counter(image.split for image in read_folder(tmp_path).images)
    assert sum(splits.values()) == count and len(splits) == min(count, 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds hardly a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_images_that_cannot_be_used_are_noted(tmp_path: Path) -> None:
    make(tmp_path)
    images = tmp_path / "images"
    (images / "bomb.png").write_bytes(bomb(50_000, 50_000))
    (images / "long.png").write_bytes(bomb(20_001, 5))
    (images / "wide.png").write_bytes(bomb(13_000, 12_500))
    (images / "text.png").write_text("no image")
    folder = read_folder(write(tmp_path, "file,n\na,1\nb,2\nbomb,3\ntext.png,1\n"))
    assert [image.name for image in folder.images] == list(NAMES)
    noted(folder, "bomb.png is left out", "pixels")
    noted(folder, "long.png is left out", "20001 x 5", "20,000")
    noted(folder, "text.png is left out", "known format")
    noted(folder, "1 more images are left out", "wide.png")
    for name in NAMES:
        (images / name).unlink()
    refused(tmp_path, "none of the 4 images", "bomb.png")


def test_photos_that_cannot_be_read_are_one_note(tmp_path: Path) -> None:
    make(tmp_path)
    for name in ("IMG_1.NEF", "IMG_2.nef", "scan.czi"):
        write(tmp_path, b"x", f"images/{name}")
    folder = read_folder(write(tmp_path, "file,n\na,1\nIMG_1,2\nscan.czi,2\n"))
    assert [image.name for image in folder.images] == list(NAMES)
    noted(folder, "2 files (IMG_1.NEF, IMG_2.nef) are left out", "raw photographs", "JPEG or PNG")
    noted(folder, "scan.czi is left out")


def test_no_images(tmp_path: Path) -> None:
    refused(tmp_path / "gone", "no such folder", "gone")
    (tmp_path / "images").mkdir()
    refused(tmp_path, "no image in folder", ".png")


def test_suspicious_counts_are_noted(tmp_path: Path) -> None:
    make(tmp_path, *(f"{index}.png" for index in range(6)))
    rows = ["0,3,0,0", "1,2,1,0", "2,2,0,0", "3,40,0,0", "4,2,0,0"]
    folder = read_folder(write(tmp_path, "file,red,white,blue\n" + "\n".join(rows)))
    noted(folder, "red", "5 x their median of 2", "3.png: 40")
    noted(folder, "white is in one image only", "1.png")
    noted(folder, "blue is in no image")
    noted(folder, "1 of 6 images have no row in counts.csv", "5.png", "training", "predicted")
    assert folder.images[5].counts is None
    folder = read_folder(write(tmp_path, "file,red\n" + "\n".join(f"{index},0" for index in range(6))))
    noted(folder, "all counts are zero")


def test_mixed_sizes_and_modes_are_noted(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, "big.png", "deep.png", size=(20, 10), mode="L")
    Image.fromarray(np.zeros((10, 20), dtype=np.uint16)).save(tmp_path / "images" / "deep.png")
    folder = read_folder(tmp_path)
    noted(folder, "2 sizes", "8 x 6 to 20 x 10")
    noted(folder, "3 colour", "1 grey", "1 16-bit")
    assert not [note for note in read_folder(make(tmp_path / "same")).notes if "sizes" in note or "kinds" in note]


def test_real_blood_cells() -> None:
    root = Path(os.environ.get("MIST_DATA", "")) / "bccd"
    if "MIST_DATA" not in os.environ or not root.is_dir():
        pytest.skip("needs the blood cells of BCCD: set MIST_DATA to the folder that holds bccd/")
    folder = read_folder(root)
    assert folder.class_names == ("Platelets", "RBC", "WBC") and folder.counts_from == "boxes"
    assert Counter(image.split for image in folder.images) == {"train": 205, "validation": 87, "test": 72}
    assert sum(sum(image.counts or ()) for image in folder.images) == 4888
    assert all(image.boxes is not None and sum(image.counts or ()) == len(image.boxes) for image in folder.images)


def test_folders_that_are_perhaps_meant_as_splits_are_named(tmp_path: Path) -> None:
    make(tmp_path, *(f"train_set/{number}.png" for number in range(4)), *(f"my test/{number}.png" for number in "xy"))
    folder = read_folder(write(tmp_path, "file,n\n" + "".join(f"{number},1\n" for number in (*range(4), "x", "y"))))
    assert folder.hashed
    noted(folder, "folders such as my test, train_set are no splits", "call them train, val and test")
    make(tmp_path / "other", *(f"{top}/{top}{number}.png" for number in range(3) for top in ("latest", "tested")))
    rows = "".join(f"{top}{number},1\n" for number in range(3) for top in ("latest", "tested"))
    assert "splits" not in " ".join(read_folder(write(tmp_path / "other", f"file,n\n{rows}")).notes)
