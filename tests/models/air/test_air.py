"""AIR and DAIR: the step-by-step algorithm as a loop, the bound, the schedule, gradients, collapse, bad input."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.air import Air, AirConfig, AirStep, AirStepConfig, collapse_note
from mistnn.models.air.network import Lstm
from mistnn.models.air.step import prior_log_odds
from mistnn.ops.sampling import extract_patches, place_patches
from mistnn.records import Batch

SMALL = AirConfig(canvas=20, k=3, units=12, head=(16,), window=7, attributes=4, encoder=(16,), decoder=(16,), noise=0.3)
GIVEN = dataclasses.replace(SMALL, given=True, sides=2)
DAIR = dataclasses.replace(SMALL, recurrence="feedforward", hidden=(16, 16))
ALL = pytest.mark.parametrize("config", [SMALL, GIVEN, DAIR], ids=["air", "given", "dair"])


def squares(counts: tuple[int, ...] = (0, 1, 2, 1)) -> Batch:
    """Bright squares of 6 px, 8 px apart."""
    images = torch.zeros(len(counts), 1, 20, 20)
    boxes = []
    for image, count in zip(images, counts, strict=True):
        for place in range(count):
            image[0, 2 + 8 * place : 8 + 8 * place, 3 + 8 * place : 9 + 8 * place] = 0.9
        boxes.append(torch.tensor([[6.0 + 8 * place, 5.0 + 8 * place, 6, 6] for place in range(count)]).reshape(-1, 4))
    return Batch(images, torch.tensor(counts)[:, None], boxes, None)


def counts_of(batch: Batch, config: AirConfig) -> Tensor | None:
    assert batch.counts is not None
    return batch.counts.sum(1) if config.given else None


def test_lstm_is_pytorchs() -> None:
    """The image's part of the gates is computed once, and nothing else differs."""
    torch.manual_seed(0)
    ours, theirs = Lstm(9, 5), nn.LSTMCell(9, 5)
    assert ours.image.bias is not None and ours.image.bias[5:10].tolist() == [1] * 5
    with torch.no_grad():
        theirs.weight_ih.copy_(ours.image.weight)
        theirs.weight_hh.copy_(ours.state.weight)
        theirs.bias_ih.copy_(ours.image.bias)
        theirs.bias_hh.zero_()
    pixels = torch.randn(3, 9)
    state, expected = None, []
    for _ in range(4):
        state = theirs(pixels, state)
        expected.append(state[0])
    torch.testing.assert_close(ours(pixels, 4), torch.stack(expected, 1))


@ALL
def test_reference(config: AirConfig) -> None:
    """Image by image and step by step: look, decode, draw, and stop at the first object that is missing."""
    torch.manual_seed(1)
    model, batch = Air(config).eval(), squares()
    with torch.no_grad():
        for bias in (-0.3, 0.3):  # steps made and not made
            last = model.head[-1]
            assert isinstance(last, nn.Linear)
            last.weight[-1] *= 5
            last.bias[-1] = bias
            counts = counts_of(batch, config)
            output = model(batch.images, counts)
            for index, image in enumerate(batch.images):
                drawn, stopped = torch.zeros(1, 1, 20, 20), 0.0
                for step in range(config.k):
                    if model.lstm is not None:
                        seen = model.head(model.lstm(image.flatten()[None], step + 1)[:, step])[0]
                    else:
                        assert model.looker is not None
                        seen = model.head(model.looker((image[None] - drawn).flatten(1)))[0]
                    sides, centre = seen[: config.sides].sigmoid(), seen[config.sides : config.sides + 2].tanh()
                    box = 20 * torch.cat(((centre + 1) / 2, sides.expand(2)))[None, None]
                    glimpse = extract_patches(image[None], box, config.window)
                    what = model.object_encoder(glimpse.flatten(2))[..., : config.attributes]
                    decoded = model.object_decoder(what).sigmoid().view(1, 1, 1, 7, 7)
                    there = float(seen[-1] > 0) if counts is None else float(step < counts[index])
                    torch.testing.assert_close(output.boxes[index, step], box[0, 0])
                    assert bool(output.looked[index, step]) == (stopped < 0.99)
                    stopped += 1 - there
                    assert bool(output.alive[index, step]) == (stopped < 0.99)
                    if stopped < 0.99:
                        drawn = (drawn + there * place_patches(decoded, box, 20, 20)).clamp(0, 1)
                torch.testing.assert_close(output.rebuilt[index], drawn[0])


