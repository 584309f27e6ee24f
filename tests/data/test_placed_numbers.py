"""Numbers on made-up backgrounds: boxes found again in the pixels, splits, reproducibility, broken folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mistnn.data import NumbersConfig, PlacedNumbers
from mistnn.data.house_numbers.number_list import split_of
from mistnn.data.house_numbers.placed_numbers import Placement, background, holds_numbers, put
from mistnn.errors import MistError
from mistnn.records import Sample, collate
from tests.data.house_numbers import entry, make_numbers, picture, write_list

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_numbers(tmp_path_factory.mktemp("numbers") / "set")


@pytest.fixture(scope="module")
def config(root: Path) -> NumbersConfig:
    return NumbersConfig(root=str(root))


def parts(sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert sample.boxes is not None and sample.labels is not None and sample.counts is not None
    return sample.boxes, sample.labels, sample.counts


def test_sample(config: NumbersConfig) -> None:
    for split in SPLITS:
        numbers = PlacedNumbers(config, split, 9)
        batch = collate([numbers[index] for index in range(len(numbers))])
        assert batch.images.shape == (9, 3, 60, 240) and batch.images.dtype == torch.float32
        assert 0 <= batch.images.min() and batch.images.max() <= 1
        assert batch.counts is not None and (batch.counts.sum(1) == 2).all() and batch.counts.shape == (9, 10)
        for index in range(9):
            boxes, labels, counts = parts(numbers[index])
            assert boxes.shape == (2, 4) and labels.dtype == torch.int64
            assert counts.tolist() == [labels.tolist().count(digit) for digit in range(10)]
            low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
            assert low.min() >= -1e-4 and (high <= torch.tensor([240.0, 60.0]) + 1e-4).all()


def test_boxes_lie_where_the_digits_are_painted(config: NumbersConfig) -> None:
    """The oracle: in each view, one digit after the other is painted white on black and looked for in the image."""
    numbers = PlacedNumbers(dataclasses.replace(config, feather=0), "train", 12)
    for index in range(12):
        number, placed, _ = numbers._placed(index)
        boxes, _, _ = parts(numbers[index])
        for box, corners in zip(boxes.tolist(), number.boxes.tolist(), strict=True):
            view = Image.new("L", (number.width, number.height))
            view.paste(255, tuple(map(round, corners)))
            shown = np.asarray(view.resize((placed.width, placed.height), Image.Resampling.BILINEAR)) / 255
            white = np.repeat(shown[..., None], 3, axis=2).astype(np.float32)
            mass = put(np.zeros((60, 240, 3), np.float32), white, placed, 0)[..., 0]
            across, down = mass.sum(0), mass.sum(1)
            x = (across * (np.arange(240) + 0.5)).sum() / mass.sum()
            y = (down * (np.arange(60) + 0.5)).sum() / mass.sum()
            assert (x, y) == pytest.approx(box[:2], abs=0.35)
            assert (mass.sum() / down.max(), mass.sum() / across.max()) == pytest.approx((box[3], box[2]), abs=0.6)


def test_zoom_is_the_height_of_the_view(config: NumbersConfig) -> None:
    """A digit as high as its view shows it: 40 % to 80 % of 60 px, to half a pixel of rounding."""
    for zoom in ((0.4, 0.8), (0.5, 0.5)):
        numbers = PlacedNumbers(dataclasses.replace(config, zoom=zoom), "train", 60)
        heights = []
        for index in range(60):
            number, placed, _ = numbers._placed(index)
            heights.append(placed.height)
            assert placed.width == pytest.approx(number.width * 2 * placed.height / number.height, abs=3)
        assert min(heights) >= 60 * zoom[0] - 0.5 and max(heights) <= 60 * zoom[1] + 0.5
        assert zoom[0] == zoom[1] or max(heights) - min(heights) > 15


def test_a_view_too_wide_is_made_smaller(tmp_path: Path) -> None:
    wide = [(1, (5, 0, 15, 40)), (2, (380, 0, 390, 40))]
    (tmp_path / "images").mkdir()
    entries = []
    for place in range(30):
        picture(400, 40, wide).save(tmp_path / "images" / f"{place}.png")
        entries.append(entry(f"images/{place}.png", 400, 40, wide))
    write_list(tmp_path, entries)
    numbers = PlacedNumbers(NumbersConfig(root=str(tmp_path)), "train", 5)
    for index in range(5):
        _, placed, _ = numbers._placed(index)
        assert placed.width == 240 and placed.left == 0 and placed.height == 12
        assert parts(numbers[index])[0][1, 0] == pytest.approx(385 * 0.6)


def test_the_same_three_give_the_same_image(config: NumbersConfig) -> None:
    first, again = PlacedNumbers(config, "train", None), PlacedNumbers(config, "train", 500)
    for index in (0, 3, len(first.numbers) + 1, 2):
        assert torch.equal(first[index].image, again[index].image)
        assert torch.equal(parts(first[index])[0], parts(again[index])[0])
    other = PlacedNumbers(dataclasses.replace(config, seed=1), "train", None)
    assert not torch.equal(first[0].image, other[0].image)


def test_every_number_once_a_round_each_time_elsewhere(config: NumbersConfig) -> None:
    numbers = PlacedNumbers(config, "test", None)
    count = len(numbers.numbers)
    for turn in (0, 1):
        shown = [numbers._placed(turn * count + index)[0].path.name for index in range(count)]
        assert sorted(shown) == sorted(number.path.name for number in numbers.numbers)
    places = {numbers._placed(index)[1] for index in range(2 * count)}
    assert len(places) > 1.5 * count


def test_truth_needs_no_pixels(config: NumbersConfig) -> None:
    numbers = PlacedNumbers(config, "validation", 4)
    for index in range(4):
        boxes, labels, _ = parts(numbers[index])
        corners, digits = numbers.truth(index)
        np.testing.assert_allclose((corners[:, :2] + corners[:, 2:]) / 2, boxes[:, :2].numpy(), atol=1e-4)
        np.testing.assert_allclose(corners[:, 2:] - corners[:, :2], boxes[:, 2:].numpy(), atol=1e-4)
        assert list(digits) == labels.tolist()


def test_splits_share_no_number_and_never_change(config: NumbersConfig, root: Path) -> None:
    names = {split: {number.path.name for number in PlacedNumbers(config, split, 1).numbers} for split in SPLITS}
    assert sum(map(len, names.values())) == 60 == len(set.union(*names.values())), (
        "the three single digits are left out"
    )
    assert len(names["train"]) > 3 * len(names["test"]) > 0 and names["validation"]
    other = dataclasses.replace(config, seed=7)
    assert {number.path.name for number in PlacedNumbers(other, "test", 1).numbers} == names["test"]
    shares = [sum(split_of(f"{number}.png") == split for number in range(5000)) / 5000 for split in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_put_continues_the_border_and_fades(config: NumbersConfig) -> None:
    """The loop over pixels, from the words."""
    random = np.random.default_rng(0)
    ground = random.random((12, 15, 3)).astype(np.float32)
    view = random.random((4, 5, 3)).astype(np.float32)
    placed, feather = Placement(left=6, top=1, width=5, height=4), 3
    made = put(ground, view, placed, feather)
    for y in range(12):
        for x in range(15):
            row, column = min(max(y - 1, 0), 3), min(max(x - 6, 0), 4)
            distance = max(abs(y - 1 - row), abs(x - 6 - column))
            share = max(0.0, 1 - distance / (feather + 1))
            np.testing.assert_allclose(made[y, x], share * view[row, column] + (1 - share) * ground[y, x], atol=1e-6)
    assert np.array_equal(made[1:5, 6:11], view), "the view itself does not fade"
    hard = put(ground, view, placed, 0)
    assert np.array_equal(hard[0], ground[0]) and np.array_equal(hard[:, 0], ground[:, 0])


def test_backgrounds_differ_and_begin_from_the_colour() -> None:
    colour = np.array([0.2, 0.5, 0.7], dtype=np.float32)
    grounds = [background(60, 240, colour, np.random.default_rng(seed)) for seed in range(60)]
    assert all(ground.shape == (60, 240, 3) and 0 <= ground.min() and ground.max() <= 1 for ground in grounds)
    flat = [ground for ground in grounds if np.ptp(ground, axis=(0, 1)).max() < 1e-6]
    assert 8 < len(flat) < 32
    np.testing.assert_allclose(np.mean([ground.mean((0, 1)) for ground in grounds], axis=0), colour, atol=0.04)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"zoom": (0.8, 0.4)}, "data.zoom"),
        ({"zoom": (0.4, 1.2)}, "data.zoom"),
        ({"stretch": 0.0}, "data.stretch=0.0"),
        ({"feather": -1}, "data.feather=-1"),
        ({"digits": 0}, "data.digits=0"),
        ({"canvas_height": 0}, "data.canvas_height=0"),
        ({"seed": -1}, "data.seed=-1"),
    ],
)
def test_impossible_values(changes: dict[str, object], words: str) -> None:
    with pytest.raises(MistError, match=words):
        dataclasses.replace(NumbersConfig(), **changes)


def one(tmp_path: Path, **changes: object) -> NumbersConfig:
    """A list of one entry with something changed."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "1.png")
    good = {
        "file": "images/1.png",
        "width": 40,
        "height": 30,
        "boxes": [[1, 1, 9, 9], [20, 1, 30, 9]],
        "labels": [1, 2],
    }
    write_list(tmp_path, [good | changes])
    return NumbersConfig(root=str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": 3}, "entry 1: no file is named"),
        ({"width": "40"}, "width and height must be whole numbers"),
        ({"width": 10**400}, "width and height must be whole numbers"),
        ({"width": True}, "width and height must be whole numbers"),
        ({"boxes": [[1, 1, 10**400, 9], [1, 1, 9, 9]]}, "4 numbers expected"),
        ({"boxes": [[1, 1, 9, 9]]}, "1 boxes, but labels are"),
        ({"labels": [1, 12]}, "label 12 is not a digit"),
        ({"labels": ["a", "b"]}, "label 'a' is not a digit"),
        ({"boxes": [[1, 1, 9], [20, 1, 30, 9]]}, r"\[1, 1, 9\] are not the 4 numbers"),
        ({"boxes": [[1, 1, 9, 9], [50, 1, 60, 9]]}, "no area in the 40 x 30 px"),
        ({"boxes": [[1, 1, 9, float("nan")], [2, 1, 6, 9]]}, "4 numbers expected"),
        ({"width": 41}, "1.png is 40 x 30 px, but boxes.json says 41 x 30"),
        ({"file": "images/2.png"}, "2.png is listed but not there"),
        ({"labels": [1], "boxes": [[1, 1, 9, 9]]}, r"none of 1 images has exactly 2 digits, they have \[1\]"),
    ],
)
def test_a_list_that_is_wrong_is_told_in_one_line(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    split = split_of("1.png")
    with pytest.raises(MistError, match=words) as caught:
        PlacedNumbers(one(tmp_path, **changes), split, None)
    assert "\n" not in str(caught.value)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(MistError, match="--data-root"):
        PlacedNumbers(NumbersConfig(), "train", None)
    with pytest.raises(MistError, match=f"{tmp_path} has no boxes.json"):
        PlacedNumbers(NumbersConfig(root=str(tmp_path)), "train", None)
    assert not holds_numbers(tmp_path)
    config = one(tmp_path)
    assert holds_numbers(tmp_path)
    missing = next(split for split in SPLITS if split != split_of("1.png"))
    with pytest.raises(MistError, match=f"none of 1 numbers of 2 digits is in the {missing} split"):
        PlacedNumbers(config, missing, None)
    whole = (tmp_path / "boxes.json").read_text()
    (tmp_path / "boxes.json").write_text(whole[:-9])
    with pytest.raises(MistError, match="boxes.json is broken JSON"):
        PlacedNumbers(config, split_of("1.png"), None)
    (tmp_path / "boxes.json").write_text(json.dumps(json.loads(whole) * 2))
    with pytest.raises(MistError, match="describes 1.png twice"):
        PlacedNumbers(config, split_of("1.png"), None)
    (tmp_path / "boxes.json").write_text("{}")
    with pytest.raises(MistError, match="must be a list"):
        PlacedNumbers(config, split_of("1.png"), None)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    config = one(tmp_path)
    path = tmp_path / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(MistError, match=r"1\.png"):
        _ = PlacedNumbers(config, split_of("1.png"), None)[0]


def test_outside(config: NumbersConfig) -> None:
    with pytest.raises(IndexError, match="image 3 is outside"):
        _ = PlacedNumbers(config, "test", 3)[3]
