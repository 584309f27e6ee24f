"""Scattered digits: exact boxes, the overlap rule, crops, grounds, reproducibility, impossible settings."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mistnn.data import DigitSource, Scatter, ScatterConfig, Scenes, ScenesConfig
from mistnn.data.digits.scatter import ink_boxes, resized
from mistnn.data.digits.source import load_embedded
from mistnn.errors import MistError
from mistnn.records import Sample

FIVE = ScatterConfig(source="embedded")
NINE = replace(FIVE, counts=(9,))
AIR = ScatterConfig("embedded", canvas=50, counts=(0, 1, 2), side=28, overlap=0, tight=True)
TRANSFER = replace(FIVE, canvas=84, counts=(6, 7, 8, 9, 10), crop=48)
ALL = pytest.mark.parametrize("config", [FIVE, NINE, AIR, TRANSFER], ids=["five", "nine", "air", "transfer"])


def parts(sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert sample.boxes is not None and sample.labels is not None and sample.counts is not None
    return sample.boxes, sample.labels, sample.counts


def full_ink(side: int = 7) -> DigitSource:
    return DigitSource(np.full((20, side, side), 255, np.uint8), np.arange(20) % 10, np.arange(20))


@ALL
def test_sample(config: ScatterConfig) -> None:
    for split, side in (("train", config.crop or config.canvas), ("test", config.canvas)):
        scatter = Scatter(config, split, 5)  # pyright: ignore[reportArgumentType]
        assert len(scatter) == 5 and scatter.side == side
        for index in range(5):
            sample = scatter[index]
            boxes, labels, counts = parts(sample)
            assert sample.image.shape == (1, side, side) and sample.image.dtype == torch.float32
            assert 0 <= sample.image.min() and sample.image.max() <= 1
            assert boxes.shape == (len(labels), 4) and boxes.dtype == torch.float32
            assert counts.tolist() == [int((labels == digit).sum()) for digit in range(10)]
            if split == "test":
                assert len(boxes) in config.counts
        with pytest.raises(IndexError, match="5 images"):
            scatter[5]


@ALL
def test_deterministic(config: ScatterConfig) -> None:
    first = [Scatter(config, "train", None)[index] for index in range(4)]
    again = Scatter(config, "train", 4)
    for index in (3, 1, 0, 2):
        assert torch.equal(first[index].image, again[index].image)
        for a, b in zip(parts(first[index]), parts(again[index]), strict=True):
            assert torch.equal(a, b)


def test_seed_split_and_index_matter() -> None:
    base = Scatter(FIVE, "train", None)
    images = [base[0], base[1], Scatter(replace(FIVE, seed=1), "train", 1)[0], Scatter(FIVE, "test", 1)[0]]
    assert len({sample.image.numpy().tobytes() for sample in images}) == 4


def test_pinned() -> None:
    """The same numbers on every machine: a published image stays the image it was."""
    scattering = Scatter(replace(FIVE, counts=(3,)), "test", None).scattering(7)
    assert scattering.rows.tolist() == [246, 158, 216]
    assert scattering.corners.tolist() == [[14, 18], [30, 1], [4, 3]]


def test_splits_share_no_digit() -> None:
    used = []
    for split, (start, stop) in {"train": (0, 1200), "validation": (1200, 1497), "test": (1497, 1797)}.items():
        scatter = Scatter(FIVE, split, None)  # pyright: ignore[reportArgumentType]
        ids = np.concatenate([scatter._digits.ids[scatter.scattering(index).rows] for index in range(400)])
        assert start <= ids.min() and ids.max() < stop
        assert len(np.unique(ids)) > 0.7 * (stop - start)
        used.append(set(ids.tolist()))
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


@ALL
def test_image_reference(config: ScatterConfig) -> None:
    """Each pixel is that of the brightest digit there; of a crop, the part that is shown."""
    scatter = Scatter(config, "train", None)
    digits = load_embedded("train")
    frames = resized(digits.images, config.side)
    boxes = ink_boxes(frames) if config.tight else np.tile([0, 0, config.side, config.side], (len(frames), 1))
    for index in range(6):
        scattering = scatter.scattering(index)
        canvas = np.zeros((config.canvas, config.canvas))
        for row, (x, y) in zip(scattering.rows, scattering.corners, strict=True):
            left, top, width, height = boxes[row]
            for j in range(height):
                for i in range(width):
                    canvas[y + j, x + i] = max(canvas[y + j, x + i], frames[row, top + j, left + i] / 255)
        x, y = scattering.shown
        side = scatter.side
        np.testing.assert_allclose(scatter[index].image[0], canvas[y : y + side, x : x + side], atol=1e-6)


@ALL
def test_boxes_share_few_pixels(config: ScatterConfig) -> None:
    scatter = Scatter(replace(config, crop=None), "train", None)
    most = 0
    for index in range(60):
        boxes, _, _ = parts(scatter[index])
        low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
        assert (low == low.round()).all() and low.numpy().min(initial=0) >= 0
        assert high.numpy().max(initial=0) <= config.canvas
        for i in range(len(boxes)):
            for j in range(i):
                shared = (torch.minimum(high[i], high[j]) - torch.maximum(low[i], low[j])).clamp(min=0).prod().item()
                most = max(most, shared)
    assert most <= config.overlap
    if config.overlap:
        assert most > 0.8 * config.overlap  # they do come close to the limit


def test_tight_boxes_hold_the_ink() -> None:
    frames = resized(load_embedded("train").images[:50], 28)
    for frame, (left, top, width, height) in zip(frames, ink_boxes(frames).tolist(), strict=True):
        rows, columns = np.nonzero(frame)
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
    empty = np.zeros((1, 5, 5), np.uint8)
    assert ink_boxes(empty).tolist() == [[0, 0, 5, 5]]


def test_counts_are_equally_likely() -> None:
    scatter = Scatter(AIR, "train", None)
    counts = np.bincount([len(scatter.scattering(index).rows) for index in range(900)]) / 900
    np.testing.assert_allclose(counts, 1 / 3, atol=0.05)


def test_crop_keeps_what_is_mostly_there() -> None:
    """With digits of full ink a box and its pixels can be told apart from the rest by looking at the image."""
    config = replace(TRANSFER, counts=(8,), overlap=0)
    whole, cut = (
        Scatter(replace(config, crop=None), "train", None, full_ink()),
        Scatter(config, "train", None, full_ink()),
    )
    kept = 0
    for index in range(40):
        x, y = cut.scattering(index).shown
        boxes, labels, counts = parts(cut[index])
        painted = torch.zeros(48, 48)
        for cx, cy, width, height in boxes.tolist():
            painted[round(cy - height / 2) : round(cy + height / 2), round(cx - width / 2) : round(cx + width / 2)] = 1
        image = cut[index].image[0]
        assert torch.equal(image * painted, painted), "a box holds no ink"
        expected = []
        for row, (left, top) in zip(cut.scattering(index).rows, cut.scattering(index).corners, strict=True):
            across = min(left + 14, x + 48) - max(left, x)
            down = min(top + 14, y + 48) - max(top, y)
            if across > 0 and down > 0 and across * down >= 98:
                expected.append(int(row) % 10)
        assert labels.tolist() == expected and counts.sum() == len(expected)
        assert torch.equal(image, whole[index].image[0, y : y + 48, x : x + 48])
        kept += len(expected)
    assert 0 < kept < 40 * 8


def test_grounds(tmp_path: Path) -> None:
    pixels = np.arange(48 * 48, dtype=np.uint32).reshape(48, 48) % 200
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "ground.png")
    plain = Scatter(FIVE, "test", 3)[2].image
    grey = Scatter(replace(FIVE, ground=0.25), "test", 3)[2].image
    torch.testing.assert_close(grey, 0.25 + 0.75 * plain)
    picture = Scatter(replace(FIVE, picture=str(tmp_path / "ground.png")), "test", 3)[2].image
    behind = torch.from_numpy(pixels.astype(np.float32) / 255)
    torch.testing.assert_close(picture, behind + (1 - behind) * plain)


def test_ground_that_can_not_be(tmp_path: Path) -> None:
    Image.new("L", (20, 48)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(MistError, match="20 x 48 pixels"):
        Scatter(replace(FIVE, picture=str(tmp_path / "small.png")), "test", 3)
    with pytest.raises(MistError, match="can't be read as a picture"):
        Scatter(replace(FIVE, picture=str(tmp_path / "text.png")), "test", 3)
    with pytest.raises(MistError, match="both set the background"):
        replace(FIVE, picture="a.png", ground=0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"side": 49}, "data.side=49"),
        ({"counts": ()}, "data.counts"),
        ({"counts": (-1,)}, "data.counts"),
        ({"overlap": -1}, "data.overlap"),
        ({"crop": 49}, "data.crop"),
        ({"ground": 1.0}, "data.ground"),
        ({"seed": -1}, "data.seed"),
    ],
)
def test_impossible_settings(change: dict[str, object], said: str) -> None:
    with pytest.raises(MistError, match=said):
        replace(FIVE, **change)  # pyright: ignore[reportArgumentType]


def test_too_crowded() -> None:
    with pytest.raises(MistError, match="do not fit"):
        Scatter(replace(FIVE, counts=(40,)), "train", None)


@given(counts=st.integers(0, 4), side=st.integers(1, 12), overlap=st.integers(0, 30), seed=st.integers(0, 2**40))
@settings(max_examples=25, deadline=None)
def test_any_sizes(counts: int, side: int, overlap: int, seed: int) -> None:
    config = ScatterConfig("embedded", 36, (counts,), side, overlap, seed=seed)
    boxes, _, _ = parts(Scatter(config, "test", 1)[0])
    assert boxes.shape == (counts, 4) and (boxes[:, 2:] == side).all()


def test_fast() -> None:
    scatter = Scatter(NINE, "train", None)
    scatter[0]
    start = time.process_time()
    for index in range(500):
        scatter[index]
    assert time.process_time() - start < 1.0  # a quarter of it alone; a training step must not wait for its images


def test_thinned_scenes() -> None:
    """Easy scenes for Esl16: in training each number of digits from 0 to 9, at the places where they were."""
    config = ScenesConfig("easy", "embedded", keep=tuple(range(10)))
    thin, whole = Scenes(config, "train", None), Scenes(replace(config, keep=()), "train", None)
    sizes = []
    for index in range(400):
        some, every = thin.recipe(index), whole.recipe(index)
        places = [every.corners.tolist().index(corner) for corner in some.corners.tolist()]
        assert places == sorted(places) and len(set(places)) == len(places)
        assert some.labels.tolist() == every.labels[places].tolist()
        assert some.rows.tolist() == every.rows[places].tolist()
        sizes.append(len(places))
    shares = np.bincount(sizes, minlength=10) / len(sizes)
    np.testing.assert_allclose(shares, 0.1, atol=0.06)
    for split in ("validation", "test"):
        assert len(Scenes(config, split, None).recipe(0).rows) == 9  # pyright: ignore[reportArgumentType]
    with pytest.raises(MistError, match="data.keep"):
        replace(config, keep=(10,))


@pytest.mark.parametrize("tight", [False, True])
def test_ink_boxes_hold_the_ink(tight: bool) -> None:
    data = Scatter(ScatterConfig(source="embedded", counts=(1,), tight=tight), "test", 6)
    for index in range(6):
        sample, ink = data[index], data.inked(index)
        assert sample.boxes is not None
        rows, columns = (sample.image[0] > 0).nonzero().unbind(1)
        left, top, right, bottom = (int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        wanted = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        assert ink[0].tolist() == wanted
        assert tight == (sample.boxes.tolist() == ink.tolist())


def test_an_image_without_digits_has_no_ink_box() -> None:
    assert Scatter(ScatterConfig(source="embedded", counts=(0,)), "test", 1).inked(0).shape == (0, 4)
