"""Pretrained features of a photograph at several strides.

Convention: the receptive field of cell (row i, column j) of the map at stride s is centred at the point
(s j + f, s i + f) of the image, in pixels. f is s - 0.5 for networks with the asymmetric padding of TensorFlow (timm's
names begin with ``tf_``), and 0.5 for networks with symmetric padding, such as ResNets. See ``mistnn.nn.backbones``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mistnn.config import Config, Rule, one_of
from mistnn.nn.backbones import PACKAGE, TIMM, Weights, load_pyramid, pyramid_body, with_folded_normalisation

_OF_TIMM = Rule(lambda name: name.startswith(TIMM) and name != TIMM, f"{TIMM}NAME, a model of timm")
COARSEST = 32
"""The coarsest stride; images are padded on the right and at the bottom to a multiple of it."""


@dataclass(frozen=True)
class PyramidConfig(Config):
    """The pretrained network.

    Attributes:
        network: "timm/NAME", a convolutional model of timm that supports ``features_only``.
        weights: ``PACKAGE`` for the weights of the extra "photos"; "hub" to download those of timm; a file; or ``None``
            for random weights. A run folder stores the weights.
        strides: of the feature maps that are used.
        digest: SHA-256 of the weights that were read, set by training; a resumed run accepts no others.
    """

    section: ClassVar[str] = "model.pyramid"
    network: Annotated[str, _OF_TIMM] = f"{TIMM}tf_efficientnet_lite0"
    weights: Weights = PACKAGE
    strides: Annotated[tuple[int, ...], one_of(4, 8, 16, 32)] = (8, 16, 32)
    digest: str | None = None

    def portable(self) -> PyramidConfig:
        """The configuration with the name of the file of weights instead of its path."""
        return self if self.weights is None else dataclasses.replace(self, weights=PurePath(self.weights).name)


class Pyramid(nn.Module):
    """From images in [0, 1] to features at several strides, packed into one tensor. It is never trained.

    Packed features have the coarsest stride. Finer maps are packed by ``pixel_unshuffle``, which loses nothing and
    makes one tensor of maps of several sizes, so that they can be cached and batched.

    Attributes:
        strides: of the maps: those of the configuration, but at least ``finest``.
        firsts: for each map the centre of its first cell, in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PyramidConfig, finest: int = 1) -> None:
        """Builds the network with random weights.

        Args:
            config: see there.
            finest: maps with smaller strides are reduced to this one by means. A head of linear layers that only needs
                its output at this stride gives the same, and the maps take less memory and time.
        """
        super().__init__()
        self.config = config
        self.times = [max(1, finest // stride) for stride in config.strides]
        self.strides = [stride * times for stride, times in zip(config.strides, self.times, strict=True)]
        firsts = [self.first(stride) for stride in config.strides]
        parts = zip(firsts, config.strides, self.times, strict=True)
        self.firsts = [first + (times - 1) * stride / 2 for first, stride, times in parts]
        self.body, self.channels, mean, std = pyramid_body(config.network, config.strides, config.weights)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.packed = [c * (COARSEST // s) ** 2 for c, s in zip(self.channels, self.strides, strict=True)]
        self.requires_grad_(False)
        self.eval()
        self._fast: tuple[nn.Module, nn.Module] | None = None

    def train(self, mode: bool = True) -> Pyramid:
        """Keeps eval mode, in which normalisation uses the statistics of the pretraining."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, sum of ``packed``, ceil(height / 32), ceil(width / 32))."""
        height, width = images.shape[-2:]
        normal = (images - self.mean) / self.std
        rows, columns = ((side + COARSEST - 1) // COARSEST * COARSEST for side in (height, width))
        padded = F.pad(normal, (0, columns - width, 0, rows - height))
        maps = self.fast_body()(padded.contiguous(memory_format=torch.channels_last))
        reduced = (F.avg_pool2d(one, times) if times > 1 else one for one, times in zip(maps, self.times, strict=True))
        steps = (COARSEST // stride for stride in self.strides)
        parts = zip(reduced, steps, strict=True)
        return torch.cat([F.pixel_unshuffle(one.contiguous(), step) for one, step in parts], 1)

    def fast_body(self) -> nn.Module:
        """The network with folded normalisation, made when it is first needed and after a change of the weights.

        It is the network itself if folding would change its output, and for an export.
        """
        if torch.compiler.is_exporting():
            return self.body
        if self._fast is None or self._fast[0] is not self.body:
            folded = with_folded_normalisation(self.body)
            probe = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64).to(next(self.body.parameters()))
            both = zip(self.body(probe), folded(probe), strict=True)
            same = all(bool(torch.allclose(one, other, atol=1e-4, rtol=1e-3)) for one, other in both)
            self._fast = self.body, folded if same else self.body
        return self._fast[1]

    def _apply(self, fn: Any, recurse: bool = True) -> Pyramid:
        """Forgets the faster copy when weights are moved or cast."""
        self._fast = None
        return super()._apply(fn, recurse)

    def load_state_dict(self, *given: Any, **named: Any) -> Any:
        """Forgets the faster copy when weights are loaded."""
        self._fast = None
        return super().load_state_dict(*given, **named)

    def _load_from_state_dict(self, state_dict: Any, *given: Any, **named: Any) -> None:
        """The same for the weights of a network of which this one is a part."""
        self._fast = None
        super()._load_from_state_dict(state_dict, *given, **named)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the faster copy out of copies and pickles."""
        return self.__dict__ | {"_fast": None}

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """The maps of packed features, one for each stride."""
        parts = packed.split(self.packed, dim=1)
        return [F.pixel_shuffle(part, COARSEST // stride) for part, stride in zip(parts, self.strides, strict=True)]

    def first(self, stride: int) -> float:
        """The centre of the first cell of a map of the network, in pixels."""
        return stride - 0.5 if self.config.network.startswith(f"{TIMM}tf_") else 0.5

    def load_pretrained(self) -> None:
        """Reads the weights named in the configuration, if any."""
        self._fast = None
        load_pyramid(self.body, self.config.network, self.config.strides, self.config.weights)


def resample(
    features: Float[Tensor, "batch channels rows columns"], stride: int, first: float, new: int, size: Sequence[int]
) -> Float[Tensor, "batch channels new_rows new_columns"]:
    """A feature map at another stride, interpolated at the centres of the new cells.

    Convention: old cell j is centred at ``stride`` j + ``first``, new cell j at ``new`` (j + 0.5), in pixels. Where the
    new stride is the larger one, means of old cells are interpolated. Beyond its outer cells the map is continued.

    Args:
        size: rows and columns of the result.
    """
    if new > stride:
        times = new // stride
        features, first, stride = F.avg_pool2d(features, times), first + (times - 1) * stride / 2, new
    axes = []
    for old, length in zip(features.shape[-2:], size, strict=True):
        centres = (torch.arange(length, device=features.device, dtype=features.dtype) + 0.5) * new
        axes.append(((centres - first) / stride + 0.5) * 2 / old - 1)  # in grid_sample's frame, [-1, 1]
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), -1).expand(len(features), -1, -1, -1)
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
