"""Annotations of other programs, as these programs write them: counts, and boxes where there are some."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mistnn.data.folder.content import read_folder
from mistnn.data.folder.readers import READERS
from mistnn.data.text_files import read_xml
from mistnn.errors import MistError
from tests.data.annotated import blank_image, summary, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        blank_image(tmp_path / "images" / f"{name}.png")
    return tmp_path


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><size>3</size></task></meta>
<image id="0" name="a.png" width="100" height="50">
 <box label="cell" source="manual" occluded="0" xtl="10.0" ytl="5.0" xbr="30.0" ybr="25.0" z_order="0"></box>
 <polygon label="dirt" points="50.0,10.0;70.0,10.0;60.0,30.0"></polygon>
 <ellipse label="cell" cx="80" cy="20" rx="5" ry="10"></ellipse><tag label="blurred"/>
</image>
<image id="1" name="b.png" width="100" height="50"><points label="cell" points="1,2;3,4;5,6"></points></image>
<image id="2" name="c.png" width="100" height="50"><box label="cell" xtl="x" ytl="5" xbr="30" ybr="25"/></image>
</annotations>"""


def test_cvat(root: Path) -> None:
    write(root / "annotations.xml", CVAT)
    folder = read_folder(root)
    assert summary(folder) == {
        "a.png": ({"cell": 2, "dirt": 1}, [[10, 5, 30, 25], [50, 10, 70, 30], [75, 10, 85, 30]]),
        "b.png": ({"cell": 3, "dirt": 0}, None),  # points have no boxes
        "c.png": (None, None),
    }
    assert any("annotations are left out: annotations.xml, image c.png: box" in note for note in folder.notes)
    assert any("the numbers of boxes in annotations of CVAT" in note for note in folder.notes)


def test_labelme(root: Path) -> None:
    shapes = [
        {"label": "cell", "points": [[30, 25], [10, 5]], "shape_type": "rectangle"},
        {"label": "cell", "points": [[50, 20], [53, 24]], "shape_type": "circle"},
        {"label": "dirt", "points": [[0, 0], [8, 0], [4, 6]], "shape_type": "polygon"},
    ]
    head = {"version": "5.4.1", "imageData": None, "imageHeight": 50, "imageWidth": 100}
    write(root / "images" / "a.json", {**head, "shapes": shapes, "imagePath": "a.png"})
    point = [{"label": "dirt", "points": [[3, 3]], "shape_type": "point"}]
    write(root / "images" / "b.json", {**head, "shapes": point, "imagePath": "..\\images\\b.png"})
    write(
        root / "images" / "c.json", {**head, "shapes": [{"label": "x", "shape_type": "polygon"}], "imagePath": "c.png"}
    )
    folder = read_folder(root)
    assert summary(folder) == {
        "a.png": ({"cell": 2, "dirt": 1}, [[10, 5, 30, 25], [45, 15, 55, 25], [0, 0, 8, 6]]),
        "b.png": ({"cell": 0, "dirt": 1}, None),
        "c.png": (None, None),
    }
    assert any("images/c.json: shape 1" in note for note in folder.notes)


@pytest.mark.parametrize("kind", ["project", "json", "csv"])
def test_via(root: Path, kind: str) -> None:
    rectangle = {"name": "rect", "x": 1, "y": 2, "width": 10, "height": 20}
    circle = {"name": "circle", "cx": 50, "cy": 25, "r": 5}
    polygon = {"name": "polygon", "all_points_x": [0, 9, 5], "all_points_y": [0, 1, 8]}
    regions = [
        {"shape_attributes": rectangle, "region_attributes": {"class": "cell"}},
        {"shape_attributes": circle, "region_attributes": {"class": {"dirt": True}}},
        {"shape_attributes": polygon, "region_attributes": {}},
    ]
    images = {
        "a.png1": {"filename": "a.png", "size": 1, "regions": regions, "file_attributes": {}},
        "b.png1": {"filename": "b.png", "size": 1, "regions": {"0": regions[0]}, "file_attributes": {}},  # VIA 1
        "c.png1": {"filename": "c.png", "size": 1, "regions": [{"shape_attributes": {"name": "star"}}]},
    }
    if kind == "csv":
        with (root / "via_region_data.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(
                "filename file_size file_attributes region_count region_id region_shape_attributes "
                "region_attributes".split()
            )
            for image in images.values():
                own: Any = image["regions"]
                for number, one in enumerate(own.values() if isinstance(own, dict) else own):
                    cells = [json.dumps(one.get(key, {})) for key in ("shape_attributes", "region_attributes")]
                    rows.writerow([image["filename"], 1, "{}", len(own), number, *cells])
    else:
        write(root / "via.json", {"_via_img_metadata": images, "_via_settings": {}} if kind == "project" else images)
    folder = read_folder(root)
    assert summary(folder) == {
        "a.png": ({"cell": 1, "dirt": 1, "object": 1}, [[1, 2, 11, 22], [45, 20, 55, 30], [0, 0, 9, 8]]),
        "b.png": ({"cell": 1, "dirt": 0, "object": 0}, [[1, 2, 11, 22]]),
        "c.png": (None, None),
    }
    assert any("a shape 'star' isn't read" in note for note in folder.notes)


