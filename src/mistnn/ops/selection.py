"""Differentiable selection of the K highest of N scores: four functions with one signature.

Convention: ``select(scores (batch, n), k, ...) -> Selection``, the K highest and a mask over all N that sums to K. The
functions differ in the gradient from the mask to the scores:

* ``hard_topk``: none.
* ``straight_through_topk``: that of K x softmax, for a hard mask.
* ``soft_topk``: that of a soft mask, the solution of an entropic transport problem (Xie et al. 2020).
* ``perturbed_topk``: that of the mean mask under Gaussian noise (Berthet et al. 2020; Cordonnier et al. 2021).

Scores must be finite and k from 1 to n - 1; else all functions raise ``ValueError``. ``soft_topk`` also takes scores of
-inf, which it never selects, and k = n. Only ``perturbed_topk`` uses the generator.

MIST's lifting is not a function of scores but a training step, ``mistnn.models.mist.step``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

Scores = Float[Tensor, "batch n"]

LEAST_EPSILON = 1e-30
"""Below it, the gradient at a tie, about 1 / epsilon, would overflow float32."""

_TOLERANCE = 1e-12
"""Of the transport problem's scalar t, in units of epsilon."""
_FAR = 1000.0
"""In units of epsilon: scores farther from the K-th have a mask of exactly 0 or 1."""
_MAX_ITERATIONS = 200
_CHUNK = 1 << 24
"""The most noise values held at once by ``perturbed_topk``: 64 MiB in float32."""


class Selection(NamedTuple):
    """The selected scores.

    Attributes:
        indices: (batch, k), of the highest scores, best first.
        mask: (batch, n), how far each score is selected, from 0 to 1; sums to k.
    """

    indices: Int[Tensor, "batch k"]
    mask: Scores


def hard_topk(scores: Scores, k: int, generator: torch.Generator | None = None) -> Selection:
    """The K highest scores; a mask of zeros and ones without gradient."""
    k = _check(scores, k)
    indices = scores.detach().topk(k, dim=1).indices
    return Selection(indices, torch.zeros_like(scores, requires_grad=False).scatter(1, indices, 1.0))


def straight_through_topk(
    scores: Scores, k: int, generator: torch.Generator | None = None, temperature: float = 1.0
) -> Selection:
    """The hard mask with the gradient of k x softmax(scores / temperature); the temperature is at least 1e-30.

    Reference: Bengio, Leonard, Courville (2013), the straight-through estimator.
    """
    if not LEAST_EPSILON <= temperature < math.inf:
        raise ValueError(f"the temperature must be a finite number from {LEAST_EPSILON:g}, got {temperature}")
    indices, mask = hard_topk(scores, k)
    soft = k * (scores / temperature).softmax(dim=1)
    return Selection(indices, mask + (soft - soft.detach()))


def soft_topk(scores: Scores, k: int, generator: torch.Generator | None = None, epsilon: float = 0.1) -> Selection:
    """SOFT top-K: a soft mask from entropic optimal transport of the scores to the anchors 0 and 1.

    Moving score s to anchor a costs (s - a)^2, divided by the largest cost of its row. (The official code divides by
    that of the batch, so that the mask of an image depends on the others.) Of n equal masses, k go to anchor 1
    and n - k to anchor 0. With two anchors, the transport plan has one free number t: the mask is
    sigmoid((c_0 - c_1 - t) / epsilon), and t is the root at which it sums to k. So there is no iteration over plans,
    nothing overflows for small epsilon, and the gradient has a closed form.

    A score of -inf is left out: its mask is 0, and it has no gradient. If exactly k scores remain in a row, or k = n,
    their masks are 1, without gradient.

    Scores should lie in [0, 1], the range of the anchors. For large scores, such as logits, the largest cost grows with
    their square, and the mask becomes flat: beside a score of 20, differences count 361 times less. The largest cost is
    also taken for a constant in the backward pass: its own gradient, which can be larger and of the other sign, is left
    out. The remedy for both: pass the scores through a sigmoid or softmax first, or scale them to [0, 1]; then the
    largest cost is about 1.

    As epsilon, the strength of the entropy, goes to 0, the mask becomes the hard one; scores tied with the K-th have
    equal shares. The mask is differentiable once, computed in float64 and returned in the dtype of the scores.

    Raises:
        ValueError: also if epsilon is below 1e-30, the square of a score overflows, or a row has fewer than k scores
            above -inf.

    Reference: Xie et al., Differentiable top-k with optimal transport (2020); equation 12 of the MIST supplement.
    """
    if not LEAST_EPSILON <= epsilon < math.inf:
        raise ValueError(f"epsilon must be a finite number from {LEAST_EPSILON:g}, got {epsilon}")
    k = _check(scores, k, most=0, masked=True)
    exact = scores.double()
    usable = exact.detach() > -math.inf
    exact = torch.where(usable, exact, 0.5)  # of the least cost, so that it changes no other
    largest = torch.maximum(exact.square(), (exact - 1).square()).detach().amax(1, keepdim=True)
    if not bool(largest.isfinite().all()):
        raise ValueError("the squares of the scores overflow: scale the scores towards the anchors 0 and 1")
    best = scores.detach().double().topk(k, dim=1)
    # The gain of anchor 1 over anchor 0, c_0 - c_1, is (2 s - 1) / largest. A term common to all scores only shifts t,
    # and differences from the K-th score lose no digits for large scores.
    gains = 2 * (exact - best.values[:, -1:]) / largest
    mask: Tensor = _TransportMask.apply(gains, usable, k, epsilon)
    return Selection(best.indices, mask.to(scores.dtype))


