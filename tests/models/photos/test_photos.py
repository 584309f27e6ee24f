"""MIST on photographs: the network and its step."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.photos import PhotoConfig, PhotoMist, PhotoStep, PhotoStepConfig, find_templates
from mistnn.models.photos.network import BESIDE, PhotoMaps
from mistnn.nn.pyramid import PyramidConfig
from mistnn.ops.peaks import refined_peaks
from mistnn.records import Batch

CONFIG = PhotoConfig(
    class_names=("red", "green"), k=9, stride=8, box_size=32, width=16, pyramid=PyramidConfig(weights=None)
)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Squares of two colours on grey."""
    generator = torch.Generator().manual_seed(0)
    images, counts = torch.full((16, 3, 96, 128), 0.5), []
    for image in images:
        places = torch.randperm(6, generator=generator)[: int(torch.randint(1, 5, (1,), generator=generator))]
        labels = torch.randint(0, 2, places.shape, generator=generator)
        for place, label in zip(places.tolist(), labels.tolist(), strict=True):
            y, x = 8 + 48 * (place // 3), 8 + 40 * (place % 3)
            image[:, y : y + 28, x : x + 28] = 0.1
            image[label, y : y + 28, x : x + 28] = 0.9
        counts.append(torch.bincount(labels, minlength=2))
    return Batch(images, torch.stack(counts))


@pytest.fixture
def model() -> PhotoMist:
    torch.manual_seed(0)
    return PhotoMist(dataclasses.replace(CONFIG, pyramid=PyramidConfig())).eval()


def loaded(model: PhotoMist, batch: Batch) -> PhotoMist:
    assert batch.counts is not None
    model.pyramid.load_pretrained()
    maps = model.pyramid.unpack(model.pyramid(batch.images))
    model.center.copy_(torch.cat([one.mean((0, 2, 3)) for one in maps]))
    model.scale.copy_(torch.cat([one.std((0, 2, 3)) for one in maps]).clamp(min=1e-3))
    found = find_templates(
        lambda index: model.gridded(model.pyramid(batch.images[index : index + 1])[0], torch.tensor([96, 128])),
        batch.counts,
        CONFIG.window,
    )
    model.template.data.copy_(found.weight)
    model.template_bias.data.copy_(found.bias)
    return model


def test_one_batch_is_learned(model: PhotoMist, batch: Batch) -> None:
    step = PhotoStep(loaded(model, batch), PhotoStepConfig(decay_steps=150))
    step.model.train()
    features = step.model.pyramid(batch.images)
    sizes = torch.tensor([[96, 128]] * len(features))
    for iteration in range(150):
        logged = step(Batch(features, batch.counts, sizes=sizes), iteration)
    assert logged["count_error"] < 0.3
    found = step.model.eval().explain(batch.images).detections
    assert batch.counts is not None
    for one, counts in zip(found, batch.counts, strict=True):
        assert one.labels is not None
        assert torch.bincount(one.labels, minlength=2).tolist() == counts.tolist()
        assert bool((one.scores[:-1] >= one.scores[1:]).all())
    # Each object found is at a square of its colour.
    inside = total = 0
    for image, one in zip(batch.images, found, strict=True):
        for (x, y, *_), label in zip(one.boxes.tolist(), one.labels.tolist(), strict=True):
            total += 1
            inside += bool(image[label, int(y), int(x)] > 0.8)
    assert inside >= 0.7 * total  # a random place is right one time in eight


@pytest.mark.parametrize("task", [False, True])
def test_every_head_learns_and_the_pyramid_does_not(batch: Batch, task: bool) -> None:
    torch.manual_seed(0)
    model = PhotoMist(dataclasses.replace(CONFIG, task=task)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.nn.init.normal_(model.heatmap_head[-1].weight)  # it starts at 0, so that the layers before it get no gradient
    step = PhotoStep(model, PhotoStepConfig(decay_steps=2, lift_steps=int(task)))
    assert ("task" in step(batch, 1)) == task
    for name, parameter in model.named_parameters():
        if name.startswith("pyramid"):
            assert parameter.grad is None and torch.equal(parameter, before[name])
        else:
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
            assert float(parameter.grad.abs().sum()) > 0, name


def test_the_losses_of_counts() -> None:
    """Sums equal to the counts cost nothing but the entropy of the classes; wrong classes cost more than right ones."""
    model = PhotoMist(CONFIG)
    step = PhotoStep(model, PhotoStepConfig(decay_steps=10))

    def loss(red: float, green: float, counts: list[int]) -> float:
        density = torch.tensor([red, green])[None, :, None, None] / 4 * torch.ones(1, 2, 2, 2)
        maps = PhotoMaps(density, density, density, torch.ones(1, 2, 2, dtype=torch.bool), None)
        return float(step.count_loss(maps, torch.tensor([counts])))

    assert loss(3, 0, [3, 0]) == pytest.approx(0, abs=1e-4)
    assert loss(2, 2, [2, 2]) == pytest.approx(math.log(2), abs=1e-4)
    assert loss(0, 0, [0, 0]) == pytest.approx(0, abs=1e-4)
    assert loss(3, 1, [1, 3]) > loss(1, 3, [1, 3]) + 1
    assert math.isfinite(loss(0, 0, [1, 3])) and loss(0, 3, [3, 0]) > 10


def test_the_unit_of_an_error() -> None:
    """The deviation of the counts, or sqrt(n + 1) if that is smaller."""
    model = PhotoMist(CONFIG)
    step = PhotoStep(model, PhotoStepConfig(decay_steps=10, class_weight=0.0, total_weight=0.0))
    model.deviations.copy_(torch.tensor([2.0, 1000, 1000]))

    def loss(red: float, green: float, counts: list[int]) -> float:
        density = torch.tensor([red, green])[None, :, None, None] * torch.ones(1, 2, 1, 1)
        maps = PhotoMaps(density, density, density, torch.ones(1, 1, 1, dtype=torch.bool), None)
        return float(step.count_loss(maps, torch.tensor([counts])))

    assert loss(99 + 8, 0, [99, 0]) == pytest.approx((8 / 2 - 0.5) / 2)
    assert loss(0, 99 + 20, [0, 99]) == pytest.approx((20 / 10 - 0.5) / 2)
    assert loss(0, 0.5, [0, 0]) == pytest.approx(0.5**2 / 2 / 2)


def test_part_of_the_start_is_kept() -> None:
    step = PhotoStep(PhotoMist(CONFIG), PhotoStepConfig(decay_steps=100, handover=0.5, kept=0.4))
    assert [step.passed(iteration) for iteration in (0, 25, 50, 99)] == pytest.approx([0, 0.3, 0.6, 0.6])


def test_dropout_ends_before_the_run() -> None:
    step = PhotoStep(PhotoMist(CONFIG), PhotoStepConfig(decay_steps=100, dropout=0.3))
    shares = [step.dropped(iteration) for iteration in (0, 50, 65, 80, 99)]
    assert shares == pytest.approx([0.3, 0.3, 0.15, 0, 0])


def test_images_and_their_features_give_the_same(model: PhotoMist, batch: Batch) -> None:
    sizes = torch.tensor([[96, 128]] * len(batch.images))
    for one, other in zip(model(batch.images), model(model.pyramid(batch.images), sizes), strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_padding_is_not_counted(model: PhotoMist, batch: Batch) -> None:
    """The visible part of a padded image has the sum and the places of its own cells only."""
    packed = model.pyramid(batch.images)
    padded = torch.nn.functional.pad(packed, (0, 2, 0, 1))
    with torch.no_grad():
        maps = model(padded, torch.tensor([[96, 128]] * 15 + [[128, 190]]))
    assert maps.density.shape[-2:] == (16, 24)
    assert float(maps.density[:15, :, 12:].abs().max()) == 0 == float(maps.density[:15, :, :, 16:].abs().max())
    assert bool(maps.inside[0, :12, :16].all()) and not bool(maps.inside[0, 12:].any())


def test_an_image_does_not_depend_on_its_batch(model: PhotoMist, batch: Batch) -> None:
    whole = model(batch.images).density
    torch.testing.assert_close(whole[2:3], model(batch.images[2:3]).density, atol=1e-5, rtol=1e-4)


def test_the_number_of_boxes_is_the_rounded_sum(model: PhotoMist, batch: Batch) -> None:
    with torch.no_grad():
        model.density_head.bias[0] = 2.0
        sums = model(batch.images).density.sum((1, 2, 3))
    found = model.explain(batch.images).detections
    for one, expected in zip(found, sums.tolist(), strict=True):
        assert len(one.boxes) == min(round(expected), CONFIG.k)
    assert [len(one.boxes) for one in model.explain(batch.images, 3).detections] == [3] * len(batch.images)
    numbers = [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 1, 2]
    assert [len(one.boxes) for one in model.explain(batch.images, torch.tensor(numbers)).detections] == numbers


def test_refined_places() -> None:
    response = torch.zeros(1, 5, 5)
    response[0, 2, 2], response[0, 2, 3] = 0.6, 0.2
    response[0, 0, 0] = 0.5
    places = torch.tensor([[0, 2, 2], [0, 0, 0]])
    expected: Tensor = torch.tensor([[2.5 + 0.25, 2.5], [0.5, 0.5]])
    torch.testing.assert_close(refined_peaks(response, places), expected)


@pytest.mark.plain
def test_bad_input(batch: Batch) -> None:
    model = PhotoMist(CONFIG)
    step = PhotoStep(model, PhotoStepConfig(decay_steps=2))
    with pytest.raises(MistError, match=r"give counts\.csv"):
        step(batch._replace(counts=None), 0)
    with pytest.raises(MistError, match="distinct names"):
        dataclasses.replace(CONFIG, class_names=())
    with pytest.raises(MistError, match="timm/NAME"):
        PyramidConfig(network="resnet34")
    with pytest.raises(ValueError, match="one whole number"):
        model.eval().explain(batch.images, torch.tensor([1, 2]))


def test_the_response_is_reduced_beside_objects() -> None:
    model = PhotoMist(CONFIG)
    ones, inside = torch.zeros(1, 2, 4, 6), torch.ones(1, 4, 6, dtype=torch.bool)
    extent = torch.ones(1, 4, 6)
    extent[..., 3:] = 0
    maps = PhotoMaps(ones, ones, ones, inside, None)
    whole, found = model.response(maps), model.response(maps._replace(extent=extent))
    torch.testing.assert_close(found[..., :3], whole[..., :3])
    torch.testing.assert_close(found[..., 3:], (1 - BESIDE) * whole[..., 3:])