def test_sampling_follows_z_pres() -> None:
    """In training what is drawn is scaled by the relaxed z_pres, as long as the sum of 1 - z_pres stays below .99."""
    torch.manual_seed(0)
    model, batch = Air(dataclasses.replace(SMALL, noise=0.0)).train(), squares((1,) * 40)
    output = model(batch.images)
    z = output.y.sigmoid()
    for index in range(40):
        total = 0.0
        for step in range(3):
            assert bool(output.looked[index, step]) == (total < 0.99)
            total += 1 - z[index, step].item()
            assert bool(output.alive[index, step]) == (total < 0.99)
            expected = z[index, step] if total < 0.99 else torch.zeros(())
            torch.testing.assert_close(output.presence[index, step], expected)
    summed = place_patches(output.objects * output.presence[..., None, None, None], output.boxes, 20, 20)
    torch.testing.assert_close(output.rebuilt, summed.clamp(0, 1))
    assert 0 < output.alive.float().mean() < 1


@ALL
def test_the_bound_by_hand(config: AirConfig) -> None:
    torch.manual_seed(0)
    model, batch = Air(config).train(), squares()
    settings = AirStepConfig(scale_prior=(-0.5, 0.4), shift_prior=(0.1, 0.8))
    output = model(batch.images, counts_of(batch, config))
    losses = AirStep(model, settings).losses(batch.images, output, 1.3)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence
    for index, image in enumerate(batch.images):
        x, p = image.double(), output.rebuilt[index].double()
        expected = -(x * (p + 1e-9).log() + (1 - x) * (1 - p + 1e-9).log()).sum()
        torch.testing.assert_close(losses["reconstruction"][index].double(), expected, rtol=1e-4, atol=1e-3)
        sums = dict.fromkeys(("kl_scale", "kl_shift", "kl_what", "kl_presence"), 0.0)
        for step in range(config.k):
            where = normal(output.where.mean[index, step], output.where.deviation[index, step])
            what = normal(output.what.mean[index, step], output.what.deviation[index, step])
            prior = torch.tensor([-0.5] * config.sides + [0.1, 0.1]), torch.tensor([0.4] * config.sides + [0.8, 0.8])
            if output.alive[index, step]:
                each = kl(where, normal(*prior))
                sums["kl_scale"] += float(each[:-2].detach().sum())
                sums["kl_shift"] += float(each[-2:].detach().sum())
                sums["kl_what"] += float(kl(what, normal(0.0, 1.0)).detach().sum())
            if output.looked[index, step]:
                y, logit = output.y[index, step], output.logits[index, step]
                y, logit = y.detach(), logit.detach()
                density = [math.log(float(torch.sigmoid(y - a) * torch.sigmoid(a - y))) for a in (logit, 1.3)]
                sums["kl_presence"] += density[0] - density[1]
        for name, value in sums.items():
            if name in losses:
                assert losses[name][index].item() == pytest.approx(value, rel=1e-3, abs=1e-3)
    assert ("kl_presence" in losses) == (not config.given)


def test_schedule() -> None:
    assert prior_log_odds(0) == pytest.approx(math.log(1e4))
    assert prior_log_odds(3000) == pytest.approx(math.log(1e3))
    assert prior_log_odds(12_000) == pytest.approx(0)
    assert prior_log_odds(10**9) == pytest.approx(math.log(1e-9))
    assert prior_log_odds(1200, 0.1) == pytest.approx(prior_log_odds(12_000))


