"""Co-localisation: the loss by hand, the window's bounds, the step."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from mistnn.data import CommonObjectConfig, CommonObjects
from mistnn.errors import MistError
from mistnn.inference import Predictor
from mistnn.models.stn import Colocaliser, ColocaliserConfig, ColocaliseStep, ColocaliseStepConfig, StnConfig
from mistnn.models.stn.colocalise import UnboundedWindow
from mistnn.models.stn.config import OPENNESS
from mistnn.models.stn.step import open_at
from mistnn.ops.losses import common_object_loss
from mistnn.records import Batch

TINY = ColocaliserConfig(side=30, encoder=StnConfig("cnn", 4, side=24))


def build(seed: int = 0) -> Colocaliser:
    torch.manual_seed(seed)
    return Colocaliser(TINY)


def images(count: int = 6) -> torch.Tensor:
    return CommonObjects(CommonObjectConfig(3, 2, 40, 30, "embedded"), "train", None).batch(range(count)).images


def test_loss_by_hand() -> None:
    found = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    random = torch.tensor([[0.0, 4.0], [3.0, 5.0], [0.0, 9.0]])
    # Of the first: 25 - 16 + 1 and 1 - 16 + 1 below 0. Of the second: 25 - 1 + 1 and 18 - 1 + 1. Of the third: none.
    assert common_object_loss(found, random).tolist() == [5.0, 21.5, 0.0]
    assert common_object_loss(found, random, 2.0).tolist() == [5.5, 22.5, 0.0]


def test_loss_is_equation_1_by_loops() -> None:
    draws = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found, random = draws
    expected = []
    for n in range(5):
        terms = []
        for m in range(5):
            near = sum((found[n, i] - found[m, i]) ** 2 for i in range(7))
            far = sum((found[n, i] - random[n, i]) ** 2 for i in range(7))
            if m != n:
                terms.append(torch.as_tensor(near - far + 2.0).clamp(min=0))
        expected.append(torch.stack(terms).mean())
    torch.testing.assert_close(common_object_loss(found, random, 2.0), torch.stack(expected))
    assert torch.autograd.gradcheck(lambda a: common_object_loss(*a, 2.0), draws)


@pytest.mark.plain
def test_loss_of_other_shapes() -> None:
    for found, random in (((2, 3), (2, 4)), ((1, 3), (1, 3)), ((2, 3, 1), (2, 3, 1))):
        with pytest.raises(ValueError, match=r"both descriptors must be \(batch, numbers\) of two images or more"):
            common_object_loss(torch.zeros(found), torch.zeros(random))


def test_the_papers_localisation_network() -> None:
    """114,000 parameters with 4 pixels of padding, where the text says "4 pixel stride" and "100k"."""
    window = Colocaliser(ColocaliserConfig()).transformer.localisation
    assert sum(part.numel() for part in window.parameters()) == 113_659
    shapes = [tuple(part.shape) for part in window.parameters() if part.dim() > 1]
    assert shapes == [(8, 1, 9, 9), (8, 8 * 42 * 42), (8, 8), (3, 8)]


def test_initial_windows_have_one_size_and_all_have_bounds() -> None:
    model = build()
    born = model(images(40)).parameters[:, 0]
    torch.testing.assert_close(born[:, 0], torch.full((40,), 0.83), atol=1e-5, rtol=0)
    for part in model.transformer.localisation.parameters():
        nn.init.normal_(part, std=2.0)
    for bound in (0.9, 0.4):
        model.window.bound.fill_(bound)
        model.window.closed.fill_(True)
        warp = model(images(40))
        scale, place = warp.parameters[:, 0, 0], warp.parameters[:, 0, 1:]
        assert scale.min() >= 0.33 - 1e-6 and scale.max() <= bound + 1e-6 and scale.std() > 0.01
        assert (place.abs().amax(1) <= 1 - scale + 1e-6).all() and float(warp.outside.max()) == 0


def test_an_unbounded_window_learns_its_scale_once_windows_have_closed_in() -> None:
    torch.manual_seed(0)
    model = Colocaliser(dataclasses.replace(TINY, window="unbounded"))
    model.window.wake(images(40))
    assert isinstance(model.window, UnboundedWindow)
    opened = model(images(40)).parameters[:, 0, 0]
    torch.testing.assert_close(opened, torch.full((40,), 0.83), atol=1e-5, rtol=0)
    model.window.resize(0.0)
    bias = model.window.layers[-1].bias
    assert isinstance(bias, torch.Tensor)
    with torch.no_grad():
        model.window.layers[-1].weight[0].zero_()
        bias.zero_()
        model.window.spread.fill_(1000.0)
        torch.testing.assert_close(model(images()).parameters[:, 0, 0], torch.full((6,), TINY.most))
        for output, scale in ((-2000.0, TINY.most / math.e**2), (500.0, TINY.most * math.e**0.5), (1500.0, 1.7)):
            bias[0] = output
            found = model(images(40)).parameters[:, 0]
            torch.testing.assert_close(found[:, 0], torch.full((40,), scale), atol=0.02, rtol=0)
            assert (found[:, 1:].abs() <= max(0.0, 1 - scale) + 1e-5).all(), "inside the image, or in its middle"


def test_a_free_window_has_any_scale_and_place() -> None:
    """As in the paper: initially one window for all images, then without bounds; the step trains all its weights."""
    torch.manual_seed(0)
    model = Colocaliser(dataclasses.replace(TINY, window="free"))
    with torch.no_grad():
        first = model(images()).parameters[:, 0]
        torch.testing.assert_close(first, torch.tensor([[0.83, 0.0, 0.0]]).expand(6, -1))
        bias = model.window.layers[-1].bias
        assert isinstance(bias, torch.Tensor)
        for wanted in ((0.1, 0.9, -0.8), (1.4, 0.0, 0.3)):
            bias.copy_(torch.tensor(wanted) - torch.tensor([0.83, 0.0, 0.0]))
            torch.testing.assert_close(model(images()).parameters[0, 0], torch.tensor(wanted))
            found = model.explain(images(), 1).detections[0].boxes[0]
            torch.testing.assert_close(found[2:], torch.full((2,), 30 * wanted[0]))
        bias.zero_()
    step = ColocaliseStep(model, ColocaliseStepConfig(decay_steps=20, precision="float32"))
    before = {name: part.detach().clone() for name, part in model.window.named_parameters()}
    for iteration in range(2):
        step(Batch(images()), iteration)
    assert all(not torch.equal(part, before[name]) for name, part in model.window.named_parameters())
    assert model(images()).parameters[:, 0, 0].std() > 0, "each image has a scale of its own"


def test_places_are_spread_as_those_of_random_crops() -> None:
    """In training by the batch's own mean and spread, in eval by running ones, which settle on request."""
    model = build()
    for _ in range(120):
        places = model(images(40)).parameters[:, 0, 1:]
    room = 1 - 0.83
    assert places.mean(0).abs().max() < 0.2 * room, "but for what the border stops"
    message = model.window.layers(images(40))[:, 1:]
    torch.testing.assert_close(model.window._normalised(message).std(0), torch.ones(2), atol=1e-3, rtol=0)
    assert ((places.std(0) - room / 3**0.5).abs() < 0.25 * room).all(), "but for what the border stops"
    model.eval()
    torch.testing.assert_close(model(images(40)).parameters[:, 0, 1:], places, atol=0.05 * room, rtol=0)
    before = model.window.mean.clone(), model.window.spread.clone()
    model(images(9))
    assert torch.equal(model.window.mean, before[0]), "eval changes nothing"
    model.train()
    model.window.closed.fill_(True)
    places = model(images(9)).parameters[:, 0, 1:]
    assert not torch.equal(model.window.mean, before[0]) and torch.equal(model.window.spread, before[1])
    assert places.mean(0).abs().max() < 0.3 * room, "the mean stays in the middle"
    model.window.closed.fill_(False)
    model(images(9))
    assert not torch.equal(model.window.spread, before[1])