class _TransportMask(torch.autograd.Function):
    """sigmoid(gains / epsilon - t), with t such that each row sums to k, and its implicit derivative.

    The mask is 0 where a score is not ``usable``, and 1 in rows with k usable scores.
    """

    @staticmethod
    def forward(ctx: Any, gains: Tensor, usable: Tensor, k: int, epsilon: float) -> Tensor:
        scaled = (gains / epsilon).clamp(-_FAR, _FAR)
        mask = usable.to(gains.dtype)
        rows = (usable.sum(1) > k).nonzero().squeeze(1)
        if len(rows):
            some = torch.where(usable[rows], scaled[rows], -math.inf)
            mask[rows] = (some - _threshold(some, usable[rows], k)).sigmoid()
        ctx.save_for_backward(mask)
        ctx.epsilon = epsilon
        return mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (mask,) = ctx.saved_tensors
        # dm_i / dg_j = w_i (1[i = j] - w_j / sum w) / epsilon: t distributes each gain over all.
        weight = mask * (1 - mask)
        total = weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        (gradient,) = gradients
        centred = gradient - (weight * gradient).sum(1, keepdim=True) / total
        return weight * centred / ctx.epsilon, None, None, None


def _threshold(gains: Tensor, usable: Tensor, k: int) -> Tensor:
    """(batch, 1), the t at which sigmoid(gains - t) sums to k, by Newton's method; the K-th largest gain is 0.

    Gains that are not ``usable`` are -inf; each row has more than k others.
    """
    shift = (k / (usable.sum(1, keepdim=True) - k).to(gains.dtype)).log()
    # The roots if all gains were equal to the smallest or the largest.
    low = torch.where(usable, gains, math.inf).amin(1, keepdim=True) - shift
    high = gains.amax(1, keepdim=True) - shift
    # For small epsilon, the root is halfway between the k-th and the next gain.
    edge = gains.topk(k + 1, dim=1).values
    threshold = ((edge[:, -2:-1] + edge[:, -1:]) / 2).clamp(low, high)
    for _ in range(_MAX_ITERATIONS):
        mask = (gains - threshold).sigmoid()
        excess = mask.sum(1, keepdim=True) - k  # falls as t rises
        low, high = torch.where(excess > 0, threshold, low), torch.where(excess > 0, high, threshold)
        newton = threshold + excess / (mask * (1 - mask)).sum(1, keepdim=True)
        inside = (newton > low) & (newton < high)  # false where the slope is 0
        proposed = torch.where(inside, newton, (low + high) / 2)
        done = ((proposed - threshold).abs() <= _TOLERANCE) | (excess == 0)
        threshold = torch.where(excess == 0, threshold, proposed)
        if bool(done.all()):
            break
    return threshold


