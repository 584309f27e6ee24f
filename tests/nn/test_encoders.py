from __future__ import annotations

import pytest
import torch
from torch import nn

from mistnn.nn.blocks import ResidualBlock
from mistnn.nn.encoders import EncoderConfig, ResidualDecoder, SmallDecoder, build_decoder, build_encoder

NETWORKS = ["paper", "released", "small", "levelled"]


def smallest(network):
    return 8 if network in ("small", "levelled") else 32


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("code", "channels"), [(0, 1), (5, 3)])
def test_shapes(network, code, channels):
    size = smallest(network)
    encoder = build_encoder(channels, size, EncoderConfig(network=network, width=2, code=code))
    result = encoder(torch.rand(3, channels, size, size))
    assert result.shape == (3, encoder.code_size)
    assert code in (0, encoder.code_size)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_gets_a_gradient(network):
    size = smallest(network)
    encoder = build_encoder(1, size, EncoderConfig(network=network, width=4, code=6))
    code = encoder(torch.rand(3, 1, size, size))
    (code * torch.randn_like(code)).sum().backward()
    for name, weights in encoder.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all() and weights.grad.any(), name


@pytest.mark.parametrize("network", NETWORKS)
def test_batch_equals_singles(network):
    size = smallest(network)
    encoder = build_encoder(1, size, EncoderConfig(network=network, width=4)).eval()
    patches = torch.rand(3, 1, size, size) * torch.tensor([1.0, 0.01, 3.0]).view(3, 1, 1, 1)
    singles = torch.cat([encoder(patch[None]) for patch in patches])
    torch.testing.assert_close(encoder(patches), singles, atol=1e-5, rtol=1e-4)


def test_the_paper_encoder_is_as_in_the_paper():
    """Five levels of three blocks whose channels double, a normalisation before each 3x3 convolution, max pooling."""
    encoder = build_encoder(1, 32, EncoderConfig(network="paper"))
    blocks = [part for part in encoder.modules() if isinstance(part, ResidualBlock)]
    assert [block.second.out_channels for block in blocks] == [w for w in (8, 16, 32, 64, 128) for _ in range(3)]
    assert all(isinstance(block.norm_first, nn.GroupNorm) for block in blocks)
    assert all(isinstance(block.norm_second, nn.GroupNorm) for block in blocks)
    assert sum(isinstance(part, nn.MaxPool2d) for part in encoder.modules()) == 5
    assert encoder.code_size == 128


def test_the_released_classifier_has_its_size():
    """2,096,698 parameters with the dense layer to ten classes, three input channels."""
    encoder = build_encoder(3, 32, EncoderConfig(network="released"))
    head = nn.Linear(encoder.code_size, 10)
    assert sum(weights.numel() for module in (encoder, head) for weights in module.parameters()) == 2_096_698


def test_decoder():
    decoder = SmallDecoder(code=5, channels=3, size=16, width=4)
    decoded = decoder(torch.randn(7, 5))
    assert decoded.shape == (7, 3, 16, 16) and decoded.min() > 0 and decoded.max() < 1
    assert decoded.mean() < 0.3  # starts nearly empty
    (decoded * torch.randn_like(decoded)).sum().backward()
    for name, weights in decoder.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all() and weights.grad.any(), name


@pytest.mark.parametrize(("network", "size"), [("paper", 24), ("released", 16), ("small", 12)])
def test_patch_sizes_that_do_not_halve_are_named(network, size):
    with pytest.raises(ValueError, match=f"got {size}"):
        build_encoder(1, size, EncoderConfig(network=network))


def test_decoder_sizes_that_do_not_double_are_named():
    with pytest.raises(ValueError, match="got 12"):
        SmallDecoder(4, 1, 12, 4)


def test_seeds_reproduce():
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        encoder = build_encoder(1, 8, EncoderConfig(network="small", width=2))
        weights.append(torch.cat([part.flatten() for part in encoder.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_paper_auto_encoder_layer_by_layer():
    """Five levels of three blocks, channels doubling down and halving up, 32 -> 1 -> 32 pixels (supplement C.1)."""
    encoder, decoder = build_encoder(1, 32, EncoderConfig("paper", 8)), build_decoder(128, 1, 32, "paper", 8)
    blocks = [layer for layer in encoder.layers if isinstance(layer, ResidualBlock)]
    assert [block.second.out_channels for block in blocks] == [c for c in (8, 16, 32, 64, 128) for _ in range(3)]
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in encoder.layers) == 5
    assert isinstance(decoder, ResidualDecoder)
    blocks = [layer for layer in decoder.layers if isinstance(layer, ResidualBlock)]
    assert [block.second.out_channels for block in blocks] == [c for c in (128, 64, 32, 16, 8) for _ in range(3)]
    grown = [layer for layer in decoder.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [(layer.kernel_size, layer.stride) for layer in grown] == [((2, 2), (2, 2))] * 5
    for block in blocks:
        assert isinstance(block.norm_first, nn.GroupNorm) and isinstance(block.norm_second, nn.GroupNorm)
    features = torch.rand(2, 128)
    sides = []
    for layer in decoder.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    assert decoder(features).shape == (2, 1, 32, 32) and sides == [2, 4, 8, 16, 32]
    assert sum(part.numel() for module in (encoder, decoder) for part in module.parameters()) == 2_388_443


@pytest.mark.parametrize(("family", "size"), [("paper", 32), ("small", 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoders(family, size, channels):
    decoder = build_decoder(6, channels, size, family, 4)
    result = decoder(torch.randn(5, 6))
    assert result.shape == (5, channels, size, size)
    assert 0 < result.min() and result.max() < 1 and result.mean() < 0.3  # patches start nearly empty
    result.square().mean().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in decoder.parameters())


@pytest.mark.plain
def test_decoder_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="32"):
        ResidualDecoder(8, 1, 24, 4)


def test_levelled_patches_have_the_same_code_in_any_light():
    encoder = build_encoder(3, 8, EncoderConfig(network="levelled", width=4)).eval()
    patch = torch.rand(1, 3, 8, 8) * 0.6
    bright, faint = patch + 0.3, patch * 0.5
    torch.testing.assert_close(encoder(bright), encoder(patch), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder(faint), encoder(patch), atol=0.02, rtol=0.02)
    plain = build_encoder(3, 8, EncoderConfig(network="small", width=4)).eval()
    plain.load_state_dict(encoder.state_dict())
    assert (plain(bright) - plain(patch)).abs().max() > 0.01
    by_hand = (patch - patch.mean()) / (patch.var(correction=0) + 0.02**2).sqrt()
    torch.testing.assert_close(encoder(patch), plain(by_hand))


def test_a_flat_patch_has_finite_gradients():
    encoder = build_encoder(1, 8, EncoderConfig(network="levelled", width=4))
    patches = torch.ones(1, 1, 8, 8, requires_grad=True)
    encoder(patches).square().sum().backward()
    assert patches.grad is not None and patches.grad.isfinite().all()
