"""The training step of SPAIR: equation 3 of the paper, a variational auto-encoder whose prior wants few objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mistnn.errors import MistError
from mistnn.models.spair.cells import Latents
from mistnn.models.spair.network import Spair
from mistnn.nn.mixed_precision import Precision, check_precision
from mistnn.nn.schedule import check_rates, cosine_share
from mistnn.ops.priors import normal_kl, presence_kl, scheduled_s
from mistnn.records import Batch

DECADE = 1000.0
"""Iterations in which the noise of the gradients falls to a tenth. Not stated; value of the released code."""

SILENT = 1e-6
"""Noise of a standard deviation below this is left out (our choice)."""


@dataclass(frozen=True)
class SpairStepConfig:
    """The objective and the schedules; the paper's values where it has them.

    Attributes:
        rate: learning rate of Adam.
        decay: the rate falls to this share along half a cosine over ``decay_steps``; 1 for a constant rate.
        decay_steps: length of that fall, in iterations.
        largest_gradient: the norm that gradients are cut to.
        place_prior: mean and standard deviation of z_x and z_y.
        size_prior: of the width and height, z_w and z_h.
        depth_prior: of z_depth.
        what_prior: of z_what.
        s: of the prior over the number of objects, in (0, 1); scheduled if not given.
        schedule_scale: how many times longer the schedules of s and of the wheels and the noise are than the released
            code's, whose s is .5 at iteration 6,000; a small budget wants a shorter one.
        wheels: iterations, times ``schedule_scale``, in which boxes, depths and presences are not trained.
        floor: share of a uniform grey that is mixed into the picture before the cross-entropy is taken, so that a pixel
            that no object draws costs a finite sum and has a gradient.
        gradient_noise: standard deviation of noise on the gradients at first; a tenth of it every 1,000 iterations,
            times ``schedule_scale``; 0 for none.
        precision: of the backbone; "auto" computes it in bfloat16 where that is faster. Cells, drawing and losses are
            always in float32.
    """

    rate: float = 1e-4
    decay: float = 1.0
    decay_steps: int = 0
    largest_gradient: float = 1.0
    place_prior: tuple[float, float] = (0.0, 1.0)
    size_prior: tuple[float, float] = (-2.2, 0.5)
    depth_prior: tuple[float, float] = (0.0, 1.0)
    what_prior: tuple[float, float] = (0.0, 1.0)
    s: float | None = None
    schedule_scale: float = 1.0
    wheels: int = 1000
    floor: float = 1e-3
    gradient_noise: float = 0.001
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuses values that no step can have.

        Raises:
            MistError: naming the field, its value and the mend.
        """
        check_precision(self.precision)
        check_rates(self.decay, self.decay_steps, rate=self.rate)
        for name in ("largest_gradient", "schedule_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise MistError(f"step.{name}={getattr(self, name)} must be a finite number above 0")
        for name in ("place_prior", "size_prior", "depth_prior", "what_prior"):
            mean, deviation = getattr(self, name)
            if not (math.isfinite(mean) and 0 < deviation < math.inf):
                raise MistError(f"step.{name}={mean} {deviation} must be a mean and a standard deviation above 0")
        if self.s is not None and not 0 < self.s < 1:
            raise MistError(f"step.s={self.s} must lie between 0 and 1: near 1 wants few objects; 0.99 in the paper")
        if self.wheels < 0:
            raise MistError(f"step.wheels={self.wheels} is negative: give 0 for no training wheels")
        if not 0 < self.floor < 1:
            raise MistError(f"step.floor={self.floor} must be a share between 0 and 1, e.g. 0.001")
        if not 0 <= self.gradient_noise < math.inf:
            raise MistError(f"step.gradient_noise={self.gradient_noise} must be a finite number, 0 or more")


class SpairStep:
    """One batch: infer the objects of every cell, draw them, weigh the picture against the priors."""

    def __init__(self, model: Spair, config: SpairStepConfig) -> None:
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
        # z ~ q(z | x), cell by cell; Algorithm 1 draws it
        drawn = self.model(images, held=held, precision=config.precision)
        terms = {
            "reconstruction": cross_entropy(drawn.rebuilt, images, config.floor),
            **self.divergences(drawn.latents, s),
        }
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
        """KL(q || p) of each image by latent: equations B1 and B2, and normal priors where an object is present."""
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
        """One step of Adam, on gradients that are cut to a norm and may carry noise."""
        config, optimizer = self.config, self.optimizers["all"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        nn.utils.clip_grad_norm_(weights, config.largest_gradient, foreach=True)
        noise = config.gradient_noise * 0.1 ** (iteration / (DECADE * config.schedule_scale))
        if noise > SILENT:
            for weight in weights:
                assert weight.grad is not None
                weight.grad.add_(torch.randn_like(weight.grad), alpha=noise)
        for group in optimizer.param_groups:
            group["lr"] = config.rate * cosine_share(iteration, config.decay, config.decay_steps)
        optimizer.step()


def cross_entropy(rebuilt: Tensor, images: Tensor, floor: float) -> Tensor:
    """-log p(x | z) of each image: the cross-entropy of grey values, summed over pixels and channels.

    Args:
        rebuilt: the picture, in [0, 1].
        images: x, in [0, 1].
        floor: share of a middle grey that is mixed into the picture.
    """
    mixed = (1 - floor) * rebuilt + floor / 2
    finite = mixed.isfinite()  # torch's cross-entropy raises at what is not; here it shows in the loss
    entropy = nn.functional.binary_cross_entropy(torch.where(finite, mixed, 0.5), images, reduction="none")
    return torch.where(finite, entropy, torch.nan).flatten(1).sum(1)


def monitors(z: Latents) -> dict[str, Tensor]:
    """What tells a collapse: mean z_pres, and of the cells the share that is on and the number an image."""
    on = (z.presence_logits.detach() > 0).float()
    return {"presence": z.presence.detach().mean(), "on": on.mean(), "objects": on.sum(1).mean()}
