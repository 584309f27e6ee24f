"""Spatial transformers: a localisation network, a grid generator and a sampler.

Convention: the frame of the parameters is that of ``mistnn.ops.transforms``, [-1, 1] over the feature map.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from mistnn.config import Config, Rule
from mistnn.errors import MistError, MistWarning
from mistnn.ops import transforms as ops

Kind = Literal["affine", "attention", "translation", "projective", "tps"]
WATCH = 100
"""Calls between checks for samples outside the image (ours)."""

_SHARE = Rule(lambda share: 0 < share <= 1, "above 0 and at most 1: a share of the image's sides")
_SEVERAL = Rule(lambda side: isinstance(side, int) and side >= 2, "a whole number of 2 or more")


@dataclass(frozen=True)
class TransformConfig(Config):
    """The transform.

    Attributes:
        kind: "affine" (6 parameters), "attention" (scale and position, 3), "translation" (position at a fixed scale,
            2), "projective" (8) or "tps" (thin plate spline, 32 for 16 control points).
        scale: for "translation", the side of the window as a share of the input's; 0.5 in the supplement (section 1.5).
        side: for "tps", the number of control points along a side; 4 according to public summaries of the paper.
    """

    section: ClassVar[str] = "transform"
    kind: Kind = "affine"
    scale: Annotated[float, _SHARE] = 0.5
    side: Annotated[int, _SEVERAL] = 4

    @property
    def parameters(self) -> int:
        """The number of parameters of one transform."""
        return len(self.start())

    def start(self) -> Tensor:
        """The initial parameters in float64: the identity; for "translation", the window in the centre."""
        if self.kind == "tps":
            return ops.control_lattice(self.side).flatten()
        identity = {
            "affine": (1, 0, 0, 0, 1, 0),
            "attention": (1, 0, 0),
            "translation": (0, 0),
            "projective": (1, 0, 0, 0, 1, 0, 0, 0),
        }
        return torch.tensor(identity[self.kind], dtype=torch.float64)


_GRIDS = {"affine": ops.affine_grid, "attention": ops.attention_grid, "projective": ops.projective_grid}


class Warp(NamedTuple):
    """The result of a spatial transformer.

    Attributes:
        features: (batch, number x channels, height, width), the sampled features.
        parameters: (batch, number, parameters), theta, at least in float32.
        grid: (batch x number, height, width, 2), the sampling positions.
    """

    features: Tensor
    parameters: Tensor
    grid: Tensor

    @property
    def outside(self) -> Tensor:
        """(batch x number,), the share of samples outside the feature map."""
        return ops.share_outside(self.grid)


class SpatialTransformer(nn.Module):
    """Samples a feature map with a transform that the localisation network predicts for each image.

    The initial transform is the identity: the last dense layer of the localisation network is set to zero, and its
    output is added to the parameters of the identity. (This is the supplement's bias, as a constant, so that weight
    decay pulls towards the identity and half precision does not round it.) Grids and samples are computed at least in
    float32, under mixed precision too.

    The first and then every ``WATCH``-th call checks for images that are sampled entirely outside or at NaN, and warns
    once. These calls wait for the device. A compiled or exported transformer does not check. ``warp(features).outside``
    is the share to log.

    Args:
        localisation: any network from the feature map to (batch, number x parameters) whose last layer is the dense
            layer that it defines last; those in ``mistnn.nn.localisation`` are the paper's.
        transform: the kind of transform.
        size: rows and columns of the output.
        number: transforms that the localisation network predicts; the samples are concatenated along the channels.
        start: (number, parameters), initial parameters in place of the identity; for instance windows that tile the
            image.

    Raises:
        MistError: if the localisation network doesn't end in a dense layer of the right size with weights, or another
            argument is wrong.

    Reference: Jaderberg et al. (2015), and its supplement, sections 1.3 and 1.5.
    """

    start: Tensor
    control: Tensor
    influence: Tensor

    def __init__(
        self,
        localisation: nn.Module,
        transform: TransformConfig,
        size: tuple[int, int],
        number: int = 1,
        start: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(transform, TransformConfig):
            raise MistError(f"transform is {transform!r}: give a TransformConfig, such as TransformConfig('affine')")
        if not isinstance(size, tuple | list) or [type(side) for side in size] != [int, int]:
            raise MistError(f"size is {size!r}: give rows and columns of the output, such as (28, 28)")
        if min(size) < 1 or number < 1:
            raise MistError(f"a spatial transformer of size {size} and number {number} has no output: give 1 or more")
        self.localisation, self.transform, self.size, self.number = localisation, transform, (size[0], size[1]), number
        self._calls, self._warned = 0, False
        shape = (number, transform.parameters)
        if start is not None and start.shape != shape:
            raise MistError(f"start is {tuple(start.shape)}, but {number} transforms {transform.kind} need {shape}")
        first = transform.start().expand(shape) if start is None else start.detach().cpu().double()
        # Kept exact: casting the module to half precision must not round these constants.
        self._exact = {"start": first, "control": torch.empty(0), "influence": torch.empty(0)}
        if transform.kind == "tps":
            self._exact |= ops.thin_plate(ops.control_lattice(transform.side), *size)._asdict()
        for name, value in self._exact.items():
            self.register_buffer(name, value.to(torch.float32), persistent=False)
        self._reset()

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, number x channels, height, width), in the features' dtype."""
        return self.warp(features).features

    def warp(self, features: Tensor) -> Warp:
        """As ``forward``, with the parameters and the grid."""
        if features.dim() != 4 or 0 in features.shape[1:] or not features.is_floating_point():
            raise MistError(
                f"a spatial transformer can't sample {tuple(features.shape)} of {features.dtype}: give (batch, "
                "channels, height, width) with one pixel or more, as floats (images.float() / 255)"
            )
        predicted = self._predicted(features)
        exact = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            parameters = predicted.to(exact).unflatten(1, self.start.shape) + self.start.to(exact)
            grid = self._grid(parameters.flatten(0, 1))
            # The grids of an image are stacked in one grid, so that the image is not copied.
            height, width = self.size
            tall = grid if self.number == 1 else grid.reshape(-1, self.number * height, width, 2)
            sampled = ops.sample(features.to(exact), tall).to(features.dtype)
        if self.number > 1:
            sampled = sampled.unflatten(2, (self.number, height)).transpose(1, 2).flatten(1, 2)
        if not torch.compiler.is_compiling():
            self._watch(grid)
        return Warp(sampled, parameters, grid)

    def _predicted(self, features: Tensor) -> Tensor:
        """The output of the localisation network, after a check of its shape."""
        predicted = self.localisation(features)
        given = tuple(predicted.shape) if isinstance(predicted, Tensor) else f"a {type(predicted).__name__}"
        if given != (wanted := (features.shape[0], self.start.numel())):
            raise MistError(
                f"the localisation network gave {given}, but {self.number} x {self.transform.kind} needs {wanted}: "
                f"let its last layer have {wanted[1]} outputs"
            )
        return predicted

    def _grid(self, parameters: Tensor) -> Tensor:
        if self.transform.kind == "translation":
            return ops.translation_grid(parameters, *self.size, self.transform.scale)
        if self.transform.kind != "tps":
            return _GRIDS[self.transform.kind](parameters, *self.size)
        plate = ops.ThinPlate(self.control.to(parameters.dtype), self.influence.to(parameters.dtype))
        return ops.thin_plate_grid(parameters, plate)

    def _reset(self) -> None:
        """Sets the output of the localisation network to zero, after a check of its last layer."""
        dense = [layer for layer in self.localisation.modules() if isinstance(layer, nn.Linear)]
        count = self.start.numel()
        if not dense:
            raise MistError(f"the localisation network has no dense layer: let it end in nn.Linear(..., {count})")
        if dense[-1].out_features != count:
            raise MistError(
                f"the localisation network ends in {dense[-1].out_features} outputs, but {self.number} x "
                f"{self.transform.kind} needs {count}: let its last layer be nn.Linear(..., {count})"
            )
        if isinstance(dense[-1], nn.LazyLinear):
            raise MistError(
                "the localisation network ends in a LazyLinear without weights: run it on an image first, or "
                f"end it in nn.Linear(..., {count})"
            )
        nn.init.zeros_(dense[-1].weight)
        if dense[-1].bias is not None:
            nn.init.zeros_(dense[-1].bias)

    def _watch(self, grid: Tensor) -> None:
        self._calls += 1
        if self._warned or self._calls % WATCH != 1:
            return
        outside = ops.share_outside(grid)
        lost, nowhere = int((outside == 1).sum()), int(grid.isnan().flatten(1).any(1).sum())
        if nowhere:
            warning = (
                f"a spatial transformer samples {nowhere} of {len(outside)} images at NaN: check the images for NaN; "
                "otherwise training has diverged: start again with a lower learning rate"
            )
        else:
            warning = (
                f"a spatial transformer samples {lost} of {len(outside)} images entirely outside "
                f"({float(outside.mean()):.0%} of all samples): their outputs are empty and don't train the "
                "localisation network; lower its learning rate (--step.localisation-share; parameter_groups)"
            )
        if lost:  # NaN counts as outside
            self._warned = True
            warnings.warn(warning, MistWarning, stacklevel=4)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpatialTransformer:
        """Moves the module; the constants become float64 or float32, never less."""
        super()._apply(fn, recurse)
        for name, value in self._exact.items():
            moved = self.get_buffer(name)
            exact = torch.promote_types(moved.dtype, torch.float32)
            setattr(self, name, value.to(device=moved.device, dtype=exact))
        return self


