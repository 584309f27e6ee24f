"""The dense variant: levelled images, the place of a cell, energy, selection by counts, both parts of the training."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from mistnn.errors import MistError
from mistnn.interfaces import Step
from mistnn.models.mist import DenseMaps, DenseMist, DenseMistConfig, DenseStep, DenseStepConfig, MistConfig
from mistnn.models.mist.dense import FAINTEST, levelled, window_mean
from mistnn.models.mist.dense_config import CELL
from mistnn.models.mist.dense_step import energy_map
from mistnn.ops.peaks import refined_peaks
from mistnn.records import Batch

TOY = DenseMistConfig(class_names=("cross", "square"), channels=1, width=8, level_window=9, box_size=9.0, window=3)
STEP = DenseStepConfig(search_steps=2, handover=4, energy_window=5, apart=1.0, decay=1.0, precision="float32")


def toy(seed: int = 0, **changes) -> DenseMist:
    torch.manual_seed(seed)
    return DenseMist(dataclasses.replace(TOY, **changes))


def noise(batch: int = 3, height: int = 20, width: int = 28, channels: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def scenes(number: int, seed: int) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """A cross and a square, or two of one kind, on 24 x 48 px of grey; with centres and labels, (number, 2, ...)."""
    random = torch.Generator().manual_seed(seed)
    images, counts = torch.full((number, 1, 24, 48), 0.3), torch.zeros(number, 2, dtype=torch.int64)
    centres, labels = torch.zeros(number, 2, 2), torch.randint(0, 2, (number, 2), generator=random)
    for index in range(number):
        for place in range(2):
            x = int(torch.randint(6, 18, (1,), generator=random)) + 24 * place
            y = int(torch.randint(6, 18, (1,), generator=random))
            if labels[index, place]:
                images[index, 0, y - 4 : y + 5, x - 4 : x + 5] = 1.0
                images[index, 0, y - 2 : y + 3, x - 2 : x + 3] = 0.3
            else:
                images[index, 0, y - 1 : y + 2, x - 4 : x + 5] = 1.0
                images[index, 0, y - 4 : y + 5, x - 1 : x + 2] = 1.0
            centres[index, place] = torch.tensor((x + 0.5, y + 0.5))
            counts[index, labels[index, place]] += 1
    return Batch(images, counts=counts), centres, labels


def test_levelled_equals_a_loop() -> None:
    images, window = noise(1, 6, 7, 2), 3
    found = levelled(images, window)
    for y in range(6):
        for x in range(7):
            rows = [min(5, max(0, y + d)) for d in (-1, 0, 1)]
            columns = [min(6, max(0, x + d)) for d in (-1, 0, 1)]
            near = images[0][:, rows][:, :, columns]
            expected = (images[0, :, y, x] - near.mean()) / math.sqrt(near.var(correction=0) + FAINTEST**2)
            torch.testing.assert_close(found[0, :, y, x], expected, rtol=1e-4, atol=1e-5)


def test_levelled_forgets_brightness_and_keeps_walls_flat() -> None:
    images = noise()
    torch.testing.assert_close(levelled(0.5 * images + 0.3, 9), levelled(0.5 * images, 9), rtol=1e-3, atol=1e-4)
    assert levelled(torch.full((1, 3, 9, 9), 0.7), 5).abs().max() < 1e-4


def test_window_mean_of_one_pixel_is_the_image() -> None:
    images = noise()
    torch.testing.assert_close(window_mean(images, 1), images)
    assert window_mean(images, 5).shape == images.shape


def test_energy_equals_a_loop() -> None:
    images = noise(2, 10, 9, 3)
    changes = torch.zeros(2, 10, 9)
    for y in range(10):
        for x in range(9):
            for other in ((y, x + 1), (y + 1, x)):
                if other[0] < 10 and other[1] < 9:
                    changes[:, y, x] += (images[:, :, other[0], other[1]] - images[:, :, y, x]).abs().mean(1)
    cells = torch.stack(
        [
            torch.stack([changes[:, r : r + CELL, c : c + CELL].mean((1, 2)) for c in range(0, 9, CELL)], -1)
            for r in range(0, 10, CELL)
        ],
        1,
    )
    torch.testing.assert_close(energy_map(images, 1), cells / cells.amax((1, 2), keepdim=True))


def test_an_empty_image_has_no_energy() -> None:
    assert energy_map(torch.full((1, 3, 8, 8), 0.4), 5).abs().max() == 0


def test_refined_equals_a_loop() -> None:
    response = noise(2, 5, 6)[:, 0]
    cells = torch.tensor([[[0, 0], [3, 2]], [[5, 4], [1, 3]]])
    image = torch.tensor([[[0], [0]], [[1], [1]]])
    found = refined_peaks(response, torch.cat((image, cells.flip(2)), 2).flatten(0, 1)).view(2, 2, 2)
    for image in range(2):
        for place in range(2):
            column, row = cells[image, place].tolist()
            total, x, y = 0.0, 0.0, 0.0
            for r in range(max(0, row - 1), min(5, row + 2)):
                for c in range(max(0, column - 1), min(6, column + 2)):
                    weight = response[image, r, c].item()
                    total, x, y = total + weight, x + weight * (c + 0.5), y + weight * (r + 0.5)
            assert found[image, place].tolist() == pytest.approx([x / total, y / total], rel=1e-5)


@pytest.mark.parametrize("blocks", [0, 2])
def test_a_cell_sees_the_same_on_all_sides(blocks: int) -> None:
    """Without normalisation, whose mean is over the whole image: 18 px, and 8 more for each block."""
    model = toy(blocks=blocks, dropout=0.0)
    model.norms = nn.ModuleList(nn.Identity() for _ in model.norms)
    images = noise(1, 64, 80).requires_grad_()
    row, column = 7, 9
    model.maps(images).heatmap[0, row, column].backward()
    assert images.grad is not None
    seen = images.grad[0, 0] != 0
    reach = (18 + 8 * blocks) // 2
    for some, cell in ((seen.any(1), row), (seen.any(0), column)):
        places = some.nonzero()[:, 0]
        middle = CELL * (cell + 0.5)
        assert places.min() >= middle - reach and places.max() + 1 <= middle + reach
        assert places.max() + 1 - places.min() > reach, "max pooling hides a few pixels, no more"


@pytest.mark.parametrize(("height", "width"), [(20, 28), (21, 30), (23, 25)])
def test_maps_cover_images_of_any_size(height: int, width: int) -> None:
    model, images = toy().eval(), noise(2, height, width)
    maps = model(images)
    size = (-(-height // CELL), -(-width // CELL))
    assert maps.heatmap.shape == (2, *size) and maps.classes.shape == (2, 2, *size)
    assert energy_map(images, 5).shape == maps.heatmap.shape
    assert model.most(height, width) == size[0] * size[1]
    assert model.shown_heatmap(images).shape == (2, *size)


def test_a_batch_equals_its_images() -> None:
    model, images = toy().eval(), noise()
    together = model.explain(images, 3).detections
    for image, expected in zip(images, together, strict=True):
        found = model.explain(image[None], 3).detections[0]
        torch.testing.assert_close(found.boxes, expected.boxes)
        torch.testing.assert_close(found.scores, expected.scores)
        assert torch.equal(found.labels, expected.labels)


def test_detections_are_sorted_and_k_can_change() -> None:
    model, images = toy().eval(), noise()
    for k in (None, 1, 4):
        for found in model.explain(images, k).detections:
            assert len(found.boxes) == (k or TOY.k)
            assert (found.scores.diff() <= 0).all() and (found.boxes[:, 2:] == TOY.box_size).all()
    with pytest.raises(ValueError, match="same number"):
        model.explain(images, torch.tensor([1, 2, 1]))


@pytest.mark.parametrize("iteration", [0, 5])
def test_every_parameter_learns(iteration: int) -> None:
    model = toy(dropout=0.0)
    step = DenseStep(model, STEP)
    assert isinstance(step, Step)
    logged = step(Batch(noise(), counts=torch.tensor([[1, 1], [2, 0], [0, 1]])), iteration)
    assert set(logged) == {"shares", "heatmap", "classification"}
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().max() > 0, name
    assert (logged["classification"] > 0) == (iteration >= STEP.search_steps)


def test_the_search_equals_a_loop() -> None:
    maps = DenseMaps(noise(2, 3, 4)[:, 0], torch.stack((noise(2, 3, 4)[:, 0], noise(2, 3, 4, seed=2)[:, 0]), 1))
    energy, counts = noise(2, 3, 4, seed=3)[:, 0], torch.tensor([[1, 1], [0, 2]])
    for trusted in (False, True):
        found = DenseStep(toy(), STEP).search(maps, energy, counts, trusted)
        for image in range(2):
            shares, total = [0.0, 0.0], 0.0
            for r in range(3):
                for c in range(4):
                    weight = energy[image, r, c].item() ** STEP.sharpness
                    if trusted:
                        weight = energy[image, r, c].item() ** STEP.kept * maps.heatmap[image, r, c].sigmoid().item()
                    powers = [math.exp(maps.classes[image, label, r, c].item()) for label in (0, 1)]
                    total += weight
                    shares = [old + weight * p / sum(powers) for old, p in zip(shares, powers, strict=True)]
            expected = -sum(n * math.log(s / total) for n, s in zip(counts[image].tolist(), shares, strict=True)) / 2
            assert found[image].item() == pytest.approx(expected, rel=1e-5)


def test_keypoints_pass_from_energy_to_the_heat_map() -> None:
    step = DenseStep(toy(), dataclasses.replace(STEP, kept=0.0))
    classes, energy = torch.zeros(1, 2, 9, 9), torch.full((1, 9, 9), 0.1)
    heatmap = torch.full((1, 9, 9), -9.0)
    energy[0, 2, 2], heatmap[0, 6, 6] = 1.0, 9.0
    maps, counts = DenseMaps(heatmap, classes), torch.tensor([[1, 0]])
    for passed, place in ((0.0, [0, 0, 2, 2]), (1.0, [0, 0, 6, 6])):
        points = step.keypoints(step.selected_by(maps, energy, passed), counts)
        assert points.nonzero().tolist() == [place]


def test_as_many_keypoints_as_the_counts_say() -> None:
    step = DenseStep(toy(), STEP)
    counts = torch.tensor([[1, 1], [2, 0], [0, 0]])
    points = step.keypoints(noise(3, 12, 12, 2), counts)
    assert torch.equal(points.sum((2, 3)), counts)


def test_losses_fall_where_keypoints_are_right() -> None:
    step = DenseStep(toy(), STEP)
    points = torch.zeros(1, 2, 9, 9, dtype=torch.bool)
    points[0, 1, 4, 4] = True
    there = torch.full((1, 9, 9), -6.0)
    there[0, 4, 4] = 6.0
    right = torch.zeros(1, 2, 9, 9)
    right[0, 1] = 5.0
    good = step.at_keypoints(DenseMaps(there, right), points)
    bad = step.at_keypoints(DenseMaps(-there, -right), points)
    for better, worse in zip(good, bad, strict=True):
        assert better.shape == (1,) and better.item() < 0.2 < 1 < worse.item()


def test_half_of_the_images_are_negatives() -> None:
    torch.manual_seed(0)
    images = torch.ones(400, 1, 2, 2)
    varied = DenseStep(toy(), STEP).varied(images)[:, 0, 0, 0]
    assert 0.4 < (varied < 0).float().mean() < 0.6
    assert (varied.abs() - 1).abs().max() <= STEP.contrast + 1e-6 and varied.abs().std() > 0.1
    same = DenseStep(toy(), dataclasses.replace(STEP, inverted=False, contrast=0.0)).varied(images)
    assert torch.equal(same, images)


def test_what_is_refused() -> None:
    with pytest.raises(MistError, match="count"):
        DenseStep(toy(), STEP)(Batch(noise()), 0)
    with pytest.raises(MistError, match=r"step\.decay_steps"):
        DenseStep(toy(), DenseStepConfig())
    with pytest.raises(MistError, match="can't be trained"):
        DenseStepConfig().check_model(MistConfig())
    with pytest.raises(MistError, match=r"model\.class_names"):
        DenseMistConfig(class_names=()).check()


def test_it_learns_places_and_classes_from_counts_alone() -> None:
    model = toy(width=16, dropout=0.0, blocks=0)
    config = dataclasses.replace(STEP, search_steps=60, handover=20, inverted=False, rate=5e-3)
    step = DenseStep(model, config)
    for iteration in range(160):
        step(scenes(8, iteration)[0], iteration)
    batch, centres, labels = scenes(32, 10_000)
    right = 0
    for found, points, own in zip(model.eval().explain(batch.images).detections, centres, labels, strict=True):
        nearest = torch.cdist(points, found.boxes[:, :2]).min(1)
        assert found.labels is not None
        right += int(((nearest.values < 4) & (found.labels[nearest.indices] == own)).sum())
    assert right / 64 > 0.9
