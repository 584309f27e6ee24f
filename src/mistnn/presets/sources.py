"""What a run depends on that is no part of it, by hashes: a backbone's weights, and which image is for what."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from pathlib import Path
from typing import get_args

from torch import nn

from mistnn.data import NaturalConfig, NumbersConfig, Split, SvhnConfig, read_built
from mistnn.data.house_numbers.placed_numbers import PlacedNumbers
from mistnn.data.house_numbers.svhn import SvhnImages
from mistnn.errors import MistError
from mistnn.models.mist import NaturalMist
from mistnn.models.rivals import NaturalXie20
from mistnn.presets.systems import DataConfig, ModelConfig, NaturalModelConfig
from mistnn.weights import tensor_digest


def load_backbone(model: NaturalMist | NaturalXie20) -> None:
    """Reads the weights that a system's configuration names.

    Raises:
        MistError: if they can't be read, or are others than those a run was begun with.
    """
    model.backbone.load_pretrained()
    config = model.backbone.config
    if config.digest is None or config.weights is None:
        return
    found = tensor_digest(model.backbone.body.state_dict())
    if found != config.digest:
        raise MistError(
            f"model.backbone.weights={config.weights} holds other weights (SHA-256 {found[:12]}) than those the run "
            f"was begun with ({config.digest[:12]}): give that file with --model.backbone.weights FILE"
        )


def with_digest(config: ModelConfig, model: nn.Module) -> ModelConfig:
    """A configuration that knows which weights its system's backbone has just read."""
    if not isinstance(config, NaturalModelConfig) or config.backbone.weights is None or config.backbone.digest:
        return config
    assert isinstance(model, NaturalMist | NaturalXie20)
    digest = tensor_digest(model.backbone.body.state_dict())
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, digest=digest))


def begun_with(config: ModelConfig, stored: ModelConfig) -> ModelConfig:
    """A configuration for a run that goes on, which takes over the hash of the weights that it was begun with."""
    if not isinstance(config, NaturalModelConfig) or not isinstance(stored, NaturalModelConfig):
        return config
    if config.backbone.weights is None or config.backbone.digest is not None:
        return config
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, digest=stored.backbone.digest))


def backbone_of(config: ModelConfig) -> str:
    """A backbone and the hash of its weights, for people; empty where a system has none."""
    if not isinstance(config, NaturalModelConfig):
        return ""
    backbone = config.backbone
    if backbone.weights is None:
        return f"{backbone.network} with random weights"
    return f"{backbone.network}, {backbone.weights}, SHA-256 {backbone.digest or 'unknown'}"


def split_digest(data: DataConfig) -> str:
    """The hash of the list that says which image is for what; empty where images are made on the fly.

    Convention: of photographs that of ``split.csv``; of house numbers that of the lines "split,file name", sorted.

    Raises:
        MistError: if the folder can't be used.
    """
    if isinstance(data, NaturalConfig):
        return read_built(data.root).digest
    if not isinstance(data, SvhnConfig | NumbersConfig):
        return ""
    lines: list[str] = []
    for split in get_args(Split):
        with contextlib.suppress(MistError):  # of a small folder a split may be empty
            images = SvhnImages(data, split, 1) if isinstance(data, SvhnConfig) else PlacedNumbers(data, split, 1)
            lines += [f"{split},{_name(number.path)}\n" for number in images.numbers]
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest() if lines else ""


def _name(path: Path) -> str:
    """The folder is part of it: SVHN's parts count from 1 each."""
    return f"{path.parent.name}/{path.name}"
