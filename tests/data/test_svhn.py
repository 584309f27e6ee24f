"""SVHN's full numbers from miniatures in their real form: conversion, splits, what is left out, broken files.

What reads or writes ``digitStruct.mat`` needs h5py and is skipped without it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mistnn.data import SvhnConfig, SvhnImages
from mistnn.data.house_numbers.number_list import read_number_list, split_of
from mistnn.data.house_numbers.svhn import holds_svhn
from mistnn.data.house_numbers.svhn_convert import ARCHIVE_SHA256, prepare_part, read_digit_struct
from mistnn.errors import MistError
from tests.data.house_numbers import list_part, make_part, photographs, write_digit_struct


@pytest.fixture(scope="module")
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="writes digitStruct.mat: pip install h5py")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted before: no digitStruct.mat is read."""
    root = tmp_path_factory.mktemp("svhn") / "svhn"
    list_part(root, "train", 60)
    list_part(root, "test", 40, seed=1)
    list_part(root, "extra", 8, seed=2)
    return root


def test_images_are_resized_whole_and_boxes_with_them(root: Path) -> None:
    images = SvhnImages(SvhnConfig(root=str(root), least_height=0), "test", 100)
    shown = [one for one in photographs(40, seed=1) if len(one[2]) == 2]
    assert len(images) == len(shown) == 30, "one in four has three digits"
    for index, (width, height, digits) in enumerate(shown):
        sample = images[index]
        assert sample.image.shape == (3, 60, 240) and 0 <= sample.image.min() and sample.image.max() <= 1
        assert sample.boxes is not None and sample.labels is not None and sample.counts is not None
        assert sample.labels.tolist() == [digit for digit, _ in digits]
        assert sample.counts.tolist() == [sample.labels.tolist().count(digit) for digit in range(10)]
        for box, (_, (x1, y1, x2, y2)) in zip(sample.boxes.tolist(), digits, strict=True):
            expected = ((x1 + x2) / 2 / width * 240, (y1 + y2) / 2 / height * 60)
            assert box[:2] == pytest.approx(expected, abs=1e-4)
            assert box[2:] == pytest.approx(((x2 - x1) / width * 240, (y2 - y1) / height * 60), abs=1e-4)
            centre = sample.image[:, int(box[1]), int(box[0])]
            assert (centre - 90 / 255).abs().max() > 0.05, "a digit is painted there, not ground"


def test_low_digits_are_left_out_of_the_test_alone(root: Path) -> None:
    config = SvhnConfig(root=str(root))
    shown = [one for one in photographs(40, seed=1) if len(one[2]) == 2]

    def lowest(one: Any) -> int:
        return min(box[3] - box[1] for _, box in one[2])

    resized = sum(lowest(one) * 60 / one[1] >= 30 for one in shown)
    original = sum(lowest(one) >= 30 for one in shown)
    assert 0 < resized < 30 and resized != original
    assert len(SvhnImages(config, "test", 100)) == resized
    assert len(SvhnImages(dataclasses.replace(config, least_height_of="original"), "test", 100)) == original
    parts = [SvhnImages(config, split, 100).numbers for split in ("train", "validation")]
    assert sum(map(len, parts)) == 45, "no training image is left out"
    assert all(split_of(number.path.name) == "validation" for number in parts[1])
    assert not {number.path for number in parts[0]} & {number.path for number in parts[1]}
    with pytest.raises(MistError, match="data.least_height=1000"):
        SvhnImages(dataclasses.replace(config, least_height=1000.0), "test", 1)


def test_extra_images_are_trained_on_if_asked_for(root: Path) -> None:
    config = SvhnConfig(root=str(root))
    without, with_extra = (
        SvhnImages(dataclasses.replace(config, extra=extra), "train", 999) for extra in (False, True)
    )
    assert len(with_extra) - len(without) == 6
    assert {number.path.parent.name for number in with_extra.numbers} == {"train", "extra"}
    assert len(SvhnImages(dataclasses.replace(config, extra=True), "test", 999)) == len(SvhnImages(config, "test", 999))


def test_training_is_endless_rounds(root: Path) -> None:
    images = SvhnImages(SvhnConfig(root=str(root)), "train", None)
    count = len(images.numbers)
    for turn in range(2):
        digits = [images.truth(turn * count + index).corners.tolist() for index in range(count)]
        assert len({json.dumps(one) for one in digits}) == count
    again = SvhnImages(SvhnConfig(root=str(root)), "train", None)
    assert torch.equal(images[count + 3].image, again[count + 3].image)
    other = SvhnImages(SvhnConfig(root=str(root), seed=1), "train", None)
    assert any(images.truth(index).labels != other.truth(index).labels for index in range(count))
    with pytest.raises(IndexError):
        _ = SvhnImages(SvhnConfig(root=str(root)), "test", 2)[2]


