"""Linear heat maps that are found from counts without training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mistnn.models.photos import find_templates


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
    assert found.weight.shape == (2, 12) and bool((found.contrast > 1).all())
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
