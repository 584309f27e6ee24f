"""The training step of AIR: the likelihood bound, with a relaxed z_pres in place of a score-function gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mistnn.models.air.config import AirStepConfig
from mistnn.models.air.network import Air, AirOutput
from mistnn.nn.collapse import collapse_of
from mistnn.nn.mixed_precision import half_precision
from mistnn.ops.priors import concrete_log_density, normal_kl
from mistnn.records import Batch

START = 1e4
"""Prior odds of one more object at iteration 0. Value of the released code."""

END = 1e-9
"""Final prior odds. Value of the released code."""

DECADE = 3000.0
"""Iterations over which the odds fall to a tenth. Value of the released code."""

FLOOR = 1e-9
"""Added to probabilities before the logarithm. Value of the released code."""

RARE = -2.3
"""Prior log odds of one more object (0.1 to 1) below which the prior favours few (our limit)."""


class AirStep:
    """One gradient of the bound for all weights."""

    def __init__(self, model: Air, config: AirStepConfig) -> None:
        self.model = model
        self.config = config
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.Adam(model.parameters(), lr=config.rate, fused=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, float | Tensor]:
        """Trains on one batch; returns the scalars to log."""
        model, images = self.model, batch.images
        counts = None if batch.counts is None else batch.counts.sum(1)
        with half_precision(self.config.precision, images.device):
            output = model(images, counts if model.config.given else None)
        log_odds = prior_log_odds(iteration, self.config.annealing)
        losses = self.losses(images, output, log_odds)
        optimizer = self.optimizers["all"]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum(0).mean().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), self.config.clip)
        optimizer.step()
        watched = self._watch(output, counts, log_odds) | {"gradient": norm.detach()}
        return {name: loss.detach().mean() for name, loss in losses.items()} | watched

    def losses(self, images: Tensor, output: AirOutput, log_odds: float) -> dict[str, Tensor]:
        """The terms of the negative bound, (batch,) each."""
        config, model = self.config, self.model.config
        where, what, alive, rebuilt = output.where, output.what, output.alive, output.rebuilt
        likelihood = images * (rebuilt + FLOOR).log() + (1 - images) * (1 - rebuilt + FLOOR).log()
        sides = normal_kl(where.mean[..., :-2], where.deviation[..., :-2], config.scale_prior)
        centre = normal_kl(where.mean[..., -2:], where.deviation[..., -2:], config.shift_prior)
        losses = {
            "reconstruction": -likelihood.flatten(1).sum(1),
            "kl_scale": (alive * sides).sum(1),
            "kl_shift": (alive * centre).sum(1),
            "kl_what": (alive * normal_kl(what.mean, what.deviation, config.what_prior)).sum(1),
        }
        if not model.given:
            posterior = concrete_log_density(output.y, output.logits, model.temperature)
            prior = concrete_log_density(output.y, torch.full_like(output.y, log_odds), model.temperature)
            # The step at which it stops is included: that there is no further object must be inferred too.
            losses["kl_presence"] = (output.looked * (posterior - prior)).sum(1)
        return losses

    def _watch(self, output: AirOutput, counts: Tensor | None, log_odds: float) -> dict[str, float | Tensor]:
        """The number of objects drawn, compared with the labels, and the scalars that reveal a collapse."""
        found = output.alive.sum(1)
        side, steps = output.boxes[..., 2:].detach().mean(), output.alive.float().mean()
        watched: dict[str, float | Tensor] = {"objects": found.float().mean(), "steps_made": steps, "side": side}
        if self.model.config.given:
            return watched
        watched |= {"z_pres": output.logits.detach().sigmoid().mean(), "prior_log_odds": log_odds}
        if counts is not None:
            watched["sampled_count_accuracy"] = (found == counts).float().mean()
        return watched


def prior_log_odds(iteration: float, scale: float = 1.0) -> float:
    """The logarithm of the prior odds of one more object.

    Convention: odds = max(START 0.1^(iteration / (scale DECADE)), END); with scale 1, even odds at iteration 12,000.
    """
    return max(math.log(START) - math.log(10) * iteration / (scale * DECADE), math.log(END))


def collapse_note(values: Mapping[str, float]) -> str | None:
    """A warning if a training of AIR has collapsed, from its logged scalars."""
    log_odds = values.get("prior_log_odds")  # logged if the number of objects is inferred
    return collapse_of(
        values["objects"],
        values["kl_what"],
        values["steps_made"],
        infers=log_odds is not None,
        sparse=log_odds is not None and log_odds < RARE,
        words="steps draw",
        fix="a larger --step.annealing",
    )
