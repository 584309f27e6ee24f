"""Composed scenes: reproducible, exact boxes, distances kept, the layouts' statistics, impossible settings."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from mistnn.data import DigitSource, Scenes, ScenesConfig
from mistnn.data.digits.scenes import Layout, resizer, warp
from mistnn.data.digits.source import load_embedded
from mistnn.errors import MistError
from mistnn.records import Sample, collate

EMBEDDED = ScenesConfig(source="embedded")
THREE = replace(EMBEDDED, canvas=48, counts=(3,))
VARYING = replace(EMBEDDED, canvas=96, object_size=(14, 28))
EASY = replace(EMBEDDED, layout="easy")
UNEVEN = replace(EMBEDDED, layout="uneven")
ALL = pytest.mark.parametrize(
    "config", [EMBEDDED, THREE, VARYING, EASY, UNEVEN], ids=["hard", "three", "varying", "easy", "uneven"]
)


def full_ink(side: int = 7) -> DigitSource:
    """Twenty frames of ink to the edge, so that the painted pixels are exactly the boxes."""
    return DigitSource(np.full((20, side, side), 255, np.uint8), np.arange(20) % 10, np.arange(20))


def assert_equal(first: Sample, second: Sample) -> None:
    assert first.presence is None and second.presence is None, "counts are known"
    for a, b in zip(first[:4], second[:4], strict=True):
        assert a is not None and b is not None
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def centres(scenes: Scenes, index: int) -> np.ndarray:
    recipe = scenes.recipe(index)
    return recipe.corners + recipe.sides[:, None] / 2


def nearest(points: np.ndarray) -> float:
    """The mean distance to the nearest neighbour."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).mean())


@ALL
def test_sample(config: ScenesConfig) -> None:
    scenes = Scenes(config, "train", 3)
    sample = scenes[2]
    count = config.counts[0]
    assert sample.counts is not None and sample.boxes is not None and sample.labels is not None
    assert sample.image.shape == (1, config.canvas, config.canvas) and sample.image.dtype == torch.float32
    assert sample.image.min() == 0 and 0.5 < sample.image.max() <= 1
    assert sample.boxes.shape == (count, 4) and sample.boxes.dtype == torch.float32
    assert sample.labels.shape == (count,)
    assert sample.counts.tolist() == [int((sample.labels == c).sum()) for c in range(10)]
    assert scenes.class_names == tuple("0123456789")


@ALL
def test_deterministic(config: ScenesConfig) -> None:
    scenes = Scenes(config, "train", None)
    forwards = [scenes[index] for index in range(4)]
    again = Scenes(config, "train", 4)
    for index in (3, 1, 0, 2):
        assert_equal(again[index], forwards[index])


def test_seed_split_and_index_matter() -> None:
    base = Scenes(EMBEDDED, "train", None)
    places = {
        "base": base.recipe(0).corners,
        "index": base.recipe(1).corners,
        "far index": base.recipe(2**40).corners,
        "seed": Scenes(replace(EMBEDDED, seed=1), "train", None).recipe(0).corners,
        "split": Scenes(EMBEDDED, "validation", None).recipe(0).corners,
        "other split": Scenes(EMBEDDED, "test", None).recipe(0).corners,
    }
    assert len({corners.tobytes() for corners in places.values()}) == len(places)


def test_pinned() -> None:
    """The same numbers on every machine: a published scene stays the scene it was."""
    recipe = Scenes(THREE, "test", None).recipe(7)
    assert recipe.labels.tolist() == [3, 8, 3]
    assert recipe.corners.tolist() == [[25, 1], [2, 28], [25, 27]]


def test_splits_share_no_digit() -> None:
    used = []
    for split, (start, stop) in {"train": (0, 1200), "validation": (1200, 1497), "test": (1497, 1797)}.items():
        scenes = Scenes(EMBEDDED, split, None)  # pyright: ignore[reportArgumentType]
        ids = np.concatenate([scenes._digits.ids[scenes.recipe(index).rows] for index in range(300)])
        assert start <= ids.min() and ids.max() < stop
        assert len(np.unique(ids)) > 0.8 * (stop - start)  # All digits of the split take part.
        used.append(set(ids.tolist()))
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


