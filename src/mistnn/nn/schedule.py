"""Learning rates as functions of the iteration, shared by all training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from torch.optim import Optimizer

from mistnn.config import above, at_least, between
from mistnn.errors import MistError

LearningRate = Annotated[float, above(0)]
Decay = Annotated[float, between(0, 1, "the share to which the rates fall; 1 keeps them constant")]
DecaySteps = Annotated[int, at_least(0)] | None


def set_rates(optimizers: Mapping[str, Optimizer], rates: Mapping[str, float | Sequence[float]]) -> None:
    """Sets the learning rates of optimizers.

    Args:
        optimizers: by name.
        rates: the rate of each optimizer by the same names, or one rate for each of its parameter groups.
    """
    for name, optimizer in optimizers.items():
        rate, groups = rates[name], optimizer.param_groups
        for group, value in zip(groups, rate if isinstance(rate, Sequence) else [rate] * len(groups), strict=True):
            group["lr"] = value


def cosine_share(iteration: int, decay: float, decay_steps: int | None) -> float:
    """The factor on a learning rate that falls from 1 to ``decay`` along half a cosine, then stays constant.

    Args:
        iteration: counted from 0.
        decay: the final factor; 1 for a constant rate.
        decay_steps: the number of iterations of the fall; ``None`` only for a constant rate.

    Raises:
        MistError: if the rate falls and the number of iterations is not given.
    """
    if decay == 1:
        return 1.0
    return decay + (1 - decay) * 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / known_steps(decay, decay_steps))))


def known_steps(decay: float, decay_steps: int | None) -> int:
    """Checks that a step is built from a configuration whose schedule has a length; returns that length.

    Args:
        decay: the final factor; 1 for constant rates, which need no length.
        decay_steps: the number of iterations of the fall.

    Raises:
        MistError: naming ``step.decay_steps`` and the fix.
    """
    if decay < 1 and not decay_steps:
        raise MistError(
            f"step.decay={decay} needs step.decay_steps, the number of iterations over which the rates fall, and it is "
            f"{decay_steps}: give the number of training steps (`config.for_run(steps)` fills it in)"
        )
    return decay_steps or 1


def check_rates(decay: float, decay_steps: int, **rates: float) -> None:
    """Checks learning rates and their fall.

    Raises:
        MistError: naming the field, its value and the fix.
    """
    for name, rate in rates.items():
        if not 0 < rate < math.inf:
            raise MistError(f"step.{name}={rate} must be a finite learning rate above 0")
    if not 0 <= decay <= 1:
        raise MistError(f"step.decay={decay} must be a share from 0 to 1; 1 keeps the rates constant")
    if decay_steps < 0 or (decay < 1 and decay_steps < 1):
        raise MistError(f"step.decay={decay} needs step.decay_steps, the iterations it takes; e.g. train.steps")
