"""Crops of SVHN's photographs around whole numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.data import NumberCrops, NumberCropsConfig
from mistnn.data.house_numbers.number_crops import read_window, window_around
from mistnn.errors import MistError
from tests.data.house_numbers import COLOURS, entry, list_part, make_part, picture, write_digit_struct, write_list


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svhn")
    list_part(folder, "train", 24)
    list_part(folder, "test", 10, seed=1)
    list_part(folder, "extra", 8, seed=2)
    return folder


def config_of(root: Path, **more: object) -> NumberCropsConfig:
    return dataclasses.replace(NumberCropsConfig(str(root), side=32, validation=5), **more)


def looped(image: np.ndarray, window: np.ndarray, side: int) -> np.ndarray:
    """The oracle where a window is a whole number of times smaller or as large: means of squares of pixels."""
    step = int(window[2] - window[0]) // side
    result = np.zeros((side, side, 3))
    for row in range(side):
        for column in range(side):
            for down in range(step):
                for right in range(step):
                    y = int(window[1]) + row * step + down
                    x = int(window[0]) + column * step + right
                    y, x = min(max(y, 0), image.shape[0] - 1), min(max(x, 0), image.shape[1] - 1)
                    result[row, column] += image[y, x] / step**2
    return result


def test_a_window_around_boxes() -> None:
    boxes = np.array([(10, 20, 20, 40), (22, 18, 30, 38)], dtype=np.float64)
    np.testing.assert_allclose(window_around(boxes, 1), (10, 18, 30, 40))
    np.testing.assert_allclose(window_around(boxes, 1.3), (7, 14.7, 33, 43.3))
    np.testing.assert_allclose(window_around(boxes, 2.6), (-6, 0.4, 46, 57.6))


@pytest.mark.parametrize(
    "window", [(2, 1, 10, 9), (-3, -2, 5, 6), (6, 5, 14, 13), (-20, -30, -12, -22), (-8, -8, 16, 16)]
)
def test_a_window_repeats_the_border(window: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (11, 12, 3), dtype=np.uint8)
    corners = np.array(window, dtype=np.float64)
    found = read_window(image, corners, 8)
    if window[2] - window[0] == 8:
        np.testing.assert_array_equal(found, looped(image, corners, 8))
    else:  # a triangle is wider than the mean of its squares: only alike
        smooth = np.tile(np.linspace(0, 240, 12)[None, :, None], (11, 1, 3)).astype(np.uint8)
        np.testing.assert_allclose(read_window(smooth, corners, 8), looped(smooth, corners, 8), atol=16)


def test_one_pixel() -> None:
    image = np.array([[(7, 8, 9)]], dtype=np.uint8)
    found = read_window(image, window_around(np.array([(0, 0, 1, 1.0)]), 2.6), 4)
    assert found.shape == (4, 4, 3) and (found == image[0, 0]).all()


def test_a_crop_shows_its_digits_where_it_says(root: Path) -> None:
    for side, window in ((64, 1.3), (128, 2.6)):
        images = NumberCrops(config_of(root, side=side, window=window), "test", 10)
        for index in range(10):
            sample = images[index]
            assert sample.image.shape == (3, side, side) and sample.labels is not None and sample.boxes is not None
            assert sample.labels.tolist() == list(images.numbers[index].labels)
            for label, (x, y, _, _) in zip(sample.labels.tolist(), sample.boxes.tolist(), strict=True):
                shown = sample.image[:, int(y), int(x)] * 255
                torch.testing.assert_close(shown, torch.tensor(COLOURS[label]).float(), atol=2, rtol=0)
            middle, half = sample.boxes[:, :2], sample.boxes[:, 2:] / 2
            low, high = (middle - half).amin(0), (middle + half).amax(0)
            torch.testing.assert_close((high - low) / side, torch.full((2,), 1 / window))
            torch.testing.assert_close(low + high, torch.full((2,), float(side)), atol=1e-3, rtol=0)


def test_splits(root: Path) -> None:
    config = config_of(root)
    parts = {split: NumberCrops(config, split, 999).numbers for split in ("train", "validation", "test")}
    assert {split: len(some) for split, some in parts.items()} == {"train": 24 - 5 + 8, "validation": 5, "test": 10}
    assert {number.path.parent.name for number in parts["validation"]} == {"train"}
    assert not {number.path for number in parts["train"]} & {number.path for number in parts["validation"]}
    assert len(NumberCrops(config_of(root, extra=False), "train", 999)) == 19
    fewer = NumberCrops(config_of(root, validation=3), "validation", 999).numbers
    assert {number.path for number in fewer} < {number.path for number in parts["validation"]}


def test_training_is_endless_rounds(root: Path) -> None:
    images = NumberCrops(config_of(root), "train", None)
    count = len(images.numbers)
    sums = [[float(images[turn * count + index].image.sum()) for index in range(count)] for turn in range(2)]
    assert sums[0] != sums[1] and sorted(sums[0]) == sorted(sums[1])
    assert torch.equal(images[3].image, NumberCrops(config_of(root), "train", None)[3].image)
    with pytest.raises(IndexError):
        _ = NumberCrops(config_of(root), "test", 2)[2]


def test_long_numbers_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    shown = []
    for length in (5, 6):
        shown.append((60, 20, [(place, (9 * place, 2, 9 * place + 8, 18)) for place in range(length)]))
    for place, one in enumerate(shown, start=1):
        picture(*one).save(tmp_path / "test" / f"{place}.png")
    write_list(tmp_path / "test", [entry(f"{place}.png", *one) for place, one in enumerate(shown, start=1)])
    assert len(NumberCrops(config_of(tmp_path), "test", 9)) == 1
    write_list(tmp_path / "test", [entry("2.png", *shown[1])])
    with pytest.raises(MistError, match="no image has 1 to 5 digits"):
        NumberCrops(config_of(tmp_path), "test", 9)


def test_labels_of_other_images(root: Path, tmp_path: Path) -> None:
    list_part(tmp_path, "test", 3)
    Image.new("RGB", (9, 7)).save(tmp_path / "test" / "2.png")
    images = NumberCrops(config_of(tmp_path), "test", 9)
    with pytest.raises(MistError, match=r"2\.png is 9 x 7 px, but boxes\.json beside it says .* labels") as caught:
        _ = images[1]
    assert "\n" not in str(caught.value)
    (tmp_path / "test" / "3.png").write_bytes(b"none")
    with pytest.raises(MistError, match=r"can't read .*3\.png"):
        _ = images[2]
    listed = json.loads((tmp_path / "test" / "boxes.json").read_text())
    listed[0]["labels"] = listed[0]["labels"][:-1]
    write_list(tmp_path / "test", listed)
    with pytest.raises(MistError, match=r"2 boxes, but labels are .*: give one for each"):
        NumberCrops(config_of(tmp_path), "test", 9)


def test_from_digit_struct(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    shown = make_part(tmp_path, "test", 6)
    write_digit_struct(h5py, tmp_path / "test" / "digitStruct.mat", shown)
    images = NumberCrops(config_of(tmp_path), "test", 99)
    assert [images[index].labels.tolist() for index in range(6)] == [[digit for digit, _ in one[2]] for one in shown]  # pyright: ignore


def test_missing_parts(root: Path, tmp_path: Path) -> None:
    def refused(said: str, split: str = "train", **more: object) -> None:
        with pytest.raises(MistError, match=said) as caught:
            NumberCrops(config_of(tmp_path, **more), split, None)  # pyright: ignore[reportArgumentType]
        assert "\n" not in str(caught.value)

    refused("holds neither train/ nor train.tar.gz")
    list_part(tmp_path, "train", 4)
    refused("data.validation=5 leaves none of the 4 images")
    refused("holds neither extra/ nor extra.tar.gz.*--data.no-extra", validation=2)
    refused("data.validation=0 keeps no image", "validation", validation=0)
    with pytest.raises(MistError, match="--data-root"):
        NumberCrops(NumberCropsConfig(), "train", None)
    wrong = {"data.side=0": {"side": 0}, "data.window=0.5": {"window": 0.5}, "data.seed=-1": {"seed": -1}}
    for said, given in wrong.items():
        with pytest.raises(MistError, match=said):
            dataclasses.replace(NumberCropsConfig(), **given)
