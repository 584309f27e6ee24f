"""Backbones: pretrained networks that turn a photograph into a coarse map of features.

Convention: the middle of what cell (row i, column j) looks at is the point (stride j + first, stride i + first) of the
image, in pixels. A strided convolution with symmetric padding looks around its first pixel, whose centre is at 0.5; so
the cells of a ResNet are not the middles of stride x stride squares, but lie half a cell further up and left.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from mistnn.config import Config, Rule, between
from mistnn.errors import MistError

RESNET34 = "resnet34"
TIMM = "timm/"
HUB = "hub"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet, as torchvision's weights were trained with."""
STRIDE = 16
"""Pixels between two cells (MIST supplement, section A: H/16 x W/16)."""
UNUSED = ("layer4.", "fc.")
"""What follows the fourth block of a whole ResNet."""
OPTIONAL = "num_batches_tracked"
"""Ending of counters that files from before 2018 lack, and that nothing here reads."""
_KNOWN = Rule(
    lambda network: network == RESNET34 or (network.startswith(TIMM) and network != TIMM),
    f"{RESNET34}, or {TIMM}NAME for a model of timm, such as timm/resnet50",
)


@dataclass(frozen=True)
class BackboneConfig(Config):
    """Which backbone.

    Attributes:
        network: "resnet34" (paper), cut after its fourth block: 256 channels at 1/16 of the size. Or "timm/NAME": a
            model of timm with ``features_only``, whose features at 1/16 are taken; needs the extra ``timm``.
        weights: a file, ``.safetensors`` or others' ``.pth``, read once when a training begins; "hub" fetches those of
            ImageNet; random ones if not given, which are for tests. A run folder keeps the weights itself.
        tuned: whether they are trained too. Frozen in the released code; the paper doesn't say. Normalisation keeps
            the statistics of the pretraining in either case, so that an image's features don't depend on its mates.
        first: see the module's convention; 0.5 for ResNets. A network that cuts the image into squares has half of
            their side, 8 for squares of 16 px.
        digest: SHA-256 of the weights that were read, which a training fills in; a run that goes on takes no others.
    """

    section: ClassVar[str] = "model.backbone"
    network: Annotated[str, _KNOWN] = RESNET34
    weights: Annotated[str, Rule(bool, f"a file, or {HUB} to download ImageNet weights")] | None = None
    tuned: bool = False
    first: Annotated[float, between(-STRIDE, STRIDE)] = 0.5
    digest: str | None = None


class Backbone(nn.Module):
    """Images in [0, 1] to features at 1/16 of their size.

    Building it reads no weights: ``load_pretrained`` does.

    Raises:
        MistError: if a model of timm is asked for, and timm isn't installed, or has no such model.

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
        """Stays in eval mode: normalisation by running statistics, whoever asks for training."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) in [0, 1] to (batch, channels, ceil(height / 16), ceil(width / 16))."""
        with torch.set_grad_enabled(self.config.tuned and torch.is_grad_enabled()):
            features = self.body((images - self.mean) / self.std)
        return features[0] if isinstance(features, list) else features

    def to_pixels(self, cells: Tensor) -> Tensor:
        """Points of the feature map, whose first cell has its centre at 0.5, to points of the image."""
        return (cells - 0.5) * STRIDE + self.config.first

    def to_cells(self, pixels: Tensor) -> Tensor:
        """Points of the image to points of the feature map."""
        return (pixels - self.config.first) / STRIDE + 0.5

    def cells_of(self, sizes: Tensor) -> Tensor:
        """Rows and columns of the cells whose middle lies in images of (batch, 2) heights and widths; 1 or more."""
        return ((sizes - self.config.first) / STRIDE).ceil().long().clamp(min=1)

    def load_pretrained(self) -> None:
        """Reads the weights that the configuration names; random ones stay where it names none.

        Raises:
            MistError: no such file; not readable; of another backbone; or no network to fetch them from.
        """
        weights = self.config.weights
        if weights is None:
            return
        if weights != HUB:
            tensors = read_tensors(Path(weights))
        elif self.config.network == RESNET34:
            tensors = _fetched()
        else:
            tensors = timm_features(self.config.network, pretrained=True)[0].state_dict()
        unused = UNUSED if self.config.network == RESNET34 else ()
        take_weights(self.body, tensors, weights, self.config.network, unused)