@ALL
def test_boxes_are_exact(config: ScenesConfig) -> None:
    scenes = Scenes(config, "train", None, digits=full_ink())
    for index in range(10):
        sample = scenes[index]
        assert sample.boxes is not None
        expected = torch.zeros(config.canvas, config.canvas)
        for x, y, width, height in sample.boxes.tolist():
            left, top = x - width / 2, y - height / 2
            assert left == int(left) >= 0 and top == int(top) >= 0
            assert left + width <= config.canvas and top + height <= config.canvas
            assert config.object_size[0] <= width == height <= config.object_size[1]
            expected[int(top) : int(top + height), int(left) : int(left + width)] = 1
        assert torch.equal(sample.image[0], expected)


@pytest.mark.parametrize("config", [THREE, VARYING, UNEVEN])
def test_image_reference(config: ScenesConfig) -> None:
    """The image beside a pixel loop over torch's own antialiased resize."""
    scenes = Scenes(config, "test", None)
    source = load_embedded("test")
    recipe = scenes.recipe(5)
    expected = np.zeros((config.canvas, config.canvas))
    for row, side, (left, top) in zip(recipe.rows, recipe.sides, recipe.corners, strict=True):
        frame = torch.from_numpy(source.images[row]).double()[None, None]
        size = (int(side), int(side))
        resized = interpolate(frame, size, mode="bilinear", antialias=True, align_corners=False)[0, 0].numpy() / 255
        for y in range(side):
            for x in range(side):
                expected[top + y, left + x] = max(expected[top + y, left + x], resized[y, x])
    np.testing.assert_allclose(scenes[5].image[0].numpy(), expected, atol=0.51 / 255)
    np.testing.assert_array_equal(source.labels[recipe.rows], recipe.labels)


@given(size=st.integers(1, 40), side=st.integers(1, 40))
def test_resizer_reference(size: int, side: int) -> None:
    row = torch.eye(size, dtype=torch.float64)[None]  # Each column of the matrix is the answer to a unit impulse.
    expected = interpolate(row[:, :, None], (1, side), mode="bilinear", antialias=True, align_corners=False)[0, :, 0].T
    np.testing.assert_allclose(resizer(size, side), expected.numpy(), atol=1e-6)
    if size == side:
        np.testing.assert_array_equal(resizer(size, side), np.eye(size))


