"""The size of objects in photographs, from features and counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mistnn.data.folder.content import FolderImage, read_folder
from mistnn.experiments.photo_size import photo_size
from mistnn.models.photos.regions import joined
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.pyramid import PyramidConfig


def draw(folder: Path, side: int, count: Callable[[int], int], number: int = 24) -> tuple[FolderImage, ...]:
    """Pictures of bright squares on a patterned, noisy background."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = ["file,class,count"]
    for index in range(number):
        image = random.normal(90, 8, (256, 320, 3))
        image += 25 * np.sin(np.arange(320) / random.uniform(5, 40))[None, :, None]
        places = [(y, x) for y in range(8, 256 - side, side + 14) for x in range(8, 320 - side, side + 14)]
        for place in random.permutation(len(places))[: count(index)]:
            y, x = places[place]
            image[y : y + side, x : x + side] = random.normal((200, 190, 60), 8, (side, side, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{index}.png")
        rows.append(f"{index}.png,square,{count(index)}")
    (folder / "counts.csv").write_text("\n".join(rows) + "\n")
    return read_folder(folder).images


@pytest.mark.parametrize("side", [24, 64])
def test_the_size_of_squares(tmp_path: Path, side: int) -> None:
    images = draw(tmp_path / "a", side, lambda index: 1 + index % 6)
    found = photo_size(images, PreparationConfig(), PyramidConfig())
    assert found is not None and 0.7 * side < found.size < 1.4 * side
    assert "24 images" in found.why


def test_sizes_are_those_before_preparation(tmp_path: Path) -> None:
    images = draw(tmp_path / "a", 64, lambda index: 1 + index % 6)
    found = photo_size(images, PreparationConfig(zoom=0.5), PyramidConfig())
    assert found is not None and 45 < found.size < 90


def test_nothing_to_go_by(tmp_path: Path) -> None:
    """There is no estimate if all counts are equal, or from a few images."""
    assert photo_size(draw(tmp_path / "a", 24, lambda _: 3, 9), PreparationConfig(), PyramidConfig()) is None
    few = draw(tmp_path / "b", 24, lambda index: 1 + index % 6, 5)
    assert photo_size(few, PreparationConfig(), PyramidConfig()) is None


@pytest.mark.plain
def test_parts_are_joined_to_the_whole() -> None:
    """Two parts follow the counts and the background does not: the object is both parts."""
    random = np.random.default_rng(1)
    counts = random.integers(1, 8, 60).astype(float)
    parts = [size * counts + random.normal(0, size / 2, 60) for size in (3, 9)]
    background = 300 - sum(parts) + random.normal(0, 40, 60)
    clusters, area, correlation = joined(np.stack((*parts, background), 1), counts)
    assert set(clusters) == {0, 1}
    np.testing.assert_allclose(area, parts[0] + parts[1])
    assert correlation > 0.95
