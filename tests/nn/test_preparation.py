from __future__ import annotations

import pytest
import torch

from mistnn.errors import MistError
from mistnn.nn.preparation import Ground, PreparationConfig, prepare


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
    """A dark cell on a light background and a light one on a dark background give the same result."""
    image = torch.full((1, 3, 20, 20), ground)
    image[..., 5:10, 5:10] = 0.5
    prepared = prepare(image, PreparationConfig(ground="median"))
    assert (prepared[..., 5:10, 5:10] == 1).all()
    prepared[..., 5:10, 5:10] = 0
    assert not prepared.any()


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_a_background_that_objects_mostly_hide(ground: str) -> None:
    """Cells cover three quarters of the image: the median is theirs, the extreme values the background."""
    image = torch.full((1, 3, 20, 20), 0.5)
    image[..., :5, :] = 0.8 if ground == "light" else 0.2
    image[..., 0, 0] = 0.3 if ground == "light" else 0.7  # a darker (lighter) object
    prepared = prepare(image, PreparationConfig(ground=ground))
    assert not prepared[..., 1:5, :].any(), "the background"
    assert (prepared[..., 5:, :] == prepared[..., 5:6, :1]).all() and prepared[..., 5, 0].min() > 0.5
    assert (prepared[..., 0, 0] == 1).all(), "the largest difference is brightest"
    median = prepare(image, PreparationConfig(ground="median"))
    assert not median[..., 5:, :].any() and median[..., 1:5, :].all(), "the median subtracts the cells"
    contrary = prepare(image, PreparationConfig(ground="dark" if ground == "light" else "light"))
    assert contrary[..., 1:5, :].min() > contrary[..., 5, 0].max()


def test_each_image_has_its_own_background() -> None:
    images = torch.rand(3, 1, 16, 16) * torch.tensor([1.0, 0.5, 0.1])[:, None, None, None]
    config = PreparationConfig(ground="median")
    together = prepare(images, config)
    for index in range(3):
        torch.testing.assert_close(together[index], prepare(images[index : index + 1], config)[0])
        assert (together[index] < 1).float().mean() > 0.98


@pytest.mark.parametrize("ground", ["median", "light", "dark"])
def test_an_empty_image_stays_black(ground: str) -> None:
    assert not prepare(torch.full((1, 3, 8, 8), 0.7), PreparationConfig(ground=ground)).any()


@pytest.mark.plain
def test_an_unknown_background_is_refused() -> None:
    with pytest.raises(MistError, match="preparation.ground='white' must be black or median or light or dark"):
        PreparationConfig(ground="white")


@pytest.mark.parametrize("zoom", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_zoom(zoom: float) -> None:
    with pytest.raises(MistError, match="preparation.zoom="):
        PreparationConfig(zoom=zoom)


def test_faint_images_are_stretched() -> None:
    """Two values of a camera with 12 bits, stored in 16; the brightest pixel is beyond the range."""
    config = PreparationConfig(lowest=100 / 65535, highest=4095 / 65535)
    images = torch.tensor([50, 100, 4095, 5000, 2097.5]).reshape(1, 1, 1, 5) / 65535
    torch.testing.assert_close(prepare(images, config).flatten(), torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5]))
    with pytest.raises(MistError, match=r"preparation.lowest=0.5 must be below preparation.highest=0.5"):
        PreparationConfig(lowest=0.5, highest=0.5).check()


@pytest.mark.parametrize("ground", ["median", "light", "dark"])
@pytest.mark.parametrize("zoom", [1.0, 0.698, 1.7])
def test_constant_images_stay_flat(ground: Ground, zoom: float) -> None:
    """What rounding leaves of the resizing is not stretched to full contrast."""
    for grey in range(0, 256, 5):
        images = torch.full((1, 3, 64, 64), grey / 255)
        assert prepare(images, PreparationConfig(ground=ground, zoom=zoom)).max() < 0.1


def test_faint_16_bit_images_are_stretched() -> None:
    images = torch.full((1, 1, 64, 64), 0.25)
    images[..., :16, :16] += 20 / 65535
    assert prepare(images, PreparationConfig(ground="dark")).max() > 0.9
