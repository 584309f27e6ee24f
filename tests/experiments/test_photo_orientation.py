"""Whether photographs have an upper side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mistnn.data.folder.content import FolderImage
from mistnn.experiments.photo_orientation import are_upright, told_apart
from mistnn.nn.preparation import PreparationConfig
from mistnn.nn.pyramid import PyramidConfig


def draw(folder: Path, shade: Callable[[np.ndarray, np.ndarray], np.ndarray], number: int = 20) -> list[FolderImage]:
    """Images of noise and squares, with a shade that depends on height and place."""
    random, images = np.random.default_rng(0), []
    down, across = np.mgrid[0:96, 0:128] / 96
    for index in range(number):
        pixels = 0.3 + 0.1 * random.random((96, 128)) + 0.4 * shade(down, across)
        y, x = random.integers(0, 70), random.integers(0, 100)
        pixels[y : y + 24, x : x + 24] = 0.9
        path = folder / f"{index}.png"
        Image.fromarray((np.stack([pixels] * 3, 2) * 255).clip(0, 255).astype(np.uint8)).save(path)
        images.append(FolderImage(path.name, path, 128, 96, (1,), None, None, None, "train"))
    return images


def test_a_bright_sky_is_up_and_noise_is_not(tmp_path: Path) -> None:
    given = PreparationConfig(), PyramidConfig()
    (tmp_path / "sky").mkdir()
    (tmp_path / "table").mkdir()
    assert are_upright(draw(tmp_path / "sky", lambda down, across: down < 0.4), *given)
    assert not are_upright(draw(tmp_path / "table", lambda down, across: 0 * down), *given)
    few = draw(tmp_path / "sky", lambda down, across: down < 0.4, 8)
    assert not are_upright(few, *given)


def test_traces_of_the_lens_are_no_upper_side(tmp_path: Path) -> None:
    """A shade towards one corner tells an image from its mirror image as well as from itself upside down."""
    images = draw(tmp_path, lambda down, across: (down + across) / 3)
    assert not are_upright(images, PreparationConfig(), PyramidConfig())


def test_differences_are_told_apart_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(60, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    assert 0.35 < told_apart(one, other) < 0.65
    other[:, 3] += 4
    assert told_apart(one, other) > 0.9
