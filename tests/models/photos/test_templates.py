"""Linear heat maps that are found from counts without training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mistnn.models.photos import find_templates
from mistnn.models.photos.templates import _regions


def scenes(least: int, most: int, number: int = 40) -> tuple[list[Tensor], Tensor, list[list[list[tuple[int, int]]]]]:
    """Noise of 12 channels with objects of 2 x 2 cells: 0 to 2 of one class, ``least`` to ``most`` of the other."""
    random = torch.Generator().manual_seed(0)
    looks = torch.randn(2, 12, generator=random) * 2
    images, counts, places = [], [], []
    for index in range(number):
        image = torch.randn(12, 12 + index % 3, 15, generator=random)
        numbers = [
            int(torch.randint(0, 3, (1,), generator=random)),
            int(torch.randint(least, most + 1, (1,), generator=random)),
        ]
        free = [(row, column) for row in (1, 5, 9) for column in (1, 5, 9, 12)]
        order = torch.randperm(len(free), generator=random).tolist()
        placed: list[list[tuple[int, int]]] = [[], []]
        for label, count in enumerate(numbers):
            for _ in range(count):
                row, column = free[order.pop()]
                image[:, row : row + 2, column : column + 2] += looks[label][:, None, None]
                placed[label].append((row, column))
        images.append(image)
        counts.append(torch.tensor(numbers))
        places.append(placed)
    return images, torch.stack(counts), places


@pytest.mark.parametrize(("least", "most"), [(1, 1), (1, 4)])
def test_objects_are_found(least: int, most: int) -> None:
    """Also if each image holds exactly one object, whose count says nothing about it."""
    images, counts, places = scenes(least, most)
    found = find_templates(lambda index: images[index], counts, 3)
    assert found.weight.shape == (2, 12) and bool((found.quality > 1).all())
    right = total = 0
    for image, numbers, placed in zip(images, counts.tolist(), places, strict=True):
        logits = torch.einsum("kc,chw->khw", found.weight, image) + found.bias[:, None, None]
        smooth = torch.nn.functional.avg_pool2d(logits[None], 3, 1, 1, count_include_pad=False)[0]
        for label, number in enumerate(numbers):
            for place in smooth[label].flatten().topk(number).indices.tolist() if number == 1 else ():
                row, column = divmod(place, image.shape[2])
                total += 1
                right += any(-1 <= row - y <= 2 and -1 <= column - x <= 2 for y, x in placed[label])
    assert total > 10 and right >= 0.9 * total


def test_the_search_repeats() -> None:
    images, counts, _ = scenes(1, 3, 12)
    one, two = (find_templates(lambda index: images[index], counts, 3, seed=4) for _ in range(2))
    assert torch.equal(one.weight, two.weight) and torch.equal(one.bias, two.bias)


def test_a_class_without_objects_and_few_images() -> None:
    images, counts, _ = scenes(1, 2, 3)
    counts[:, 0] = 0
    found = find_templates(lambda index: images[index], counts, 3)
    assert bool(found.weight.isfinite().all()) and bool(found.bias.isfinite().all())


def touching(number: int = 60) -> tuple[list[Tensor], Tensor, list[list[tuple[int, int]]]]:
    """Rows of objects, 4 x 2 cells each, with a gap of 1 cell right of each: there are as many gaps as objects.

    The look of a gap is clearer than that of an object, and a third look fills the rest of the image.
    """
    random = torch.Generator().manual_seed(3)
    looks = torch.randn(3, 12, generator=random)
    images, counts, places = [], [], []
    for _ in range(number):
        image = 0.3 * torch.randn(12, 12, 20, generator=random) + looks[2][:, None, None]
        image += 0.5 * torch.randn(12, 1, 1, generator=random)
        placed = []
        for row in (0, 4, 8):
            for place in range(int(torch.randint(0, 5, (1,), generator=random))):
                column = 5 * place
                image[:, row : row + 4, column : column + 4] += (looks[0] - looks[2])[:, None, None]
                image[:, row : row + 4, column + 4] += (1.5 * looks[1] - looks[2])[:, None]
                placed.append((row, column))
        images.append(image)
        counts.append(len(placed))
        places.append(placed)
    return images, torch.tensor(counts)[:, None], places


@pytest.mark.parametrize("seed", range(4))
def test_touching_objects_are_found(seed: int) -> None:
    images, counts, places = touching()
    found = find_templates(lambda index: images[index], counts, 3, seed)
    right = 0
    for image, number, placed in zip(images, counts[:, 0].tolist(), places, strict=True):
        response = torch.einsum("c,chw->hw", found.weight[0], image)
        smooth = torch.nn.functional.avg_pool2d(response[None, None], 3, 1, 1, count_include_pad=False)
        peaks = smooth.where(smooth >= torch.nn.functional.max_pool2d(smooth, 3, 1, 1), -torch.inf)
        for place in peaks.flatten().topk(number).indices.tolist():
            row, column = divmod(place, image.shape[2])
            right += any(y <= row < y + 4 and x <= column < x + 4 for y, x in placed)
    assert right > 0.9 * int(counts.sum())


@pytest.mark.plain
def test_regions_are_where_the_area_follows_the_counts() -> None:
    """Objects of 9 cells are covered, and the rest of the images, in which a mark is elsewhere each time, is not."""
    random = torch.Generator().manual_seed(5)
    looks = 4 * torch.randn(2, 12, generator=random)
    maps, counts = torch.randn(40, 12, 16, 12, generator=random), torch.randint(1, 7, (40, 1), generator=random)
    objects = torch.zeros(40, 12, 16, dtype=torch.bool)
    marks = torch.zeros_like(objects)
    for index, number in enumerate(counts[:, 0].tolist()):
        for place in range(number):
            row, column = 4 * (place // 4), 4 * (place % 4)
            objects[index, row : row + 3, column : column + 3] = True
        marks[index, 9:, : int(torch.randint(1, 17, (1,), generator=random))] = True
    maps = maps + objects[..., None] * looks[0] + marks[..., None] * looks[1]
    regions = _regions(maps, torch.ones_like(objects), counts, random)[0]
    assert float(regions[objects].mean()) > 0.95
    assert float(regions[marks].mean()) < 0.05 and float(regions[~objects & ~marks].mean()) < 0.1