def test_a_shorter_run_shortens_the_schedule() -> None:
    step = AirStepConfig(annealing=0.5).rescale_schedule(1000, 100)
    assert step == AirStepConfig(annealing=0.05) and step.for_run(10) == step
    step.check_model(SMALL)
    assert isinstance(step.build(SMALL.build()), AirStep)


@ALL
def test_every_parameter_gets_a_gradient(config: AirConfig) -> None:
    torch.manual_seed(0)
    model, batch = Air(config).train(), squares((1, 2, 2, 1))
    output = model(batch.images, counts_of(batch, config))
    sum(AirStep(model, AirStepConfig()).losses(batch.images, output, 0.0).values()).mean().backward()  # type: ignore
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not (config.given and name.startswith("head.2")):  # z_pres is given then: its row has none
            assert parameter.grad.abs().sum() > 0, name


@ALL
def test_a_batch_equals_its_images(config: AirConfig) -> None:
    torch.manual_seed(0)
    model, batch = Air(config).eval(), squares()
    counts = counts_of(batch, config)
    whole = model(batch.images, counts)
    for index in range(4):
        one = model(batch.images[index : index + 1], None if counts is None else counts[index : index + 1])
        torch.testing.assert_close(one.rebuilt[0], whole.rebuilt[index])
        torch.testing.assert_close(one.boxes[0], whole.boxes[index])


def test_seeds_reproduce_and_state_round_trips() -> None:
    batch = squares()
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        step = AirStep(Air(SMALL).train(), AirStepConfig(rate=1e-2))
        for iteration in range(3):
            step(batch, iteration)
        runs.append(step.model)
    again = Air(SMALL)
    again.load_state_dict(runs[0].state_dict())
    for a, b, c in zip(*(model.parameters() for model in (*runs, again)), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


@ALL
def test_one_batch_is_learnt(config: AirConfig) -> None:
    torch.manual_seed(0)
    model, batch = Air(config).train(), squares((1, 2, 1, 2) * 4)
    step = AirStep(model, AirStepConfig(rate=3e-3, clip=10.0, scale_prior=(-0.8, 0.5)))
    first = float(step(batch, 0)["reconstruction"])
    values: dict[str, float | Tensor] = {}
    for _ in range(250):
        values = step(batch, 0)
    assert float(values["reconstruction"]) < 0.6 * first


def test_detect_and_explain() -> None:
    torch.manual_seed(0)
    batch = squares()
    model = Air(GIVEN).eval()
    assert model.needs_counts and not model.counts_itself
    assert [len(one.boxes) for one in model.detect(batch.images, torch.tensor([0, 1, 2, 3]))] == [0, 1, 2, 3]
    assert [len(one.boxes) for one in model.explain(batch.images, 2).detections] == [2] * 4
    assert [len(one.boxes) for one in model.detect(batch.images)] == [3] * 4
    for counts in (torch.tensor([2]), torch.tensor([0, 1, -1, 2]), torch.tensor([0, 1, 1.5, 2])):
        with pytest.raises(ValueError, match="one whole number of 0 or more for each of 4 images"):
            model.explain(batch.images, counts)
    free = Air(SMALL).eval()
    last = free.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight[-1], last.bias[-1] = 0, 2.0
    explained = free.explain(batch.images, 2)
    assert [len(one.boxes) for one in explained.detections] == [2] * 4
    assert free.counts_itself and not free.needs_counts
    assert [len(one.boxes) for one in free.detect(batch.images)] == [3] * 4
    assert [len(one.boxes) for one in free.detect(batch.images, torch.tensor([0, 1, 2, 9]))] == [0, 1, 2, 3]
    torch.testing.assert_close(explained.detections[0].scores, torch.full((2,), 2.0).sigmoid())
    assert explained.reconstruction is not None and explained.reconstruction.shape == batch.images.shape


def test_no_objects_at_all() -> None:
    """A batch of empty images: nothing to draw, nothing infinite."""
    for config in (SMALL, GIVEN, DAIR):
        torch.manual_seed(0)
        step = AirStep(Air(config).train(), AirStepConfig())
        values = step(squares((0, 0)), 20_000)
        assert all(math.isfinite(float(value)) for value in values.values())
        assert all(parameter.isfinite().all() for parameter in step.model.parameters())


def test_bfloat16_is_close() -> None:
    batch = squares((1, 2) * 8)
    losses = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        step = AirStep(Air(SMALL).train(), AirStepConfig(precision=precision))  # pyright: ignore[reportArgumentType]
        losses.append(float(step(batch, 0)["reconstruction"]))
        assert all(parameter.dtype == torch.float32 for parameter in step.model.parameters())
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)


