"""The network for birds: where its windows begin, its streams, its statistics, a step."""

from __future__ import annotations

import pytest
import torch

from mistnn.errors import MistError
from mistnn.models.stn import BirdClassifier, BirdsConfig, DescriberConfig, StnStep, StnStepConfig
from mistnn.models.stn.birds import tiled
from mistnn.nn.spatial_transformer import Kind, TransformConfig
from mistnn.records import Batch

SMALL = DescriberConfig("mobilenet_v3_small")


def build(number: int = 2, side: int = 32, kind: Kind = "translation", **more: float) -> BirdClassifier:
    torch.manual_seed(0)
    return BirdClassifier(BirdsConfig(number, TransformConfig(kind), SMALL, side, 32, classes=3, **more))  # pyright: ignore


def test_tiles() -> None:
    half = TransformConfig("translation")
    assert tiled(half, 1).tolist() == [[0, 0]]
    assert tiled(half, 2).tolist() == [[-0.5, 0], [0.5, 0]]
    assert tiled(half, 4).tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]
    assert tiled(TransformConfig("attention"), 2).tolist() == [[0.5, -0.5, 0], [0.5, 0.5, 0]]
    assert tiled(TransformConfig("affine"), 2).tolist() == [[0.5, 0, -0.5, 0, 0.5, 0], [0.5, 0, 0.5, 0, 0.5, 0]]
    for kind in ("projective", "tps"):
        with pytest.raises(MistError, match="can't start as tiles"):
            BirdsConfig(transform=TransformConfig(kind))


@pytest.mark.parametrize("kind", ["translation", "attention", "affine"])
def test_initial_windows_tile_the_image(kind: Kind) -> None:
    """Of an image of twice a crop's side, windows at half the scale are its quarters, pixel by pixel."""
    model, images = build(4, 64, kind).eval(), torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        done = model(images)
    assert done.logits.shape == (2, 3) and len(done.warps) == 4
    normal = (images - model.mean) / model.std
    quarters = [normal[..., row : row + 32, column : column + 32] for row in (0, 32) for column in (0, 32)]
    for warp, quarter in zip(done.warps, quarters, strict=True):
        torch.testing.assert_close(warp.features, quarter, atol=1e-4, rtol=0)
        assert warp.parameters.shape == (2, 1, len(tiled(TransformConfig(kind), 1)[0]))
        assert warp.outside.shape == (2,) and float(warp.outside.max()) == 0


def test_streams_by_hand() -> None:
    model, images = build(2, 32).eval(), torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        done = model(images)
        described = [stream(warp.features).mean((2, 3)) for stream, warp in zip(model.streams, done.warps, strict=True)]
        torch.testing.assert_close(done.logits, model.last(torch.cat(described, 1)))
        one_by_one = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(done.logits, one_by_one, atol=1e-5, rtol=1e-4)
    assert not torch.equal(*(next(stream.parameters()) for stream in model.streams)), "each stream has its own weights"


def test_the_localisation_network_sees_the_image_halved() -> None:
    """Its output is the same for an image and its enlargement, where each pixel becomes four."""
    small, large = build(2, 32).eval(), build(2, 64).eval()
    large.load_state_dict(small.state_dict())
    images = torch.rand(1, 3, 32, 32)
    enlarged = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for model in (small, large):
        model.transformer.localisation[-1].weight.data.fill_(0.01)  # pyright: ignore
    with torch.inference_mode():
        first, second = small(images).warps[0].parameters, large(enlarged).warps[0].parameters
    torch.testing.assert_close(first, second)
    assert not torch.equal(first, tiled(TransformConfig("translation"), 2)[0].float().expand_as(first))


def test_a_step() -> None:
    model = build(2, dropout=0.0)
    model.transformer.localisation[-1].weight.data.normal_(0, 0.01)  # pyright: ignore
    images = torch.rand(4, 3, 32, 32)
    batch = Batch(images, torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]))
    step = StnStep(model, StnStepConfig(rate=0.01, localisation_share=1e-4, decay=1.0))
    logged = [step(batch, place) for place in range(12)]
    assert {"loss", "error", "outside_1", "outside_2"} == set(logged[0])
    assert float(logged[-1]["loss"]) < 0.7 * float(logged[0]["loss"])
    for name, part in model.named_parameters():
        assert part.grad is not None and bool(part.grad.isfinite().all()), name
    first, second = step.optimizers["all"].param_groups
    inside = {id(part) for part in model.transformer.localisation.parameters()}
    assert {id(part) for part in second["params"]} == inside and second["lr"] == pytest.approx(1e-6)
    assert first["lr"] == pytest.approx(0.01)


def test_impossible_configurations() -> None:
    for given, message in (
        ({"number": 0}, "model.number=0"),
        ({"classes": 1}, "model.classes=1"),
        ({"crop": 1, "side": 1}, "model.crop=1 must be a multiple of the 32 px"),
        ({"side": 300}, "model.side=300 must be one or more times model.crop=224"),
        ({"dropout": -0.1}, "model.dropout=-0.1"),
    ):
        with pytest.raises(MistError, match=message):
            BirdsConfig(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.plain
def test_images_of_another_size() -> None:
    model = build()
    for shape in ((1, 3, 1, 1), (3, 32, 32), (1, 3, 32, 33)):
        with pytest.raises(MistError, match=r"takes images of \(batch, 3, 32, 32\)"):
            model(torch.rand(shape))
