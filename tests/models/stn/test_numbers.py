"""The networks that read house numbers: their layers as the paper has them, five softmaxes, one step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mistnn.errors import MistError
from mistnn.models.stn import NumberReader, NumberReaderConfig, StnStep, StnStepConfig, stepped_share, wrong
from mistnn.models.stn.config import Layers, Where
from mistnn.models.stn.numbers import NOTHING, PLACES, SIGNS
from mistnn.nn.spatial_transformer import SpatialTransformer
from mistnn.records import Batch

TINY = 32
WHERE: tuple[Where, ...] = ("none", "single", "multi")


def build(where: Where, layers: Layers = "eleven", side: int = TINY, units: int = 12, **more: float) -> NumberReader:
    torch.manual_seed(0)
    return NumberReader(NumberReaderConfig(where, layers, units, side=side, **more))


def batch_of(count: int, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    labels = [torch.randint(0, 10, (1 + index % PLACES,), generator=random) for index in range(count)]
    return Batch(torch.rand(count, 3, TINY, TINY, generator=random), labels=labels)


def by_hand(layers: tuple[str, ...], side: int, units: int) -> int:
    """Parameters of the paper's notation: conv[N,5,1,2] as "N", a 2 x 2 pooling as "max"; three fc, five fc[11]."""
    total, channels = 0, 3
    for layer in layers:
        if layer == "max":
            side //= 2
        else:
            total += int(layer) * (channels * 25 + 1)
            channels = int(layer)
    inputs = channels * side * side
    for _ in range(3):
        total += units * (inputs + 1)
        inputs = units
    return total + 5 * 11 * (inputs + 1)


ELEVEN = ("48", "max", "64", "128", "max", "160", "192", "max", "192", "192", "max", "192")
PRINTED = ("48", "max", "64", "128", "max", "192", "max", "192")


@pytest.mark.parametrize(("layers", "printed"), [("eleven", ELEVEN), ("printed", PRINTED)])
@pytest.mark.parametrize("side", [64, 128])
def test_sizes_of_the_paper(layers: Layers, printed: tuple[str, ...], side: int) -> None:
    plain = build("none", layers, side)
    assert sum(part.numel() for part in plain.parameters()) == by_hand(printed, side, 12)
    hidden = [one for one in plain.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    assert len(hidden) - 1 == (11 if layers == "eleven" else 8), "the last layer is not hidden"
    assert NumberReaderConfig().units == 3072


def test_transformers_of_the_paper() -> None:
    single, multi = build("single", side=64), build("multi", side=64)
    (only,) = single.transformers
    assert isinstance(only, SpatialTransformer) and only.size == (64, 64) and only.transform.kind == "affine"
    sizes = [tuple(part.shape) for part in only.localisation.parameters() if part.dim() > 1]
    assert sizes == [(32, 3, 5, 5), (32, 32, 5, 5), (32, 32 * 32 * 32), (32, 32), (6, 32)]
    found = []
    for transformer in multi.transformers:
        assert isinstance(transformer, SpatialTransformer)
        weights = [tuple(part.shape) for part in transformer.localisation.parameters() if part.dim() > 1]
        found.append((transformer.size, weights))
    before = [(64, 3), (32, 48), (32, 64), (16, 128)]
    assert found == [((side, side), [(32, ch * side**2), (32, 32), (6, 32)]) for side, ch in before]


def test_layers_by_hand() -> None:
    model = build("none").eval()
    images = torch.rand(2, 3, TINY, TINY)
    own = [part for part in model.parameters()]
    features = images - images.mean(dim=(1, 2, 3), keepdim=True)
    for layer in ELEVEN:
        if layer == "max":
            features = nn.functional.max_pool2d(features, 2)
        else:
            features = nn.functional.conv2d(features, own.pop(0), own.pop(0), padding=2).relu()
    features = features.flatten(1)
    for _ in range(3):
        features = nn.functional.linear(features, own.pop(0), own.pop(0)).relu()
    weight, bias = own
    for place in range(PLACES):
        rows = slice(place * SIGNS, (place + 1) * SIGNS)
        expected = nn.functional.linear(features, weight[rows], bias[rows])
        torch.testing.assert_close(model(images).logits[:, place], expected)


@pytest.mark.parametrize("where", WHERE)
def test_at_birth_transformers_change_nothing(where: Where) -> None:
    plain, model = build("none").eval(), build(where).eval()
    own = model.state_dict()
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    images = torch.rand(3, 3, TINY, TINY)
    torch.testing.assert_close(model(images).logits, plain(images).logits, atol=1e-3, rtol=1e-3)
    assert len(model(images).warps) == {"none": 0, "single": 1, "multi": 4}[where]
    one_by_one = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(model(images).logits, one_by_one, atol=1e-5, rtol=1e-5)


def test_dropout_spares_the_first_convolution_and_the_localisation() -> None:
    model = build("multi", dropout=0.5)
    dropped = {name.partition(".")[0] for name, part in model.named_modules() if isinstance(part, nn.Dropout)}
    assert dropped == {"convolutions", "dense"}
    with_it = [any(isinstance(part, nn.Dropout) for part in one.modules()) for one in model.convolutions]
    assert with_it == [False] + [True] * 7
    assert sum(isinstance(part, nn.Dropout) for part in model.dense) == 3


@pytest.mark.parametrize("where", WHERE)
def test_at_birth_every_class_is_as_likely(where: Where) -> None:
    """With dropout on: activations must not grow from layer to layer, or the first steps are the last ones."""
    logits = build(where, units=256, dropout=0.5).train()(batch_of(4).images).logits
    guess = PLACES * math.log(SIGNS)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), torch.full((4 * PLACES,), 3)) * PLACES
    assert abs(float(loss.detach()) - guess) < 0.1 * guess


