"""Backbones: weights from files, receptive fields, and frozen statistics."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50

from mistnn.errors import MistError
from mistnn.nn import backbones
from mistnn.nn.backbones import Backbone, BackboneConfig


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    """A whole ResNet34 with random weights and statistics that are not the initial ones."""
    torch.manual_seed(1)
    network = resnet34()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def loaded(weights: Path | str, tuned: bool = False) -> Backbone:
    backbone = Backbone(BackboneConfig(weights=str(weights), tuned=tuned))
    backbone.load_pretrained()
    return backbone


def as_file(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.clone() for name, value in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["resnet34.pth", "resnet34.safetensors"])
def test_a_whole_network_is_cut_after_the_fourth_block(whole, name, tmp_path):
    """The features equal those of torchvision's layers for the normalised image."""
    backbone = loaded(as_file(whole.state_dict(), tmp_path / name))
    images = torch.rand(2, 3, 64, 96)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = (images - mean) / std
    for layer in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        expected = getattr(whole, layer)(expected)
    found = backbone(images)
    assert found.shape == (2, 256, 4, 6)
    torch.testing.assert_close(found, expected)


def test_old_files_lack_counters(whole, tmp_path):
    tensors = {name: value for name, value in whole.state_dict().items() if "num_batches" not in name}
    loaded(as_file(tensors, tmp_path / "old.pth"))


def test_size_is_rounded_up():
    assert Backbone(BackboneConfig())(torch.rand(1, 3, 33, 16)).shape == (1, 256, 3, 1)


def test_frozen(whole, tmp_path):
    backbone = loaded(as_file(whole.state_dict(), tmp_path / "a.pth")).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(part.requires_grad for part in backbone.parameters())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert not backbone(torch.rand(2, 3, 32, 32, requires_grad=True)).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_tuned_has_gradients_but_keeps_its_statistics():
    backbone = Backbone(BackboneConfig(tuned=True)).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())


def test_an_image_does_not_depend_on_its_mates():
    backbone, images = Backbone(BackboneConfig()), torch.rand(3, 3, 48, 48)
    together, alone = backbone(images)[1:2], backbone(images[1:2])
    torch.testing.assert_close(together, alone, atol=1e-4 * together.abs().max().item(), rtol=0)


def test_where_a_cell_looks():
    """The pixels that influence a cell are centred at its position: the module's convention, by gradients."""
    backbone = Backbone(BackboneConfig(tuned=True))
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())  # every tap counts, no ReLU is shut
    image = (1 + torch.rand(1, 3, 32, 720)).requires_grad_()
    features = backbone(image)
    column = 20
    features[..., 0, column].sum().backward()
    assert image.grad is not None
    seen = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert seen[0] > 0 and seen[-1] < 719, "the image is too narrow for this test"
    middle = (seen[0] + seen[-1]).item() / 2 + 0.5
    there = backbone.to_pixels(torch.tensor([column + 0.5, 0.5]))
    assert there.tolist() == [middle, 0.5]
    torch.testing.assert_close(backbone.to_cells(there), torch.tensor([column + 0.5, 0.5]))


@pytest.mark.parametrize(("other", "word"), [(resnet18, "lacks layer1.2"), (resnet50, "shape|lacks")])
def test_weights_of_another_backbone(other, word, tmp_path):
    with pytest.raises(MistError, match=rf"another backbone than resnet34: .*({word})"):
        loaded(as_file(other().state_dict(), tmp_path / "other.pth"))


def test_weights_with_more_in_them(whole, tmp_path):
    tensors = {**whole.state_dict(), "head.weight": torch.ones(1)}
    with pytest.raises(MistError, match="head.weight, which the backbone lacks"):
        loaded(as_file(tensors, tmp_path / "more.pth"))


def test_weights_that_are_broken(whole, tmp_path):
    tensors = dict(whole.state_dict())
    tensors["bn1.bias"] = torch.full_like(tensors["bn1.bias"], torch.nan)
    with pytest.raises(MistError, match="bn1.bias holds NaN"):
        loaded(as_file(tensors, tmp_path / "nan.pth"))


def test_no_such_file(tmp_path):
    with pytest.raises(MistError, match="no such file"):
        loaded(tmp_path / "missing.pth")


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_no_weights_at_all(name, tmp_path):
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(MistError, match="can't be read"):
        loaded(tmp_path / name)


