"""SPAIR's network: waves against the loop over cells, what a cell reads, sizes, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mistnn.errors import MistError
from mistnn.models.spair import Spair, SpairConfig
from mistnn.models.spair.waves import neighbours_of, waves_of
from tests.reference import spair as reference

TINY = SpairConfig(
    strides=(2, 2),
    width=6,
    features=5,
    base_box=12.0,
    object_size=4,
    attributes=3,
    hidden=(7,),
    encoder=(6,),
    decoder=(6,),
)
"""Cells of 4 x 4 pixels."""


def network(**changes: object) -> Spair:
    torch.manual_seed(0)
    return Spair(dataclasses.replace(TINY, **changes))  # pyright: ignore[reportArgumentType]


def pictures(batch: int, height: int, width: int, channels: int = 1) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (5, 1), (4, 4), (3, 7), (7, 2)])
@pytest.mark.parametrize("look_back", [0, 1, 2, 3])
def test_each_wave_needs_only_the_waves_before(rows: int, columns: int, look_back: int) -> None:
    order = waves_of(rows, columns, look_back)
    done: list[int] = []
    waves: list[list[int]] = []
    for wave in order.waves:
        recent = [cell for front in waves[max(0, len(waves) - order.reach) :] for cell in front]
        near_each = len(neighbours_of(look_back))
        for index, cell in enumerate(wave.cells):
            own = wave.context[index * near_each : (index + 1) * near_each]
            row, column = divmod(cell, columns)
            for (down, across), place in zip(neighbours_of(look_back), own, strict=True):
                near = (row + down, column + across)
                if 0 <= near[0] < rows and 0 <= near[1] < columns:
                    assert recent[place - 1] == near[0] * columns + near[1]
                    assert place > 0
                else:
                    assert place == 0
        waves.append(list(wave.cells))
        done += waves[-1]
    assert [done[place] for place in order.reading] == list(range(rows * columns))
    if look_back == 1 and rows > 1:
        assert len(waves) <= 2 * (rows - 1) + columns


def test_a_grid_takes_fewer_waves_than_cells() -> None:
    assert len(waves_of(4, 4, 1).waves) == 10
    assert len(waves_of(7, 7, 1).waves) == 19
    assert len(waves_of(7, 7, 0).waves) == 1


@pytest.mark.parametrize("look_back", [0, 1, 2])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 16), (8, 4)])
def test_waves_are_the_loop_over_cells(look_back: int, height: int, width: int) -> None:
    model = network(look_back=look_back, channels=3).eval()
    images = pictures(2, height, width, 3)
    with torch.no_grad():
        z = model.infer(images)
        for index in range(2):
            boxes, what, depth, logits = reference.infer(model, images[index])
            torch.testing.assert_close(z.boxes[index], boxes, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(z.what.sample[index], what, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(z.depth.sample[index], depth, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(z.presence_logits[index], logits[:, 0], atol=1e-4, rtol=1e-4)


def test_a_cell_sees_its_neighbours_only_if_it_looks_back() -> None:
    images = pictures(1, 4, 16)
    changed = images.clone()
    changed[..., :1] = 0  # the first cell alone reads it: nothing is padded at the left
    for look_back, differ in ((0, [True, False, False, False]), (1, [True] * 4)):
        model = network(look_back=look_back).eval()
        with torch.no_grad():
            one, other = model.infer(images).presence_logits[0], model.infer(changed).presence_logits[0]
        assert (one != other).tolist() == differ


def test_features_are_those_of_a_larger_image() -> None:
    """Padding at the right and at the bottom only: a crop at a multiple of the cell has the same features inside."""
    model = network().eval()
    images = pictures(2, 24, 24)
    with torch.no_grad():
        whole = model.backbone(images).unflatten(1, (6, 6))
        part = model.backbone(images[..., 8:, 8:]).unflatten(1, (4, 4))
    torch.testing.assert_close(whole[:, 2:, 2:], part)


def test_latents_are_bounded_and_drawn() -> None:
    model = network()
    drawn = model(pictures(3, 8, 12))
    z = drawn.latents
    corner = torch.tensor([[4.0 * (c % 3), 4.0 * (c // 3)] for c in range(6)])
    inside = (z.boxes[..., :2] - corner) / 4
    assert (inside > -0.5).all() and (inside < 1.5).all()
    assert (z.boxes[..., 2:] > 0).all() and (z.boxes[..., 2:] < 12).all()
    assert ((z.presence >= 0) & (z.presence <= 1)).all()
    assert drawn.rebuilt.shape == (3, 1, 8, 12)
    assert drawn.appearance.shape == (3, 6, 1, 4, 4)


def test_a_size_first_seen_in_inference_mode_can_be_trained() -> None:
    model = network()
    images = pictures(1, 20, 28)
    with torch.inference_mode():
        model(images)
    model(images).rebuilt.sum().backward()


def test_eval_is_deterministic_and_independent_of_the_batch() -> None:
    model = network().eval()
    images = pictures(4, 12, 12)
    whole = model.explain(images)
    for index in range(4):
        single = model.explain(images[index : index + 1])
        torch.testing.assert_close(whole.detections[index].boxes, single.detections[0].boxes)
        torch.testing.assert_close(whole.reconstruction[index], single.reconstruction[0])


def test_detections_are_those_present_and_k_ranks_all() -> None:
    model = network().eval()
    images = pictures(3, 12, 12)
    with torch.no_grad():
        logits = model.infer(images).presence_logits
    found, ranked = model.detect(images), model.explain(images, 4).detections
    for one, best, own in zip(found, ranked, logits, strict=True):
        assert len(one.boxes) == int((own > 0).sum())
        torch.testing.assert_close(best.scores, own.sigmoid().sort(descending=True).values[:4])
        torch.testing.assert_close(one.scores[:4], best.scores[: len(one.scores)])


def test_a_shared_background_is_the_median_of_many_images() -> None:
    model = network(background="shared", background_side=8).eval()
    behind = torch.rand(1, 8, 8)
    images = behind.repeat(9, 1, 1, 1)
    for number in range(4):
        images[number, :, 2 * number : 2 * number + 4] = 1.0  # an object over each row in two images at most
    model.learn_background(images)
    torch.testing.assert_close(model.background_of(images), behind.expand(9, 1, 8, 8))
    other = network(background="shared", background_side=8)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.shared, behind)
    assert model.refusal(8, 8) is None and "shared background has 8 x 8" in str(model.refusal(12, 8))
    with pytest.raises(MistError, match="an image has 12 x 8 pixels, and the shared background has 8 x 8"):
        model(pictures(1, 8, 12))


def test_backgrounds() -> None:
    images = pictures(2, 8, 8)
    model = network(background="median").eval()
    medians = images.flatten(1).median(1).values
    torch.testing.assert_close(model.background_of(images), medians[:, None, None, None].expand_as(images))
    with torch.no_grad():
        model.cells.presence_network[-1].bias.fill_(-100.0)  # nothing is present
        torch.testing.assert_close(model(images).rebuilt, model.background_of(images))
        given = torch.full_like(images, 0.25)
        torch.testing.assert_close(model(images, given).rebuilt, given)


@pytest.mark.parametrize(("height", "width"), [(10, 12), (12, 9), (3, 12)])
def test_an_image_that_is_not_made_of_cells_is_refused(height: int, width: int) -> None:
    model = network()
    with pytest.raises(MistError, match=f"{width} x {height} pixels is not made of cells of 4 x 4"):
        model(pictures(1, height, width))
    refusal = model.refusal(height, width)
    assert refusal is not None and refusal.startswith(f"has {width} x {height} pixels and is not made of cells")
    assert model.refusal(8, 12) is None
    assert model.most(8, 12) == 6


def test_an_empty_batch_is_no_error() -> None:
    for look_back in (0, 1):
        model, images = network(look_back=look_back), torch.zeros(0, 1, 8, 12)
        assert model(images).rebuilt.shape == images.shape
        assert model.eval().detect(images) == []


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)]
)
def test_what_is_no_image_of_its_channels_is_refused(images: Tensor) -> None:
    with pytest.raises(MistError, match="images of 1 channels in .* got torch"):
        network()(images)


def test_a_background_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"background must be \(1, 1, 8, 8\)"):
        network()(pictures(1, 8, 8), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2}, "model.channels=2"),
        ({"strides": ()}, "model.strides"),
        ({"strides": (5,)}, "model.strides"),
        ({"attributes": 0}, "model.attributes=0"),
        ({"hidden": (0,)}, "model.hidden"),
        ({"look_back": -1}, "model.look_back=-1"),
        ({"base_box": 0.0}, "model.base_box"),
        ({"temperature": float("nan")}, "model.temperature"),
        ({"alpha_start": float("inf")}, "model.alpha_start"),
        ({"bounds": (1.0, 1.0)}, "model.bounds"),
        pytest.param({"background": "blue"}, "background='blue' must be black or median", marks=pytest.mark.plain),
        ({"background": "shared"}, "needs the side of the images"),
        ({"background_side": 8}, "needs the side of the images"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(MistError, match=message):
        dataclasses.replace(TINY, **changes)  # pyright: ignore[reportArgumentType]


def test_state_round_trip_and_gradients() -> None:
    model = network()
    model(pictures(4, 12, 12)).rebuilt.square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
        assert bool((weight.grad != 0).any()), name
    copy = Spair(TINY)
    copy.load_state_dict(model.state_dict())
    images = pictures(2, 8, 8)
    torch.testing.assert_close(model.eval()(images).rebuilt, copy.eval()(images).rebuilt)


def test_the_paper_s_network() -> None:
    """The layers of D.2, and the sizes of table 1."""
    model = Spair(SpairConfig())
    shapes = [tuple(layer.weight.shape) for layer in model.backbone.layers if isinstance(layer, torch.nn.Conv2d)]
    assert shapes == [
        (128, 1, 4, 4),
        (128, 128, 4, 4),
        (128, 128, 4, 4),
        (128, 128, 1, 1),
        (128, 128, 1, 1),
        (100, 128, 1, 1),
    ]
    assert model.config.cell == 12
    z = model.eval().infer(torch.zeros(1, 1, 48, 84))
    assert z.what.mean.shape == (1, 28, 50)
