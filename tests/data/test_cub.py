"""CUB-200-2011 in its real layout: its splits, its crops, and lists that disagree."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.data import CubConfig, CubImages
from mistnn.data.photographs import cub as module
from mistnn.data.photographs.cub import read_cub
from mistnn.data.random_numbers import Rounds, seeded
from mistnn.errors import MistError
from tests.data.birds import CLASSES, COLOURS, make_cub


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_cub(tmp_path)
    return tmp_path


def config_of(root: Path, **more: object) -> CubConfig:
    return dataclasses.replace(CubConfig(str(root), side=28), **more)


def test_lists_and_splits(root: Path) -> None:
    folder = read_cub(str(root))
    assert folder == read_cub(str(root / "CUB_200_2011")) and folder.class_names == CLASSES
    assert len(folder.birds) == 18 and all(bird.name.startswith(CLASSES[bird.label]) for bird in folder.birds)
    parts = {split: CubImages(config_of(root), split, 99).birds for split in ("train", "test")}
    assert {split: len(some) for split, some in parts.items()} == {"train": 12, "test": 6}
    assert all(bird.train for bird in parts["train"]) and not any(bird.train for bird in parts["test"])
    kept = CubImages(config_of(root, validation=0.25), "validation", 99).birds
    rest = CubImages(config_of(root, validation=0.25), "train", 99).birds
    assert len(kept) == 3 and len(rest) == 9 and {*kept, *rest} == {*parts["train"]}
    with pytest.raises(MistError, match=r"left for validation with data\.validation=0\.0.*--evaluation-images 0"):
        CubImages(config_of(root), "validation", None)


def test_the_first_birds_are_not_of_one_class(root: Path) -> None:
    """The lists go from class to class, and `mist evaluate --images` takes the first."""
    for split in ("train", "test"):
        labels = [bird.label for bird in CubImages(config_of(root), split, 99).birds]
        assert sorted(labels) != labels


def test_a_sample_shows_its_class(root: Path) -> None:
    for split in ("train", "test"):
        images = CubImages(config_of(root), split, None if split == "train" else 6)
        for index in range(6):
            sample = images[index]
            assert sample.image.shape == (3, 28, 28) and sample.counts is not None and sample.boxes is None
            assert sample.counts.sum() == 1 and len(sample.counts) == 3
            colour = torch.tensor(COLOURS[int(sample.counts.argmax())]) / 255
            assert (sample.image.mean(dim=(1, 2)) - colour).abs().max() < 0.05


def gradient(root: Path, width: int, height: int) -> CubImages:
    """A test image that says where each of its pixels lies: red is the column, green the row."""
    images = CubImages(config_of(root), "test", 1)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    path = images.birds[0].path.with_suffix(".png")
    Image.fromarray(pixels).save(path)
    images.birds[0] = images.birds[0]._replace(path=path)
    return images


def test_ten_views(root: Path) -> None:
    """The shorter edge is 8/7 of a crop: of 64 rows a crop sees 56, two pixels to each of its 28."""
    images = gradient(root, 100, 64)
    views = images.views(0)
    assert views.shape == (10, 3, 28, 28)
    for view, (left, top) in zip(views[:5], ((0, 0), (44, 0), (0, 8), (44, 8), (22, 4)), strict=True):
        columns, rows = view[0].mean(0) * 255, view[1].mean(1) * 255
        middle = torch.arange(28) * 2 + 0.5  # between the two pixels; at the ends a crop sees nothing beyond itself
        torch.testing.assert_close(columns[1:-1], (middle + left)[1:-1], atol=0.75, rtol=0)
        torch.testing.assert_close(rows[1:-1], (middle + top)[1:-1], atol=0.75, rtol=0)
    assert torch.equal(views[5:], views[:5].flip(-1))
    assert torch.equal(images[0].image, views[4]), "the middle one is the sample"
    with pytest.raises(IndexError):
        _ = images[1]


def test_training_crops_lie_anywhere_and_are_mirrored(root: Path) -> None:
    config = config_of(root)
    images = CubImages(config, "train", None)
    birds = gradient(root, 100, 64).birds[:1]
    images.birds = birds
    images._rounds = Rounds(len(birds), seeded(0))
    lefts, mirrored = [], 0
    for index in range(60):
        red = images[index].image[0].mean(0) * 255
        mirrored += int(red[0] > red[-1])
        lefts.append(float(red.min()))
    assert 15 < mirrored < 45 and min(lefts) < 5 and max(lefts) > 38
    assert torch.equal(images[7].image, images[7].image)
    plain = CubImages(config_of(root, mirror=False), "train", None)
    plain.birds = birds
    plain._rounds = Rounds(len(birds), seeded(0))
    assert all(float(plain[index].image[0, 0, 0]) < float(plain[index].image[0, 0, -1]) for index in range(20))


def test_training_is_endless_rounds(root: Path) -> None:
    images = CubImages(config_of(root), "train", None)
    count = len(images.birds)
    for turn in range(2):
        classes = [int(images[turn * count + index].counts.argmax()) for index in range(count)]  # pyright: ignore
        assert sorted(classes) == [0] * 4 + [1] * 4 + [2] * 4


def test_one_pixel(root: Path) -> None:
    images = CubImages(config_of(root), "test", 1)
    Image.new("RGB", (1, 1), (10, 20, 30)).save(images.birds[0].path.with_suffix(".png"))
    images.birds[0] = images.birds[0]._replace(path=images.birds[0].path.with_suffix(".png"))
    torch.testing.assert_close(images.views(0) * 255, torch.tensor((10.0, 20, 30)).view(3, 1, 1).expand(10, 3, 28, 28))


def test_lists_that_disagree(root: Path) -> None:
    folder = root / "CUB_200_2011"

    def refused(name: str, old: str, new: str, said: str) -> None:
        path = folder / name
        whole = path.read_text()
        assert old in whole
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(MistError, match=said) as caught:
            read_cub(str(root))
        assert "\n" not in str(caught.value)
        path.write_text(whole)

    labels = "image_class_labels.txt"
    refused(
        labels, "7 2\n", "7 3\n", r"gives image 7 the class 3 \(010.*\), but images.txt has it in 002.*other images"
    )
    refused(labels, "7 2\n", "7 9\n", r"image 7 the class 9 \(not in classes.txt\)")
    refused(labels, "7 2\n", "", r"does not list image 7 \(in all: 1\)")
    refused(labels, "18 3\n", "18 3\n19 3\n20 1\n", r"lists image 19 \(in all: 2\)")
    refused(labels, "7 2\n", "7\n", "line 7: '7' must be a new number and its value")
    refused(labels, "7 2\n", "6 2\n", "line 7: '6 2' must be a new number")
    refused("train_test_split.txt", "2 1\n", "2 2\n", "image 2 has '2', which must be 0 or 1")
    refused("images.txt", "_0000_1.jpg", "_0000_x.jpg", r"_x\.jpg is listed but not there \(in all: 1\)")
    (folder / "classes.txt").write_text("")
    with pytest.raises(MistError, match=r"classes\.txt is empty"):
        read_cub(str(root))
    (folder / "classes.txt").unlink()
    with pytest.raises(MistError, match=r"classes\.txt can't be read"):
        read_cub(str(root))


def test_a_broken_image(root: Path) -> None:
    images = CubImages(config_of(root), "test", 1)
    images.birds[0].path.write_bytes(b"no image")
    with pytest.raises(MistError, match="can't read"):
        _ = images[0]


def test_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cub(tmp_path / "made")
    archive = tmp_path / "CUB_200_2011.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "made" / "CUB_200_2011", "CUB_200_2011")
    with pytest.raises(MistError, match="has the MD5 .*, not the 97eceeb196236b17998738112f37df78 of the published"):
        read_cub(str(tmp_path))
    assert not (tmp_path / "CUB_200_2011").exists()
    monkeypatch.setattr(module, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(read_cub(str(tmp_path)).birds) == 18
    shutil.rmtree(tmp_path / "CUB_200_2011")
    archive.write_bytes(archive.read_bytes()[:900])
    monkeypatch.setattr(module, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(MistError, match="can't be unpacked"):
        read_cub(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CUB_200_2011.tgz", "made"]
    (tmp_path / "CUB_200_2011").mkdir()
    with pytest.raises(MistError, match="CUB_200_2011 holds no images.txt: remove it"):
        read_cub(str(tmp_path))


def test_nothing_there(tmp_path: Path) -> None:
    for config in (CubConfig(), CubConfig(str(tmp_path)), CubConfig(str(tmp_path / "nowhere"))):
        with pytest.raises(MistError, match="download it from https://data.caltech.edu"):
            CubImages(config, "train", None)
    wrong = {"data.side=0": {"side": 0}, "data.validation=1.0": {"validation": 1.0}, "data.seed=-1": {"seed": -1}}
    for said, given in wrong.items():
        with pytest.raises(MistError, match=said):
            dataclasses.replace(CubConfig(), **given)