def test_digit_struct_is_converted_once(h5py: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = make_part(tmp_path, "train", 12)
    mat = tmp_path / "train" / "digitStruct.mat"
    write_digit_struct(h5py, mat, shown)
    folder = prepare_part(tmp_path, "train")
    assert (folder / "boxes.sha256").read_text().strip() == hashlib.sha256(mat.read_bytes()).hexdigest()
    for number, (width, height, digits) in zip(read_number_list(folder), shown, strict=True):
        assert (number.width, number.height) == (width, height)
        assert number.labels == tuple(digit for digit, _ in digits), "10 is the digit 0"
        np.testing.assert_array_equal(number.boxes, [box for _, box in digits])
    stamp = (folder / "boxes.json").stat().st_mtime_ns
    monkeypatch.setitem(sys.modules, "h5py", None)
    prepare_part(tmp_path, "train")
    assert (folder / "boxes.json").stat().st_mtime_ns == stamp, "the second time without h5py"
    monkeypatch.undo()
    write_digit_struct(h5py, mat, shown[:5])
    for place in range(6, 13):
        (tmp_path / "train" / f"{place}.png").unlink()
    assert len(read_number_list(prepare_part(tmp_path, "train"))) == 5, "another digitStruct.mat, another list"


def test_one_digit_is_stored_in_another_way(h5py: Any, tmp_path: Path) -> None:
    write_digit_struct(h5py, tmp_path / "digitStruct.mat", [(20, 20, [(0, (1, 2, 5, 9))])])
    (only,) = read_digit_struct(tmp_path / "digitStruct.mat")
    assert only == ("1.png", [(1, 2, 4, 7)], [0])


def test_archives_are_unpacked(h5py: Any, tmp_path: Path) -> None:
    shown = make_part(tmp_path / "made", "test", 6)
    write_digit_struct(h5py, tmp_path / "made" / "test" / "digitStruct.mat", shown)
    with tarfile.open(tmp_path / "test.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "test", "test")
    assert holds_svhn(tmp_path)
    assert len(read_number_list(prepare_part(tmp_path, "test"))) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "test", "test.tar.gz"]


def test_broken_structs(h5py: Any, tmp_path: Path) -> None:
    shown = make_part(tmp_path, "train", 4)
    mat = tmp_path / "train" / "digitStruct.mat"
    write_digit_struct(h5py, mat, shown)
    whole = mat.read_bytes()
    for content, words in (
        (whole[: len(whole) // 3], "not a complete digitStruct.mat.*unpack its archive again"),
        (b"", "not a complete digitStruct.mat"),
        (b"MATLAB 5.0 MAT-file" * 50, "not a complete digitStruct.mat"),
    ):
        mat.write_bytes(content)
        with pytest.raises(MistError, match=words) as caught:
            prepare_part(tmp_path, "train")
        assert "\n" not in str(caught.value)
    with h5py.File(mat, "w") as file:
        file.create_group("other")
    with pytest.raises(MistError, match="not a complete digitStruct.mat"):
        prepare_part(tmp_path, "train")
    write_digit_struct(h5py, mat, [*shown, (20, 20, [(1, (1, 1, 5, 5))])])
    with pytest.raises(MistError, match=r"5\.png is listed but not there"):
        prepare_part(tmp_path, "train")
    write_digit_struct(h5py, mat, shown[:3])
    with pytest.raises(MistError, match=r"does not describe 1 images of its folder, such as 4\.png.*unpack"):
        prepare_part(tmp_path, "train")
    outside = [(width, height, [(1, (900, 1, 910, 20))]) for width, height, _ in shown]
    write_digit_struct(h5py, mat, outside)
    with pytest.raises(MistError, match="every box outside its image"):
        prepare_part(tmp_path, "train")
    assert not (tmp_path / "train" / "boxes.json").exists()


def test_without_h5py_the_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_part(tmp_path, "train", 2)
    (tmp_path / "train" / "digitStruct.mat").write_bytes(b"\x89HDF")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError):
        importlib.import_module("h5py")
    with pytest.raises(MistError, match=r'h5py, which is not installed: pip install "mistnn\[svhn\]"') as caught:
        SvhnImages(SvhnConfig(root=str(tmp_path)), "train", None)
    assert "\n" not in str(caught.value)


def test_wrong_folders(tmp_path: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(MistError, match=words) as caught:
            SvhnImages(SvhnConfig(root=str(tmp_path)), "train", None)
        assert "\n" not in str(caught.value)

    with pytest.raises(MistError, match="not part of the package.*--data-root"):
        SvhnImages(SvhnConfig(), "train", None)
    with pytest.raises(MistError, match="folder .*nowhere does not exist"):
        SvhnImages(SvhnConfig(root=str(tmp_path / "nowhere")), "train", None)
    assert not holds_svhn(tmp_path)
    refused(r"holds neither train/ nor train\.tar\.gz.*housenumbers")
    (tmp_path / "train.tar.gz").write_bytes(b"\x1f\x8b\x08" + b"\0" * 40)
    refused(f"train.tar.gz can't be unpacked.*{ARCHIVE_SHA256['train.tar.gz']}")
    (tmp_path / "train.tar.gz").write_bytes(b"no archive at all")
    refused(r"train\.tar\.gz can't be unpacked")
    with tarfile.open(tmp_path / "train.tar.gz", "w:gz") as archive:
        archive.add(__file__, "other/file.py")
    refused("holds no folder train/")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.tar.gz"], "nothing half unpacked is left"
    (tmp_path / "train").mkdir()
    refused(r"train has no digitStruct\.mat")


def test_a_truncated_archive_is_refused_whole(tmp_path: Path) -> None:
    make_part(tmp_path / "made", "train", 30)
    with tarfile.open(tmp_path / "train.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "train", "train")
    whole = (tmp_path / "train.tar.gz").read_bytes()
    (tmp_path / "train.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MistError, match=r"train\.tar\.gz can't be unpacked"):
        prepare_part(tmp_path, "train")
    assert not (tmp_path / "train").exists()


def test_no_image_of_two_digits(root: Path) -> None:
    with pytest.raises(MistError, match=r"has exactly 5 digits, they have \[2, 3\]"):
        SvhnImages(SvhnConfig(root=str(root), digits=5), "train", None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"height": 0}, "data.height=0"),
        ({"digits": 0}, "data.digits=0"),
        ({"least_height": -1.0}, "data.least_height=-1"),
        ({"seed": -2}, "data.seed=-2"),
    ],
)
def test_impossible_values(changes: dict[str, object], words: str) -> None:
    with pytest.raises(MistError, match=words):
        dataclasses.replace(SvhnConfig(), **changes)
