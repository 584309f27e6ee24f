"""Classical blobs: discs that are drawn are found, apart and touching, and the tuning looks at counts only."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from benchmarks.blobs import BlobConfig, choose_blobs, find_blobs

SIZE = 40.0


def discs(
    centres: Sequence[tuple[float, float]], height: int = 200, width: int = 260, light: bool = True
) -> torch.Tensor:
    """Discs 40 px wide, dark on light or light on dark."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = torch.full((3, height, width), 0.9 if light else 0.1)
    for column, row in centres:
        image[:, (x - column) ** 2 + (y - row) ** 2 <= (SIZE / 2) ** 2] = 0.4
    return image


@pytest.mark.parametrize("light", [True, False])
def test_finds_discs_in_pixels_of_the_image(light: bool) -> None:
    centres = [(40.0, 50.0), (150.0, 60.0), (200.0, 150.0)]
    found = find_blobs(discs(centres, light=light), BlobConfig(SIZE, "light" if light else "dark"))
    order = found.boxes[:, 0].argsort()
    expected = torch.tensor([(x, y, SIZE, SIZE) for x, y in centres])
    assert (found.boxes[order] - expected).abs().max() < 3
    assert found.scores.tolist() == [1, 1, 1] and found.labels is not None and found.labels.tolist() == [0, 0, 0]


def test_touching_discs_are_split() -> None:
    found = find_blobs(discs([(60.0, 100.0), (96.0, 100.0), (132.0, 100.0)]), BlobConfig(SIZE, "light", apart=0.5))
    assert sorted(round(x / 36) for x in (found.boxes[:, 0] - 60).tolist()) == [0, 1, 2]


def test_specks_and_empty_images_are_no_blobs() -> None:
    image = discs([(60.0, 100.0)])
    image[:, 20:24, 200:204] = 0.4
    assert len(find_blobs(image, BlobConfig(SIZE, "light", least=0.25)).boxes) == 1
    assert len(find_blobs(torch.full((3, 60, 80), 0.5), BlobConfig(SIZE, "light")).boxes) == 0


def test_holes_are_filled() -> None:
    """A red cell is pale in the middle."""
    image = discs([(60.0, 100.0)])
    y, x = torch.meshgrid(torch.arange(200) + 0.5, torch.arange(260) + 0.5, indexing="ij")
    image[:, (x - 60) ** 2 + (y - 100) ** 2 <= 100] = 0.9
    (box,) = find_blobs(image, BlobConfig(SIZE, "light")).boxes
    assert (box - torch.tensor([60.0, 100.0, SIZE, SIZE])).abs().max() < 3


def test_tuning_takes_the_settings_that_count_best() -> None:
    """Specks of a quarter of a disc: they count only where the counts say so."""
    image = discs([(60.0, 100.0), (180.0, 60.0)])
    image[:, 150:168, 200:218] = 0.4
    without, with_speck = (choose_blobs([image], [count], SIZE, "light") for count in (2, 3))
    assert len(find_blobs(image, without).boxes) == 2 and without.least > with_speck.least
    assert len(find_blobs(image, with_speck).boxes) == 3
    with pytest.raises(ValueError, match="one count for each"):
        choose_blobs([image], [1, 2], SIZE, "light")