def test_via_csv_that_is_empty_or_broken(root: Path) -> None:
    head = "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
    rows = [
        "a.png,1,{},0,0,{},{}",
        'b.png,1,{},1,0,"{""name"": ""point"", ""cx"": 3, ""cy"": 4}","{""class"": ""cell""}"',
        "c.png,1,{},1,0,{broken,{}",
    ]
    write(root / "via.csv", head + "\n".join(rows))
    folder = read_folder(root)
    assert summary(folder) == {"a.png": ({"cell": 0}, []), "b.png": ({"cell": 1}, None), "c.png": (None, None)}
    assert any("via.csv, row 4, image c.png is broken JSON" in note for note in folder.notes)


def via_regions(*attributes: dict[str, Any]) -> list[dict[str, Any]]:
    shape = {"name": "rect", "x": 1, "y": 2, "width": 10, "height": 20}
    return [{"shape_attributes": shape | {"x": x}, "region_attributes": one} for x, one in enumerate(attributes)]


@pytest.mark.parametrize(
    ("regions", "classes", "words"),
    [
        (  # numbers begin again in each image
            [[{"id": "1", "species": "ant"}, {"id": "2", "species": "bee"}]] * 3,
            ("ant", "bee"),
            "attribute 'species' of VIA is taken for the class, not id: to choose another, rename it to class",
        ),
        (
            [[{"remark": f"{image} {at}", "species": at} for at in ("ant", "bee")] for image in range(3)],
            ("ant", "bee"),
            "'species' of VIA is taken for the class, not remark",
        ),
        (
            [[{"size": "7", "species": "ant"}, {"size": "7", "species": "bee"}], [{"size": "9", "species": "bee"}]],
            ("ant", "bee"),
            "'species' of VIA is taken for the class, not size",
        ),
        ([[{"id": str(3 * image + at)} for at in range(3)] for image in range(3)], ("object",), "number the objects"),
        ([[{"id": 1}, {"id": 2}, {"id": 3}]] * 2, ("object",), "attributes of VIA (id) are empty or number"),
        ([[{"species": "ant"}, {"species": "bee"}], [{"species": "ant"}]], ("ant", "bee"), ""),
        ([[{"species": "ant"}], [{"species": "bee"}]], ("ant", "bee"), ""),
        ([[{"id": "1", "type": "ant"}, {"id": "2", "type": "bee"}]] * 3, ("ant", "bee"), ""),
    ],
)
@pytest.mark.parametrize("files", [1, 3])
def test_the_class_among_attributes_of_via(
    root: Path, regions: list[list[dict[str, Any]]], classes: tuple[str, ...], words: str, files: int
) -> None:
    images = {f"{name}.png": via_regions(*one) for name, one in zip("abc", regions, strict=False)}
    entries = [{name: {"filename": name, "regions": one}} for name, one in images.items()]
    for number, one in enumerate(entries if files > 1 else [dict(item for entry in entries for item in entry.items())]):
        write(root / f"via{number}.json", one)
    folder = read_folder(root)
    assert folder.class_names == classes
    notes = [note for note in folder.notes if "of VIA " in note and "attribute" in note]
    assert len(notes) == bool(words) and all(words in note for note in notes)


