from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mistnn.errors import MistError
from mistnn.nn.localisation import ConvolutionalLocalisation, FullyConnectedLocalisation
from mistnn.nn.spatial_transformer import (
    WATCH,
    ParallelTransformers,
    SpatialTransformer,
    TransformConfig,
    parameter_groups,
)
from mistnn.ops.transforms import affine_grid, sample

KINDS = ["affine", "attention", "translation", "projective", "tps"]
IDENTITIES = {kind: TransformConfig(kind, scale=1.0) for kind in KINDS}


def build(config, size, channels=1, **others):
    count = others.get("number", 1) * config.parameters
    network = FullyConnectedLocalisation(channels * size[0] * size[1], count, units=8)
    return SpatialTransformer(network, config, size, **others)


def saying(parameters, config, size, **others):
    """A transformer whose localisation network always says the same."""
    transformer = build(config, size, **others)
    transformer.localisation.layers[-1].bias.data = (parameters - transformer.start).flatten().float()
    return transformer


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_identity_at_birth(kind, height, width, channels):
    features = torch.rand(2, channels, height, width)
    transformer = build(IDENTITIES[kind], (height, width), channels)
    torch.testing.assert_close(transformer(features), features, atol=1e-4, rtol=0)
    exact = transformer.double()(features.double())
    torch.testing.assert_close(exact, features.double(), atol=1e-12, rtol=0)


def test_the_middle_window_at_birth():
    features = torch.rand(2, 1, 8, 8)
    network = FullyConnectedLocalisation(64, 2)
    window = SpatialTransformer(network, TransformConfig("translation", scale=0.5), (4, 4))
    torch.testing.assert_close(window(features), features[..., 2:6, 2:6])


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind):
    """The last layer at once, all the others from the second step on, for the last one is no longer zero."""
    transformer = build(IDENTITIES[kind], (9, 9))
    optimiser = torch.optim.SGD(transformer.parameters(), lr=0.01)
    images, target = torch.rand(4, 1, 9, 9), torch.rand(4, 1, 9, 9)
    for _ in range(2):
        optimiser.zero_grad()
        F.mse_loss(transformer(images), target).backward()
        optimiser.step()
    for name, weights in transformer.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all() and weights.grad.any(), name


def test_finds_a_shifted_spot():
    """Trained to show the spot in the middle, it learns to look where the spot is."""
    at = torch.arange(16) + 0.5

    def spots(x, y):
        return torch.exp(-((at - x[:, None]).square()[:, None, :] + (at - y[:, None]).square()[:, :, None]) / 8)[
            :, None
        ]

    torch.manual_seed(1)
    x, y = 5 + 6 * torch.rand(64), 5 + 6 * torch.rand(64)
    images, target = spots(x, y), spots(torch.full((1,), 8.0), torch.full((1,), 8.0)).expand(64, -1, -1, -1)
    transformer = SpatialTransformer(FullyConnectedLocalisation(256, 2), TransformConfig("translation", 1.0), (16, 16))
    optimiser = torch.optim.Adam(transformer.parameters(), lr=3e-3)
    before = F.mse_loss(transformer(images), target)
    for _ in range(150):
        optimiser.zero_grad()
        F.mse_loss(transformer(images), target).backward()
        optimiser.step()
    warp = transformer.warp(images)
    assert F.mse_loss(warp.features, target) < 0.1 * before
    found = (warp.parameters[:, 0] + 1) * 8
    assert (found - torch.stack((x, y), -1)).abs().mean() < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_singles(kind):
    transformer = build(IDENTITIES[kind], (6, 5)).eval()
    nn.init.normal_(transformer.localisation.layers[-1].weight, std=0.2)
    images = torch.rand(3, 1, 6, 5)
    torch.testing.assert_close(transformer(images), torch.cat([transformer(image[None]) for image in images]))


def test_several_from_one_localisation_network():
    """Each of the transforms reads the whole input; channels are those of the first, then those of the second."""
    start = torch.tensor([[-0.5, -0.5], [0.5, 0.5]])
    transformer = build(TransformConfig("translation", 0.5), (4, 4), 2, number=2, start=start)
    transformer.localisation = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 4))
    transformer.localisation[2].weight.data.zero_()
    transformer.localisation[2].bias.data.zero_()
    features = torch.rand(3, 2, 8, 8)
    warp = transformer.warp(features)
    torch.testing.assert_close(warp.features, torch.cat((features[..., :4, :4], features[..., 4:, 4:]), 1))
    assert warp.parameters.shape == (3, 2, 2) and warp.outside.shape == (6,)


