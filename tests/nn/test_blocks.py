from __future__ import annotations

import pytest
import torch
from torch import nn

from mistnn.nn.blocks import PooledConvolution, ResidualBlock, gaussian_window, halve, layer_norm

NORMALISATIONS = ["before", "after", "none"]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("outputs", [4, 6])
def test_shapes_and_gradients(normalisation, outputs):
    block = ResidualBlock(4, outputs, normalisation)
    result = block(torch.randn(2, 4, 7, 5))
    assert result.shape == (2, outputs, 7, 5)
    (result * torch.randn_like(result)).sum().backward()
    for name, weights in block.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all() and weights.grad.any(), name


def test_norm_before_stands_before_each_convolution():
    block = ResidualBlock(3, 3, "before")
    seen = []
    for convolution in (block.first, block.second):
        convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    block(torch.rand(2, 3, 6, 6) * 50 + 7)
    assert len(seen) == 2
    for features in seen:
        torch.testing.assert_close(features.flatten(1).mean(1), torch.zeros(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(features.flatten(1).var(1, unbiased=False), torch.ones(2), atol=1e-3, rtol=0)


def test_norm_after_is_one_module():
    block = ResidualBlock(3, 3, "after")
    assert sum(isinstance(module, torch.nn.GroupNorm) for module in block.modules()) == 1
    assert sum(isinstance(module, torch.nn.GroupNorm) for module in ResidualBlock(3, 3, "before").modules()) == 2


def test_layer_norm_is_of_one_image():
    norm = layer_norm(3)
    features = torch.randn(4, 3, 5, 5) * torch.tensor([1.0, 9.0, 0.1, 3.0]).view(4, 1, 1, 1) + 2
    result = norm(features)
    torch.testing.assert_close(result.flatten(1).mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.flatten(1).var(1, unbiased=False), torch.ones(4), atol=1e-2, rtol=0)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_gaussian_window(size):
    window = gaussian_window(size, 0.25)
    assert window.shape == (size, size) and window.max() <= 1
    torch.testing.assert_close(window, window.flip(0))
    torch.testing.assert_close(window, window.T)
    if size == 4:  # the corner pixel's centre lies 3/8 of the side off, on both axes
        assert window[0, 0].item() == pytest.approx(2.718281828 ** -(1.5**2))


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("side", [9, 10, 24, 25])
def test_a_pooled_convolution_gives_what_a_convolution_and_max_pooling_give(side: int, padding: int) -> None:
    torch.manual_seed(0)
    pooled = PooledConvolution(2, 3, 7, padding).double()
    plain = nn.Sequential(nn.Conv2d(2, 3, 7, padding=padding), nn.MaxPool2d(2)).double()
    plain[0].load_state_dict(pooled.state_dict())
    images = torch.randn(2, 2, side, side + 2, dtype=torch.float64, requires_grad=True)
    ours, theirs = pooled(images), plain(images)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-12)
    weights = torch.randn_like(ours)
    gradients = [
        torch.autograd.grad((result * weights).sum(), [images, *part.parameters()])
        for result, part in ((ours, pooled), (theirs, plain))
    ]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_a_pooled_convolution_refuses_an_even_filter() -> None:
    with pytest.raises(ValueError, match="kernel=6 is even"):
        PooledConvolution(1, 1, 6)


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (1, 1, 7, 5)])
def test_halving_is_average_pooling(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, dtype=torch.float64)
    assert torch.allclose(halve(images), nn.functional.avg_pool2d(images, 2), atol=1e-15)