def test_cell_counter(root: Path) -> None:
    def marker(x: int) -> str:
        return f"<Marker><MarkerX>{x}</MarkerX><MarkerY>3</MarkerY><MarkerZ>1</MarkerZ></Marker>"

    text = f"""<?xml version="1.0" encoding="UTF-8"?>
<CellCounter_Marker_File><Image_Properties><Image_Filename>a.png</Image_Filename></Image_Properties>
<Marker_Data><Current_Type>1</Current_Type>
<Marker_Type><Type>1</Type><Name>live</Name>{marker(1)}{marker(2)}</Marker_Type>
<Marker_Type><Type>2</Type>{marker(9)}</Marker_Type></Marker_Data></CellCounter_Marker_File>"""
    write(root / "images" / "CellCounter_a.xml", text)
    text = text.replace("<Image_Filename>a.png</Image_Filename>", "").replace("1</MarkerX>", "q</MarkerX>")
    write(root / "images" / "b_CellCounter.xml", text)
    folder = read_folder(root)
    assert summary(folder)["a.png"] == ({"live": 2, "type 2": 1}, None)
    assert summary(folder)["b.png"] == (None, None)
    assert any("b_CellCounter.xml: a marker of live" in note for note in folder.notes)


def test_rois_of_imagej(root: Path) -> None:
    roifile = pytest.importorskip("roifile", reason="the extra files reads ROIs")
    square = roifile.ImagejRoi.frompoints(np.array([[10, 5], [30, 5], [30, 25], [10, 25]], np.float32))
    with zipfile.ZipFile(root / "images" / "a_RoiSet.zip", "w") as archive:
        archive.writestr("0001.roi", square.tobytes())
        square.group = 2
        archive.writestr("0002.roi", square.tobytes())
    points = roifile.ImagejRoi.frompoints(np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    points.roitype = roifile.ROI_TYPE.POINT
    points.tofile(root / "images" / "b.roi")
    (root / "images" / "c.roi").write_bytes(b"Iout" + b"\0" * 10)
    folder = read_folder(root)
    assert summary(folder) == {
        "a.png": ({"group 2": 1, "object": 1}, [[10, 5, 31, 26], [10, 5, 31, 26]]),  # the last pixel included
        "b.png": ({"group 2": 0, "object": 3}, None),
        "c.png": (None, None),
    }
    assert any("images/c.roi can't be read" in note for note in folder.notes)


def test_objects_on_several_slices_are_refused(root: Path) -> None:
    """Only the first page of a stack is read, so objects on others are none of its image."""
    roifile = pytest.importorskip("roifile", reason="the extra files reads ROIs")
    places = {"a": ((1, 0, 0), (2, 0, 0)), "b": ((0, 1, 1), (0, 2, 1)), "c": ((2, 0, 0), (2, 0, 0), (0, 0, 0))}
    for name, positions in places.items():
        with zipfile.ZipFile(root / "images" / f"{name}_RoiSet.zip", "w") as archive:
            for number, (position, depth, time) in enumerate(positions):
                square = roifile.ImagejRoi.frompoints(np.array([[10, 5], [30, 5], [30, 25], [10, 25]], np.float32))
                square.position, square.z_position, square.t_position = position, depth, time
                archive.writestr(f"{number}.roi", square.tobytes())
    folder = read_folder(root)
    assert {name: counts for name, (counts, _) in summary(folder).items()} == {
        "a.png": None, "b.png": None, "c.png": {"object": 3}
    }  # fmt: skip
    assert sum("has objects on 2 slices of a stack" in note for note in folder.notes) == 2
    for path in (root / "images").glob("*.zip"):
        path.unlink()
    marker = "<Marker><MarkerX>1</MarkerX><MarkerY>3</MarkerY><MarkerZ>{}</MarkerZ></Marker>"
    for name, slices in (("a", (1, 2)), ("b", (2, 2))):
        kind = f"<Marker_Type><Type>1</Type>{''.join(map(marker.format, slices))}</Marker_Type>"
        text = f"<CellCounter_Marker_File><Marker_Data>{kind}</Marker_Data></CellCounter_Marker_File>"
        write(root / "images" / f"CellCounter_{name}.xml", text)
    folder = read_folder(root)
    assert summary(folder)["a.png"][0] is None and summary(folder)["b.png"][0] == {"type 1": 2}


def test_objects_on_a_later_slice_are_none_of_the_first_page(root: Path) -> None:
    marker = "<Marker><MarkerX>1</MarkerX><MarkerY>3</MarkerY><MarkerZ>{}</MarkerZ></Marker>"
    text = "<CellCounter_Marker_File><Marker_Data><Marker_Type><Type>1</Type>{}</Marker_Type></Marker_Data>"
    (root / "images" / "a.png").unlink()
    page = Image.new("L", (100, 50))
    page.save(root / "images" / "a.tif", save_all=True, append_images=[page, page])
    for name, number in (("a", 3), ("b", 3)):
        write(
            root / "images" / f"CellCounter_{name}.xml",
            f"{text.format(marker.format(number))}</CellCounter_Marker_File>",
        )
    folder = read_folder(root)
    assert summary(folder)["a.tif"][0] is None and summary(folder)["b.png"][0] == {"type 1": 1}, "b has one page"
    assert any("its objects lie on slice 3, and only the first page of a.tif is read" in one for one in folder.notes)


def test_counters_of_imagej_are_classes(root: Path) -> None:
    """Those of the Multi-point tool; a file without counters has points of counter 0."""
    roifile = pytest.importorskip("roifile", reason="the extra files reads ROIs")
    for name, counters, group in (("a", [0, 1, 1], 0), ("b", None, 0), ("c", [0, 1, 3], 2)):
        points = roifile.ImagejRoi.frompoints(np.array([[10, 10], [20, 20], [30, 30]], np.float32))
        points.roitype, points.group = roifile.ROI_TYPE.POINT, group
        if counters is not None:
            points.counters, points.counter_positions = np.array(counters, np.uint8), np.zeros(3, np.uint32)
        points.tofile(root / "images" / f"{name}.roi")
    found = {name: counts for name, (counts, _) in summary(read_folder(root)).items()}
    assert {name: {label: n for label, n in (counts or {}).items() if n} for name, counts in found.items()} == {
        "a.png": {"object": 1, "counter 1": 2},
        "b.png": {"object": 3},
        "c.png": {"group 2": 1, "group 2 counter 1": 1, "group 2 counter 3": 1},
    }


@pytest.mark.parametrize("inner", ["", "a_RoiSet/"])
def test_rois_of_imagej_that_macos_packed_again(root: Path, inner: str) -> None:
    roifile = pytest.importorskip("roifile", reason="the extra files reads ROIs")
    square = roifile.ImagejRoi.frompoints(np.array([[10, 5], [30, 5], [30, 25], [10, 25]], np.float32))
    with zipfile.ZipFile(root / "images" / "a_RoiSet.zip", "w") as archive:
        for folder in ([inner] if inner else []) + ["__MACOSX/"]:
            archive.writestr(folder, b"")
        archive.writestr(f"{inner}.DS_Store", b"\0")
        for name in ("1.roi", ".2.roi"):  # users may name a ROI .2
            archive.writestr(f"{inner}{name}", square.tobytes())
            archive.writestr(f"__MACOSX/{inner}._{name}", b"\0\5\x16\7")
    folder = read_folder(root)
    assert summary(folder)["a.png"] == ({"object": 2}, [[10, 5, 31, 26]] * 2)
    assert not any("left out" in note for note in folder.notes)


def test_layers_of_napari(root: Path) -> None:
    write(root / "images" / "a_points.csv", "index,axis-0,axis-1\n0.0,3.0,10.0\n1.0,4.5,20.0\n")
    shapes = ["index,shape-type,vertex-index,axis-0,axis-1,class"]
    shapes += [f"0,rectangle,{place},{y},{x},cell" for place, (y, x) in enumerate([(4, 9), (4, 29), (24, 29), (24, 9)])]
    write(root / "images" / "b.csv", "\n".join(shapes) + "\n")
    write(root / "images" / "c.csv", "index,axis-0,axis-1,axis-2\n0,1,2,3\n")
    folder = read_folder(root)
    assert summary(folder) == {
        "a.png": ({"cell": 0, "object": 2}, None),
        "b.png": ({"cell": 1, "object": 0}, [[9.5, 4.5, 29.5, 24.5]]),
        "c.png": (None, None),
    }
    assert any("images/c.csv has points in three dimensions" in note for note in folder.notes)


def test_archives_that_unpack_without_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(root / "images" / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0001.roi", b"\0" * 100_000)
    monkeypatch.setattr("mistnn.data.folder.sheets.MOST_BYTES", 50_000)
    with pytest.raises(MistError, match="unpacks to 100,000 bytes"):
        list(READERS["ROIs of ImageJ"](root / "images" / "a.zip", "a.zip", []))


def test_geojson_of_qupath(root: Path) -> None:
    def feature(kind: str, shape: str, places: Any, label: Any = None) -> dict[str, Any]:
        about = {"objectType": kind} | (
            {} if label is None else {"classification": {"name": label, "color": [1, 2, 3]}}
        )
        return {"type": "Feature", "geometry": {"type": shape, "coordinates": places}, "properties": about}

    square = [[[10, 5], [30, 5], [30, 25], [10, 25], [10, 5]]]
    region = feature("annotation", "Polygon", [[[0, 0], [99, 0], [99, 49], [0, 0]]])
    cells = [
        feature("cell", "Polygon", square, "tumor"),
        feature("detection", "MultiPolygon", [square, square], "tumor"),
    ]
    write(root / "images" / "a.geojson", {"type": "FeatureCollection", "features": [region, *cells]})
    write(root / "images" / "b.geojson", [feature("annotation", "MultiPoint", [[1, 2], [3, 4]], "stroma")])
    write(root / "images" / "c.geojson", {"type": "FeatureCollection", "features": [feature("cell", "Polygon", [])]})
    folder = read_folder(root)
    assert summary(folder) == {
        "a.png": ({"stroma": 0, "tumor": 2}, [[10, 5, 30, 25], [10, 5, 30, 25]]),
        "b.png": ({"stroma": 2, "tumor": 0}, None),
        "c.png": (None, None),
    }
    assert any("images/c.geojson, feature 1: a Polygon without coordinates" in note for note in folder.notes)


def test_derived_classes_of_qupath(root: Path) -> None:
    """Later versions list the names of a class that is derived from another."""

    def feature(classification: dict[str, Any], x: int) -> dict[str, Any]:
        geometry = {"type": "Polygon", "coordinates": [[[x, 10], [x + 10, 10], [x + 10, 20], [x, 10]]]}
        about = {"objectType": "cell", "classification": classification}
        return {"type": "Feature", "geometry": geometry, "properties": about}

    kinds: list[dict[str, Any]] = [{"names": ["Tumor", "Positive"]}, {"names": ["Tumor"]}, {"name": "Stroma"}, {}]
    features = [feature(kind, 20 * place) for place, kind in enumerate(kinds)]
    write(root / "images" / "a.geojson", {"type": "FeatureCollection", "features": features})
    assert read_folder(root).class_names == ("Stroma", "Tumor", "Tumor: Positive", "object")


@pytest.mark.parametrize("head", [
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
    '<!DOCTYPE a [<!ENTITY x "aaaa"><!ENTITY y "&x;&x;&x;">]>',
    '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]>',
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(root: Path, head: str, encoding: str) -> None:
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>{head}<annotations><image name="a.png">&x;</image></annotations>'
    )
    (root / "bomb.xml").write_text(text, encoding=encoding)
    with pytest.raises(MistError, match="declares an entity"):
        read_xml(root / "bomb.xml", "bomb.xml")
    assert any("broken XML (bomb.xml)" in note for note in read_folder(root).notes)


def test_xml_keeps_names_and_text(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<a xmlns="urn:x" b="1">t&amp;<c>u</c>v</a>', encoding="utf-8")
    tree = read_xml(tmp_path / "a.xml", "a.xml")
    assert tree.tag == "{urn:x}a" and tree.attrib == {"b": "1"} and tree.text == "t&"
    assert tree[0].tag == "{urn:x}c" and tree[0].text == "u" and tree[0].tail == "v"
    for broken in ("", "<a>", "<a></b>", "text", "<a/><b/>"):
        (tmp_path / "a.xml").write_text(broken, encoding="utf-8")
        with pytest.raises(MistError, match="broken XML"):
            read_xml(tmp_path / "a.xml", "a.xml")


def in_utf_16(root: Path) -> None:
    """Stores texts anew, as Windows does."""
    for path in [path for path in root.rglob("*") if path.suffix in (".json", ".geojson", ".csv", ".txt")]:
        path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))


@pytest.mark.parametrize("kind", ["labelme", "via", "via csv", "geojson", "yolo", "napari", "coco", "boxes"])
def test_annotations_in_utf_16(root: Path, kind: str) -> None:
    rectangle = {"name": "rect", "x": 1, "y": 2, "width": 10, "height": 20}
    head = "filename,region_count,region_id,region_shape_attributes,region_attributes\n"
    quoted = json.dumps(rectangle).replace('"', '""')
    region = {"shape_attributes": rectangle, "region_attributes": {}}
    outline = {"type": "Polygon", "coordinates": [[[1, 2], [11, 2], [11, 22], [1, 22]]]}
    image = {"id": 1, "file_name": "a.png", "width": 100, "height": 50}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20]}
    contents: dict[str, tuple[str, Any]] = {
        "labelme": ("images/a.json", {"imagePath": "a.png", "shapes": [{"label": "", "points": [[1, 2], [11, 22]]}]}),
        "via": ("via.json", {"a.png1": {"filename": "a.png", "regions": [region]}}),
        "via csv": ("via.csv", f'{head}a.png,1,0,"{quoted}",{{}}\n'),
        "geojson": ("images/a.geojson", [{"type": "Feature", "geometry": outline}]),
        "yolo": ("labels/a.txt", "0 0.06 0.24 0.1 0.4\n"),
        "napari": ("images/a.csv", "index,axis-0,axis-1\n0,1,2\n"),
        "coco": (
            "annotations.json",
            {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cell"}]},
        ),
        "boxes": ("boxes.json", [{"file": "a.png", "boxes": [[1, 2, 11, 22]]}]),
    }
    write(root / contents[kind][0], contents[kind][1])
    in_utf_16(root)
    counts, boxes = summary(read_folder(root))["a.png"]
    assert counts is not None and list(counts.values()) == [1]
    assert boxes == (None if kind == "napari" else [[1, 2, 11, 22]])


def test_own_formats_come_first(root: Path) -> None:
    write(root / "annotations.xml", CVAT)
    write(root / "boxes.json", [{"file": "a.png", "boxes": [[0, 0, 9, 9]]}])
    folder = read_folder(root)
    assert summary(folder)["a.png"] == ({"object": 1}, [[0, 0, 9, 9]])
    assert any("annotations of CVAT (annotations.xml): not read" in note for note in folder.notes)


@pytest.mark.parametrize("kind", ["labelme", "geojson", "rois"])
@pytest.mark.parametrize("folder", ["images", "labels"])
def test_images_of_one_name_in_two_folders(tmp_path: Path, kind: str, folder: str) -> None:
    """Annotations belong to the image in the folder of the same name."""
    for many, place in enumerate(("x", "y"), start=1):
        path = tmp_path / "images" / place / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((50, 100), np.uint8)).save(path)
        points = [[10, 5], [30, 25], [10, 25]]
        shape = {"label": "cell", "points": points[:2], "shape_type": "rectangle"}
        geometry = {"type": "Polygon", "coordinates": [points]}
        if kind == "labelme":
            write(tmp_path / folder / place / "1.json", {"shapes": [shape] * many, "imagePath": "1.png"})
        elif kind == "geojson":
            write(tmp_path / folder / place / "1.geojson", [{"type": "Feature", "geometry": geometry}] * many)
        else:
            roifile = pytest.importorskip("roifile")
            (tmp_path / folder / place).mkdir(parents=True, exist_ok=True)
            rois = [roifile.ImagejRoi.frompoints(points) for _ in range(many)]
            roifile.roiwrite(tmp_path / folder / place / "1_RoiSet.zip", rois)
    assert [image.counts for image in read_folder(tmp_path).images] == [(1,), (2,)]


