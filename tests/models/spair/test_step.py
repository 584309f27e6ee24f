"""SPAIR's objective against plain loops, its schedules, and what a collapse looks like."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from mistnn.errors import MistError
from mistnn.models.spair import Spair, SpairStep, SpairStepConfig, collapse_note
from mistnn.models.spair.step import cross_entropy
from mistnn.ops.priors import presence_kl
from mistnn.records import Batch
from tests.models.spair.test_network import network, pictures
from tests.reference import spair as reference

PLAIN = SpairStepConfig(rate=1e-3, wheels=0, gradient_noise=0.0, s=0.5)


def batch(size: int = 4) -> Batch:
    return Batch(pictures(size, 8, 8))


def test_divergences_are_the_sums_of_their_terms() -> None:
    model = network()
    config = dataclasses.replace(PLAIN, place_prior=(0.3, 0.8), depth_prior=(0.1, 2.0), what_prior=(-0.2, 0.7))
    with torch.no_grad():
        z = model(batch().images).latents
        found = SpairStep(model, config).divergences(z, 0.5)
    for image in range(4):
        sums = {"kl_where": 0.0, "kl_what": 0.0, "kl_depth": 0.0}
        for cell in range(4):
            there = float(z.presence[image, cell])
            priors = (config.place_prior, config.place_prior, config.size_prior, config.size_prior)
            for name, normal, each in (
                ("kl_where", z.where, priors),
                ("kl_what", z.what, (config.what_prior,) * 3),
                ("kl_depth", z.depth, (config.depth_prior,)),
            ):
                means, deviations = normal.mean[image, cell].tolist(), normal.deviation[image, cell].tolist()
                for mean, deviation, prior in zip(means, deviations, each, strict=True):
                    sums[name] += there * reference.normal_kl(mean, deviation, prior)
        for name, value in sums.items():
            assert float(found[name][image]) == pytest.approx(value, rel=1e-4)
    torch.testing.assert_close(found["kl_presence"], presence_kl(z.presence_logits, z.presence, 0.5))


def test_cross_entropy_is_finite_where_nothing_is_drawn() -> None:
    images = pictures(2, 4, 4)
    rebuilt = pictures(2, 4, 4).flip(0)
    for floor in (1e-3, 0.2):
        for index in range(2):
            total = 0.0
            for x, p in zip(images[index].flatten().tolist(), rebuilt[index].flatten().tolist(), strict=True):
                mixed = (1 - floor) * p + floor / 2
                total -= x * math.log(mixed) + (1 - x) * math.log(1 - mixed)
            assert float(cross_entropy(rebuilt, images, floor)[index]) == pytest.approx(total, rel=1e-4)
    black = torch.zeros(1, 1, 1, 1, requires_grad=True)
    loss = cross_entropy(black, torch.ones(1, 1, 1, 1), 1e-3)
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(-math.log(5e-4))
    assert black.grad is not None and float(black.grad) == pytest.approx(-0.999 / 5e-4)


def test_a_step_that_diverges_shows_in_its_scalars() -> None:
    """Torch raises no error, so that the loop sees the value and explains what to do."""
    step = SpairStep(network(), dataclasses.replace(PLAIN, rate=1e30))
    batch = Batch(pictures(2, 8, 8))
    values = [float(value) for index in range(3) for value in step(batch, index).values()]
    assert not all(math.isfinite(value) for value in values)


def test_training_wheels_hold_what_is_not_z_what() -> None:
    model = network()
    step = SpairStep(model, dataclasses.replace(PLAIN, wheels=10, schedule_scale=0.2))
    held = [model.cells.box_network, model.cells.depth_network, model.cells.presence_network, model.backbone]
    before = [[weight.clone() for weight in part.parameters()] for part in held]
    free = [weight.clone() for weight in model.object_decoder.parameters()]
    for iteration in range(2):
        step(batch(), iteration)
    for part, old in zip(held, before, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(part.parameters(), old, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(model.object_decoder.parameters(), free, strict=True))
    step(batch(), 2)  # 10 x 0.2 iterations are over
    for part, old in zip(held, before, strict=True):
        assert not all(torch.equal(one, other) for one, other in zip(part.parameters(), old, strict=True))


def test_s_follows_the_scaled_schedule_or_stays() -> None:
    step = SpairStep(network(), dataclasses.replace(PLAIN, s=None, schedule_scale=0.1))
    assert step(batch(), 0)["s"] == pytest.approx(1e-6, rel=1e-3)
    assert step(batch(), 600)["s"] == pytest.approx(0.497, abs=1e-3)  # 6,000 x 0.1
    assert SpairStep(network(), PLAIN)(batch(), 600)["s"] == 0.5


def test_gradients_are_cut_and_may_carry_noise() -> None:
    moved = {}
    for noise in (0.0, 1.0):
        torch.manual_seed(3)
        model = network()
        step = SpairStep(model, dataclasses.replace(PLAIN, gradient_noise=noise, largest_gradient=0.01))
        model.zero_grad()
        loss = model(batch().images).rebuilt.sum()
        step.descend(loss, 0)
        moved[noise] = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    assert float(moved[0.0].norm()) == pytest.approx(0.01, rel=1e-3)
    assert float((moved[1.0] - moved[0.0]).std()) == pytest.approx(1.0, rel=0.1)
    # A thousand iterations later a tenth of the noise is left.
    step.descend(model(batch().images).rebuilt.sum(), 1000)
    late = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    assert float(late.std()) == pytest.approx(0.1, rel=0.1)


def test_the_rate_falls() -> None:
    step = SpairStep(network(), dataclasses.replace(PLAIN, rate=1e-2, decay=0.1, decay_steps=10))
    step(batch(), 10)
    assert step.optimizers["all"].param_groups[0]["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_batch_is_fitted(precision: str) -> None:
    """Two bright squares in each image: the picture gets better, and everything logged is finite."""
    torch.manual_seed(0)
    images = torch.zeros(8, 1, 8, 8)
    for index in range(8):
        images[index, 0, 1:3, index % 3 : 2 + index % 3] = 1
        images[index, 0, 5:7, 4:7] = 1
    config = dataclasses.replace(PLAIN, rate=1e-2, s=0.01, precision=precision)
    step = SpairStep(network(width=16, hidden=(32,), encoder=(32,), decoder=(32,), edge="fade"), config)
    rows = [step(Batch(images), iteration) for iteration in range(150)]
    first = sum(float(row["task"]) for row in rows[:10]) / 10
    last = sum(float(row["task"]) for row in rows[-10:]) / 10
    assert last < 0.6 * first
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    assert set(rows[0]) == set(rows[-1])


def test_bfloat16_is_float32_apart_from_rounding() -> None:
    """Backbone, object encoder and decoder round to 8 bits; the gradients of all weights keep their direction."""
    gradients: dict[str, dict[str, torch.Tensor]] = {}
    for precision in ("float32", "bfloat16"):
        sizes = {"hidden": (32,), "encoder": (32,), "decoder": (32,)}
        model = network(width=16, first_presence=4.0, **sizes).eval()  # nothing is sampled, all cells are drawn
        drawn = model(batch().images, precision=precision)
        z = drawn.latents
        terms = (drawn.rebuilt.square(), z.presence_logits, z.what.deviation, z.where.deviation, z.depth.deviation)
        torch.stack([term.sum() for term in terms]).sum().backward()
        gradients[precision] = {
            name: weight.grad.flatten() for name, weight in model.named_parameters() if weight.grad is not None
        }
        assert all(tensor.dtype == torch.float32 for tensor in (drawn.rebuilt, drawn.latents.what.sample))
    assert gradients["float32"].keys() == gradients["bfloat16"].keys()
    for name, exact in gradients["float32"].items():
        assert float(torch.cosine_similarity(exact, gradients["bfloat16"][name], dim=0)) > 0.98, name
    names = ("backbone.layers.1.weight", "cells.object_encoder.0.weight", "object_decoder.0.weight")
    assert all(not torch.equal(gradients["float32"][name], gradients["bfloat16"][name]) for name in names)


def test_seeds_reproduce() -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        step = SpairStep(Spair(network().config), PLAIN)
        results.append([float(step(batch(), iteration)["task"]) for iteration in range(3)])
    assert results[0] == results[1]


def test_an_empty_scene_costs_no_object() -> None:
    """Black images: nothing to find is no error."""
    scalars = SpairStep(network(), PLAIN)(Batch(torch.zeros(2, 1, 8, 8)), 0)
    assert all(math.isfinite(float(value)) for value in scalars.values())


def test_a_shorter_run_shortens_the_schedules_but_not_the_training_wheels() -> None:
    config = dataclasses.replace(PLAIN, schedule_scale=0.8, wheels=500, decay=0.1, decay_steps=4000)
    shorter = config.rescale_schedule(1000, 100)
    assert shorter == dataclasses.replace(config, schedule_scale=0.8 * 100 / 1000, wheels=5000, decay_steps=400)
    whole = dataclasses.replace(PLAIN, decay=0.1)
    with pytest.raises(MistError, match="step.decay_steps"):
        whole.build(network())
    assert isinstance(whole.for_run(40).build(network()), SpairStep)


HEALTHY = {"s": 0.9, "objects": 5.0, "on": 0.3, "presence": 0.3, "kl_what": 60.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"objects": 0.01, "on": 0.0}, "no object is drawn any more"),
        ({"objects": 0.01, "on": 0.0, "s": 1e-6}, "no object is drawn any more"),
        ({"on": 0.99, "objects": 16.0, "kl_what": 200.0}, "99% of the cells"),
        ({"on": 0.99, "objects": 16.0, "kl_what": 200.0, "s": 0.01}, None),
        ({"kl_what": 1.0}, "all objects look alike"),
    ],
)
def test_a_collapse_is_reported(changes: dict[str, float], words: str | None) -> None:
    note = collapse_note(HEALTHY | changes)
    assert note is None if words is None else note is not None and words in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"s": 0.0}, "step.s=0.0 must be above 0"),
        ({"s": 1.0}, "step.s=1.0 must be below 1"),
        ({"s": 1.5}, "step.s=1.5"),
        ({"rate": 0.0}, "step.rate"),
        ({"schedule_scale": 0.0}, "step.schedule_scale"),
        ({"largest_gradient": -1.0}, "step.largest_gradient"),
        ({"size_prior": (0.0, 0.0)}, "step.size_prior"),
        ({"wheels": -1}, "step.wheels"),
        ({"floor": 0.0}, "step.floor"),
        ({"gradient_noise": -1.0}, "step.gradient_noise"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(MistError, match=message):
        dataclasses.replace(PLAIN, **changes)  # pyright: ignore[reportArgumentType]