def test_parallel():
    features = torch.rand(2, 2, 5, 5)
    both = ParallelTransformers([build(TransformConfig("affine"), (5, 5), 2), build(TransformConfig("tps"), (5, 5), 2)])
    nn.init.normal_(both.transformers[1].localisation.layers[-1].weight, std=0.1)
    expected = torch.cat([transformer(features) for transformer in both.transformers], 1)
    assert torch.equal(both(features), expected) and expected.shape == (2, 4, 5, 5)
    torch.testing.assert_close(expected[:, :2], features, atol=1e-5, rtol=0)
    with pytest.raises(MistError, match="one output size"):
        ParallelTransformers([build(TransformConfig(), (5, 5)), build(TransformConfig(), (4, 5))])
    with pytest.raises(MistError, match="no transformer"):
        ParallelTransformers([])


def test_leaving_the_image_warns_once_and_stays_finite():
    transformer = saying(torch.tensor([1.0, 0, 5, 0, 1, 0]), TransformConfig("affine"), (6, 6))
    images = torch.rand(3, 1, 6, 6, requires_grad=True)
    with pytest.warns(UserWarning, match=r"reads 3 of 3 images entirely outside \(100% of all samples"):
        result = transformer(images)
    result.sum().backward()
    assert not result.any() and images.grad.isfinite().all()
    assert all(weights.grad.isfinite().all() for weights in transformer.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(WATCH + 1):
            transformer(images)
    assert transformer.warp(images).outside.tolist() == [1, 1, 1]


def test_places_that_are_no_numbers_are_named_as_such():
    transformer = build(TransformConfig("affine"), (3, 3))
    images = torch.rand(3, 1, 3, 3)
    images[1, 0, 1, 1] = math.nan
    with pytest.warns(UserWarning, match=r"is to read 1 of 3 images at places .* \(NaN\): look for NaN in the images"):
        transformer(images)


def test_the_watch_comes_again():
    transformer = build(TransformConfig("affine"), (3, 3))
    images = torch.rand(1, 1, 3, 3)
    transformer(images)
    transformer.localisation.layers[-1].bias.data[2] = 9
    for _ in range(WATCH - 1):
        transformer(images)
    with pytest.warns(UserWarning, match="1 of 1 images"):
        transformer(images)


@pytest.mark.parametrize("value", [1e4, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_huge_parameters_are_finite(kind, value):
    config = IDENTITIES[kind]
    images = torch.rand(2, 1, 5, 5, requires_grad=True)
    transformer = saying(torch.full((config.parameters,), value), config, (5, 5))
    transformer._warned = True
    transformer(images).sum().backward()
    assert images.grad.isfinite().all()
    assert all(weights.grad.isfinite().all() for weights in transformer.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_one_pixel(kind):
    images = torch.rand(2, 3, 1, 1)
    network = FullyConnectedLocalisation(3, IDENTITIES[kind].parameters)
    wide = SpatialTransformer(network, IDENTITIES[kind], (3, 3))(images)
    torch.testing.assert_close(wide[..., 1:2, 1:2], images)
    assert wide.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(kind):
    """Cast or under autocast: the grid is that of float32, so only the features are rounded."""
    transformer = build(IDENTITIES[kind], (60, 60))
    images = torch.rand(2, 1, 60, 60).bfloat16()
    cast = copy.deepcopy(transformer).to(torch.bfloat16)
    torch.testing.assert_close(cast(images), images, atol=1e-4, rtol=0)  # rounding of theta would move it by .02
    assert cast.warp(images).grid.dtype == torch.float32
    nn.init.normal_(transformer.localisation.layers[-1].weight, std=0.05)
    plain = transformer.warp(images.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = transformer.warp(images.float())
    assert mixed.features.dtype == torch.float32
    by_hand = transformer._grid(mixed.parameters.flatten(0, 1))
    torch.testing.assert_close(mixed.grid, by_hand, atol=0, rtol=0)
    torch.testing.assert_close(mixed.parameters, plain.parameters, atol=0.05, rtol=0)


def test_constants_stay_exact_whatever_the_casts():
    transformer = build(TransformConfig("tps"), (7, 7))
    exact = copy.deepcopy(transformer).double()
    there_and_back = copy.deepcopy(transformer).half().double()
    for name, value in exact.named_buffers():
        assert torch.equal(value, there_and_back.get_buffer(name)), name
    assert (exact.start.view(16, 2) - exact.control).abs().max() == 0
    assert not any("influence" in name for name in transformer.state_dict())


def test_own_affine_equals_the_functions():
    theta = torch.tensor([0.9, 0.2, 0.1, -0.2, 0.8, 0.0])
    images = torch.rand(2, 1, 5, 7)
    expected = sample(images, affine_grid(theta.expand(2, -1), 5, 7))
    torch.testing.assert_close(saying(theta, TransformConfig("affine"), (5, 7))(images), expected)


def test_parameter_groups():
    model = nn.Sequential(build(TransformConfig("affine"), (5, 5)), nn.Flatten(), nn.Linear(25, 3))
    rest, localisation = parameter_groups(model, 0.1, 0.5)
    assert rest["lr"] == 0.1 and localisation["lr"] == pytest.approx(0.05)
    assert [id(part) for part in rest["params"]] == [id(part) for part in model[2].parameters()]
    own = {id(part) for part in model[0].localisation.parameters()}
    assert {id(part) for part in localisation["params"]} == own and len(localisation["params"]) == len(own)
    torch.optim.SGD([rest, localisation], lr=1.0)
    (alone,) = parameter_groups(model[0], 0.1, 0.5)
    assert alone["lr"] == pytest.approx(0.05)
    with pytest.raises(MistError, match="no SpatialTransformer"):
        parameter_groups(model[2], 0.1, 0.5)
    with pytest.raises(MistError, match="0 or more"):
        parameter_groups(model, -0.1, 0.5)


def test_localisation_networks_of_the_paper():
    """Three layers of 32 units; two convolutions of 20 filters, on half the size, and 20 units: counted by hand."""
    dense = FullyConnectedLocalisation(42 * 42, 6)
    assert sum(part.numel() for part in dense.parameters()) == 1765 * 32 + 2 * 33 * 32 + 33 * 6
    convolutional = ConvolutionalLocalisation(1, (42, 42), 6)
    flat = 20 * 4 * 4  # 42 -> 21 -> 17 -> 8 -> 4
    expected = 26 * 20 + (20 * 25 + 1) * 20 + (flat + 1) * 20 + 21 * 6
    assert sum(part.numel() for part in convolutional.parameters()) == expected
    assert convolutional(torch.rand(2, 1, 42, 42)).shape == (2, 6)
    assert ConvolutionalLocalisation(3, (28, 60), 6)(torch.rand(2, 3, 28, 60)).shape == (2, 6)
    with pytest.raises(MistError, match="27 x 42 is too small"):
        ConvolutionalLocalisation(1, (27, 42), 6)


def test_refusals():
    with pytest.raises(MistError, match=r"ends in 5 outputs, but 1 x affine needs 6"):
        SpatialTransformer(FullyConnectedLocalisation(9, 5), TransformConfig("affine"), (3, 3))
    with pytest.raises(MistError, match="no dense layer"):
        SpatialTransformer(nn.Flatten(), TransformConfig("affine"), (3, 3))
    with pytest.raises(MistError, match="reads nothing"):
        SpatialTransformer(FullyConnectedLocalisation(9, 6), TransformConfig("affine"), (0, 3))
    with pytest.raises(MistError, match=r"start is \(1, 5\)"):
        build(TransformConfig("affine"), (3, 3), start=torch.zeros(1, 5))
    with pytest.raises(MistError, match="transform.scale=0"):
        TransformConfig("translation", scale=0)
    with pytest.raises(MistError, match="transform.scale=nan"):
        TransformConfig("translation", scale=math.nan)
    with pytest.raises(MistError, match="transform.side=1"):
        TransformConfig("tps", side=1)
    with pytest.raises(MistError, match="units=0"):
        FullyConnectedLocalisation(9, 6, units=0)
    with pytest.raises(MistError, match="must be finite and 0 or more"):
        parameter_groups(build(TransformConfig("affine"), (3, 3)), math.nan, 0.1)
    transformer = build(TransformConfig("affine"), (3, 3))
    with pytest.raises(MistError, match=r"can't read \(2, 1, 0, 3\)"):
        transformer(torch.zeros(2, 1, 0, 3))
    transformer.localisation = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    with pytest.raises(MistError, match=r"gave \(2, 4\), but 1 x affine needs \(2, 6\)"):
        transformer(torch.zeros(2, 1, 3, 3))
    transformer.localisation = nn.Sequential(nn.Flatten(0), nn.Linear(18, 6), nn.Unflatten(0, (1, 6)))
    with pytest.raises(MistError, match=r"gave \(1, 6\), but 1 x affine needs \(2, 6\)"):
        transformer(torch.zeros(2, 1, 3, 3))
    with pytest.raises(MistError, match=r"of torch.uint8: give images .* as floats \(images.float\(\) / 255\)"):
        transformer(torch.zeros(2, 1, 3, 3, dtype=torch.uint8))
    transformer.localisation = nn.Sequential(nn.Flatten(), nn.LSTM(9, 6))
    with pytest.raises(MistError, match=r"gave a tuple, but 1 x affine needs \(2, 6\)"):
        transformer(torch.zeros(2, 1, 3, 3))
    with pytest.raises(MistError, match="no weights yet: run it on an image before"):
        SpatialTransformer(nn.Sequential(nn.Flatten(), nn.LazyLinear(6)), TransformConfig("affine"), (3, 3))


@pytest.mark.plain
def test_what_has_another_type_is_refused():
    with pytest.raises(MistError, match="transform.side=2.5"):
        TransformConfig("tps", side=2.5)
    for size in (4, (4.5, 4), (4, 4, 4)):
        with pytest.raises(MistError, match="give rows and columns of the output"):
            SpatialTransformer(FullyConnectedLocalisation(9, 6), TransformConfig("affine"), size)
    with pytest.raises(MistError, match="give a TransformConfig"):
        SpatialTransformer(FullyConnectedLocalisation(9, 6), "affine", (3, 3))
    with pytest.raises(MistError, match="are SpatialTransformers"):
        ParallelTransformers([nn.Linear(3, 3)])


@pytest.mark.plain
def test_localisation_networks_refuse_maps_of_another_size():
    with pytest.raises(MistError, match=r"reads 9 numbers, got \(1, 1, 1\): give inputs=1"):
        build(TransformConfig("affine"), (3, 3))(torch.zeros(2, 1, 1, 1))
    network = ConvolutionalLocalisation(1, (28, 28), 6)
    for shape in ((2, 1, 1, 1), (2, 1, 30, 28), (2, 2, 28, 28)):
        with pytest.raises(MistError, match=r"reads maps of \(1, 28, 28\), got"):
            network(torch.zeros(shape))


def test_state_round_trip():
    source, target = build(TransformConfig("tps"), (5, 5)), build(TransformConfig("tps"), (5, 5))
    nn.init.normal_(source.localisation.layers[-1].weight, std=0.1)
    target.load_state_dict(source.state_dict())
    images = torch.rand(2, 1, 5, 5)
    assert torch.equal(source(images), target(images))


@pytest.mark.plain
def test_an_unknown_transform_is_named():
    with pytest.raises(MistError, match="kind='rigid' must be affine or attention"):
        TransformConfig("rigid")


@pytest.mark.plain
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_whole(kind):
    """One graph, the same output and gradient."""
    transformer = build(IDENTITIES[kind], (7, 6))
    nn.init.normal_(transformer.localisation.layers[-1].weight, std=0.1)
    compiled = torch.compile(transformer, backend="aot_eager", fullgraph=True)
    images = torch.rand(2, 1, 7, 6)
    weight = transformer.localisation.layers[-1].weight
    expected, found = transformer(images), compiled(images)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(result.square().sum(), weight)[0] for result in (expected, found)]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.plain
@pytest.mark.parametrize("kind", ["affine", "attention"])
def test_exports(kind):
    """Any batch size, in evaluation."""
    transformer = build(IDENTITIES[kind], (7, 6)).eval()
    nn.init.normal_(transformer.localisation.layers[-1].weight, std=0.1)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(transformer, (torch.rand(2, 1, 7, 6),), dynamic_shapes=shapes)
    images = torch.rand(5, 1, 7, 6)
    torch.testing.assert_close(program.module()(images), transformer(images))


@pytest.mark.plain
@pytest.mark.parametrize("kind", ["affine", "attention"])
def test_onnx(kind, tmp_path):
    pytest.importorskip("onnxscript", reason="the ONNX export of torch needs onnx and onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="runs what was exported")
    transformer = build(IDENTITIES[kind], (7, 6)).eval()
    nn.init.normal_(transformer.localisation.layers[-1].weight, std=0.1)
    images = torch.rand(2, 1, 7, 6)
    path = tmp_path / "transformer.onnx"
    torch.onnx.export(transformer, (images,), path, dynamo=True)
    session = runtime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), transformer(images).detach(), atol=1e-5, rtol=0)