class ParallelTransformers(nn.Module):
    """Several spatial transformers of one output size on the same feature map (supplement, section 1.1)."""

    def __init__(self, transformers: Iterable[SpatialTransformer]) -> None:
        super().__init__()
        several = list(transformers)
        wrong = [type(part).__name__ for part in several if not isinstance(part, SpatialTransformer)]
        if wrong:
            raise MistError(f"parallel transformers must all be SpatialTransformers: one is a {wrong[0]}")
        sizes = sorted({transformer.size for transformer in several})
        if len(sizes) != 1:
            raise MistError(f"parallel transformers need one output size, got {sizes or 'no transformer'}")
        self.transformers = nn.ModuleList(several)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, channels of all transformers in order, height, width)."""
        return torch.cat([warp.features for warp in self.warps(features)], dim=1)

    def warps(self, features: Tensor) -> tuple[Warp, ...]:
        """The result of each, with its parameters and grid."""
        return tuple(cast(SpatialTransformer, transformer).warp(features) for transformer in self.transformers)


def parameter_groups(model: nn.Module, rate: float, share: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: localisation networks get a share of the learning rate.

    Args:
        model: contains spatial transformers at any depth; none raises ``MistError``.
        rate: learning rate of all other parameters, the first group, if there are any.
        share: factor for the localisation networks, the last group; 0.1 for house numbers (supplement, section 1.4).
    """
    if not 0 <= rate < math.inf or not 0 <= share < math.inf:
        raise MistError(f"learning rates must be finite and 0 or more, got {rate} and a share of {share}")
    found = [module for module in model.modules() if isinstance(module, SpatialTransformer)]
    if not found:
        raise MistError(
            "the model has no SpatialTransformer, so there are no localisation networks: give the optimiser "
            "model.parameters()"
        )
    inside = {id(weights) for module in found for weights in module.localisation.parameters()}
    weights = list(model.parameters())
    groups = [
        {"params": [part for part in weights if id(part) not in inside], "lr": rate},
        {"params": [part for part in weights if id(part) in inside], "lr": rate * share},
    ]
    return [group for group in groups if group["params"]]
