"""Describers: whole image classifiers without their last layers, as maps of features at 1/32 of the size.

Any network of torchvision that classifies images and has such a map, found by running it once; or one of timm.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.nn.backbones import HUB, MEAN, STD, TIMM, read_tensors, take_weights, timm_features

STRIDE = 32
"""Pixels between two cells; 224 px make the paper's 7 x 7 (S003, section 1.5)."""
PROBE = 64
"""Side of the image by which the map is found."""
OPTIONS: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {"googlenet": MappingProxyType({"aux_logits": False, "init_weights": False, "transform_input": True})}
)
"""Of networks that need some: without side classifiers, and with the change of colours that its weights expect."""

Statistics = Literal["batch", "pretrained"]


@dataclass(frozen=True)
class DescriberConfig:
    """Which network describes an image.

    Attributes:
        network: the name of a classifier of torchvision, or "timm/NAME", which needs the extra ``timm``. "googlenet" is
            torchvision's Inception with batch normalisation, 1024 features, as the paper's is (S003, section 1.5).
        weights: a file, ``.safetensors`` or others' ``.pth``, read once when a training begins; "hub" fetches those of
            ImageNet; random ones if not given. A run folder keeps the weights itself.
        statistics: what normalisation goes by in training: the "batch" (as usual), or the running statistics of the
            "pretrained" weights, kept as they are. Once trained it goes by running statistics in either case.
    """

    network: str = "googlenet"
    weights: str | None = None
    statistics: Statistics = "batch"

    def __post_init__(self) -> None:
        """Refuses values that no describer can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        if self.network in ("", TIMM):
            raise MistError(f"model.backbone.network={self.network!r} names no network: give googlenet or {TIMM}NAME")
        if self.weights == "":
            raise MistError(f"model.backbone.weights is empty: give a file, or {HUB} to fetch the ones of ImageNet")
        if self.statistics not in get_args(Statistics):
            raise MistError(
                f"model.backbone.statistics={self.statistics!r} is unknown: use {' or '.join(get_args(Statistics))}"
            )


class Describer(nn.Module):
    """Normalised images to features at 1/32 of their size. Building it reads no weights.

    Attributes:
        channels: of the features.
        colours: mean and standard deviation that images are to be normalised by.

    Raises:
        MistError: if there is no such network, or it has no features at 1/32.
    """

    def __init__(self, config: DescriberConfig) -> None:
        super().__init__()
        self.config = config
        self.colours: tuple[tuple[float, ...], tuple[float, ...]] = MEAN, STD
        if config.network.startswith(TIMM):
            self.body, self.channels, *colours = timm_features(config.network, pretrained=False, stride=STRIDE)
            self.colours = colours[0], colours[1]
            self._unused: tuple[str, ...] = ()
        else:
            node, self.channels = _node(config.network)
            whole = _whole(config.network)
            names = set(whole.state_dict())
            self.body = _cut(whole, {node: "features"})
            self._unused = ("aux", *sorted(names - set(self.body.state_dict())))

    def train(self, mode: bool = True) -> Describer:
        """Statistics that are kept are used in training too."""
        return super().train(mode and self.config.statistics == "batch")

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, channels, height / 32, width / 32)."""
        found: Any = self.body(images)
        return found[0] if isinstance(found, list) else found["features"]

    def load_pretrained(self) -> None:
        """Reads the weights that the configuration names; random ones stay where it names none.

        Raises:
            MistError: no such file; not readable; of another network; or no network to fetch them from.
        """
        network, weights = self.config.network, self.config.weights
        if weights is None:
            return
        if weights != HUB:
            tensors = read_tensors(Path(weights))
        elif network.startswith(TIMM):
            tensors = timm_features(network, pretrained=True, stride=STRIDE)[0].state_dict()
        else:
            tensors = _fetched(network)
        take_weights(self.body, tensors, weights, network, self._unused)


def _whole(network: str) -> nn.Module:
    from torchvision import models  # slow to import

    if network not in models.list_models(module=models):
        raise MistError(
            f"model.backbone.network={network!r} is unknown: give a classifier of torchvision, such as googlenet or "
            f"resnet50, or {TIMM}NAME"
        )
    return models.get_model(network, weights=None, **OPTIONS.get(network, {}))


def _cut(whole: nn.Module, nodes: dict[str, str]) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(whole, return_nodes=nodes)


@functools.lru_cache(maxsize=8)
def _node(network: str) -> tuple[str, int]:
    """The last step of a network with features at 1/32, and their channels."""
    from torchvision.models.feature_extraction import get_graph_node_names

    whole = _whole(network)
    try:
        in_training, in_use = get_graph_node_names(whole)
        both = {name: name for name in in_use if name in set(in_training)}
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            found: Mapping[str, Any] = _cut(whole, both).eval()(torch.zeros(1, 3, PROBE, PROBE))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:  # networks of one size, or not traceable
        why = " ".join(str(error).split())[:120]
        raise MistError(
            f"model.backbone.network={network!r} can't be cut ({why}): give one that reads images of any size, such as "
            "googlenet or resnet50"
        ) from error
    side = PROBE // STRIDE
    maps = {
        name: value.shape[1]
        for name, value in found.items()
        if isinstance(value, Tensor) and value.dim() == 4 and tuple(value.shape[2:]) == (side, side)
    }
    if not maps:
        raise MistError(
            f"model.backbone.network={network!r} has no features at 1/{STRIDE} of the size: give one that has, such as "
            "googlenet or resnet50"
        )
    return next(reversed(maps.items()))


def _fetched(network: str) -> dict[str, Tensor]:
    from torchvision import models

    weights: Any = models.get_model_weights(network)
    try:
        default = weights.DEFAULT
        return default.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise MistError(
            f"model.backbone.weights={HUB}: can't fetch those of {network} ({error}): fetch them where there is a "
            "network, and give the file with --model.backbone.weights FILE"
        ) from error