class Harmful:
    """Runs code when unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"conv1.weight": Harmful()}, tmp_path / "harm.pth")
    with pytest.raises(MistError, match="can't be read"):
        loaded(tmp_path / "harm.pth")
    assert "unpickled" not in capsys.readouterr().out


def test_a_whole_checkpoint_is_refused(whole, tmp_path):
    torch.save({"state_dict": whole.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    with pytest.raises(MistError, match=r"save model.state_dict\(\) alone"):
        loaded(tmp_path / "checkpoint.pth")


def test_hub_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(MistError, match=r"can't download https://.*resnet34.*no route to host.*weights FILE"):
        loaded(backbones.HUB)


def test_hub_reads_what_was_fetched(monkeypatch, whole, tmp_path):
    """torch.hub with a file in place of the download; the hash in the name is checked."""
    path = as_file(whole.state_dict(), tmp_path / "served.pth")
    url = f"https://example.org/resnet34-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("torchvision.models.ResNet34_Weights.IMAGENET1K_V1.value.url", url)
    asked = []

    class Answer(io.BytesIO):
        def info(self):
            return SimpleNamespace(get_all=lambda _: [])

    def serve(request):
        asked.append(request.full_url)
        return Answer(path.read_bytes())

    monkeypatch.setattr("torch.hub.urlopen", serve)
    backbone = loaded(backbones.HUB)
    assert asked == [url]
    assert torch.equal(backbone.state_dict()["body.conv1.weight"], whole.state_dict()["conv1.weight"])
    fetched = next((tmp_path / "home").rglob("resnet34-*.pth"))
    fetched.unlink()
    monkeypatch.setattr(
        "torchvision.models.ResNet34_Weights.IMAGENET1K_V1.value.url", "https://a/resnet34-00000000.pth"
    )
    with pytest.raises(MistError, match="invalid hash value"):
        loaded(backbones.HUB)


class FakeBody(nn.Module):
    """The part of timm's ``create_model(features_only=True)`` that is used."""

    default_cfg: ClassVar = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def __init__(self, strides: tuple[int, ...], pretrained: bool) -> None:
        super().__init__()
        self.strides = strides
        self.layers = nn.ModuleList(nn.Conv2d(3, 4 + stride, stride, stride) for stride in strides)
        for layer in self.layers:
            nn.init.constant_(layer.weight, 1.0 if pretrained else 0.0)
        self.feature_info = SimpleNamespace(
            reduction=lambda: list(strides), channels=lambda: [4 + stride for stride in strides]
        )

    def forward(self, images):
        return [layer(images) for layer in self.layers]


def fake_timm(strides=(4, 8, 16, 32)):
    def create_model(name, pretrained, features_only, out_indices=None):
        assert features_only
        if name == "nothing":
            raise RuntimeError("Unknown model (nothing)")
        chosen = strides if out_indices is None else tuple(strides[index] for index in out_indices)
        return FakeBody(chosen, pretrained)

    return SimpleNamespace(create_model=create_model)


def test_timm_features_at_a_sixteenth(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    backbone = Backbone(BackboneConfig(network="timm/fake", weights="hub", first=8.0))
    assert backbone.channels == 20 and backbone.mean.flatten().tolist() == [0.5] * 3
    assert backbone(torch.rand(1, 3, 32, 48)).shape == (1, 20, 2, 3)
    assert backbone.body.state_dict()["layers.0.weight"].max() == 0
    backbone.load_pretrained()
    assert backbone.body.state_dict()["layers.0.weight"].min() == 1


@pytest.mark.parametrize(("network", "channels"), [("timm/resnet18", 256), ("timm/vit_tiny_patch16_224", 192)])
def test_networks_of_timm(network, channels):
    backbone = Backbone(BackboneConfig(network=network))
    assert backbone.channels == channels
    assert backbone(torch.rand(1, 3, 224, 224)).shape == (1, channels, 14, 14)


def test_timm_without_such_features(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm((4, 8)))
    with pytest.raises(MistError, match="none at 1/16"):
        Backbone(BackboneConfig(network="timm/fake"))
    with pytest.raises(MistError, match="Unknown model"):
        Backbone(BackboneConfig(network="timm/nothing"))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"network": "resnet50"}, "network='resnet50' must be resnet34"),
        ({"network": "timm/"}, "network=.timm/. must be"),
        ({"weights": ""}, "weights=.. must be a file"),
        ({"first": 17.0}, "first=17"),
        ({"first": float("nan")}, "first=nan"),
    ],
)
def test_impossible_configurations(wrong, word):
    with pytest.raises(MistError, match=word):
        BackboneConfig(**wrong)
