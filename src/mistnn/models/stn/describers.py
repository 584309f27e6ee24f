"""Describers: image classifiers without their last layers, as feature maps at 1/32 of the image's size.

A describer is any classifier of torchvision with such a map, which is found by running it once, or a network of timm.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.stn.config import STRIDE, DescriberConfig
from mistnn.nn.backbones import MEAN, STD, TIMM, load_weights, timm_features

PROBE = 64
"""Side of the image with which the map is found."""
OPTIONS: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {"googlenet": {"aux_logits": False, "init_weights": False, "transform_input": True}}
)
"""Options of networks: no auxiliary classifiers, and the colour transform that the weights expect."""


class Describer(nn.Module):
    """Normalised images to features at 1/32 of their size. Building it reads no weights.

    Attributes:
        channels: channels of the features.
        colours: the mean and standard deviation with which images must be normalised.

    Raises:
        MistError: if there is no such network, or it has no features at 1/32.
    """

    def __init__(self, config: DescriberConfig) -> None:
        super().__init__()
        self.config = config
        self.colours: tuple[tuple[float, ...], tuple[float, ...]] = MEAN, STD
        self._unused: tuple[str, ...] = ()
        if config.network.startswith(TIMM):
            self.body, self.channels, *colours = timm_features(config.network, pretrained=False, stride=STRIDE)
            self.colours = colours[0], colours[1]
        else:
            from torchvision.models.feature_extraction import create_feature_extractor  # slow to import

            node, self.channels = _node(config.network)
            whole = _whole(config.network)
            names = set(whole.state_dict())
            self.body = create_feature_extractor(whole, {node: "features"})
            self._unused = ("aux", *sorted(names - set(self.body.state_dict())))

    def train(self, mode: bool = True) -> Describer:
        """As ``nn.Module.train``, but fixed statistics stay in use during training."""
        return super().train(mode and self.config.statistics == "batch")

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, channels, height / 32, width / 32)."""
        found: Any = self.body(images)
        return found[0] if isinstance(found, list) else found["features"]

    def load_pretrained(self) -> None:
        """Loads the configured weights, if any; see ``load_weights``."""
        load_weights(self.body, self.config.network, self.config.weights, self._unused, STRIDE)


def _whole(network: str) -> nn.Module:
    from torchvision import models  # slow to import

    if network not in models.list_models(module=models):
        raise MistError(
            f"model.backbone.network={network!r} is unknown: give a classifier of torchvision, such as googlenet or "
            f"resnet50, or {TIMM}NAME"
        )
    return models.get_model(network, weights=None, **OPTIONS.get(network, {}))


@functools.lru_cache(maxsize=8)
def _node(network: str) -> tuple[str, int]:
    """The last node of a network with features at 1/32, and their channels."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    whole = _whole(network)
    try:
        in_training, in_use = get_graph_node_names(whole)
        both = {name: name for name in in_use if name in set(in_training)}
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            found: Mapping[str, Any] = create_feature_extractor(whole, both).eval()(torch.zeros(1, 3, PROBE, PROBE))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:  # one input size, or not traceable
        why = " ".join(str(error).split())[:120]
        raise MistError(
            f"model.backbone.network={network!r} can't be cut ({why}): give one that takes images of any size, such as "
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
            f"model.backbone.network={network!r} has no features at 1/{STRIDE} of the size: give one that has them, "
            "such as googlenet or resnet50"
        )
    return next(reversed(maps.items()))
