"""The size of objects, guessed: discs and rings of known sizes, digits, real blood cells, odd input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mistnn.data import Scenes, ScenesConfig, SizeSuggestion, read_folder, suggest_object_size
from mistnn.data.folder.images import load_image

TOLERANCE = 0.25


def scene(
    count: int,
    diameter: float,
    hole: float = 0.0,
    ground: float = 0.2,
    ink: float = 0.8,
    seed: int = 0,
    side: int = 240,
) -> torch.Tensor:
    """Discs that don't touch, a hole of a share of their diameter in each, and some noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] + 0.5
    values = np.full((side, side), ground)
    centres: list[tuple[float, float]] = []
    while len(centres) < count:
        x, y = random.uniform(diameter / 2, side - diameter / 2, 2).tolist()
        if all((x - a) ** 2 + (y - b) ** 2 > (1.1 * diameter) ** 2 for a, b in centres):
            centres.append((x, y))
            distance = np.hypot(columns - x, rows - y)
            values[(distance <= diameter / 2) & (distance >= hole * diameter / 2)] = ink
    values += random.normal(0, 0.03, values.shape)
    return torch.from_numpy(values.clip(0, 1)).float()[None]


def close(found: SizeSuggestion, true: float) -> bool:
    return abs(found.size / true - 1) <= TOLERANCE


@pytest.mark.parametrize("hole", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(("count", "diameter"), [(6, 16), (12, 30), (3, 70)])
@pytest.mark.parametrize(("ground", "ink"), [(0.2, 0.8), (0.8, 0.3)], ids=["light", "dark"])
def test_discs_and_rings(hole: float, count: int, diameter: int, ground: float, ink: float) -> None:
    images = [scene(count, diameter, hole, ground, ink, seed) for seed in range(2)]
    found = suggest_object_size(images, [count, count])
    assert close(found, diameter), found
    assert "per object" in found.why and "2 images" in found.why and f"{found.size:.0f} px" in found.why


@pytest.mark.parametrize(("count", "diameter"), [(6, 16), (12, 30), (3, 70)])
@pytest.mark.parametrize(("ground", "ink"), [(0.2, 0.8), (0.8, 0.3)], ids=["light", "dark"])
def test_discs_without_counts(count: int, diameter: int, ground: float, ink: float) -> None:
    found = suggest_object_size([scene(count, diameter, 0.0, ground, ink)])
    assert close(found, diameter), found
    assert "without counts" in found.why


def test_colour_alone_is_enough() -> None:
    grey = scene(6, 40)[0]
    image = torch.stack([grey, 1 - grey, torch.full_like(grey, 0.5)])
    assert close(suggest_object_size([image], [6]), 40)


@pytest.mark.parametrize("zoom", [0.5, 1, 3])
def test_in_pixels_of_the_images_as_given(zoom: float) -> None:
    image = torch.nn.functional.interpolate(scene(8, 32)[None], scale_factor=zoom, mode="bilinear")[0]
    assert close(suggest_object_size([image], [8]), 32 * zoom)


def test_images_of_several_sizes() -> None:
    images = [scene(6, 30), scene(3, 30, side=150), scene(9, 30, side=300)]
    assert close(suggest_object_size(images, [6, 3, 9]), 30)


@pytest.mark.parametrize("count", [3, 9])
def test_digits(count: int) -> None:
    scenes = Scenes(ScenesConfig(source="embedded", counts=(count,)), "train", 8)
    images = [scenes[index].image for index in range(8)]
    assert close(suggest_object_size(images, [count] * 8), 16), "frames of 20 pixels, whose ink is 14 to 18"


def test_the_same_every_time_and_images_unchanged() -> None:
    image = scene(5, 30)
    before = image.clone()
    assert suggest_object_size([image], [5]) == suggest_object_size([image], [5])
    assert torch.equal(image, before)


def test_images_without_objects_are_passed_over() -> None:
    images = [scene(5, 30), scene(2, 90, seed=1)]
    assert suggest_object_size(images, [5, 0])[0] == suggest_object_size(images[:1], [5])[0]


@pytest.mark.parametrize("side", [1, 2, 3, 40])
@pytest.mark.parametrize("counts", [None, [0], [3]])
def test_nothing_to_see(side: int, counts: list[int] | None) -> None:
    found = suggest_object_size([torch.full((3, side, side), 0.5)], counts)
    assert found.size == side / 4 and "nothing stands out" in found.why


def test_odd_shapes() -> None:
    for shape in ((1, 1, 500), (3, 4, 900), (1, 700, 5)):
        assert suggest_object_size([torch.rand(shape)], [4]).size > 0
    assert suggest_object_size([torch.full((1, 30, 30), 7.0)], [2]).size == 7.5, "values outside 0-1"


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least one"):
        suggest_object_size([])
    with pytest.raises(ValueError, match="2 counts for 1 images"):
        suggest_object_size([torch.zeros(1, 8, 8)], [1, 2])


def test_real_blood_cells() -> None:
    root = Path(os.environ.get("MIST_DATA", "")) / "bccd"
    if "MIST_DATA" not in os.environ or not root.is_dir():
        pytest.skip("needs the blood cells of BCCD: set MIST_DATA to the folder that holds bccd/")
    known = [image for image in read_folder(root).images if image.split == "train"][::26]
    images = [load_image(image, 3) for image in known]
    # Red cells are about 100 pixels wide.
    assert close(suggest_object_size(images, [sum(image.counts or ()) for image in known]), 100)
    assert close(suggest_object_size(images), 100)
