"""Annotations of other programs that may not be meant as they are read: a note says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mistnn.data.folder.content import read_folder
from tests.data.annotated import blank_image, summary, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("im000", "im001", "im002"):
        blank_image(tmp_path / "images" / f"{name}.png")
    return tmp_path


def markers(inner: str, number: int) -> str:
    marker = "<Marker><MarkerX>5</MarkerX><MarkerY>5</MarkerY></Marker>"
    kind = f"<Marker_Type><Type>1</Type>{marker * number}</Marker_Type>"
    about = f"<Image_Properties><Image_Filename>{inner}</Image_Filename></Image_Properties>"
    return f"<CellCounter_Marker_File>{about}<Marker_Data>{kind}</Marker_Data></CellCounter_Marker_File>"


def test_markers_that_name_another_image_are_left_out(root: Path) -> None:
    """Either name may be wrong, so neither image has a count from them."""
    write(root / "images" / "CellCounter_im000.xml", markers("im001.png", 3))
    write(root / "images" / "CellCounter_im001.xml", markers("im001.png", 1))
    write(root / "images" / "CellCounter_im002.xml", markers("before.tif", 2))
    folder = read_folder(root)
    assert {name: counts for name, (counts, _) in summary(folder).items()} == {
        "im000.png": None, "im001.png": {"type 1": 1}, "im002.png": {"type 1": 2}
    }  # fmt: skip
    said = [note for note in folder.notes if "another image inside" in note]
    assert len(said) == 1 and said[0].startswith("annotations are left out: markers of Cell Counter: 1 files name")
    assert "images/CellCounter_im000.xml has the name of im000.png, names im001.png; correct the name" in said[0]


def test_markers_of_another_name_are_those_of_the_image_they_name(root: Path) -> None:
    write(root / "images" / "CellCounter_mine.xml", markers("im001.png", 3))
    folder = read_folder(root)
    assert summary(folder)["im001.png"][0] == {"type 1": 3}
    assert not any("another image inside" in note for note in folder.notes)


def test_a_labelme_file_that_names_another_image_is_noted(root: Path) -> None:
    shape = {"label": "cell", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    write(root / "images" / "im000.json", {"shapes": [shape], "imagePath": "..\\im001.png"})
    folder = read_folder(root)
    assert summary(folder)["im000.png"][0] == {"cell": 1}
    said = "images/im000.json has the name of im000.png, names im001.png, and is taken for im000.png"
    assert sum(said in note for note in folder.notes) == 1


def lines_of(root: Path) -> list[str]:
    folder = read_folder(root)
    assert sum(sum(counts.values()) for counts, _ in summary(folder).values() if counts) == 2
    return [note for note in folder.notes if "lines count as objects" in note]


@pytest.mark.parametrize("kind", ["line", "linestrip", "polygon"])
def test_lines_of_labelme_are_noted(root: Path, kind: str) -> None:
    shapes = [
        {"label": "cell", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"},
        {"label": "bar", "points": [[60, 40], [90, 41], [95, 42]], "shape_type": kind},
    ]
    write(root / "images" / "im000.json", {"shapes": shapes, "imagePath": "im000.png"})
    said = "annotations of LabelMe: 1 lines count as objects, in 1 images (im000.png): remove those that are none, such"
    assert [note[: len(said)] for note in lines_of(root)] == [said] * (kind != "polygon")


def test_lines_of_cvat_are_noted(root: Path) -> None:
    box = '<box label="cell" xtl="20" ytl="20" xbr="60" ybr="30"/>'
    line = '<{} label="bar" points="1.0,2.0;30.0,2.5;40.0,3.0"/>'
    for tag in ("polyline", "polygon"):
        shapes = f'<image name="im000.png" width="100" height="50">{box}{line.format(tag)}</image>'
        write(root / "annotations.xml", f"<annotations>{shapes}</annotations>")
        assert len(lines_of(root)) == (tag == "polyline")


def test_lines_of_imagej_are_noted(root: Path) -> None:
    roifile = pytest.importorskip("roifile", reason="the extra files reads ROIs")
    roi = roifile.ImagejRoi.frompoints(np.array([[10, 5], [30, 5], [30, 25]], np.float32))
    roi.roitype = roifile.ROI_TYPE.POLYLINE
    for name in ("im000", "im001"):
        roi.tofile(root / "images" / f"{name}.roi")
    assert "2 lines count as objects, in 2 images" in lines_of(root)[0]
