"""Copies of one image in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mistnn.cli.main import main
from mistnn.data import read_folder
from mistnn.data.folder import copies
from mistnn.data.folder.copies import copied_images, copy_notes


def folder(root: Path, splits: str, counts: str) -> Path:
    """Images 0.bmp, 1.bmp, ... of one size in bytes and different pixels; each with its split and its count."""
    (root / "images").mkdir(parents=True)
    names = {"r": "train", "v": "validation", "t": "test"}
    rows = ["file,count,split"]
    for index, (split, count) in enumerate(zip(splits, counts, strict=True)):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{index}.bmp")
        rows.append(f"{index}.bmp,{count},{names[split]}")
    (root / "counts.csv").write_text("\n".join(rows) + "\n")
    return root


def copy(root: Path, old: int, new: int) -> None:
    (root / "images" / f"{new}.bmp").write_bytes((root / "images" / f"{old}.bmp").read_bytes())


def test_copies_of_training_images_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "own", "rrrvvttt", "11211121")
    for old, new in ((0, 5), (0, 7), (1, 4), (3, 6)):  # the last is of a validation image: no training image
        copy(root, old, new)
    found = read_folder(root).images
    assert [[one.name for one in group] for group in copied_images(found)] == [
        ["0.bmp", "5.bmp", "7.bmp"],
        ["1.bmp", "4.bmp"],
        ["3.bmp", "6.bmp"],
    ]
    validation, test, labels = copy_notes(found)
    assert validation.startswith("1 validation image is a copy of a training image (4.bmp of 1.bmp): the threshold")
    assert test.startswith("2 test images are copies of training images (5.bmp of 0.bmp, 7.bmp of 0.bmp): the test")
    assert labels.startswith("copies of one image have different labels (3.bmp and 6.bmp)")
    assert main(["inspect", str(root), "--no-estimate", "--out", str(tmp_path / "sheet.png")]) == 0
    assert f"  - {test}\n" in capsys.readouterr().out


def test_other_images_are_no_copies(tmp_path: Path) -> None:
    """Of one size in bytes: they differ in their middle, at the end only, or can't be read."""
    root = folder(tmp_path / "own", "rrtt", "1111")
    copy(root, 0, 2)
    path = root / "images" / "2.bmp"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    images = read_folder(root).images
    assert copied_images(images) == [] and copy_notes(images) == []
    copy(root, 1, 3)
    assert len(copied_images(images)) == 1
    (root / "images" / "3.bmp").unlink()
    assert copied_images(images) == []


def test_what_differs_is_not_read_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompressed images all have one size in bytes: in a large folder, reading them all would take minutes."""
    root = folder(tmp_path / "own", "rrrtttt", "1111111")
    copy(root, 1, 5)
    copy(root, 2, 6)
    read: list[str] = []
    real = copies._digest
    monkeypatch.setattr(copies, "_digest", lambda path: (read.append(path.name), real(path))[1])
    copied_images(read_folder(root).images)
    assert sorted(read) == ["1.bmp", "2.bmp", "5.bmp", "6.bmp"]


def test_an_image_in_two_formats_is_noted(tmp_path: Path) -> None:
    (tmp_path / "images" / "b").mkdir(parents=True)
    for name, side in (("a.png", 8), ("a.tif", 8), ("b/a.png", 8), ("c.png", 8), ("c.jpg", 9), ("d.x.png", 8)):
        Image.new("L", (side, 8)).save(tmp_path / "images" / name)
    (note,) = [one for one in copy_notes(read_folder(tmp_path).images) if "formats" in one]
    assert note.startswith("1 name is there in several formats (a.png and a.tif)")
