from __future__ import annotations

import pytest
import torch

from mistnn.errors import MistError
from mistnn.nn.preparation import PreparationConfig, prepare


def test_nothing_to_do() -> None:
    images = torch.rand(2, 3, 10, 12)
    assert not PreparationConfig().changes
    assert prepare(images, PreparationConfig()) is images


@pytest.mark.parametrize(("zoom", "size"), [(0.5, (5, 6)), (2.0, (20, 24)), (0.01, (1, 1))])
def test_zoom(zoom: float, size: tuple[int, int]) -> None:
    config = PreparationConfig(zoom=zoom)
    prepared = prepare(torch.full((1, 1, 10, 12), 0.3), config)
    assert prepared.shape[-2:] == size == config.size(10, 12)
    torch.testing.assert_close(prepared, torch.full_like(prepared, 0.3))


@pytest.mark.parametrize("ground", [0.9, 0.2])
def test_objects_of_any_colour_become_light_on_black(ground: float) -> None:
    """A dark cell on a light ground and a light one on a dark ground look alike afterwards."""
    image = torch.full((1, 3, 20, 20), ground)
    image[..., 5:10, 5:10] = 0.5
    prepared = prepare(image, PreparationConfig(ground="median"))
    assert (prepared[..., 5:10, 5:10] == 1).all()
    prepared[..., 5:10, 5:10] = 0
    assert not prepared.any()


def test_each_image_has_its_own_ground() -> None:
    images = torch.rand(3, 1, 16, 16) * torch.tensor([1.0, 0.5, 0.1])[:, None, None, None]
    config = PreparationConfig(ground="median")
    together = prepare(images, config)
    for index in range(3):
        torch.testing.assert_close(together[index], prepare(images[index : index + 1], config)[0])
        assert (together[index] < 1).float().mean() > 0.98


def test_an_empty_image_stays_black() -> None:
    assert not prepare(torch.full((1, 3, 8, 8), 0.7), PreparationConfig(ground="median")).any()


@pytest.mark.parametrize("zoom", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_zoom(zoom: float) -> None:
    with pytest.raises(MistError, match="preparation.zoom="):
        PreparationConfig(zoom=zoom)
