"""SPAIR's prior over the presence of objects in cells, its KL divergence and relaxation; normal priors.

Convention: z_pres is a vector of n cells on the last axis, in the order of inference; n is HW in the paper. C is its
number of ones, and s in (0, 1) the success probability of the geometric distribution over C; a high s favours few
objects. A relaxed (Concrete) z_pres is given before its sigmoid, as y = logit(z_pres): as a floating-point number, a
value close to 1 is not distinct from 1, but its y is.

All functions raise ``ValueError`` if s is outside (0, 1), a temperature is not above 0, or shapes differ. ``present``
is a z_pres as sampled, relaxed or not; its values above .5 are ones. ``logits`` are the log odds of a one under q.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

START = 1e6
"""(1 - s) / s at iteration 0. Not stated in the paper ("a value near 0" for s); value of the released code."""

END = 0.0125
"""(1 - s) / s finally, where s = 0.9877. The paper: "approximately 0.99"; value of the released code."""

DECADE = 1000.0
"""Iterations over which (1 - s) / s - ``END`` falls to a tenth. Not stated; value of the released code."""

PRESENT = 0.5
"""A relaxed z_pres above it counts as an object. Not stated; the rule of the released code."""


def scheduled_s(iteration: float, scale: float = 1.0) -> float:
    """s of the prior at an iteration: near 0 initially, so that objects cost nothing, and 0.99 finally.

    Convention: (1 - s) / s = (START - END) 0.1^(iteration / (scale DECADE)) + END. With scale 1, s is 1e-6 at iteration
    0, .0099 at 4,000, .091 at 5,000, .497 at 6,000, .90 at 7,000 and .978 at 8,000.

    Raises:
        ValueError: for a negative iteration, or a scale that is not above 0.

    Reference: SPAIR, supplement, D.2, which states both ends and "the first few thousand updates"; the formula is the
    released code's.
    """
    if not iteration >= 0:
        raise ValueError(f"the iteration must be 0 or more, got {iteration}")
    if not 0 < scale < math.inf:
        raise ValueError(f"the scale of the schedule must be above 0, got {scale}")
    return 1 / (1 + (START - END) * 0.1 ** (iteration / (scale * DECADE)) + END)


def count_log_prior(cells: int, s: float) -> Float[Tensor, " counts"]:
    """log p(C = c) for c = 0 .. cells: a geometric distribution, truncated at the number of cells and normalised.

    Returns float64 on the CPU.

    Reference: SPAIR, supplement, A: p(C = c) = s (1 - s)^c / (1 - (1 - s)^(HW + 1)).
    """
    if not 0 < s < 1:
        raise ValueError(f"s, the success probability of the prior over the number of objects, is in (0, 1), got {s}")
    if cells < 0:
        raise ValueError(f"the number of cells must be 0 or more, got {cells}")
    # s cancels between numerator and denominator; logarithms keep all digits at both ends of (0, 1).
    return (torch.arange(cells + 1, dtype=torch.float64) * math.log1p(-s)).log_softmax(0)


def presence_log_prior(present: Shaped[Tensor, "*batch n"], s: float) -> Float[Tensor, "*batch"]:
    """log p(z_pres), in float64: the probability of its count, divided equally among all vectors with that count.

    Reference: SPAIR, supplement, A, last equation.
    """
    cells = present.shape[-1]
    each = count_log_prior(cells, s) - _log_binomial(cells)
    return each.to(present.device)[(present > PRESENT).sum(-1)]


def presence_log_conditionals(
    present: Shaped[Tensor, "*batch n"], s: float
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    """log p(z_k = 0) and log p(z_k = 1) given the cells before k, for all k at once; always finite, without gradient.

    Equations B1 and B2 iterate over the cells and update p(C = c | z_1 .. z_k). But since all vectors with the same
    count are equally likely, the next cell depends on the first k cells only by m, their number of ones. One prefix of
    k cells with m ones has the probability J(k, m), with

        J(n, m) = p(C = m) / binomial(n, m)        J(k, m) = J(k + 1, m) + J(k + 1, m + 1)

    and p(z_k = 1 | prefix) = J(k, m + 1) / J(k - 1, m). So one table of (n + 1)^2 numbers serves the whole batch. All
    terms are positive: nothing cancels, and no clipping is needed (the released code clips at 0 and 1e-6). The dtype is
    that of ``present``, or float32 for integers and booleans.

    Reference: SPAIR, supplement, equations B1 and B2.
    """
    cells = present.shape[-1]
    dtype = present.dtype if present.is_floating_point() else torch.float32
    table = _log_beginnings(cells, s).to(present.device)
    ones = (present > PRESENT).long()
    before = ones.cumsum(-1) - ones
    k = torch.arange(cells, device=present.device)
    here = table[k, before]
    return (table[k + 1, before] - here).to(dtype), (table[k + 1, before + 1] - here).to(dtype)


def presence_kl(
    logits: Float[Tensor, "*batch n"], present: Shaped[Tensor, "*batch n"], s: float
) -> Float[Tensor, "*batch"]:
    """A one-sample estimate of the KL divergence of z_pres: sum_k KL(Bernoulli(beta_k) || p(z_k | cells before k)).

    ``logits`` are logit(beta_k), and may be infinite; the result is differentiable in them. The mean over samples of q
    is the exact divergence. If each beta is 0 or 1, a single sample is exact: -log p(z_pres).

    Reference: SPAIR, supplement, B. The paper uses this KL of Bernoulli variables for a relaxed z_pres too, and the
    released code does so by default; ``relaxed_presence_kl`` is its other option.
    """
    _same(logits, present, "present")
    off, on = presence_log_conditionals((present > PRESENT).to(logits.dtype), s)
    # With infinite logits, 0 log 0 must be 0, not NaN.
    largest = torch.finfo(logits.dtype).max
    finite = logits.clamp(-largest, largest)
    there = finite.sigmoid() * (F.logsigmoid(finite) - on)
    away = (-finite).sigmoid() * (F.logsigmoid(-finite) - off)
    return (there + away).sum(-1)


def sample_concrete(
    logits: Float[Tensor, "*batch"], temperature: float, generator: torch.Generator | None = None
) -> Float[Tensor, "*batch"]:
    """Relaxed Bernoulli variables before their sigmoid: y = (logits + L) / temperature, with logistic noise L.

    Convention: z_pres = sigmoid(y); y > 0 means z_pres > .5, with probability sigmoid(logits). At lower temperatures,
    z_pres is closer to 0 or 1. The generator of the noise must be on the device of ``logits``, in which the result is
    differentiable, and finite where they are.

    Reference: SPAIR, section 4.3; Maddison, Mnih and Teh (2017), the binary Concrete distribution.
    """
    _above_zero(temperature)
    noise = torch.rand(logits.shape, dtype=logits.dtype, device=logits.device, generator=generator)
    # rand can be 0 and, after rounding, 1; half a step away from both, the logistic noise is finite.
    half = torch.finfo(logits.dtype).eps / 2
    return (logits + noise.clamp(half, 1 - half).logit()) / temperature


def concrete_log_density(
    y: Float[Tensor, "*batch"], logits: Float[Tensor, "*batch"], temperature: float
) -> Float[Tensor, "*batch"]:
    """The log density of y = logit(z) for a relaxed Bernoulli variable z.

    Convention: the density is over y, not z. That of z has the additional factor 1 / (z (1 - z)), which is infinite at
    0 and 1, and cancels in ratios of densities, hence in KL divergences.

    Reference: Maddison, Mnih and Teh (2017), the log density of a binary Concrete variable before its sigmoid.
    """
    _same(logits, y, "y")
    _above_zero(temperature)
    # The density of a logistic variable is even; with the absolute value, nothing overflows.
    distance = (temperature * y - logits).abs()
    return math.log(temperature) - distance - 2 * F.softplus(-distance)


def relaxed_presence_kl(
    y: Float[Tensor, "*batch n"],
    logits: Float[Tensor, "*batch n"],
    s: float,
    temperature: float,
    prior_temperature: float | None = None,
) -> Float[Tensor, "*batch"]:
    """A one-sample estimate of the KL divergence of a relaxed z_pres: log q(y) - log p(y), summed over the cells.

    Under the prior, cell k is a relaxed Bernoulli variable with the log odds of equation B1, conditional on the cells
    before it; those with y > 0 count as ones. Single values can be negative; their mean cannot. Differentiable in ``y``
    and ``logits``. The prior's temperature is that of q by default.

    Reference: an option of the released code; the paper's own is ``presence_kl``.
    """
    off, on = presence_log_conditionals((y > 0).to(y.dtype), s)
    prior = concrete_log_density(y, on - off, temperature if prior_temperature is None else prior_temperature)
    return (concrete_log_density(y, logits, temperature) - prior).sum(-1)


def normal_kl(
    mean: Float[Tensor, "*batch d"], deviation: Float[Tensor, "*batch d"], prior: tuple[float, float]
) -> Float[Tensor, "*batch"]:
    """The KL divergence of independent normal variables from a normal prior, summed over the last axis.

    Args:
        mean: of each variable.
        deviation: standard deviation of each variable, above 0.
        prior: mean and standard deviation, above 0, shared by all variables.

    Reference: SPAIR, supplement, D.2, table 1, for the priors; the formula is standard.
    """
    _same(mean, deviation, "deviation")
    middle, width = prior
    if not 0 < width < math.inf:
        raise ValueError(f"the standard deviation of a prior must be above 0, got {width}")
    ratio = deviation / width
    return ((ratio.square() + ((mean - middle) / width).square() - 1) / 2 - ratio.log()).sum(-1)


def _log_binomial(n: int) -> Tensor:
    """log binomial(n, m) for m = 0 .. n, float64."""
    return torch.tensor([math.log(math.comb(n, m)) for m in range(n + 1)], dtype=torch.float64)


def _log_beginnings(cells: int, s: float) -> Tensor:
    """log J(k, m), (cells + 1, cells + 1) in float64; -inf for m > k."""
    row = count_log_prior(cells, s) - _log_binomial(cells)
    rows = [row]
    for _ in range(cells):
        row = torch.logaddexp(row[:-1], row[1:])
        rows.append(row)
    table = torch.full((cells + 1, cells + 1), -torch.inf, dtype=torch.float64)
    for k, row in enumerate(reversed(rows)):
        table[k, : k + 1] = row
    return table


def _same(logits: Tensor, other: Tensor, name: str) -> None:
    if logits.shape != other.shape:
        raise ValueError(f"{name} must have the shape {tuple(logits.shape)} of the logits, got {tuple(other.shape)}")


def _above_zero(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"the temperature must be above 0, got {temperature}")
