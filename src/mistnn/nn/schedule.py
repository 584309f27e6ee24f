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
    """Sets the learning rates of optimizers by name: one rate for each, or one for each of its parameter groups."""
    for name, optimizer in optimizers.items():
        rate, groups = rates[name], optimizer.param_groups
        for group, value in zip(groups, rate if isinstance(rate, Sequence) else [rate] * len(groups), strict=True):
            group["lr"] = value


def cosine_share(iteration: int, decay: float, decay_steps: int | None) -> float:
    """The factor on a learning rate that falls from 1 to ``decay`` along half a cosine, then stays constant.

    Args:
        iteration: counted from 0.
        decay: the final factor; 1 for a constant rate.
        decay_steps: see ``known_steps``.
    """
    if decay == 1:
        return 1.0
    return decay + (1 - decay) * 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / known_steps(decay, decay_steps))))


def known_steps(decay: float, decay_steps: int | None) -> int:
    """The number of iterations over which rates fall to the factor ``decay``; 1 if constant rates have none.

    Raises:
        MistError: if the rates fall and the number is not given.
    """
    if decay < 1 and not decay_steps:
        raise MistError(
            f"step.decay={decay} needs step.decay_steps, the number of iterations over which the rates fall, and it is "
            f"{decay_steps}: give the number of training steps (`config.for_run(steps)` fills it in)"
        )
    return decay_steps or 1
