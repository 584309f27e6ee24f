"""Boxes that people have: PASCAL VOC, COCO and boxes.json, and every mistake in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from mistnn.data import read_folder
from tests.data.layouts import NAMES, boxes_of, counts_of, image_of, make, noted, refused, voc, write, write_json


def test_voc(tmp_path: Path) -> None:
    make(tmp_path, folder="JPEGImages")
    write(tmp_path, voc(("red", (1, 1, 4, 6)), ("white", (3, 2, 8.0, 2))), "Annotations/a.xml")
    write(tmp_path, voc(), "Annotations/b.xml")
    folder = read_folder(tmp_path)
    assert folder.counts_from == "boxes" and folder.class_names == ("red", "white")
    noted(folder, "numbers of boxes", "Annotations/")
    image = image_of(folder, "a.png")
    # Pixels 1 to 4, both included, are 0 to 4: centre 2, width 4. Pixel row 2 alone is 1 to 2.
    assert boxes_of(image) == [[2, 3, 4, 6], [5, 1.5, 6, 1]] and image.labels is not None
    assert image.labels.tolist() == [0, 1] and image.counts == (1, 1)
    empty, unknown = image_of(folder, "b.png"), image_of(folder, "c.jpg")
    assert empty.counts == (0, 0) and boxes_of(empty) == []
    assert unknown.counts is None and unknown.boxes is None
    noted(folder, "1 of 3 images", "c.jpg", "predicted")


def test_voc_beside_the_images_and_by_its_filename(tmp_path: Path) -> None:
    make(tmp_path, folder=".")
    write(tmp_path, voc(("red", (1, 1, 2, 2))), "a.xml")
    assert [image.counts for image in read_folder(tmp_path).images] == [(1,), None, None]
    write(tmp_path, voc(("red", (1, 1, 2, 2)), filename="b.png"), "Annotations/0001.xml")
    write(tmp_path, voc(("red", (1, 1, 2, 2)), filename="gone.png"), "Annotations/0002.xml")
    folder = read_folder(tmp_path)
    assert [image.counts for image in folder.images] == [None, (1,), None]
    noted(folder, "1 images that are not there", "gone.png")


def test_names_of_the_images_before_they_were_converted(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png")
    write(tmp_path, voc(("red", (1, 1, 2, 2)), filename="B.TIF"), "Annotations/1.xml")
    folder = read_folder(write(tmp_path, voc(filename="B.TIF"), "Annotations/a.xml"))
    assert counts_of(folder) == {"a.png": (0,), "b.png": (1,)}, "the name of the XML file comes first if it fits"
    noted(folder, "Annotations/: 1 names differ", "'B.TIF' is taken for 'b.png'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation><object>", ["Annotations/a.xml", "broken XML", "line 1"]),
        (voc(("red", (1, 1, 2, 2))).replace("<xmax>2</xmax>", ""), ["a.xml", "object 1 (red)", "None"]),
        (voc(("red", (1, 1, 2, 2))).replace("<xmax>2", "<xmax>two"), ["object 1 (red)", "'two'"]),
        (voc(("", (1, 1, 2, 2))), ["object 1 has no name"]),
    ],
)
def test_bad_voc(tmp_path: Path, text: str, words: list[str]) -> None:
    refused(write(make(tmp_path), text, "Annotations/a.xml"), *words)


def coco(*annotations: dict[str, Any], files: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {
        "images": [{"id": 10 + i, "file_name": name, "width": 8, "height": 6} for i, name in enumerate(files)],
        "categories": [{"id": 7, "name": "white"}, {"id": 3, "name": "red"}, {"id": 0, "name": "cells"}],
        "annotations": [{"id": i, "image_id": 10, "category_id": 3, **one} for i, one in enumerate(annotations)],
    }


@pytest.mark.parametrize("name", ["annotations.json", "instances_all.json", "annotations/instances_x.json"])
def test_coco(tmp_path: Path, name: str) -> None:
    content = coco({"bbox": [1, 0.5, 4, 2]}, {"bbox": [0, 0, 8, 6], "category_id": 7, "image_id": 11})
    folder = read_folder(write_json(make(tmp_path), content, name))
    assert folder.class_names == ("red", "white"), "classes without an object are none"
    assert counts_of(folder) == {"a.png": (1, 0), "b.png": (0, 1), "c.jpg": (0, 0)}
    assert boxes_of(folder.images[0]) == [[3, 1.5, 4, 2]]


def test_an_image_with_a_crowd_in_coco_has_no_count(tmp_path: Path) -> None:
    crowd = {"bbox": [0, 0, 8, 6], "iscrowd": 1, "segmentation": {}}
    content = coco({"bbox": [1, 0.5, 4, 2]}, {"bbox": [0, 0, 8, 6], "category_id": 7, "image_id": 11}, crowd)
    folder = read_folder(write_json(make(tmp_path), content, "annotations.json"))
    assert [image.counts for image in folder.images] == [None, (1,), (0,)] and folder.class_names == ("white",)
    noted(folder, "a.png has a crowd (iscrowd)", "the number of its objects is unknown")


def test_predictions_and_shares_in_coco_are_named(tmp_path: Path) -> None:
    """The file of `mist predict --coco` is no truth, and shares as pixels would be boxes in one corner."""
    scored = coco({"bbox": [1, 0.5, 4, 2], "score": 0.9}, {"bbox": [0, 0, 8, 6], "image_id": 11})
    folder = read_folder(write_json(make(tmp_path), scored, "annotations.json"))
    noted(folder, "annotations.json: its boxes have scores", "look like predictions", "correct them")
    shares = coco({"bbox": [0.25, 0.5, 0.5, 0.5]}, {"bbox": [0, 0, 0.1, 0.1]})
    folder = read_folder(write_json(tmp_path, shares, "annotations.json"))
    noted(folder, "annotations.json: all boxes lie between 0 and 1", "only their number is used", "width and height")
    assert counts_of(folder)["a.png"] == (2,) and folder.images[0].boxes is None


def test_coco_in_the_folders_of_the_splits(tmp_path: Path) -> None:
    for place in ("train", "valid", "test"):
        make(tmp_path, "a.png", folder=place)
        write_json(tmp_path, coco({"bbox": [0, 0, 2, 2]}, files=("a.png",)), f"{place}/_annotations.coco.json")
    folder = read_folder(tmp_path)
    assert [image.counts for image in folder.images] == [(1,)] * 3
    splits = {image.name: image.split for image in folder.images}
    assert splits == {"test/a.png": "test", "train/a.png": "train", "valid/a.png": "validation"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["annotations.json", "broken JSON", "line 1"]),
        ("[" * 100_000, ["annotations.json", "broken JSON"]),
        ("[]", ["annotations.json", "not a COCO file"]),
        (json.dumps({"images": []}), ["not a COCO file", "categories"]),
    ],
)
def test_bad_coco(tmp_path: Path, content: str, words: list[str]) -> None:
    refused(write(make(tmp_path), content, "annotations.json"), *words)
    folder = read_folder(write(tmp_path, "file,red\na,7\nb,0\n"))
    assert counts_of(folder)["a.png"] == (7,)
    noted(folder, "left out", *words)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"bbox": [1, 2, 3]}, ["annotation 1 (b.png)", "[1, 2, 3]", "4 numbers"]),
        ({"bbox": [1, 2, 3, "x"]}, ["'x'"]),
        ({"bbox": [1, 2, 3, float("nan")]}, ["nan"]),
        ({"bbox": [1, 2, 3, 4], "category_id": 9}, ["annotation 1 (b.png)", "category 9"]),
        ({"segmentation": {"counts": "xyz"}}, ["annotation 1 (b.png)", "None", "4 numbers"]),
    ],
)
def test_an_image_with_a_bad_annotation_in_coco_is_left_out(tmp_path: Path, bad: Any, words: list[str]) -> None:
    content = coco({"bbox": [0, 0, 2, 2]}, {"image_id": 11, **bad}, {"image_id": 11, "bbox": [0, 0, 2, 2]})
    folder = read_folder(write_json(make(tmp_path), content, "annotations.json"))
    assert counts_of(folder) == {"a.png": (1,), "b.png": None, "c.jpg": (0,)}, "one object less would be a wrong count"
    noted(folder, "left out", *words)


def test_coco_of_removed_images_with_ids_as_text_and_without_boxes(tmp_path: Path) -> None:
    polygons = [[1, 1, 3, 1, 3, 4], [5, 2, 6, 2, 6, 3]]
    content = coco({"segmentation": polygons, "image_id": "11"}, *[{"image_id": 99, "bbox": [0, 0, 1, 1]}] * 2)
    folder = read_folder(write_json(make(tmp_path), content, "annotations.json"))
    assert counts_of(folder) == {"a.png": (0,), "b.png": (1,), "c.jpg": (0,)}
    assert boxes_of(folder.images[1]) == [[3.5, 2.5, 5, 3]]
    noted(folder, "annotations.json: image 99 is not listed, but has 2 annotations")


def test_an_image_that_is_described_twice_is_left_out(tmp_path: Path) -> None:
    content = coco({"bbox": [0, 0, 2, 2], "image_id": 12}, files=("a.png", "images/a.png", "b.png"))
    folder = read_folder(write_json(make(tmp_path), content, "annotations.json"))
    assert counts_of(folder) == {"a.png": None, "b.png": (1,), "c.jpg": None}
    noted(folder, "annotations.json: a.png is described", "already")


def test_bad_annotations_among_good_ones_are_noted(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}.png" for name in "abcdef"))
    write(tmp_path, voc(("red", (1, 1, 2, 2))), "Annotations/a.xml")
    for name in "bcdef":
        write(tmp_path, "<annotation><object>", f"Annotations/{name}.xml")
    folder = read_folder(tmp_path)
    assert [image.counts for image in folder.images] == [(1,), *[None] * 5]
    noted(folder, "Annotations/b.xml is broken XML")
    noted(folder, "2 more reasons")


def test_files_that_systems_and_microscopes_leave(tmp_path: Path) -> None:
    make(tmp_path)
    write(tmp_path, voc(("red", (1, 1, 2, 2))), "Annotations/a.xml")
    plain = counts_of(read_folder(tmp_path))
    apple = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X"
    for name in (
        "Annotations/._a.xml", "Annotations/.ipynb_checkpoints/a-checkpoint.xml", "__MACOSX/Annotations/._b.xml",
        "images/._a.png", "images/__MACOSX/a.png", "images/@eaDir/a.png/THUMB.jpg", "images/.DS_Store",
        "images/Thumbs.db", "images/desktop.ini", "Annotations/Thumbs.db", "__MACOSX/annotations.json", "._counts.csv",
        ".ipynb_checkpoints/instances_x.json", "ImageSets/Main/._train.txt",
    ):  # fmt: skip
        write(tmp_path, apple, name)
    folder = read_folder(tmp_path)
    assert counts_of(folder) == plain == {"a.png": (1,), "b.png": None, "c.jpg": None}
    assert not [note for note in folder.notes if "left out" in note]


@pytest.mark.parametrize("text", ['<OME xmlns="http://www.openmicroscopy.org"/>', "<svg/>", "\x00\x05\x16\x07", ""])
def test_other_xml_beside_the_images(tmp_path: Path, text: str) -> None:
    make(tmp_path)
    write(tmp_path, text, "images/a.xml")
    assert read_folder(tmp_path).counts_from == "nothing"
    write(tmp_path, voc(("red", (1, 1, 2, 2))), "images/b.xml")
    assert counts_of(read_folder(tmp_path)) == {"a.png": None, "b.png": (1,), "c.jpg": None}
    assert counts_of(read_folder(write(tmp_path, "file,red\na,7\n")))["a.png"] == (7,)


def test_boxes_json(tmp_path: Path) -> None:
    entries = [
        {"file": "images/a.png", "width": 8, "height": 6, "boxes": [[0, 1.5, 4, 6], [7, 0, 12, 3]], "labels": ["x", 5]},
        {"file": "b", "boxes": []},
    ]
    folder = read_folder(write_json(make(tmp_path), entries))
    assert folder.class_names == ("5", "x") and folder.counts_from == "boxes"
    image = folder.images[0]
    assert boxes_of(image) == [[2, 3.75, 4, 4.5], [7.5, 1.5, 1, 3]], "cut at the border"
    assert image.labels is not None and image.labels.tolist() == [1, 0] and image.labels.flags.writeable
    assert counts_of(folder) == {"a.png": (1, 1), "b.png": (0, 0), "c.jpg": None}
    write_json(tmp_path, [{"file": "a", "boxes": [[0, 0, 1, 1]] * 3, "split": "val"}])
    folder = read_folder(tmp_path)
    assert folder.class_names == ("object",) and folder.images[0].counts == (3,)
    assert folder.images[0].split == "validation"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ["boxes.json", "list"]),
        ([{"boxes": []}], ["entry 1", "file"]),
        ([{"file": "a.png"}], ["entry 1 (a.png)", "no boxes"]),
        ([{"file": "a.png", "boxes": [[1, 2, 3]]}], ["entry 1 (a.png)", "[1, 2, 3]", "4 numbers"]),
        ([{"file": "a.png", "boxes": [[1, 2, 3, 4]], "labels": []}], ["1 boxes", "labels are []"]),
        ([{"file": "a.png", "boxes": []}, {"file": "a", "boxes": []}], ["entry 2 (a)", "already"]),
    ],
)
def test_bad_boxes_json(tmp_path: Path, content: Any, words: list[str]) -> None:
    refused(write_json(make(tmp_path), content), *words)
    if content:
        folder = read_folder(write_json(tmp_path, [*content, {"file": "b.png", "boxes": [[1, 2, 3, 4]]}]))
        assert counts_of(folder) == {"a.png": None, "b.png": (1,), "c.jpg": None}
        noted(folder, "left out", *words)


YOLO = "0 0.5 0.5 0.2 0.1\n1 0.1 0.2 0.05 0.05\n"
LABELME = json.dumps({"version": "5.0", "shapes": [{"label": "cell", "points": [[3, 3]]}], "imagePath": "a.png"})
VIA = "filename,region_count,region_id,region_shape_attributes\na.png,1,0,{}\n"
VIA_3 = '{"project": {}, "config": {}, "attribute": {}, "file": {}, "metadata": {}, "view": {}}'
STUDIO = json.dumps([{"image": "a.png", "label": [{"x": 1, "original_width": 8, "original_height": 6}]}])
CVAT = '<annotations><version>1.1</version><image name="a.png"><box label="cell"/></image></annotations>'
GEO = json.dumps({"type": "FeatureCollection", "features": []})


@pytest.mark.parametrize(
    ("files", "text", "counts"),
    [
        (["labels/a.txt", "labels/b.txt"], YOLO, {"a.png": (1, 1), "b.png": (1, 1), "c.jpg": None}),
        (["labels/train/a.txt", "labels/val/b.txt"], YOLO, {"a.png": (1, 1), "b.png": (1, 1), "c.jpg": None}),
        (["images/a.txt"], YOLO, {"a.png": (1, 1), "b.png": None, "c.jpg": None}),
        (["images/a.json", "images/b.json"], LABELME, {"a.png": (1,), "b.png": (1,), "c.jpg": None}),
    ],
)
def test_annotations_of_other_programs_are_read(
    tmp_path: Path, files: list[str], text: str, counts: dict[str, tuple[int, ...] | None]
) -> None:
    make(tmp_path)
    for name in files:
        write(tmp_path, text, name)
    folder = read_folder(tmp_path)
    assert counts_of(folder) == counts and folder.counts_from == "boxes"
    assert not [note for note in folder.notes if "not read" in note]
    write(tmp_path, "file,red\na,7\n")
    assert counts_of(read_folder(tmp_path))["a.png"] == (7,), "a table comes first"


@pytest.mark.parametrize(
    ("files", "text", "words"),
    [
        (["annotations.xml"], CVAT, ["CVAT (annotations.xml)"]),
        (["Annotations/x.xml"], CVAT, ["CVAT (Annotations/x.xml)"]),
        (["via_region_data.csv"], VIA, ["VIA (via_region_data.csv)"]),
        (["via.json"], '{"a.png1": {"regions": [{"shape_attributes": {}}]}}', ["VIA (via.json)"]),
        (["export.json"], STUDIO, ["Label Studio as JSON-MIN (export.json)", "as JSON"]),
        (["via.json"], VIA_3, ["VIA 3 (via.json)"]),
        (["result.json"], json.dumps(coco()), ["result.json", "call it annotations.json"]),
        (["cells.geojson"], GEO, ["GeoJSON (cells.geojson)"]),
        (["_annotations.csv"], "filename,width,height,class,xmin,ymin,xmax,ymax\n", ["boxes (_annotations.csv)"]),
        (["other.xlsx"], "PK", ["spreadsheet (other.xlsx)", "counts.xlsx"]),
        (["images/a_seg.npy"], "", ["Cellpose (images/a_seg.npy)"]),
        (["images/a.xml"], '<OME xmlns="x"/>', ["<OME>", "images/a.xml"]),
        (["images/a.xml"], "<", ["broken XML (images/a.xml)"]),
    ],
)
def test_annotations_of_other_programs_are_named(tmp_path: Path, files: list[str], text: str, words: list[str]) -> None:
    make(tmp_path)
    for name in files:
        write(tmp_path, text, name)
    for counts in (None, (7,)):
        folder = read_folder(tmp_path)
        assert folder.images[0].counts == counts
        noted(folder, "not read", *words)
        write(tmp_path, "file,red\na,7\n")


def test_yolo_in_the_folders_of_the_splits(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        make(tmp_path, "a.png", folder=f"{split}/images")
        write(tmp_path, YOLO, f"{split}/labels/a.txt")
    folder = read_folder(tmp_path)
    assert counts_of(folder) == {"train/images/a.png": (1, 1), "valid/images/a.png": (1, 1)}
    assert read_folder(tmp_path / "train" / "images").notes[0].startswith("no image is for"), "not outside the folder"


def test_other_files_are_not_named(tmp_path: Path) -> None:
    write(make(tmp_path), "file,red\na,7\nb,1\nc,0\n")
    write_json(tmp_path, [{"file": "a", "boxes": [[0, 0, 1, 1]]}])
    for name, text in (
        ("notes.txt", "10 mice"),
        ("data.yaml", "nc: 1"),
        ("settings.json", '{"images": 3}'),
        ("x.csv", "a,b"),
    ):
        write(tmp_path, text, name)
    assert not [note for note in read_folder(tmp_path).notes if "not read" in note]


def test_boxes_never_change_counts_that_are_given(tmp_path: Path) -> None:
    write(make(tmp_path), "file,red\na,7\nb,0\n")
    boxes = [[0, 0, 2, 2], [1, 1, 3, 3], [4, 4, 4, 5]]
    write_json(tmp_path, [{"file": "a", "boxes": boxes, "labels": ["red", "blue", "red"]}])
    folder = read_folder(tmp_path)
    image = folder.images[0]
    assert folder.class_names == ("red",) and image.counts == (7,)
    assert boxes_of(image) == [[1, 1, 2, 2]] and image.labels is not None and image.labels.tolist() == [0]
    noted(folder, "boxes of blue are ignored", "counts.csv")
    noted(folder, "without area", "a.png")


def test_boxes_of_another_image_size(tmp_path: Path) -> None:
    write(make(tmp_path), voc(("red", (1, 1, 2, 2)), size=(16, 12)), "Annotations/a.xml")
    folder = read_folder(write(tmp_path, voc(("red", (1, 1, 2, 2)), size=(0, 0)), "Annotations/b.xml"))
    assert folder.images[0].counts == (1,) and folder.images[0].boxes is None and folder.images[0].labels is None
    assert boxes_of(folder.images[1]) == [[1, 1, 2, 2]], "a size of 0 is none"
    noted(folder, "another image size", "a.png")


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("sized", ["stored", "upright", "unknown"])
def test_boxes_of_images_that_exif_turns(tmp_path: Path, orientation: int, sized: str) -> None:
    """Boxes for the stored size are turned with the pixels; where the size can't tell, a note does."""
    stored = np.zeros((20, 40), np.uint8)
    stored[2:7, 4:10] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    (tmp_path / "own" / "images").mkdir(parents=True)
    Image.fromarray(stored).save(tmp_path / "own" / "images" / "a.png", exif=exif)
    with Image.open(tmp_path / "own" / "images" / "a.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    sizes = {"stored": stored.shape, "upright": upright.shape, "unknown": (0, 0)}
    height, width = sizes[sized]
    shown = stored if sized == "stored" and orientation > 4 else upright
    (top, bottom), (left, right) = ((line.min(), line.max() + 1) for line in np.nonzero(shown))
    entry = {"image_id": 1, "category_id": 1, "bbox": [int(left), int(top), int(right - left), int(bottom - top)]}
    images = [{"id": 1, "file_name": "a.png", "width": width, "height": height}]
    content = {"images": images, "annotations": [entry], "categories": [{"id": 1, "name": "cell"}]}
    folder = read_folder(write_json(tmp_path / "own", content, "annotations.json"))
    (top, bottom), (left, right) = ((line.min(), line.max() + 1) for line in np.nonzero(upright))
    assert boxes_of(folder.images[0]) == [[(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]]
    said = "boxes are taken to be drawn on the image as EXIF turns it, in 1 images (a.png)"
    told = sized == "upright" and orientation > 4
    assert (said in " ".join(folder.notes)) == (shown is upright and not told)


@pytest.mark.parametrize("kind", ["yolo", "voc", "labelme", "coco"])
def test_annotations_of_a_missing_image_are_no_others(tmp_path: Path, kind: str) -> None:
    """Those in folder A are not of the image of the same name in folder B."""
    root = make(tmp_path, "A/2.png", "A/3.png", "B/1.png")
    for name in ("1", "2", "3"):
        if kind == "yolo":
            write(root, "0 .3 .3 .1 .1\n", f"labels/A/{name}.txt")
        elif kind == "voc":
            write(root, voc(("red", (1, 1, 2, 2)), filename=f"{name}.png"), f"Annotations/A/{name}.xml")
        elif kind == "labelme":
            shape = {"label": "red", "points": [[1, 1], [2, 2]], "shape_type": "rectangle"}
            content = {"shapes": [shape], "imagePath": f"../../images/A/{name}.png"}
            write_json(root, content | {"imageWidth": 8, "imageHeight": 6}, f"annotations/A/{name}.json")
    if kind == "coco":
        entries = [{"image_id": 10 + index, "bbox": [1, 1, 2, 2]} for index in range(3)]
        write_json(root, coco(*entries, files=("1.png", "2.png", "3.png")), "images/A/_annotations.coco.json")
    folder = read_folder(root)
    assert {image.name: image.counts for image in folder.images} == {"A/2.png": (1,), "A/3.png": (1,), "B/1.png": None}
    noted(folder, "describes 1 images that are not there (", "1")


def test_the_file_of_a_split_of_coco_is_of_its_folder(tmp_path: Path) -> None:
    root = make(tmp_path, "train2017/a.png", "train2017/b.png", "val2017/c.png")
    for split, names in (("train2017", ("b.png",)), ("val2017", ("c.png", "a.png"))):
        entries = [{"image_id": 10 + index, "bbox": [1, 1, 2, 2]} for index in range(len(names))]
        write_json(root, coco(*entries, files=names), f"annotations/instances_{split}.json")
    folder = read_folder(root)
    counts = {image.name: image.counts for image in folder.images}
    assert counts == {"train2017/a.png": None, "train2017/b.png": (1,), "val2017/c.png": (1,)}
    noted(folder, "describes 1 images that are not there")


def test_images_in_other_folders_and_classes_to_ignore_are_noted(tmp_path: Path) -> None:
    root = make(make(tmp_path), "1.png", "2.png", folder="batch2")
    make(root, "3.png", folder="overlays")
    write(root, "no image", "notes/readme.txt")
    for name, label in (("a", "Ignore*"), ("b", "__ignore__"), ("c", "red")):
        write(root, voc((label, (1, 1, 2, 2))), f"Annotations/{name}.xml")
    folder = read_folder(root)
    noted(folder, "2 images in batch2 are not used: only those in images are")
    assert not any("overlays" in note or "notes" in note for note in folder.notes)
    for label in ("Ignore*", "__ignore__"):
        noted(folder, f"class {label!r} is learned as any other: if it marks what to ignore")


def test_coco_with_repeated_numbers(tmp_path: Path) -> None:
    """Objects must not go to another image or another class."""
    content = coco(*[{"bbox": [i, 0, 2, 2], "image_id": 10.0 + i, "category_id": 3.0} for i in range(3)])
    folder = read_folder(write_json(make(tmp_path), content, "annotations.json"))
    assert list(counts_of(folder).values()) == [(1,)] * 3, "3.0 is 3"
    content["images"][1]["id"] = 10
    folder = read_folder(write_json(tmp_path, content, "annotations.json"))
    assert counts_of(folder) == {"a.png": None, "b.png": None, "c.jpg": (1,)}
    noted(folder, "a.png, b.png have one id, 10", "give each its own id")
    refused(write_json(tmp_path, content | {"images": content["images"][:2]}, "annotations.json"), "have one id, 10")
    content["images"][1]["id"], content["categories"][0]["id"] = 11, 3
    refused(write_json(tmp_path, content, "annotations.json"), "category 3 is white and red: give each its own id")


def test_coco_among_the_images(tmp_path: Path) -> None:
    for place in ("train", "valid"):
        make(tmp_path, f"{place}/a.png")
        boxes = [{"bbox": [0, 0, 2, 2]}] * (1 if place == "train" else 2)
        write_json(tmp_path, coco(*boxes, files=("a.png",)), f"images/{place}/_annotations.coco.json")
    folder = read_folder(tmp_path)
    assert counts_of(folder) == {"train/a.png": (1,), "valid/a.png": (2,)}
    noted(folder, "objects of one class and place are there twice, in 1 images (valid/a.png)")


def test_corners_in_another_order_and_boxes_without_area(tmp_path: Path) -> None:
    boxes = {"a": [[4, 3, 1, 2], [0, 0, 2, 2]], "b": [[3, 3, 3, 3], [0, 0, 2, 2]], "c": [[9, 9, 12, 12]]}
    folder = read_folder(write_json(make(tmp_path), [{"file": name, "boxes": one} for name, one in boxes.items()]))
    assert counts_of(folder) == {"a.png": (2,), "b.png": (2,), "c.jpg": (0,)}
    assert boxes_of(folder.images[0]) == [[2.5, 2.5, 3, 1], [1, 1, 2, 2]] and len(boxes_of(folder.images[1])) == 1
    noted(folder, "without area are used for the count alone, in 1 images (b.png)")
    noted(folder, "outside the image are ignored, in 1 images (c.jpg)")


def test_classes_of_boxes_that_are_almost_alike_are_named(tmp_path: Path) -> None:
    labels = {"a": ["Cell"], "b": ["cell"]}
    content = [{"file": name, "boxes": [[0, 0, 2, 2]], "labels": one} for name, one in labels.items()]
    noted(read_folder(write_json(make(tmp_path), content)), "almost the same name ('Cell' and 'cell')")


def test_an_unknown_split_of_boxes_is_named(tmp_path: Path) -> None:
    splits = {"a": "holdout", "b": None, "c": " Test "}
    content = [{"file": name, "boxes": [[0, 0, 2, 2]], "split": split} for name, split in splits.items()]
    folder = read_folder(write_json(make(tmp_path), content))
    assert [image.counts for image in folder.images] == [None, (1,), (1,)] and folder.images[2].split == "test"
    noted(folder, "boxes.json, entry 1 (a): split 'holdout' is unknown")


def test_coco_beside_voc_is_named(tmp_path: Path) -> None:
    write(make(tmp_path), voc(("red", (1, 1, 2, 2))), "Annotations/a.xml")
    folder = read_folder(write_json(tmp_path, coco({"bbox": [0, 0, 2, 2]}), "annotations.json"))
    noted(folder, "COCO JSON (annotations.json): not read; other annotations are read instead")


def test_an_entry_without_an_image_is_named(tmp_path: Path) -> None:
    """The other entries are used."""
    make(tmp_path)
    box = '<box label="red" xtl="1" ytl="1" xbr="4" ybr="4"/>'
    text = f'<annotations><image id="0">{box}</image><image id="1" name="a.png">{box}</image></annotations>'
    write(tmp_path, text, "annotations.xml")
    folder = read_folder(tmp_path)
    noted(folder, "annotations.xml, image", "names no image")
    assert image_of(folder, "a.png").counts == (1,)


def test_boxes_of_other_classes_alone_measure_nothing(tmp_path: Path) -> None:
    """Else their images would be taken for images without objects."""
    make(tmp_path)
    write(tmp_path, "file,red\na.png,1\nb.png,2\nc.jpg,0\n")
    write(tmp_path, voc(("rot", (1, 1, 4, 6))), "Annotations/a.xml")
    folder = read_folder(tmp_path)
    noted(folder, "boxes of rot are ignored, so nothing is measured by boxes", "red")
    assert image_of(folder, "a.png").boxes is None and image_of(folder, "a.png").labels is None
    write(tmp_path, voc(("red", (1, 1, 4, 6)), ("rot", (1, 1, 4, 6))), "Annotations/b.xml")
    folder = read_folder(tmp_path)
    noted(folder, "boxes of rot are ignored: counts.csv does not have this class")
    assert boxes_of(image_of(folder, "a.png")) == [] and len(boxes_of(image_of(folder, "b.png"))) == 1


def test_a_voc_file_that_names_another_image_is_noted(tmp_path: Path) -> None:
    """Its own name comes first: <filename> is often an old one."""
    make(tmp_path)
    for name, inner in (("a", "b.png"), ("b", "old.tif"), ("c", "x/c.jpg")):
        write(tmp_path, voc(("red", (1, 1, 2, 2)), filename=inner), f"Annotations/{name}.xml")
    folder = read_folder(tmp_path)
    assert [image.counts for image in folder.images] == [(1,)] * 3
    said = noted(folder, "another image inside")
    assert said.startswith("Annotations/: 1 files name another image inside than their own name says: ")
    assert "Annotations/a.xml has the name of a.png, names b.png, and is taken for a.png; correct the name" in said


def test_objects_marked_as_difficult_or_to_ignore_are_noted(tmp_path: Path) -> None:
    text = voc(("red", (1, 1, 2, 2)), ("red", (2, 2, 4, 4)))
    write(make(tmp_path / "voc"), text.replace("</name>", "</name><difficult>1</difficult>", 1), "Annotations/a.xml")
    folder = read_folder(tmp_path / "voc")
    assert counts_of(folder)["a.png"] == (2,)
    noted(folder, "Annotations/: 1 objects marked as difficult count, in 1 images (a.png): remove those that shall not")
    content = coco({"bbox": [0, 0, 2, 2], "ignore": 1}, {"bbox": [0, 0, 3, 2], "ignore": 0})
    folder = read_folder(write_json(make(tmp_path / "coco"), content, "annotations.json"))
    assert counts_of(folder)["a.png"] == (2,)
    noted(folder, "annotations.json: 1 objects marked with ignore count, in 1 images (a.png)")
    folder = read_folder(write(tmp_path / "voc", text, "Annotations/a.xml"))
    assert not any("marked" in note for note in folder.notes)