def test_labelme_names_the_image_where_two_have_its_stem(root: Path) -> None:
    Image.fromarray(np.zeros((50, 100), np.uint8)).save(root / "images" / "a.jpg")
    shape = {"label": "cell", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    write(root / "images" / "a.json", {"shapes": [shape], "imagePath": "a.jpg"})
    assert {image.name: image.counts for image in read_folder(root).images}["a.jpg"] == (1,)


def test_geojson_of_a_region_without_detections(root: Path) -> None:
    """It says where cells were searched for: it is no object, and their number is unknown."""
    outline = {"type": "Polygon", "coordinates": [[[0, 0], [90, 0], [90, 40]]]}

    def feature(kind: str, name: str) -> dict[str, Any]:
        about = {"objectType": kind, "classification": {"name": name}}
        return {"type": "Feature", "geometry": outline, "properties": about}

    write(root / "images" / "a.geojson", [feature("annotation", "region"), feature("detection", "cell")])
    write(root / "images" / "b.geojson", [feature("annotation", "region")])
    write(root / "images" / "c.geojson", [feature("annotation", "cell")])
    folder = read_folder(root)
    assert folder.class_names == ("cell",) and [image.counts for image in folder.images] == [(1,), None, (1,)]
    assert any("b.geojson: annotations of region and no detections" in note for note in folder.notes)


def test_cell_counter_names_its_file_after_the_image(root: Path) -> None:
    marker = "<Marker><MarkerX>5</MarkerX><MarkerY>5</MarkerY></Marker>"
    for number, name in enumerate("abc", start=1):
        kind = f"<Marker_Type><Type>1</Type>{marker * number}</Marker_Type>"
        text = f"<CellCounter_Marker_File><Marker_Data>{kind}</Marker_Data></CellCounter_Marker_File>"
        write(root / f"CellCounter_{name}.xml", text)
    assert [image.counts for image in read_folder(root).images] == [(1,), (2,), (3,)]


def test_turned_shapes_of_cvat(root: Path) -> None:
    """The box around the turned shape; the centre stays."""
    write(
        root / "annotations.xml",
        """<annotations><image name="a.png" width="100" height="50">
        <box label="cell" xtl="20" ytl="20" xbr="60" ybr="30" rotation="90.0"/>
        <ellipse label="cell" cx="80" cy="25" rx="4" ry="8" rotation="90.0"/></image></annotations>""",
    )
    assert summary(read_folder(root))["a.png"] == ({"cell": 2}, [[35, 5, 45, 45], [72, 21, 88, 29]])


def test_groups_of_labelme_are_one_object(root: Path) -> None:
    def shape(label: str, group: int | None, x: float) -> dict[str, Any]:
        corners = [[x, 5], [x + 10, 15]]
        return {"label": label, "group_id": group, "shape_type": "rectangle", "points": corners}

    shapes = [shape("cell", 1, 10), shape("cell", 1, 30), shape("cell", None, 60), shape("dirt", 1, 80)]
    write(root / "images" / "a.json", {"shapes": shapes, "imagePath": "a.png", "imageWidth": 100, "imageHeight": 50})
    counts, boxes = summary(read_folder(root))["a.png"]
    assert counts == {"cell": 2, "dirt": 1} and boxes == [[10, 5, 40, 15], [60, 5, 70, 15], [80, 5, 90, 15]]


def test_regions_of_an_early_qupath_are_no_objects(root: Path) -> None:
    """Version 0.2 has the kind of an object in its identifier."""

    def feature(kind: str, x: float, side: float) -> dict[str, Any]:
        outline = [[x, 5], [x + side, 5], [x + side, 5 + side], [x, 5 + side], [x, 5]]
        geometry = {"type": "Polygon", "coordinates": [outline]}
        return {"type": "Feature", "id": kind, "geometry": geometry, "properties": {"isLocked": False}}

    cells = [feature("PathCellObject", 10, 5), feature("PathDetectionObject", 30, 5)]
    write(root / "images" / "a.geojson", [feature("PathAnnotationObject", 0, 40), *cells])
    counts, boxes = summary(read_folder(root))["a.png"]
    assert counts is not None and sum(counts.values()) == 2 and boxes == [[10, 5, 15, 10], [30, 5, 35, 10]]


def test_a_name_that_ends_as_those_of_annotations_do(root: Path) -> None:
    """The ROIs of the image a_points.png are its own, and not those of a.png."""
    roifile = pytest.importorskip("roifile", reason="the extra files reads ROIs")
    Image.fromarray(np.zeros((50, 100), np.uint8)).save(root / "images" / "a_points.png")
    square = roifile.ImagejRoi.frompoints(np.array([[10, 5], [30, 5], [30, 25], [10, 25]], np.float32))
    for name, number in (("a_points", 1), ("b_RoiSet", 2)):
        with zipfile.ZipFile(root / "images" / f"{name}.zip", "w") as archive:
            for index in range(number):
                archive.writestr(f"{index}.roi", square.tobytes())
    found = {name: counts and counts["object"] for name, (counts, _) in summary(read_folder(root)).items()}
    assert found == {"a.png": None, "a_points.png": 1, "b.png": 2, "c.png": None}