def test_refusals() -> None:
    batch = squares()
    with pytest.raises(MistError, match="20 x 20 pixels"):
        Air(SMALL)(torch.zeros(1, 1, 20, 21))
    with pytest.raises(MistError, match="needs the number of objects"):
        Air(GIVEN)(batch.images)
    with pytest.raises(MistError, match=r"holds 4 objects.*model\.k=3"):
        Air(GIVEN)(batch.images, torch.tensor([0, 1, 4, 2]))
    for counts in (torch.tensor([2]), torch.tensor([0, 1, -1, 2]), torch.tensor([0, 1, 1.5, 2])):
        with pytest.raises(MistError, match="one whole number of 0 or more for each of the 4 images"):
            Air(GIVEN)(batch.images, counts)


@ALL
def test_a_step_that_diverges_shows_in_its_scalars(config: AirConfig) -> None:
    """Torch raises no error, so that the loop sees the value and explains what to do."""
    step = AirStep(Air(config), AirStepConfig(rate=1e30))
    values = [float(value) for index in range(3) for value in step(squares(), index).values()]
    assert not all(math.isfinite(value) for value in values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 2}, "model.channels"),
        ({"k": 0}, "model.k"),
        ({"encoder": (0,)}, "model.encoder"),
        ({"hidden": (8,)}, "belongs to DAIR"),
        ({"sides": 3}, "model.sides"),
        ({"noise": -1.0}, "model.noise"),
        ({"temperature": 0.0}, "model.temperature"),
        ({"threshold": 0.0}, "model.threshold"),
    ],
)
def test_impossible_networks(change: dict[str, object], message: str) -> None:
    with pytest.raises(MistError, match=message):
        dataclasses.replace(SMALL, **change)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.0}, "step.rate"),
        ({"clip": 0.0}, "step.clip"),
        ({"annealing": 0.0}, "step.annealing"),
        ({"scale_prior": (0.0, 0.0)}, "step.scale_prior"),
    ],
)
def test_impossible_steps(change: dict[str, object], message: str) -> None:
    with pytest.raises(MistError, match=message):
        AirStepConfig(**change)  # pyright: ignore[reportArgumentType]


def test_collapse() -> None:
    well = {"objects": 1.0, "steps_made": 0.4, "kl_what": 12.0, "prior_log_odds": -9.0}
    assert collapse_note(well) is None
    assert "no object is drawn" in (collapse_note(well | {"objects": 0.01}) or "")
    assert "99% of the steps" in (collapse_note(well | {"objects": 2.97, "steps_made": 0.99}) or "")
    assert collapse_note(well | {"objects": 2.97, "steps_made": 0.99, "prior_log_odds": 5.0}) is None
    assert "look alike" in (collapse_note(well | {"kl_what": 0.1}) or "")
    given = {"objects": 5.0, "steps_made": 1.0, "kl_what": 60.0}
    assert collapse_note(given) is None
