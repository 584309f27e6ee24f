"""The classifiers of the spatial transformer paper and their step."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from mistnn.data import DistortedConfig, DistortedDigits
from mistnn.errors import MistError
from mistnn.models.stn import (
    ColocaliserConfig,
    ColocaliseStepConfig,
    StnClassifier,
    StnConfig,
    StnStep,
    StnStepConfig,
    stepped_share,
)
from mistnn.nn.spatial_transformer import Kind, SpatialTransformer, TransformConfig
from mistnn.records import Batch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

FORMS = [
    StnConfig("fcn", 6, side=14),
    StnConfig("cnn", 4, side=24),
    StnConfig("fcn", 6, 1, TransformConfig("tps"), halve=True, side=14),
    StnConfig("fcn", 6, 2, TransformConfig("projective"), halve=True, channels=2, side=14, classes=19),
    StnConfig("cnn", 4, 1, TransformConfig("affine"), side=28),
    StnConfig("cnn", 4, 1, TransformConfig("attention"), halve=True, side=48),
]


def build(config: StnConfig, seed: int = 0) -> StnClassifier:
    torch.manual_seed(seed)
    return StnClassifier(config)


def images_of(config: StnConfig, count: int = 3, seed: int = 1) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, config.channels, config.side, config.side, generator=random)


def batch_of(config: StnConfig, count: int = 8) -> Batch:
    data = DistortedConfig("rts", config.side, config.channels, "embedded")
    return DistortedDigits(data, "train", None).batch(range(count))


@pytest.mark.parametrize("config", FORMS)
def test_shapes_and_the_initial_identity(config: StnConfig) -> None:
    model, images = build(config).eval(), images_of(config)
    done = model(images)
    assert done.logits.shape == (3, config.classes) and len(done.warps) == config.transformers
    channels = config.channels * max(1, config.transformers)
    seen = model.look(images)[1]
    assert seen.shape == (3, channels, config.seen_side, config.seen_side)
    for warp in done.warps:
        torch.testing.assert_close(warp.features, images, atol=1e-4, rtol=0)
    wanted = nn.functional.avg_pool2d(images, 2) if config.halve else images
    torch.testing.assert_close(seen, wanted.repeat(1, max(1, config.transformers), 1, 1), atol=1e-4, rtol=0)


def test_layers_by_hand() -> None:
    """The CNN from the paper's words: convolution, pooling, ReLU, twice, then the classes."""
    model, images = build(FORMS[1]).eval(), images_of(FORMS[1])
    own = dict(model.named_parameters())
    first = nn.functional.conv2d(images, own["first.0.weight"], own["first.0.bias"]).relu()
    first = nn.functional.max_pool2d(first, 2)
    second = nn.functional.max_pool2d(
        nn.functional.conv2d(first, own["second.0.weight"], own["second.0.bias"]).relu(), 2
    )
    logits = second.flatten(1) @ own["last.1.weight"].T + own["last.1.bias"]
    done = model(images)
    torch.testing.assert_close(done.logits, logits)
    torch.testing.assert_close(done.hidden, (first, second))
    assert own["first.0.weight"].shape == (4, 1, 9, 9) and own["second.0.weight"].shape == (4, 4, 7, 7)


@pytest.mark.parametrize("config", FORMS)
def test_every_parameter_learns(config: StnConfig) -> None:
    model = build(config)
    for part in model.modules():
        if isinstance(part, SpatialTransformer):  # its initial last layer passes no gradient
            for weights in part.localisation.parameters():
                nn.init.normal_(weights, std=0.05)
    done = model(images_of(config))
    nn.functional.cross_entropy(done.logits, torch.tensor([1, 2, 3])).backward()
    for name, weights in model.named_parameters():
        assert weights.grad is not None and bool(weights.grad.isfinite().all()), name
        assert float(weights.grad.abs().sum()) > 0, name


@pytest.mark.parametrize("config", FORMS)
def test_a_batch_is_its_images_one_by_one(config: StnConfig) -> None:
    model, images = build(config).eval(), images_of(config)
    apart = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(model(images).logits, apart, atol=1e-5, rtol=1e-5)


def test_state_and_seeds() -> None:
    config = FORMS[3]
    first, again, other = (build(config, seed) for seed in (0, 0, 1))
    images = images_of(config)
    assert torch.equal(first(images).logits, again(images).logits)
    assert not torch.equal(first(images).logits, other(images).logits)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(images).logits, other(images).logits)


@pytest.mark.parametrize("config", FORMS)
def test_one_batch_is_learnt(config: StnConfig) -> None:
    config = dataclasses.replace(config, width=24)
    step, batch = StnStep(build(config), StnStepConfig(rate=0.02, decay=1.0)), batch_of(config)
    logged = [step(batch, iteration) for iteration in range(150)]
    assert logged[0]["loss"] > 1.5 and logged[-1]["error"] == 0
    assert {f"outside_{n + 1}" for n in range(config.transformers)} == logged[0].keys() - {"loss", "error"}


def test_half_precision_learns_too() -> None:
    config = dataclasses.replace(FORMS[4], width=24)
    step = StnStep(build(config), StnStepConfig(rate=0.02, decay=1.0, precision="bfloat16"))
    batch = batch_of(config)
    logged = [step(batch, iteration) for iteration in range(150)]
    assert logged[-1]["error"] == 0 and step.model.first[0].weight.dtype == torch.float32  # pyright: ignore


