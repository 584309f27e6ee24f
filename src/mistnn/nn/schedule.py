"""How learning rates fall: a value of the iteration, one for all training steps."""

from __future__ import annotations

import math

from mistnn.errors import MistError


def cosine_share(iteration: int, decay: float, decay_steps: int) -> float:
    """The share of its first value that a rate has: from 1 to ``decay`` along half a cosine, then constant.

    Args:
        iteration: from 0.
        decay: the last share; 1 for constant rates.
        decay_steps: length of the fall, in iterations.
    """
    progress = min(1.0, iteration / max(1, decay_steps))
    return decay + (1 - decay) * 0.5 * (1 + math.cos(math.pi * progress))


def check_rates(decay: float, decay_steps: int, **rates: float) -> None:
    """Refuses rates and falls that no training step can have.

    Raises:
        MistError: naming the field, its value and the mend.
    """
    for name, rate in rates.items():
        if not 0 < rate < math.inf:
            raise MistError(f"step.{name}={rate} must be a finite learning rate above 0")
    if not 0 <= decay <= 1:
        raise MistError(f"step.decay={decay} must be a share from 0 to 1; 1 keeps the rates constant")
    if decay_steps < 0 or (decay < 1 and decay_steps < 1):
        raise MistError(f"step.decay={decay} needs step.decay_steps, the iterations it takes; e.g. train.steps")
