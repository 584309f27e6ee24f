"""The training step of SPAIR: equation 3 of the paper, a variational auto-encoder whose prior favours few objects."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mistnn.models.spair.cells import Latents
from mistnn.models.spair.config import SpairStepConfig
from mistnn.models.spair.network import Spair
from mistnn.nn.collapse import FEW, collapse_of
from mistnn.nn.schedule import cosine_share, known_steps, set_rates
from mistnn.ops.priors import normal_kl, presence_kl, scheduled_s
from mistnn.records import Batch

DECADE = 1000.0
"""Iterations over which the noise on the gradients falls to a tenth. Not stated; value of the released code."""

SILENT, SPARSE = 1e-6, 0.5
"""Our limits: the standard deviation below which the noise is omitted; the s above which the prior favours few objects
(below it, all cells may be on)."""


class SpairStep:
    """Infers the objects of every cell, renders them, and adds the divergences from the priors."""

    def __init__(self, model: Spair, config: SpairStepConfig) -> None:
        known_steps(config.decay, config.decay_steps)
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.Adam(model.parameters(), lr=config.rate, fused=True)
        }

    def __call__(self, batch: Batch, iteration: int) -> dict[str, Tensor | float]:
        """Trains on one batch; returns the scalars to log."""
        config = self.config
        s = config.s if config.s is not None else scheduled_s(iteration, config.schedule_scale)  # D.2
        held = iteration < config.wheels * config.schedule_scale
        images = batch.images.contiguous(memory_format=torch.channels_last)
        # z ~ q(z | x), cell by cell; Algorithm 1 renders it
        drawn = self.model(images, held=held, precision=config.precision)
        fit = cross_entropy(drawn.rebuilt, images, config.floor)
        terms = {"reconstruction": fit, **self.divergences(drawn.latents, s)}
        total = torch.stack(list(terms.values())).sum(0)  # equation 3
        self.descend(total.mean(), iteration)
        return {
            "task": total.detach().mean(),
            **{name: value.detach().mean() for name, value in terms.items()},
            **monitors(drawn.latents),
            "rmse": (drawn.rebuilt.detach() - images).square().mean().sqrt(),
            "s": s,
        }

    def divergences(self, z: Latents, s: float) -> dict[str, Tensor]:
        """KL(q || p) of each image by latent: equations B1 and B2 for z_pres, normal priors for the present objects."""
        config = self.config
        place, size = z.where.mean.split(2, dim=-1), z.where.deviation.split(2, dim=-1)
        where = normal_kl(place[0], size[0], config.place_prior) + normal_kl(place[1], size[1], config.size_prior)
        return {
            "kl_where": (z.presence * where).sum(1),
            "kl_what": (z.presence * normal_kl(z.what.mean, z.what.deviation, config.what_prior)).sum(1),
            "kl_depth": (z.presence * normal_kl(z.depth.mean, z.depth.deviation, config.depth_prior)).sum(1),
            "kl_presence": presence_kl(z.presence_logits, z.presence, s),
        }

    def descend(self, loss: Tensor, iteration: int) -> None:
        """One step of Adam on gradients that are clipped and may carry noise."""
        config, optimizer = self.config, self.optimizers["all"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        nn.utils.clip_grad_norm_(weights, config.largest_gradient, foreach=True)
        noise = config.gradient_noise * 0.1 ** (iteration / (DECADE * config.schedule_scale))
        if noise > SILENT:
            for weight in weights:
                assert weight.grad is not None
                draws = torch.randn(weight.numel(), dtype=weight.dtype, device=weight.device)  # slower in channels_last
                weight.grad.add_(draws.as_strided(weight.shape, weight.stride()), alpha=noise)
        set_rates(self.optimizers, {"all": config.rate * cosine_share(iteration, config.decay, config.decay_steps)})
        optimizer.step()


def cross_entropy(rebuilt: Tensor, images: Tensor, floor: float) -> Tensor:
    """-log p(x | z) of each image: the cross-entropy of grey values, summed over pixels and channels.

    ``floor`` is the share of medium grey that is mixed into the reconstruction.
    """
    mixed = (1 - floor) * rebuilt + floor / 2
    finite = mixed.isfinite()  # torch raises on NaN; here it must show in the loss
    entropy = nn.functional.binary_cross_entropy(torch.where(finite, mixed, 0.5), images, reduction="none")
    return torch.where(finite, entropy, torch.nan).flatten(1).sum(1)


def monitors(z: Latents) -> dict[str, Tensor]:
    """The scalars that reveal a collapse: mean z_pres, the share of cells that are on, and their number per image."""
    on = (z.presence_logits.detach() > 0).float()
    return {"presence": z.presence.detach().mean(), "on": on.mean(), "objects": on.sum(1).mean()}


def collapse_note(values: Mapping[str, float]) -> str | None:
    """A warning if a training of SPAIR has collapsed, from its logged scalars."""
    objects, sparse = values["objects"], values["s"] >= SPARSE
    if objects >= FEW and not sparse:
        return None
    fix, words = "--step.schedule-scale 2", "cells hold"
    return collapse_of(objects, values["kl_what"], values["on"], infers=True, sparse=sparse, words=words, fix=fix)