def test_waking_scales_what_each_hidden_unit_says() -> None:
    window, batch = build().window, images(40)
    before = [layer.weight.clone() for layer in window.layers if isinstance(layer, nn.Conv2d | nn.Linear)]
    window.wake(batch)
    seen, looked = batch, 0
    for layer in window.layers[:-1]:
        seen = layer(seen)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            axes = [axis for axis in range(seen.dim()) if axis != 1]
            mean, spread = seen.mean(axes), seen.std(axes)
            torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
            torch.testing.assert_close(spread, torch.ones_like(spread), atol=0.02, rtol=0)
            looked += 1
    assert looked == 3
    assert torch.equal(window.layers[-1].weight, before[-1]), "the output layer is unchanged"


def test_windows_are_moved_together_to_what_they_share() -> None:
    """All frame a bright square 4 of 30 px too far up; after a while it is in their middle."""
    torch.manual_seed(0)
    pictures, model = torch.zeros(8, 1, 30, 30), build().eval()
    pictures[:, :, 15:23, 11:19] = 1.0
    window = model.window
    window.bound.fill_(0.5)
    window.closed.fill_(True)
    window.layers[-1].weight.data.zero_()
    for _ in range(200):
        warp = model(pictures)
        window.centre(warp.features, warp.parameters[:, 0, 0])
    torch.testing.assert_close(window.shift, torch.tensor([0.0, 4 / 15]), atol=0.01, rtol=0)
    window.centre(torch.zeros(8, 1, 24, 24), torch.ones(8))
    torch.testing.assert_close(window.shift, torch.tensor([0.0, 4 / 15]), atol=0.01, rtol=0)


