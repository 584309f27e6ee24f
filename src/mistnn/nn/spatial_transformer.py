"""Spatial transformers: a localisation network says where to look, a grid generator and a sampler look there.

Convention: the frame of the parameters is that of ``mistnn.ops.transforms``, [-1, 1] over the feature map.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from mistnn.config import Config, Rule
from mistnn.errors import MistError, MistWarning
from mistnn.ops import transforms as ops

Kind = Literal["affine", "attention", "translation", "projective", "tps"]
WATCH = 100
"""Calls from one look at what a transformer reads outside to the next (ours)."""

_SHARE = Rule(lambda share: 0 < share <= 1, "above 0 and at most 1: a share of the image's sides")
_SEVERAL = Rule(lambda side: isinstance(side, int) and side >= 2, "a whole number of 2 or more")


@dataclass(frozen=True)
class TransformConfig(Config):
    """Which transform.

    Attributes:
        kind: "affine" (6 parameters), "attention" (scale and place, 3), "translation" (place at a fixed scale, 2),
            "projective" (8) or "tps" (thin plate spline, 32 for 16 control points).
        scale: of "translation": the window's sides as a share of the input's; 0.5 in the supplement (section 1.5).
        side: of "tps": control points along a side; 4 by public summaries of the paper.
    """

    section: ClassVar[str] = "transform"
    kind: Kind = "affine"
    scale: Annotated[
        float, Rule(lambda share: 0 < share <= 1, "above 0 and at most 1: a share of the image's sides")
    ] = 0.5
    side: Annotated[int, _SEVERAL] = 4

    @property
    def parameters(self) -> int:
        """How many numbers one transform has."""
        return len(self.start())

    def start(self) -> Tensor:
        """The parameters at birth, in float64: the identity; the window in the middle for "translation"."""
        if self.kind == "tps":
            return ops.control_lattice(self.side).flatten()
        identity = {
            "affine": (1, 0, 0, 0, 1, 0),
            "attention": (1, 0, 0),
            "translation": (0, 0),
            "projective": (1, 0, 0, 0, 1, 0, 0, 0),
        }
        return torch.tensor(identity[self.kind], dtype=torch.float64)


class Warp(NamedTuple):
    """What a spatial transformer did.

    Attributes:
        features: (batch, number x channels, height, width), what it read.
        parameters: (batch, number, parameters), theta in float32 or better.
        grid: (batch x number, height, width, 2), where each output pixel read.
    """

    features: Tensor
    parameters: Tensor
    grid: Tensor

    @property
    def outside(self) -> Tensor:
        """(batch x number,), the share of samples outside the feature map; for the log."""
        return ops.share_outside(self.grid)


class SpatialTransformer(nn.Module):
    """Reads a feature map through a transform that the localisation network chooses for each image.

    At birth it is the identity, if nothing follows the localisation network's last dense layer: the weights and bias of
    that layer are set to zero, and what it says is added to the parameters of the identity (the supplement's bias; as a
    constant, so that weight decay draws to the identity and half precision can't round it). Grids are computed and read
    in float32 or better under mixed precision too.

    The first call and every ``WATCH``-th after it look whether images are read entirely outside, or at places that are
    no numbers, and warn once. They wait for the device; a compiled or exported transformer doesn't look. The share to
    log is ``warp(features).outside``.

    Args:
        localisation: any network from the feature map to (batch, number x parameters). The dense layer that it defines
            last must be its last; those of ``mistnn.nn.localisation`` are the paper's.
        transform: which transform.
        size: rows and columns of the output.
        number: transforms that this one localisation network chooses, each read in parallel; the outputs are
            concatenated along the channels.
        start: (number, parameters) at birth, instead of the identity; for instance windows that tile the image.

    Raises:
        MistError: if the localisation network has no dense layer, or one of another size or without weights; on an
            empty output size; on a start of another shape.

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
            raise MistError(f"a spatial transformer of size {size} and number {number} reads nothing: give 1 or more")
        self.localisation, self.transform, self.size, self.number = localisation, transform, (size[0], size[1]), number
        self._calls, self._warned = 0, False
        shape = (number, transform.parameters)
        if start is not None and start.shape != shape:
            raise MistError(f"start is {tuple(start.shape)}, but {number} transforms {transform.kind} need {shape}")
        first = transform.start().expand(shape) if start is None else start.detach().cpu().double()
        exact = {"start": first, "control": torch.empty(0), "influence": torch.empty(0)}
        if transform.kind == "tps":
            plate = ops.thin_plate(ops.control_lattice(transform.side), *size)
            exact |= {"control": plate.control, "influence": plate.influence}
        # Constants, not weights: kept exact here, for a module cast to half precision must not round them.
        self._exact = exact
        for name, value in exact.items():
            self.register_buffer(name, value.to(torch.float32), persistent=False)
        self._still()

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, number x channels, height, width), in the features' type."""
        return self.warp(features).features

    def warp(self, features: Tensor) -> Warp:
        """As ``forward``, with the parameters and the grid.

        Raises:
            MistError: on a feature map that is empty or no float, or an answer of the localisation network that doesn't
                fit.
        """
        if features.dim() != 4 or 0 in features.shape[1:] or not features.is_floating_point():
            raise MistError(
                f"a spatial transformer can't read {tuple(features.shape)} of {features.dtype}: give images of (batch, "
                "channels, height, width) with a pixel or more, as floats (images.float() / 255)"
            )
        said = self._said(features)
        exact = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            parameters = said.to(exact).unflatten(1, self.start.shape) + self.start.to(exact)
            grid = self._grid(parameters.flatten(0, 1))
            # The grids of an image stand below each other in one, so that it is read in place.
            height, width = self.size
            tall = grid if self.number == 1 else grid.reshape(-1, self.number * height, width, 2)
            read = ops.sample(features.to(exact), tall).to(features.dtype)
        if self.number > 1:
            read = read.unflatten(2, (self.number, height)).transpose(1, 2).flatten(1, 2)
        if not torch.compiler.is_compiling():
            self._watch(grid)
        return Warp(read, parameters, grid)

    def _said(self, features: Tensor) -> Tensor:
        """The answer of the localisation network, after a look at its shape."""
        said = self.localisation(features)
        count = self.number * self.transform.parameters
        given = tuple(said.shape) if isinstance(said, Tensor) else f"a {type(said).__name__}"
        if given != (wanted := (features.shape[0], count)):
            raise MistError(
                f"the localisation network gave {given}, but {self.number} x {self.transform.kind} needs {wanted}: "
                f"let its last layer give {count} numbers for each image"
            )
        return said

    def _grid(self, parameters: Tensor) -> Tensor:
        if self.transform.kind == "affine":
            return ops.affine_grid(parameters, *self.size)
        if self.transform.kind == "attention":
            return ops.attention_grid(parameters, *self.size)
        if self.transform.kind == "translation":
            return ops.translation_grid(parameters, *self.size, self.transform.scale)
        if self.transform.kind == "projective":
            return ops.projective_grid(parameters, *self.size)
        plate = ops.ThinPlate(self.control.to(parameters.dtype), self.influence.to(parameters.dtype))
        return ops.thin_plate_grid(parameters, plate)

    def _still(self) -> None:
        """Makes the localisation network say zero, after a look at its last layer."""
        dense = [layer for layer in self.localisation.modules() if isinstance(layer, nn.Linear)]
        count = self.number * self.transform.parameters
        if not dense:
            raise MistError(f"the localisation network has no dense layer: let it end in nn.Linear(..., {count})")
        if dense[-1].out_features != count:
            raise MistError(
                f"the localisation network ends in {dense[-1].out_features} outputs, but {self.number} x "
                f"{self.transform.kind} needs {count}: let its last layer be nn.Linear(..., {count})"
            )
        if isinstance(dense[-1], nn.LazyLinear):
            raise MistError(
                "the localisation network ends in a LazyLinear that has no weights yet: run it on an image before, or "
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
            said = (
                f"a spatial transformer is to read {nowhere} of {len(outside)} images at places that are no numbers "
                "(NaN): look for NaN in the images; else training has diverged: begin anew at a lower learning rate"
            )
        else:
            said = (
                f"a spatial transformer reads {lost} of {len(outside)} images entirely outside "
                f"({float(outside.mean()):.0%} of all samples are): they come out empty and teach its "
                "localisation network nothing; lower its learning rate (--step.localisation-share; parameter_groups)"
            )
        if lost:  # what is no number counts as outside
            self._warned = True
            warnings.warn(said, MistWarning, stacklevel=4)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpatialTransformer:
        """Moves like any module, but the constants take float64 or float32, never less."""
        super()._apply(fn, recurse)
        for name, value in self._exact.items():
            moved = self.get_buffer(name)
            exact = torch.promote_types(moved.dtype, torch.float32)
            setattr(self, name, value.to(device=moved.device, dtype=exact))
        return self


class ParallelTransformers(nn.Module):
    """Several spatial transformers, each with a localisation network of its own, that all read the same feature map.

    Args:
        transformers: one or more, of one output size.

    Raises:
        MistError: if there is none, or their output sizes differ.

    Reference: supplement, section 1.1.
    """

    def __init__(self, transformers: Iterable[SpatialTransformer]) -> None:
        super().__init__()
        several = list(transformers)
        wrong = [type(part).__name__ for part in several if not isinstance(part, SpatialTransformer)]
        if wrong:
            raise MistError(f"parallel transformers are SpatialTransformers, all of them: one is a {wrong[0]}")
        sizes = sorted({transformer.size for transformer in several})
        if len(sizes) != 1:
            raise MistError(f"parallel transformers need one output size, got {sizes or 'no transformer'}")
        self.transformers = nn.ModuleList(several)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, all channels read, height, width), in their order."""
        return torch.cat([warp.features for warp in self.warps(features)], dim=1)

    def warps(self, features: Tensor) -> tuple[Warp, ...]:
        """What each of them does, with its parameters and its grid."""
        done = []
        for transformer in self.transformers:
            assert isinstance(transformer, SpatialTransformer)
            done.append(transformer.warp(features))
        return tuple(done)


def parameter_groups(model: nn.Module, rate: float, share: float) -> list[dict[str, Any]]:
    """The groups of an optimiser: everything else at one rate, all localisation networks at a share of it.

    Args:
        model: holds spatial transformers anywhere.
        rate: learning rate of everything else.
        share: of it for the localisation networks; 0.1 for house numbers (supplement, section 1.4).

    Returns:
        Two dictionaries, ``params`` and ``lr``: the first of everything else (left out if there is nothing).

    Raises:
        MistError: if the model has no spatial transformer, or a rate is below 0.
    """
    if not 0 <= rate < math.inf or not 0 <= share < math.inf:
        raise MistError(f"learning rates must be finite and 0 or more, got {rate} and a share of {share}")
    found = [module for module in model.modules() if isinstance(module, SpatialTransformer)]
    if not found:
        raise MistError(
            "the model holds no SpatialTransformer, so no localisation network can have a rate of its own: give the "
            "optimiser model.parameters()"
        )
    inside = {id(weights) for module in found for weights in module.localisation.parameters()}
    weights = list(model.parameters())
    groups = [
        {"params": [part for part in weights if id(part) not in inside], "lr": rate},
        {"params": [part for part in weights if id(part) in inside], "lr": rate * share},
    ]
    return [group for group in groups if group["params"]]
