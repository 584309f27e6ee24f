"""Images with a digit in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mistnn.data import CommonObjectConfig, CommonObjects, load_embedded
from mistnn.data.digits import common_object as module
from mistnn.data.digits.cluttered import Overlap
from mistnn.data.digits.source import DigitSource, SourceName, Split
from mistnn.errors import MistError
from mistnn.records import collate


def images_of(length: int | None = None, clutter: Overlap = "maximum", **changed: int) -> CommonObjects:
    given = {"digit": 3, "images": 40, "canvas": 30} | changed
    return CommonObjects(CommonObjectConfig(source="embedded", clutter=clutter, **given), "train", length)


@pytest.mark.parametrize("pieces", [0, 16])
def test_the_digit_stands_in_its_box(pieces: int) -> None:
    made, source = images_of(pieces=pieces), load_embedded("test")
    threes = source.images[source.labels == 3] / 255
    whole = made.batch(range(40))
    assert whole.boxes is not None and whole.labels is not None and whole.counts is None
    assert whole.images.shape == (40, 1, 30, 30) and set(torch.cat(whole.labels).tolist()) == {3}
    for image, boxes in zip(whole.images, whole.boxes, strict=True):
        x, y, width, height = boxes[0].tolist()
        assert width == height == 10 and 5 <= min(x, y) and max(x, y) <= 25
        inside = image[0, int(y) - 5 : int(y) + 5, int(x) - 5 : int(x) + 5].numpy()
        missing = np.maximum(threes - inside, 0).sum((1, 2)).min()
        assert missing < 1e-4, "one of the threes is wholly there"
        ink = float(image.sum() - inside.sum())
        assert ink == pytest.approx(0, abs=1e-4) if not pieces else ink >= 0
    if pieces:
        bare = images_of().batch(range(40)).images
        assert (whole.images >= bare - 1e-6).all() and whole.images.sum() > 1.1 * bare.sum()


def test_clutter_is_inserted_by_default_and_can_hide_the_digit() -> None:
    bare = images_of(pieces=0).batch(range(40)).images
    inserted, kept = (images_of(None, how, pieces=16).batch(range(40)).images for how in ("insert", "maximum"))
    assert CommonObjectConfig().clutter == "insert"
    assert (inserted <= kept + 1e-6).all() and (kept >= bare - 1e-6).all()
    assert int((inserted < bare - 0.1).sum()) > 40


def test_clutter_is_cut_from_training_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    def painted(name: SourceName, split: Split, root: str | None) -> DigitSource:
        source = load_embedded(split)
        return source._replace(images=np.full_like(source.images, 7)) if split == "train" else source

    bare = images_of(pieces=0).batch(range(40)).images
    monkeypatch.setattr(module, "load_source", painted)
    cluttered = images_of(pieces=16).batch(range(40)).images
    assert set((255 * cluttered[bare == 0]).round().unique().tolist()) == {0, 7}
    assert torch.equal(cluttered[bare > 7 / 255], bare[bare > 7 / 255])


def test_places_are_even_and_seeds_differ() -> None:
    boxes = images_of(images=3000).batch(range(3000)).boxes
    assert boxes is not None
    corners = torch.cat(boxes)[:, :2] - 5
    assert corners.min() == 0 and corners.max() == 20 and abs(float(corners.mean()) - 10) < 0.4
    assert abs(float(corners.std()) - np.sqrt((21**2 - 1) / 12)) < 0.2
    first, again, other = images_of().batch([0, 5]), images_of().batch([0, 5]), images_of(seed=1).batch([0, 5])
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)


def test_one_by_one_is_together_whatever_the_split() -> None:
    made = images_of(pieces=4)
    apart, together = collate([made[index] for index in (7, 2)]), made.batch([7, 2])
    assert torch.equal(apart.images, together.images)
    other = CommonObjects(CommonObjectConfig(3, 4, 40, 30, "embedded", clutter="maximum"), "test", 12)
    assert len(other) == 12 and torch.equal(other[7].image, made[7].image) and len(made) == 40


@pytest.mark.plain
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"digit": 10}, "digit=10 must be from 0 to 9"),
        ({"pieces": -1}, "pieces=-1"),
        ({"images": 1}, "images=1 must be 2 or more"),
        ({"canvas": 0}, "canvas=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_configurations(given: dict[str, int], said: str) -> None:
    with pytest.raises(MistError, match=said):
        CommonObjectConfig(**given)


def test_bad_sizes_and_indices() -> None:
    with pytest.raises(MistError, match="canvas=9 is smaller than the frame of a digit, 10 px"):
        images_of(canvas=9)
    with pytest.raises(MistError, match="length 0"):
        images_of(length=0)
    with pytest.raises(IndexError, match="image 40 is outside"):
        images_of().batch([3, 40])
