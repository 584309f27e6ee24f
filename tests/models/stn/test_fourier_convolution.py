from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mistnn.models.stn import fourier_convolution
from mistnn.models.stn.fourier_convolution import FourierConvolution, transforms


@pytest.mark.parametrize("side", [7, 8, 11, 12])
@pytest.mark.parametrize("kernel", [1, 4, 5, 7])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_a_convolution(side, kernel, layout, monkeypatch):
    monkeypatch.setattr(FourierConvolution, "pays", lambda self, input: True)
    layer = FourierConvolution(3, 5, kernel).double()
    images = torch.randn(2, 3, side, side, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    wanted = F.conv2d(images, layer.weight, layer.bias)
    towards = torch.randn_like(wanted)
    arguments = (images, layer.weight, layer.bias)
    truth = torch.autograd.grad((wanted * towards).sum(), arguments)
    got = layer(images)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-10)
    for found, true in zip(torch.autograd.grad((got * towards).sum(), arguments), truth, strict=True):
        torch.testing.assert_close(found, true, atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("side", [2, 5, 6])
def test_the_matrices_are_a_fourier_transform_and_its_inverse(side):
    matrices, kept = transforms(side, 1, torch.float64), side // 2 + 1
    image = torch.randn(side, side, dtype=torch.float64)
    columns = (matrices.down @ image).view(kept, 2 * side, 1)
    rows = matrices.across @ columns
    true = torch.fft.rfft2(image.t()).t()
    torch.testing.assert_close(torch.view_as_complex(rows.view(kept, side, 2)), true)
    back = (matrices.across_back @ rows).view(2 * kept, side)
    torch.testing.assert_close(matrices.down_back @ back, image)


def test_in_float32_it_is_as_exact_as_a_convolution():
    torch.manual_seed(0)
    layer, images = FourierConvolution(84, 84, 7), torch.randn(32, 84, 17, 17)
    assert layer.pays(images)
    true = F.conv2d(images.double(), layer.weight.double(), layer.bias.double())
    plain = (F.conv2d(images, layer.weight, layer.bias) - true).abs().max()
    assert (layer(images) - true).abs().max() < 10 * plain + 1e-6


@pytest.mark.parametrize(
    "channels, side, batch, worth",
    [(84, 17, 256, True), (84, 11, 256, True), (80, 26, 256, True), (84, 17, 1, False), (4, 26, 256, False)],
)
def test_only_where_it_is_less_work(channels, side, batch, worth):
    layer, images = FourierConvolution(channels, channels, 7), torch.empty(batch, channels, side, side)
    assert layer.pays(images) is worth


def test_what_is_left_to_the_plain_convolution():
    layer, images = FourierConvolution(84, 84, 7), torch.randn(64, 84, 17, 17)
    assert layer.pays(images)
    assert not layer.pays(images[:, :, :16])
    assert not layer.pays(images.half())
    assert not layer.pays(images[:0]) and not layer.pays(images[0]) and not layer.pays(images[:, :83])
    assert not layer.pays(images[:, :, :3, :3])
    with torch.autocast("cpu", torch.bfloat16):
        assert not layer.pays(images)
        assert layer(images).dtype == torch.bfloat16
    torch.testing.assert_close(layer(images[:1, :, :16]), nn.Conv2d.forward(layer, images[:1, :, :16]))


def test_trains_after_it_was_used_without_gradients():
    fourier_convolution.transforms.cache_clear()
    layer, images = FourierConvolution(84, 84, 7), torch.randn(64, 84, 17, 17)
    with torch.inference_mode():
        layer(images)
    layer(images).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()


def test_the_weights_are_those_of_a_convolution():
    plain, layer = nn.Conv2d(3, 4, 5), FourierConvolution(3, 4, 5)
    layer.load_state_dict(plain.state_dict())
    assert list(layer.state_dict()) == ["weight", "bias"]