def perturbed_topk(
    scores: Scores, k: int, generator: torch.Generator | None = None, sigma: float = 0.05, samples: int = 500
) -> Selection:
    """The mean of hard masks under Gaussian noise on the scores, with the gradient of its expectation.

    To save memory, only the k indices of each sample and a seed are kept; the backward pass generates the noise again.
    The gradient weights the noise of each sample by the value of its selection minus the mean value of the other
    samples, which lowers the variance without bias.

    Args:
        generator: seeds the noise; by default torch's global generator.
        sigma: standard deviation of the noise, in units of the scores, above 0.
        samples: number of samples, 2 or more; the mask has multiples of 1 / samples.

    Reference: Berthet et al., Learning with differentiable perturbed optimizers (2020); Cordonnier et al.,
        Differentiable patch selection (2021).
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be a finite number above 0, got {sigma}")
    if not isinstance(samples, int) or samples < 2:
        raise ValueError(f"samples must be a whole number, 2 or more, got {samples}")
    k = _check(scores, k)
    place = torch.device("cpu") if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=place))
    mask: Tensor = _PerturbedMask.apply(scores, k, sigma, samples, seed)
    return Selection(scores.detach().topk(k, dim=1).indices, mask)


class _PerturbedMask(torch.autograd.Function):
    """The mean of hard masks under noise; see ``perturbed_topk``."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, sigma: float, samples: int, seed: int) -> Tensor:
        parts = _noise(scores, samples, seed)
        chosen = [(scores.unsqueeze(1) + sigma * noise).topk(k, dim=2).indices.to(torch.int32) for noise in parts]
        indices = torch.cat(chosen, dim=1)
        ctx.save_for_backward(scores, indices)
        ctx.settings = sigma, samples, seed
        ones = scores.new_full((len(scores), samples * k), 1 / samples)
        return torch.zeros_like(scores).scatter_add(1, indices.flatten(1).long(), ones)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        scores, indices = ctx.saved_tensors
        sigma, samples, seed = ctx.settings
        (gradient,) = gradients
        worth = gradient.gather(1, indices.flatten(1).long()).view(indices.shape).sum(2)  # (batch, samples)
        worth = (worth - worth.mean(1, keepdim=True)) * (samples / (samples - 1))
        total, first = torch.zeros_like(scores), 0
        for noise in _noise(scores, samples, seed):
            part = worth[:, first : first + noise.shape[1]]
            total += torch.einsum("bs,bsn->bn", part, noise)
            first += noise.shape[1]
        return total / (samples * sigma), None, None, None, None


def _noise(scores: Tensor, samples: int, seed: int) -> Iterator[Tensor]:
    """Standard normal noise for all samples, in parts of (batch, some samples, n), reproducible from the seed."""
    generator = torch.Generator(scores.device).manual_seed(seed)
    batch, count = scores.shape
    size = max(1, _CHUNK // max(1, batch * count))
    for first in range(0, samples, size):
        shape = (batch, min(size, samples - first), count)
        yield torch.randn(shape, generator=generator, device=scores.device, dtype=scores.dtype)


def masked_class_proportions(
    probabilities: Float[Tensor, "batch n classes"], mask: Scores, k: int
) -> Float[Tensor, "batch classes"]:
    """Equation 12 of the MIST supplement: the class probabilities of all positions, weighted by the mask, over K.

    For a hard mask this is the mean over the K selected positions, as in equation 9.
    """
    return (probabilities * mask.unsqueeze(-1)).sum(1) / k


def _check(scores: Tensor, k: SupportsIndex, most: int = -1, masked: bool = False) -> int:
    """Checks scores and k, of any type of whole numbers; returns k.

    Args:
        most: the largest k, relative to the number of scores.
        masked: whether scores may be -inf, as long as k others remain.
    """
    if scores.dim() != 2 or not scores.is_floating_point():
        hint = ": for one row give scores[None]" if scores.dim() == 1 else ""
        raise ValueError(f"scores must be (batch, n) of floats, got {tuple(scores.shape)} of {scores.dtype}{hint}")
    try:
        number = operator.index(k)
    except TypeError:
        raise ValueError(f"k must be a whole number, got {k}") from None
    if not 1 <= number <= scores.shape[1] + most:
        below = ", below the number of scores" if most else ", the number of scores"
        raise ValueError(f"k must be from 1 to {scores.shape[1] + most}{below}, got {k}")
    refused = scores.isnan() | (scores == math.inf) if masked else ~scores.isfinite()
    if bool(refused.any()):
        raise ValueError("the scores contain NaN or infinity: check the network that computes them")
    if masked and bool(((scores > -math.inf).sum(1) < number).any()):
        raise ValueError(f"a row has fewer than k = {k} scores above -inf: give a smaller k, or mask fewer")
    return number