@pytest.mark.parametrize("device", DEVICES)
def test_the_target_is_the_sum(device: str) -> None:
    counts = torch.tensor([[0, 0, 0, 1] + [0] * 6, [0] * 9 + [2], [1] + [0] * 8 + [1], [0, 0, 0, 0, 2] + [0] * 5])
    target = build(FORMS[0]).target(Batch(torch.zeros(4, 2, 3, 3, device=device), counts.to(device)))
    assert target.tolist() == [3, 18, 9, 8] and target.dtype == torch.int64


def test_the_schedule() -> None:
    paper = [stepped_share(iteration, 0.01, 150_000) for iteration in (0, 49_999, 50_000, 99_999, 100_000, 999_999)]
    assert paper == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert [stepped_share(iteration, 1.0, 0) for iteration in (0, 5)] == [1, 1]
    config = FORMS[2]
    step = StnStep(build(config), StnStepConfig(rate=0.1, localisation_share=0.5, decay_steps=3))
    for iteration, share in ((0, 1), (1, 0.1), (2, 0.01), (7, 0.01)):
        step(batch_of(config), iteration)
        rates = [group["lr"] for group in step.optimizers["all"].param_groups]
        assert rates == pytest.approx([0.1 * share, 0.05 * share])


def test_measures_averages_views() -> None:
    config = FORMS[4]
    model, views = build(config).eval(), torch.stack([images_of(config, 3, seed) for seed in range(4)], dim=1)
    model.transformers.transformers[0].localisation.layers[-1].bias.data.fill_(0.3)  # pyright: ignore
    batch = batch_of(config, 3)._replace(images=views[:, 0])
    with torch.inference_mode():
        single, several = model.measure(batch), model.measure(batch, views)
        done = [model(views[:, place]) for place in range(4)]
    target = model.target(batch)
    posterior = sum(one.logits.softmax(-1) for one in done) / 4
    assert single[0].tolist() == (done[0].logits.argmax(1) != target).tolist()
    assert several[0].tolist() == (posterior.argmax(1) != target).tolist()
    assert single[1].shape == several[1].shape == (3, 1) and float(several[1].min()) > 0
    torch.testing.assert_close(several[1][:, 0], sum(one.warps[0].outside for one in done) / 4)
    assert build(FORMS[1]).measure(batch_of(FORMS[1], 2))[1].shape == (2, 0)


def test_schedules_need_a_length() -> None:
    for config, model in ((StnStepConfig(), FORMS[1]), (ColocaliseStepConfig(), ColocaliserConfig())):
        config.check_model(model)
        with pytest.raises(MistError, match="step.decay_steps"):
            config.build(model.build())
        config.for_run(10).build(model.build())


def test_the_step_is_the_descent_of_the_equation() -> None:
    """One step without momentum: each weight less the rate times its gradient."""
    config, batch = FORMS[1], batch_of(FORMS[1])
    copy = build(config)
    nn.functional.cross_entropy(copy(batch.images).logits, copy.target(batch)).backward()
    step = StnStep(build(config), StnStepConfig(rate=0.3, momentum=0.0, decay_steps=100))
    step(batch, 0)
    for (name, before), after in zip(copy.named_parameters(), step.model.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(after, before - 0.3 * before.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.plain
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"network": "mlp"}, "network='mlp' must be fcn or cnn"),
        ({"width": 0}, "width=0"),
        ({"transformers": -1}, "transformers=-1"),
        ({"classes": 1}, "classes=1"),
        ({"halve": True}, "model.halve"),
        ({"side": 23}, "side=23 leaves the CNN nothing"),
        ({"side": 47, "halve": True, "transformers": 1}, "48 with model.halve"),
    ],
)
def test_bad_networks(given: dict[str, object], message: str) -> None:
    with pytest.raises(MistError, match=message):
        StnConfig(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.plain
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": 0.0}, "step.rate=0.0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"localisation_share": math.inf}, "localisation_share=inf"),
        ({"decay": 2.0}, "decay=2.0"),
        ({"precision": "half"}, "precision='half'"),
    ],
)
def test_bad_steps(given: dict[str, object], message: str) -> None:
    with pytest.raises(MistError, match=message):
        StnStepConfig(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.plain
def test_images_of_another_size_are_refused() -> None:
    model = build(FORMS[0])
    for shape in ((2, 1, 14, 15), (2, 3, 14, 14), (1, 14, 14), (2, 1, 0, 0)):
        with pytest.raises(MistError, match=r"takes images of \(batch, 1, 14, 14\), got"):
            model(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["affine", "projective", "tps"])
def test_localisation_networks_are_the_papers(kind: Kind) -> None:
    dense = build(StnConfig("fcn", 6, 1, TransformConfig(kind), side=42))
    shapes = [tuple(part.shape) for name, part in dense.named_parameters() if "localisation" in name and part.dim() > 1]
    outputs = TransformConfig(kind).parameters
    assert shapes == [(32, 42 * 42), (32, 32), (32, 32), (outputs, 32)]
    convolving = build(StnConfig("cnn", 6, 1, TransformConfig(kind), side=60))
    shapes = [tuple(part.shape) for name, part in convolving.named_parameters() if "localisation" in name]
    assert shapes[::2] == [(20, 1, 5, 5), (20, 20, 5, 5), (20, 20 * 9 * 9), (outputs, 20)]