@given(
    canvas=st.integers(20, 70),
    low=st.integers(1, 9),
    more=st.integers(0, 10),
    count=st.integers(0, 5),
    distance=st.floats(0, 20),
    layout=st.sampled_from(["hard", "uneven"]),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_distance_and_borders(
    canvas: int, low: int, more: int, count: int, distance: float, layout: Layout, seed: int
) -> None:
    config = ScenesConfig(layout, "embedded", canvas, (count,), (low, low + more), distance, 10, seed=seed)
    try:
        scenes = Scenes(config, "train", None, digits=full_ink())
    except MistError as error:
        assert count > 1 and "do not fit" in str(error)
        return
    for index in range(3):
        recipe = scenes.recipe(index)
        assert recipe.corners.shape == (count, 2)
        assert (recipe.corners >= 0).all() and (recipe.corners + recipe.sides[:, None] <= canvas).all()
        points = centres(scenes, index).tolist()
        for i in range(count):
            for j in range(i):
                assert np.hypot(points[i][0] - points[j][0], points[i][1] - points[j][1]) >= distance - 1e-9


def test_hard_covers_the_canvas() -> None:
    """Each quarter holds a fair share, and the first and the last possible place occur."""
    scenes = Scenes(EMBEDDED, "train", None, digits=full_ink())
    corners = np.concatenate([scenes.recipe(index).corners for index in range(400)])
    assert corners.min() == 0 and corners.max() == 60
    quarters = np.bincount((corners[:, 0] > 30) * 2 + (corners[:, 1] > 30), minlength=4) / len(corners)
    np.testing.assert_allclose(quarters, 0.25, atol=0.03)


def test_identities_are_uniform_with_repeats() -> None:
    scenes = Scenes(EMBEDDED, "train", None)
    labels = np.stack([scenes.recipe(index).labels for index in range(600)])
    np.testing.assert_allclose(np.bincount(labels.ravel()) / labels.size, 0.1, atol=0.02)
    repeated = np.mean([len(set(row.tolist())) < 9 for row in labels])
    assert repeated > 0.95  # 1 - 10! / 10^9 = .996


def test_easy_is_sorted_on_a_grid() -> None:
    scenes = Scenes(EASY, "train", None)
    cell = 80 / 3
    offsets = []
    for index in range(600):
        assert scenes.recipe(index).labels.tolist() == list(range(9))
        points = centres(scenes, index)
        offsets.append([points[k] - ((k % 3 + 0.5) * cell, (k // 3 + 0.5) * cell) for k in range(9)])
    moments = np.array(offsets)
    middle = moments[:, 4]  # Far from the border, so never clipped.
    np.testing.assert_allclose(middle.mean(axis=0), 0, atol=0.5)
    np.testing.assert_allclose(middle.std(axis=0), cell / 8, rtol=0.1)
    assert abs(np.corrcoef(middle.T)[0, 1]) < 0.15
    # The top-left cell has one standard deviation of room outward.
    assert moments[:, 0].min() >= 10 - cell / 2 and moments[:, 0].max() > cell / 4


def test_uneven_is_clustered() -> None:
    hard, uneven = Scenes(EMBEDDED, "train", None), Scenes(UNEVEN, "train", None)
    indices = range(300)
    near = [np.mean([nearest(centres(scenes, index)) for index in indices]) for scenes in (hard, uneven)]
    spread = [np.mean([centres(scenes, index).std(axis=0).mean() for index in indices]) for scenes in (hard, uneven)]
    assert near[1] < 0.95 * near[0]
    assert spread[1] < 0.92 * spread[0]


def test_counts_are_uniform() -> None:
    scenes = Scenes(replace(THREE, counts=(0, 1, 3)), "train", None)
    drawn = np.bincount([len(scenes.recipe(index).rows) for index in range(900)], minlength=4) / 900
    assert drawn[2] == 0
    np.testing.assert_allclose(drawn[[0, 1, 3]], 1 / 3, atol=0.06)


def test_empty_scene() -> None:
    sample = Scenes(replace(THREE, counts=(0,)), "train", None)[0]
    assert sample.counts is not None and sample.boxes is not None and sample.labels is not None
    assert not sample.image.any() and not sample.counts.any()
    assert sample.boxes.shape == (0, 4) and sample.labels.shape == (0,)


def test_sizes_are_uniform() -> None:
    scenes = Scenes(VARYING, "train", None)
    sides = np.concatenate([scenes.recipe(index).sides for index in range(500)])
    shares = np.bincount(sides, minlength=29)[14:] / len(sides)
    assert len(shares) == 15
    np.testing.assert_allclose(shares, 1 / 15, atol=0.02)


def test_fewer_classes() -> None:
    scenes = Scenes(replace(THREE, classes=2), "train", None)
    assert scenes.class_names == ("0", "1")
    labels = np.concatenate([scenes.recipe(index).labels for index in range(50)])
    assert set(labels.tolist()) == {0, 1}
    counts = scenes[0].counts
    assert counts is not None and counts.shape == (2,)


def test_length() -> None:
    scenes = Scenes(THREE, "train", 2)
    assert len(scenes) == 2 and len([scenes[index] for index in range(2)]) == 2
    for index in (2, -1):
        with pytest.raises(IndexError, match=str(index)):
            scenes[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_loader(workers: int) -> None:
    scenes = Scenes(THREE, "train", None)
    batch = next(iter(DataLoader(scenes, batch_size=4, collate_fn=collate, num_workers=workers)))
    torch.testing.assert_close(batch.images, torch.stack([scenes[index].image for index in range(4)]), rtol=0, atol=0)


@pytest.mark.plain
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("layout", "spiral", ("data.layout='spiral'", "easy or hard or uneven")),
        ("source", "svhn", ("data.source='svhn'", "mnist or embedded")),
        ("canvas", 0, ("data.canvas=0",)),
        ("canvas", 19, ("data.canvas=19", "data.object_size=(20, 20)")),
        ("counts", (), ("data.counts=()",)),
        ("counts", (3, -1), ("data.counts=(3, -1)",)),
        ("object_size", (0, 20), ("data.object_size=(0, 20)",)),
        ("object_size", (21, 20), ("data.object_size=(21, 20)", "smaller first")),
        ("object_size", (20,), ("data.object_size=(20,)", "two sides")),
        ("min_distance", -1.0, ("data.min_distance=-1.0",)),
        ("min_distance", float("nan"), ("data.min_distance=nan",)),
        ("classes", 0, ("data.classes=0",)),
        ("classes", 11, ("data.classes=11",)),
        ("seed", -1, ("data.seed=-1",)),
    ],
)
def test_bad_value(field: str, value: object, words: tuple[str, ...]) -> None:
    with pytest.raises(MistError) as error:
        replace(EMBEDDED, **{field: value})
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(("field", "value"), [("counts", (3,)), ("counts", (9, 3)), ("classes", 8)])
def test_easy_bad_value(field: str, value: object) -> None:
    with pytest.raises(MistError, match=f"data.{field}.*easy layout"):
        replace(EASY, **{field: value})


@pytest.mark.parametrize("layout", ["hard", "uneven"])
@pytest.mark.parametrize("change", [{"counts": (3, 40)}, {"canvas": 30}, {"min_distance": 70.0, "counts": (4,)}])
def test_too_crowded(layout: Layout, change: dict[str, object]) -> None:
    config = replace(EMBEDDED, layout=layout, **change)
    with pytest.raises(MistError) as error:
        Scenes(config, "train", None)
    message = str(error.value)
    assert "\n" not in message
    for part in (f"{max(config.counts)} objects", f"data.canvas={config.canvas}", f"={config.min_distance:g} apart"):
        assert part in message


@pytest.mark.plain
def test_bad_split_length_and_digits() -> None:
    with pytest.raises(MistError, match="'val'"):
        Scenes(EMBEDDED, "val", None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MistError, match="length 0"):
        Scenes(EMBEDDED, "train", 0)
    some = DigitSource(np.zeros((2, 5, 5), np.uint8), np.array([0, 2]), np.arange(2))
    with pytest.raises(MistError, match="no digit 1"):
        Scenes(replace(EMBEDDED, classes=3), "train", None, digits=some)


def test_fast_enough() -> None:
    """0.3 ms a scene alone on a machine; the bound leaves room for neighbours and for run-time type checks."""
    scenes = Scenes(EMBEDDED, "train", None)
    best = np.inf
    for start in range(0, 250, 50):
        began = time.perf_counter()
        for index in range(start, start + 50):
            scenes[index]
        best = min(best, (time.perf_counter() - began) / 50)
    assert best < 2e-3


def test_bent_digits_keep_their_places_and_spare_the_tests() -> None:
    """Training digits are bent, each in its own way; places, sizes and classes are those of the unbent scene."""
    plain, bent = Scenes(THREE, "train", 20), Scenes(replace(THREE, warp=0.25), "train", 20)
    for index in range(20):
        before, after = plain[index], bent[index]
        assert_equal(before._replace(image=after.image), after)
        assert not torch.equal(before.image, after.image)
        assert_equal(after, bent[index])
        assert after.image.sum() == pytest.approx(before.image.sum().item(), rel=0.8)
    for split in ("validation", "test"):
        assert_equal(Scenes(THREE, split, 3)[1], Scenes(replace(THREE, warp=0.25), split, 3)[1])


def test_a_warp_is_about_the_middle_of_the_frame() -> None:
    frames = np.zeros((2, 12, 12), np.float32)
    frames[0, 4:6, 8:10] = 1  # 4 to the right of and 1 above the middle of 10 x 10
    frames[1, 5:7, 5:7] = 1  # the middle of 12 x 12
    sides = np.array([10, 12])
    turned = warp(frames, sides, np.array([[[0, -1], [1, 0]], [[0.8, 0.1], [0, 0.8]]]))
    expected = np.zeros((12, 12), np.float32)
    expected[0:2, 4:6] = 1  # what (x, y) shows was at (-y, x)
    np.testing.assert_allclose(turned[0], expected, atol=1e-5)
    rows, columns = np.mgrid[:12, :12] + 0.5
    assert (turned[1] * columns).sum() / turned[1].sum() == pytest.approx(6)
    assert (turned[1] * rows).sum() / turned[1].sum() == pytest.approx(6)
    assert turned[1].sum() == pytest.approx(4 / 0.64, rel=0.1)


@pytest.mark.parametrize("share", [-0.1, 0.5, float("nan")])
def test_impossible_warps(share: float) -> None:
    with pytest.raises(MistError, match="data.warp="):
        replace(THREE, warp=share)