def test_sequences_and_mistakes() -> None:
    labels = [torch.tensor([0]), torch.tensor([1, 2, 3, 4, 5]), torch.tensor([9, 0])]
    batch = Batch(torch.zeros(3, 3, 1, 1), labels=labels)
    target = build("none").target(batch)
    assert target.tolist() == [[0, 10, 10, 10, 10], [1, 2, 3, 4, 5], [9, 0, 10, 10, 10]] and NOTHING == 10
    logits = nn.functional.one_hot(target, SIGNS).float()
    assert wrong(logits, target).tolist() == [False] * 3
    logits[1, 4] = logits[1, 3]
    assert wrong(logits, target).tolist() == [False, True, False], "one wrong digit makes a wrong number"
    assert wrong(logits[:, 0], target[:, 0]).tolist() == [False] * 3


@pytest.mark.parametrize("where", WHERE)
def test_every_parameter_gets_a_gradient(where: Where) -> None:
    model = build(where, dropout=0.0)
    for part in model.parameters():  # moves the last layers of the localisation networks off zero
        part.data += 0.01 * torch.randn(part.shape, generator=torch.Generator().manual_seed(3))
    StnStep(model, StnStepConfig(localisation_share=0.1, decay=1.0))(batch_of(4), 0)
    for name, part in model.named_parameters():
        assert part.grad is not None and bool(part.grad.isfinite().all()) and bool(part.grad.abs().sum() > 0), name


def test_the_loss_is_that_of_the_whole_number() -> None:
    model, batch = build("none", dropout=0.0), batch_of(5)
    with torch.no_grad():
        logits = model(batch.images).logits.log_softmax(-1)
    expected = 0.0
    assert batch.labels is not None
    for row, labels in zip(logits, batch.labels, strict=True):
        for place in range(PLACES):
            expected -= float(row[place, int(labels[place]) if place < len(labels) else NOTHING]) / 5
    logged = StnStep(model, StnStepConfig(decay_steps=1000))(batch, 0)
    assert float(logged["loss"]) == pytest.approx(expected, rel=1e-5) and set(logged) == {"loss", "error"}


def test_one_batch_is_learnt() -> None:
    stripes = (torch.arange(TINY) // 4 % 2).float().expand(3, TINY, TINY)
    batch = Batch(torch.stack((stripes, stripes.mT)), labels=[torch.tensor([1, 2]), torch.tensor([7, 5, 3])])
    model = build("single", "printed", units=48, dropout=0.0)
    step = StnStep(model, StnStepConfig(rate=0.003, momentum=0.0, localisation_share=0.1, decay=1.0))
    logged = [step(batch, iteration) for iteration in range(32)]
    assert float(logged[-1]["error"]) == 0 and "outside_1" in logged[-1]
    assert float(logged[-1]["loss"]) < 0.3 * float(logged[0]["loss"])
    first, second = step.optimizers["all"].param_groups
    assert second["lr"] == pytest.approx(0.1 * first["lr"])


def test_the_rate_falls_every_80000_iterations() -> None:
    falls = [stepped_share(iteration, 1e-4, 400_000, 4) for iteration in range(0, 400_000, 40_000)]
    assert falls == pytest.approx([10.0 ** -(place // 2) for place in range(10)])
    assert stepped_share(10**6, 1e-4, 400_000, 4) == pytest.approx(1e-4)


def test_wrong_sizes() -> None:
    with pytest.raises(MistError, match=r"model.side=1 must be 32 or more"):
        NumberReaderConfig(side=1)
    for given, message in (({"units": 0}, "model.units=0"), ({"dropout": 1.0}, "model.dropout=1.0")):
        with pytest.raises(MistError, match=message):
            NumberReaderConfig(**given)
    with pytest.raises(MistError, match="step.drops=0"):
        StnStepConfig(drops=0)
    assert math.isfinite(stepped_share(0, 1.0, 0, 4))


@pytest.mark.plain
def test_unknown_names() -> None:
    for given, message in (({"where": "twice"}, "model.where='twice'"), ({"layers": "nine"}, "model.layers='nine'")):
        with pytest.raises(MistError, match=message):
            NumberReaderConfig(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.plain
def test_images_of_another_size() -> None:
    model = build("none")
    for shape in ((1, 3, 1, 1), (1, 1, 32, 32), (3, 32, 32), (1, 3, 33, 32)):
        with pytest.raises(MistError, match=r"takes images of \(batch, 3, 32, 32\)"):
            model(torch.rand(shape))