def test_the_window_closes_in_and_then_learns_its_size() -> None:
    openness = ((0.25, 1.0), (0.75, 0.0), (0.875, 0.0), (0.875, 0.5))
    step = ColocaliseStep(build(), ColocaliseStepConfig(openness=openness, decay_steps=8, margin=10.0))
    batch, window, seen = images_batch(), step.model.window, list[tuple[bool, float, float]]()
    for iteration in range(9):
        logged = step(batch, iteration)
        seen.append((bool(window.closed), float(window.bound), float(logged["window"])))
    first, last = 0.33 + 0.5 / 0.78, 0.33 + 0.05 / 0.78
    shares = [0, 0, 0, 0.25, 0.5, 0.75, 1, 0.5, 0.5]
    assert [bound for _, bound, _ in seen] == pytest.approx([first + (last - first) * share for share in shares])
    assert [closed for closed, *_ in seen] == [False] * 6 + [True] + [False] * 2
    sizes = [0.83 - 0.45 * share for share in shares]
    assert [side for *_, side in seen] == pytest.approx(sizes, abs=1e-3), "of one size, again too"
    weight = window.layers[-1].weight
    assert isinstance(weight, torch.Tensor) and weight[0].any(), "then the size learns too"


def images_batch() -> Batch:
    return CommonObjects(CommonObjectConfig(3, 2, 40, 30, "embedded"), "train", None).batch(range(8))


def test_boxes_are_the_windows() -> None:
    model = build().eval()
    model.window.bound.fill_(0.5)
    model.window.closed.fill_(True)
    for part in model.window.parameters():
        nn.init.normal_(part, std=0.3)
    found, warp = model.explain(images(), 1), model(images())
    for one, window in zip(found.detections, warp.parameters[:, 0], strict=True):
        scale, x, y = window.tolist()
        assert one.boxes[0].tolist() == pytest.approx([15 + 15 * x, 15 + 15 * y, 30 * scale, 30 * scale], abs=1e-4)
    assert model.most(30, 30) == 1 and model.most(31, 30) == 0


def test_random_crops_lie_inside() -> None:
    model, ones = build(), torch.ones(200, 1, 30, 30)
    crops = model.random_crops(ones, torch.full((200,), 0.45))
    assert crops.shape == (200, 1, 24, 24) and crops.min() > 0.5, "only the outermost half pixel fades"
    ramp = torch.arange(30.0).expand(200, 1, 30, 30)
    middles = model.random_crops(ramp, torch.full((200,), 0.5)).mean((1, 2, 3))
    assert abs(float(middles.mean()) - 14.5) < 1 and middles.min() < 8.5 and middles.max() > 20.5


def test_descriptors() -> None:
    model, crops = build().eval(), torch.rand(9, 1, 24, 24)
    done = model.encoder(crops)
    parts = [done.hidden[0].flatten(1), done.hidden[1].flatten(1), done.logits]
    lengths = (1.0, 1.1, 0.85)
    whole = torch.cat(
        [part / part.norm(dim=1, keepdim=True) * length for part, length in zip(parts, lengths, strict=True)], dim=1
    )
    torch.testing.assert_close(model.describe(crops), whole)


