"""The convolution whose gradients are computed otherwise gives the results of torch's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from mistnn.nn.convolution import Convolution, gradient_of_weights

BORDERS = [(1, "replicate"), (1, "zeros"), (0, "zeros")]


@pytest.fixture(autouse=True)
def no_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def both(padding: int, mode: Any) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    layers = [kind(32, 48, 3, padding=padding, padding_mode=mode) for kind in (Convolution, nn.Conv2d)]
    layers[1].load_state_dict(layers[0].state_dict())
    return layers[0].to(memory_format=torch.channels_last), layers[1].to(memory_format=torch.channels_last)


def images(batch: int = 5) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 32, 61, 55).contiguous(memory_format=torch.channels_last)


def names(result: Tensor) -> set[str]:
    """Names of the functions behind a result."""
    return {type(result.grad_fn).__name__}


def assert_same(ours: Tensor, torchs: Tensor) -> None:
    assert (ours - torchs).abs().max() <= 2e-5 * torchs.abs().max()


@pytest.mark.parametrize(("padding", "mode"), BORDERS)
@pytest.mark.parametrize("batch", [1, 5])
def test_result_and_gradients_are_those_of_torch(padding: int, mode: str, batch: int) -> None:
    found = []
    for layer in both(padding, mode):
        given = images(batch).requires_grad_()
        result = layer(given)
        result.backward(torch.randn(result.shape, generator=torch.Generator().manual_seed(2)))
        assert given.grad is not None and layer.weight.grad is not None and layer.bias is not None
        assert layer.bias.grad is not None
        found.append((result, given.grad, layer.weight.grad, layer.bias.grad))
    assert names(found[0][0]) == {"_ConvolveBackward"} and names(found[1][0]) == {"ConvolutionBackward0"}
    for ours, torchs in zip(*found, strict=True):
        assert_same(ours, torchs)


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "height", "width"),
    [(7, 3, 4, 8, 5), (7, 3, 4, 9, 5), (3, 1, 2, 2, 2), (3, 2, 1, 1, 1), (1, 2, 3, 90, 80), (13, 2, 3, 31, 30)],
)
def test_gradient_of_weights_of_any_size(batch: int, inputs: int, outputs: int, height: int, width: int) -> None:
    """Even and odd numbers of rows; batches that fit into the cache and batches that are divided."""
    draw = torch.Generator().manual_seed(0)
    padded = torch.randn(batch, inputs, height + 2, width + 2, generator=draw, dtype=torch.float64)
    grad = torch.randn(batch, outputs, height, width, generator=draw, dtype=torch.float64)
    torchs = conv2d_weight(padded, (outputs, inputs, 3, 3), grad)
    torch.testing.assert_close(gradient_of_weights(padded, grad), torchs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("padding", "mode"), BORDERS)
def test_gradients_have_gradients(padding: int, mode: str) -> None:
    found = []
    for layer in both(padding, mode):
        given = images(2).requires_grad_()
        wanted = [given, layer.weight]
        first = torch.autograd.grad(layer(given).square().sum(), wanted, create_graph=True)
        found.append(torch.autograd.grad(torch.stack([each.square().sum() for each in first]).sum(), wanted))
    for ours, torchs in zip(*found, strict=True):
        assert_same(ours, torchs)


def test_gradients_by_torch_func() -> None:
    layer, torchs = both(1, "replicate")

    def loss(weights: dict[str, Tensor], given: Tensor) -> Tensor:
        return torch.func.functional_call(layer, weights, given).square().sum()

    found = torch.func.grad(loss)(dict(layer.named_parameters()), images())
    torchs(images()).square().sum().backward()
    assert torchs.weight.grad is not None
    assert_same(found["weight"], torchs.weight.grad)


def test_what_is_not_faster_is_left_to_torch() -> None:
    layer, _ = both(1, "replicate")
    assert names(layer(images())) == {"_ConvolveBackward"}
    assert names(layer(images().contiguous())) != {"_ConvolveBackward"}, "NCHW"
    assert names(layer(images()[:, :, :30, :30].contiguous(memory_format=torch.channels_last))) != {"_ConvolveBackward"}
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(images()).dtype == torch.bfloat16
    with torch.no_grad():
        assert layer(images()).grad_fn is None
    layer.requires_grad_(False)
    assert names(layer(images().requires_grad_())) != {"_ConvolveBackward"}, "frozen weights"


def test_with_avx512_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    layer, _ = both(1, "replicate")
    assert names(layer(images())) != {"_ConvolveBackward"}