def take_weights(
    body: nn.Module, tensors: Mapping[str, Tensor], source: str, network: str, unused: tuple[str, ...] = ()
) -> None:
    """Puts tensors of a file into a network that is a part of the one they were trained in.

    Args:
        body: takes them.
        tensors: by their names.
        source: the file, for messages.
        network: its name, for messages.
        unused: beginnings of the names of what the body has left out.

    Raises:
        MistError: if one is missing, has another shape, belongs nowhere or isn't finite.
    """
    wanted = body.state_dict()
    given = {name: value for name, value in tensors.items() if not name.startswith(unused)}
    needed = {name for name in wanted if not name.endswith(OPTIONAL)}
    extra = {name for name in given if name not in wanted}
    wrong = sorted(name for name in needed & set(given) if given[name].shape != wanted[name].shape)
    why = ""
    if missing := sorted(needed - set(given)):
        why = f"it lacks {missing[0]} ({len(missing)} such)"
    elif wrong:
        name = wrong[0]
        why = f"{name} has shape {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}"
    elif extra:
        why = f"it has {min(extra)}, which is not part of it ({len(extra)} such)"
    if why:
        raise MistError(
            f"{source} holds weights of another backbone than {network}: {why}; give the file that belongs to "
            "model.backbone.network"
        )
    if broken := sorted(name for name in needed if not bool(given[name].isfinite().all())):
        raise MistError(f"{source}: {broken[0]} holds NaN or infinity: fetch the file again")
    own = {name: given[name].to(value.dtype) if name in given else value for name, value in wanted.items()}
    body.load_state_dict(own)


def _resnet34() -> nn.Module:
    from torchvision.models import resnet34  # slow to import

    whole = resnet34(weights=None)
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    body = nn.Sequential()
    for name in names:
        body.add_module(name, whole.get_submodule(name))
    return body


def _fetched() -> dict[str, Tensor]:
    from torchvision.models import ResNet34_Weights

    weights = ResNet34_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:  # no network; a file that is not what its name promises
        raise MistError(
            f"model.backbone.weights={HUB}: can't fetch {weights.url} ({error}): fetch it where there is a network, "
            "and give the file with --model.backbone.weights FILE"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, without running any code that it may hold."""
    if not path.is_file():
        raise MistError(
            f"model.backbone.weights={path}: no such file; give the .pth or .safetensors of the backbone, or {HUB}"
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
            f"model.backbone.weights={path} can't be read ({first}): give a file of tensors by their names, as "
            "torchvision publishes them"
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and not value.is_complex()
        for name, value in content.items()
    ):
        raise MistError(
            f"model.backbone.weights={path} holds no tensors by their names, but a {type(content).__name__}: give the "
            "state_dict alone"
        )
    return dict(content)


def timm_features(
    network: str, pretrained: bool, stride: int = STRIDE
) -> tuple[nn.Module, int, tuple[float, ...], tuple[float, ...]]:
    """A model of timm that gives its features at one size, their channels, and the colours it was trained with.

    Args:
        network: "timm/NAME".
        pretrained: whether its weights are fetched.
        stride: pixels between two cells of the features.

    Raises:
        MistError: if timm isn't installed, or has no such model with such features.
    """
    name = network.removeprefix(TIMM)
    try:
        timm = importlib.import_module("timm")  # an extra, so a checker may not find it
    except ImportError as error:
        raise MistError(
            f"model.backbone.network={TIMM}{name} needs timm, which is not installed: pip install 'mistnn[timm]', or "
            f"give {RESNET34}"
        ) from error
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
