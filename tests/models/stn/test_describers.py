"""Describers: any classifier cut after its last map, its weights from files, its statistics."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import googlenet, resnet18

from mistnn.errors import MistError
from mistnn.models.stn import DescriberConfig
from mistnn.models.stn.describers import Describer
from tests.nn.test_backbones import as_file, fake_timm


def unlike(network: nn.Module, seed: int = 1) -> nn.Module:
    """Statistics that are not the initial ones."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=random)  # pyright: ignore
            module.running_var.uniform_(0.5, 2, generator=random)  # pyright: ignore
    return network.eval()


def test_googlenet_as_torchvision_has_it(tmp_path: Path) -> None:
    """With the side classifiers in the file, as it is published."""
    whole = unlike(googlenet(weights=None, init_weights=False, aux_logits=True, transform_input=True))
    file = as_file(whole.state_dict(), tmp_path / "googlenet.pth")
    describer = Describer(DescriberConfig(weights=str(file)))
    describer.load_pretrained()
    images, pooled = torch.randn(2, 3, 64, 64), []
    whole.avgpool.register_forward_pre_hook(lambda _, given: pooled.append(given[0]))
    with torch.inference_mode():
        whole(images)
        found = describer.eval()(images)
    assert found.shape == (2, 1024, 2, 2) and describer.channels == 1024
    torch.testing.assert_close(found, pooled[0])


@pytest.mark.parametrize(("network", "channels"), [("resnet18", 512), ("mobilenet_v3_small", 576)])
def test_others_of_torchvision(network: str, channels: int) -> None:
    describer = Describer(DescriberConfig(network)).eval()
    assert describer.channels == channels and describer(torch.rand(1, 3, 96, 64)).shape == (1, channels, 3, 2)


def test_statistics() -> None:
    images = torch.rand(2, 3, 64, 64)
    for kept in ("pretrained", "batch"):
        describer = Describer(DescriberConfig("resnet18", statistics=kept)).train()
        before = {name: value.clone() for name, value in describer.state_dict().items()}
        describer(images)
        moved = {name for name, value in describer.state_dict().items() if not torch.equal(value, before[name])}
        assert bool(moved) == (kept == "batch") and all("running" in name or "num_batches" in name for name in moved)
        both, alone = describer.eval()(images), torch.cat([describer(image[None]) for image in images])
        torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-4)


def test_wrong_weights(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(MistError, match=message) as caught:
            Describer(DescriberConfig("resnet18", str(path))).load_pretrained()
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none.pth", "no such file")
    tensors = resnet18().state_dict()
    refused(as_file({**tensors, "layer9.weight": torch.ones(1)}, tmp_path / "a.pth"), "has layer9.weight")
    lacking = {name: value for name, value in tensors.items() if name != "conv1.weight"}
    refused(as_file(lacking, tmp_path / "b.pth"), "lacks conv1.weight")
    refused(as_file({**tensors, "conv1.weight": torch.ones(3)}, tmp_path / "c.pth"), "has shape")
    Describer(DescriberConfig("resnet18", str(as_file(tensors, tmp_path / "d.safetensors")))).load_pretrained()


def test_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    describer = Describer(DescriberConfig("timm/some"))
    assert describer(torch.rand(1, 3, 64, 64)).shape[-2:] == (2, 2)
    monkeypatch.setitem(sys.modules, "timm", fake_timm((4, 8, 16)))
    with pytest.raises(MistError, match="none at 1/32"):
        Describer(DescriberConfig("timm/some"))


@pytest.mark.parametrize(("network", "channels"), [("timm/resnet18", 512), ("timm/convnext_atto", 320)])
def test_networks_of_timm(network: str, channels: int) -> None:
    describer = Describer(DescriberConfig(network)).eval()
    assert describer.channels == channels and describer(torch.rand(1, 3, 96, 64)).shape == (1, channels, 3, 2)
    with pytest.raises(MistError, match="none at 1/32"):
        Describer(DescriberConfig("timm/vit_tiny_patch16_224"))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("inception-bn", "is unknown: give a classifier of torchvision"),
        ("squeezenet1_0", "has no features at 1/32"),
        ("vit_b_16", "can't be cut"),
    ],
)
def test_networks_that_can_not_be_used(network: str, message: str) -> None:
    with pytest.raises(MistError, match=message) as caught:
        Describer(DescriberConfig(network))
    assert "\n" not in str(caught.value)


def test_impossible_configurations() -> None:
    for network in ("", "timm/"):
        with pytest.raises(MistError, match="model.backbone.network="):
            DescriberConfig(network)
    with pytest.raises(MistError, match="model.backbone.weights='' must be a file"):
        DescriberConfig(weights="")
