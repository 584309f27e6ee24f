from __future__ import annotations

import pytest
import torch
from torch import nn

from mistnn.errors import MistError
from mistnn.nn.blocks import ResidualBlock
from mistnn.nn.heatmap import HeatmapConfig, build_heatmap_network

NETWORKS = ["paper", "released", "half", "small"]


def build(network, **changes):
    return build_heatmap_network(1, HeatmapConfig(network=network, channels=4, blocks=1, **changes)).eval()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 12), (11, 7)])
def test_one_score_a_pixel(network, height, width):
    assert build(network)(torch.rand(2, 1, height, width)).shape == (2, height, width)


@pytest.mark.parametrize("network", ["paper", "half", "small"])
def test_one_pixel(network):
    assert build(network)(torch.rand(1, 1, 1, 1)).shape == (1, 1, 1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("normalisation", ["none", "before", "after"])
def test_every_parameter_gets_a_gradient(network, normalisation):
    module = build(network, normalisation=normalisation)
    scores = module(torch.rand(2, 1, 12, 12))
    (scores * torch.randn_like(scores)).sum().backward()
    for name, weights in module.named_parameters():
        assert weights.grad is not None and weights.grad.isfinite().all() and weights.grad.any(), name


@pytest.mark.parametrize("network", NETWORKS)
def test_batch_equals_singles(network):
    """The batch statistics of the released code violated this."""
    module = build(network)
    images = torch.rand(3, 1, 14, 14) * torch.tensor([1.0, 0.1, 0.5]).view(3, 1, 1, 1)
    torch.testing.assert_close(module(images), torch.cat([module(image[None]) for image in images]))
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


@pytest.mark.parametrize("network", ["paper", "half", "small"])
def test_the_margin_is_the_reach_of_a_pixel(network):
    module = build_heatmap_network(1, HeatmapConfig(network=network, channels=4, blocks=2, normalisation="none"))
    side = 2 * module.margin + 20
    for place in ((side // 2, side // 2), (side // 2 + 1, side // 2)):  # both phases of the half resolution
        images = torch.rand(1, 1, side, side, requires_grad=True)
        (gradient,) = torch.autograd.grad(module(images)[0, place[0], place[1]], images)
        rows, columns = gradient[0, 0].nonzero().unbind(1)
        reach = max((rows - place[0]).abs().max().item(), (columns - place[1]).abs().max().item())
        assert 0 < reach <= module.margin


def test_the_released_network_has_its_size():
    """74,407 with the batch normalisation of the three input channels, which is omitted here: 6 less."""
    module = build_heatmap_network(3, HeatmapConfig(network="released", channels=32, blocks=4))
    assert sum(weights.numel() for weights in module.parameters()) == 74_401


def test_the_paper_network_is_as_in_the_paper():
    """Four blocks of two 3x3 convolutions with 32 channels, no downsampling."""
    module = build_heatmap_network(1, HeatmapConfig())
    blocks = [part for part in module.modules() if isinstance(part, ResidualBlock)]
    assert len(blocks) == 4
    for block in blocks:
        for convolution in (block.first, block.second):
            assert convolution.weight.shape == (32, 32, 3, 3) and convolution.stride == (1, 1)


@pytest.mark.parametrize("network", ["paper", "half", "small"])
def test_starts_as_a_measure_of_energy(network):
    """Empty background has the lowest initial scores, so that the first keypoints are on objects.

    The released network's normalisation rescales every image: there energy has no scale.
    """
    module = build_heatmap_network(1, HeatmapConfig(network=network, channels=16, blocks=2))
    image = torch.zeros(1, 1, 40, 40)
    image[..., 16:24, 16:24] = torch.rand(8, 8)
    with torch.no_grad():
        scores = module(image)[0]
    assert scores[18:22, 18:22].mean() > scores[:5, :5].max()
    assert (scores >= 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_energy_start_leans_to_no_side(network):
    """A symmetric blob gives symmetric scores."""
    image = torch.zeros(1, 1, 32, 32)
    image[..., 12:20, 12:20] = 1.0
    with torch.no_grad():
        scores = build(network)(image)
    torch.testing.assert_close(scores, scores.flip(-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores, scores.flip(-2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_flat_image_has_flat_scores_up_to_the_border(network):
    module = build(network)
    with torch.no_grad():
        for part in module.parameters():
            part.add_(0.05 * torch.randn_like(part))  # biases that padding with zeros would show
        scores = module(torch.full((1, 1, 40, 40), 0.3))
    assert scores.var() < 1e-8 if network in ("paper", "released") else scores[0, ::2, ::2].var() < 1e-8


@pytest.mark.parametrize("network", ["paper", "half", "small"])
def test_random_start_is_another(network):
    assert not torch.equal(build(network).entry.weight, build(network, start="random").entry.weight)
    assert (build(network, start="random").score.weight < 0).any()


def test_seeds_reproduce():
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        weights.append(torch.cat([part.flatten() for part in build("paper").parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("network", ["paper", "half", "small"])
def test_contrast_start_ignores_flat_background_of_any_brightness(network):
    torch.manual_seed(1)
    module = build(network, start="contrast")
    black, white = module(torch.zeros(1, 1, 20, 20)), module(torch.ones(1, 1, 20, 20))
    torch.testing.assert_close(black, white, atol=1e-5, rtol=0)
    image = torch.full((1, 1, 20, 20), 0.5)
    image[..., 8:12, 8:12] += 0.4
    darker = torch.full((1, 1, 20, 20), 0.5)
    darker[..., 8:12, 8:12] -= 0.4
    for one in (image, darker):
        assert module(one)[0, 6:14, 6:14].max() > black.max() + 0.01
    energy = build(network, start="energy")
    assert (energy(torch.ones(1, 1, 20, 20)) - energy(torch.zeros(1, 1, 20, 20))).abs().max() > 0.01


def test_contrast_start_needs_an_entry_that_compares():
    with pytest.raises(MistError, match="paper, half or small"):
        build("released", start="contrast")