@pytest.mark.parametrize("openness", [((0.0, 0.0),), ((0.0, 1.0),)])
def test_only_the_localiser_learns(openness: tuple[tuple[float, float], ...]) -> None:
    step = ColocaliseStep(build(), ColocaliseStepConfig(openness=openness, margin=10.0, decay_steps=2400))
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    batch = images_batch()
    logged = [step(batch, iteration) for iteration in range(3)]
    assert set(logged[0]) == {"loss", "window"} and float(logged[0]["window"]) == pytest.approx(
        0.38 + 0.45 * openness[0][1]
    )
    changed = {name for name, value in step.model.state_dict().items() if not torch.equal(value, before[name])}
    learnt = {f"transformer.{name}" for name, _ in step.model.transformer.named_parameters()}
    running = {f"transformer.localisation.{name}" for name in ("bound", "closed", "mean", "spread", "shift")}
    assert changed - running == learnt
    assert ("transformer.localisation.shift" in changed) == (openness[0][1] == 0), "small ones are moved together"
    assert all(part.grad is None for part in step.model.encoder.parameters())


def test_it_finds_squares_that_all_images_share() -> None:
    """End to end, small: bright squares of one size on black, with an untrained encoder."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, 19, (40, 2), generator=generator)
    pictures = torch.zeros(40, 1, 30, 30)
    for picture, (x, y) in zip(pictures, places.tolist(), strict=True):
        picture[0, y : y + 12, x : x + 12] = torch.linspace(0.3, 1, 12)[:, None] * torch.linspace(1, 0.4, 12)
    torch.manual_seed(0)
    model = Colocaliser(ColocaliserConfig(side=30, encoder=StnConfig("cnn", 8, side=24)))
    step = ColocaliseStep(model, ColocaliseStepConfig(decay_steps=120))
    batch = Batch(pictures, None)
    for iteration in range(120):
        step(batch, iteration)
    model.eval()
    middles = torch.cat([found.boxes[:, :2] for found in model.explain(pictures, 1).detections])
    together = torch.corrcoef(torch.cat((middles, places.float() + 6), dim=1).T)
    assert float(together[0, 2]) > 0.8 and float(together[1, 3]) > 0.8


@pytest.mark.plain
def test_windows_close_in_three_times_and_end_closed() -> None:
    percents = (0, 5, 23, 40, 43, 44, 47, 59, 65, 66, 70, 81, 99, 100, 1000)
    opened = [open_at(OPENNESS, percent / 100) for percent in percents]
    assert opened == pytest.approx([1, 1, 0.5, 0, 0, 0.5, 0.5, 0, 0, 0.5, 0.5, 0, 0, 0, 0], abs=1e-9)


@pytest.mark.plain
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"side": 8}, "side=8 must be 9 or more"),
        ({"least": 0.5}, "in increasing order"),
        ({"start": 1.5}, "in increasing order"),
        ({"encoder": StnConfig("fcn", side=28)}, "must be a plain CNN"),
    ],
)
def test_bad_localisers(given: dict[str, object], message: str) -> None:
    with pytest.raises(MistError, match=message):
        ColocaliserConfig(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.plain
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": 0.0}, "rate=0.0"),
        ({"margin": 0.0}, "margin=0.0"),
        ({"decay": 1.0, "decay_steps": 0}, "decay_steps=0"),
        ({"precision": "half"}, "step.precision='half' must be"),
        ({"openness": ()}, "must be pairs of values from 0 to 1"),
        ({"openness": ((0.5, 1.0), (0.2, 0.0))}, "in the order of the shares"),
        ({"openness": ((0.5, 1.5),)}, "must be pairs of values from 0 to 1"),
    ],
)
def test_bad_steps(given: dict[str, object], message: str) -> None:
    with pytest.raises(MistError, match=message):
        ColocaliseStepConfig(**given)  # pyright: ignore[reportArgumentType]


def test_it_sees_images_of_one_size() -> None:
    predictor = Predictor(build())
    assert predictor.refusal(30, 30, 1) is None
    assert (
        predictor.refusal(200, 100, 1) == "has 100 x 200 pixels, and this model only takes 30 x 30: crop or resize it"
    )
