from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops import hard_topk, perturbed_topk, soft_topk, straight_through_topk
from mistnn.ops.losses import class_proportion_loss
from mistnn.ops.selection import masked_class_proportions

SELECTIONS = [hard_topk, straight_through_topk, soft_topk, perturbed_topk]


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unrolled(scores: torch.Tensor, k: int, epsilon: float, iterations: int) -> torch.Tensor:
    """The published method: Sinkhorn iterations in the log domain, differentiated by autograd."""
    n = scores.shape[1]
    cost = (scores[..., None] - torch.tensor([0.0, 1.0], dtype=scores.dtype)).square()
    kernel = -cost / cost.detach().amax((1, 2), keepdim=True) / epsilon
    rows = torch.full((1, n), -math.log(n), dtype=scores.dtype)
    columns = torch.tensor([[(n - k) / n, k / n]], dtype=scores.dtype).log()
    right = torch.zeros(len(scores), 2, dtype=scores.dtype)
    left = torch.zeros_like(scores)
    for _ in range(iterations):
        left = rows - (kernel + right[:, None]).logsumexp(2)
        right = columns - (kernel + left[..., None]).logsumexp(1)
    return n * (kernel + left[..., None] + right[:, None])[..., 1].exp()


@pytest.mark.parametrize("select", SELECTIONS)
def test_one_signature(select):
    scores = uniform(3, 12)
    found = select(scores, 4, torch.Generator().manual_seed(1))
    assert found.indices.shape == (3, 4) and found.mask.shape == (3, 12)
    assert torch.equal(found.indices, scores.topk(4).indices)
    assert found.mask.dtype == scores.dtype and found.mask.min() >= -1e-12 and found.mask.max() <= 1 + 1e-12
    torch.testing.assert_close(found.mask.sum(1), torch.full((3,), 4.0, dtype=torch.float64))


@given(st.integers(2, 9), st.floats(1e-4, 10.0), st.integers(0, 2**31), st.floats(0.01, 50.0))
@settings(max_examples=80, deadline=None)
def test_soft_mask_sums_to_k_for_any_scores(n, epsilon, seed, spread):
    scores = (uniform(2, n, seed=seed) - 0.5) * spread
    for k in range(1, n):
        mask = soft_topk(scores, k, epsilon=epsilon).mask
        torch.testing.assert_close(mask.sum(1), torch.full((2,), float(k), dtype=torch.float64), rtol=1e-7, atol=1e-7)
        order = scores.argsort(1)
        assert (mask.gather(1, order).diff(dim=1) >= -1e-9).all()  # a higher score is chosen no less


@pytest.mark.parametrize("epsilon", [0.03, 0.1, 1.0])
def test_soft_mask_is_the_transport_plan(epsilon):
    """POT's Sinkhorn on the same problem."""
    scores, k, n = uniform(2, 10), 3, 10
    mask = soft_topk(scores, k, epsilon=epsilon).mask
    for one, row in zip(scores, mask, strict=True):
        largest = torch.maximum(one.square(), (one - 1).square()).max()
        cost = (one[:, None] - torch.tensor([0.0, 1.0], dtype=torch.float64)).square() / largest
        marginals = torch.full((n,), 1 / n, dtype=torch.float64), torch.tensor([(n - k) / n, k / n]).double()
        plan = ot.bregman.sinkhorn_log(*(part.numpy() for part in marginals), cost.numpy(), epsilon, 20_000, 1e-12)
        torch.testing.assert_close(row, torch.from_numpy(n * plan[:, 1]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("epsilon", "iterations"), [pytest.param(0.01, 20_000, marks=pytest.mark.slow), (0.05, 2000), (0.5, 200)]
)
def test_gradient_is_that_of_unrolled_iterations(epsilon, iterations):
    """For a smaller epsilon, the published method needs more iterations."""
    scores = uniform(2, 12).requires_grad_()
    weights = uniform(2, 12, seed=5)
    found = soft_topk(scores, 5, epsilon=epsilon).mask
    (gradient,) = torch.autograd.grad((weights * found).sum(), scores)
    expected = unrolled(scores, 5, epsilon, iterations)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    (reference,) = torch.autograd.grad((weights * expected).sum(), scores)
    torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6)
    assert reference.abs().max() > 1e-3


@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_soft_gradcheck(epsilon):
    # The largest cost is a constant in the gradient; here it belongs to a score that this test does not vary.
    fixed = torch.full((2, 1), 2.5, dtype=torch.float64)

    def mask(scores: torch.Tensor) -> torch.Tensor:
        return soft_topk(torch.cat((scores, fixed), dim=1), 2, epsilon=epsilon).mask

    assert torch.autograd.gradcheck(mask, (uniform(2, 5).requires_grad_(),))


def test_small_epsilon_is_hard_and_finite():
    scores = torch.tensor([[0.2, 0.9, 0.5, 0.1], [0.3, 0.3001, 0.2, 0.9]], requires_grad=True)
    for epsilon in (1e-5, 1e-9, 1e-30):
        found = soft_topk(scores, 2, epsilon=epsilon).mask
        torch.testing.assert_close(found, hard_topk(scores, 2).mask, atol=1e-3, rtol=0)
        (gradient,) = torch.autograd.grad((found * torch.arange(4.0)).sum(), scores)
        assert gradient.isfinite().all()


def test_a_row_does_not_depend_on_its_mates():
    alone, other = uniform(1, 6), 30 * uniform(1, 6, seed=1)
    torch.testing.assert_close(soft_topk(torch.cat((alone, other)), 2).mask[:1], soft_topk(alone, 2).mask)


def test_equal_scores_share():
    mask = soft_topk(torch.full((1, 8), 0.25), 2, epsilon=1e-6).mask
    torch.testing.assert_close(mask, torch.full((1, 8), 0.25))


def test_extreme_scores_and_types():
    for scores in (torch.tensor([[-1e4, 1e4, 0.0, 3.0]]), torch.rand(2, 7).bfloat16(), torch.zeros(1, 4)):
        mask = soft_topk(scores, 2).mask
        assert mask.isfinite().all() and mask.dtype == scores.dtype
        torch.testing.assert_close(mask.float().sum(1), torch.full((len(scores),), 2.0), atol=2e-2, rtol=0)


def test_straight_through_is_hard_with_a_soft_gradient():
    scores = uniform(2, 6).requires_grad_()
    weights = uniform(2, 6, seed=3)
    found = straight_through_topk(scores, 2, temperature=0.5).mask
    torch.testing.assert_close(found, hard_topk(scores, 2).mask)
    (gradient,) = torch.autograd.grad((weights * found).sum(), scores)
    (expected,) = torch.autograd.grad((weights * 2 * (scores / 0.5).softmax(1)).sum(), scores)
    torch.testing.assert_close(gradient, expected)
    assert not hard_topk(scores, 2).mask.requires_grad


def test_perturbed_mask_is_the_mean_of_hard_ones():
    scores = uniform(2, 6)
    found = perturbed_topk(scores, 2, torch.Generator().manual_seed(4), sigma=0.3, samples=7)
    assert torch.equal(found.mask, perturbed_topk(scores, 2, torch.Generator().manual_seed(4), 0.3, 7).mask)
    torch.testing.assert_close((found.mask * 7).round(), found.mask * 7)
    other = perturbed_topk(scores, 2, torch.Generator().manual_seed(5), sigma=0.3, samples=7)
    assert not torch.equal(found.mask, other.mask)
    quiet = perturbed_topk(scores, 2, sigma=1e-9, samples=3)
    torch.testing.assert_close(quiet.mask, hard_topk(scores, 2).mask)


def test_perturbed_gradient_is_that_of_the_expectation():
    """Against differences of the expectation, whose value has a closed form for one of two: a normal distribution."""
    sigma, gap = 0.5, 0.3
    scores = torch.tensor([[gap, 0.0]], dtype=torch.float64, requires_grad=True)
    found = perturbed_topk(scores, 1, torch.Generator().manual_seed(0), sigma=sigma, samples=200_000).mask
    chance = 0.5 * (1 + math.erf(gap / (2 * sigma)))  # the difference of two noises has sigma * sqrt(2)
    assert found[0, 0].item() == pytest.approx(chance, abs=5e-3)
    (gradient,) = torch.autograd.grad(found[0, 0], scores)
    density = math.exp(-((gap / (2 * sigma)) ** 2)) / (2 * sigma * math.sqrt(math.pi))
    assert gradient[0].tolist() == pytest.approx([density, -density], abs=1e-2)


def test_perturbed_gradient_has_no_factor_k():
    """Finite differences of a large sample's mean with common noise, for k = 3 of 6."""
    scores, weights = uniform(1, 6), uniform(1, 6, seed=8)

    def value(at: torch.Tensor) -> torch.Tensor:
        return (weights * perturbed_topk(at, 3, torch.Generator().manual_seed(1), 0.4, 400_000).mask).sum()

    leaf = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    for index in range(6):
        shift = torch.zeros_like(scores)
        shift[0, index] = 0.05
        difference = (value(scores + shift) - value(scores - shift)).item() / 0.1
        assert gradient[0, index].item() == pytest.approx(difference, abs=2e-2)


def test_noise_in_parts_is_the_same(monkeypatch):
    """The size of the parts of the noise changes neither the number of samples nor the gradient."""
    scores = uniform(2, 5).requires_grad_()
    results = []
    for chunk in (1 << 24, 30):
        monkeypatch.setattr("mistnn.ops.selection._CHUNK", chunk)
        mask = perturbed_topk(scores, 2, torch.Generator().manual_seed(3), 0.3, 4000).mask
        (gradient,) = torch.autograd.grad((mask * torch.arange(5.0)).sum(), scores)
        results.append((mask.detach(), gradient))
    torch.testing.assert_close(results[0][0], results[1][0], atol=0.05, rtol=0)
    torch.testing.assert_close(results[0][1], results[1][1], atol=0.25, rtol=0)


def test_equation_12_is_equation_9_with_a_hard_mask():
    probabilities, counts = uniform(2, 7, 4).softmax(-1), torch.tensor([[1, 0, 2, 0], [0, 3, 0, 0]])
    found = hard_topk(uniform(2, 7, seed=2), 3)
    chosen = probabilities.gather(1, found.indices[..., None].expand(-1, -1, 4))
    expected = class_proportion_loss(chosen, counts)
    masked = masked_class_proportions(probabilities, found.mask, 3)
    torch.testing.assert_close((counts / counts.sum(1, keepdim=True) - masked).square().sum(1), expected)


@pytest.mark.plain
@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("k", [0, -1, 5, 6])
def test_k_that_makes_no_sense_is_named(select, k):
    with pytest.raises(ValueError, match=rf"from 1 to 4.*got {k}"):
        select(torch.rand(2, 5), k)


@pytest.mark.plain
@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_scores_are_named(select, bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        select(torch.tensor([[0.1, bad, 0.3]]), 1)


@pytest.mark.plain
def test_other_mistakes_are_named():
    scores = torch.rand(2, 5)
    for epsilon in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="epsilon"):
            soft_topk(scores, 2, epsilon=epsilon)
    with pytest.raises(ValueError, match="sigma"):
        perturbed_topk(scores, 2, sigma=0.0)
    with pytest.raises(ValueError, match="samples"):
        perturbed_topk(scores, 2, samples=1)
    with pytest.raises(ValueError, match="temperature"):
        straight_through_topk(scores, 2, temperature=0.0)
    with pytest.raises(ValueError, match="batch"):
        soft_topk(torch.rand(5), 2)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e9, 1e12, 1e100])
@pytest.mark.parametrize("epsilon", [1e-30, 1e-16, 1e-3])
def test_soft_topk_sums_to_k_for_scores_of_any_size(offset, epsilon):
    scores = (torch.arange(6, dtype=torch.float64) * max(1.0, offset * 1e-3) + offset)[None]
    mask = soft_topk(scores, 2, epsilon=epsilon).mask
    assert mask.isfinite().all() and mask.sum().item() == pytest.approx(2, abs=1e-9)
    assert (mask.diff() >= 0).all()


@pytest.mark.parametrize("epsilon", [1e-30, 1e-17, 1e-14, 1e-3, 10.0])
@pytest.mark.parametrize("ties", [2, 30, 100])
def test_soft_topk_shares_ties_alike(epsilon, ties):
    scores = torch.zeros(1, 100, dtype=torch.float64)
    scores[0, :ties] = 1.0
    mask = soft_topk(scores, 9, epsilon=epsilon).mask
    assert mask.sum().item() == pytest.approx(9, abs=1e-9)
    if ties >= 9 and epsilon < 1e-2:
        torch.testing.assert_close(mask[0, :ties], torch.full((ties,), 9 / ties, dtype=torch.float64))


@pytest.mark.parametrize("epsilon", [1e-2, 1e-3, 1e-4])
def test_the_gradient_below_the_oracles_reach_is_that_of_the_exact_solution(epsilon):
    """Finite differences of the root itself, at scores whose mask is soft there."""
    random = torch.Generator().manual_seed(0)
    scores = (0.5 + epsilon * torch.randn(2, 12, generator=random, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(2, 12, generator=random, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((soft_topk(scores, 4, epsilon=epsilon).mask * weights).sum(), scores)
    step = epsilon * 1e-4
    for index in range(12):
        values = []
        for sign in (1, -1):
            moved = scores.detach().clone()
            moved[0, index] += sign * step
            values.append((soft_topk(moved, 4, epsilon=epsilon).mask * weights)[0].sum().item())
        numeric = (values[0] - values[1]) / (2 * step)
        # The largest cost is a constant in the gradient, as in the official code, and moves a little here.
        assert gradient[0, index].item() == pytest.approx(numeric, rel=2e-2, abs=2e-2 / epsilon)


@pytest.mark.plain
@pytest.mark.parametrize(
    ("scores", "k", "options", "word"),
    [
        (torch.arange(10)[None], 3, {}, "of floats"),
        (torch.rand(1, 10), 2.5, {}, "whole number"),
        (torch.rand(1, 10), 2, {"epsilon": 1e-40}, "from 1e-30"),
        (torch.full((1, 10), 1e200, dtype=torch.float64), 2, {}, "overflow"),
    ],
)
def test_scores_that_soft_topk_refuses(scores, k, options, word):
    with pytest.raises(ValueError, match=word):
        soft_topk(scores, k, **options)


def test_no_second_derivative_is_made_up():
    scores = torch.rand(1, 8, requires_grad=True)
    for select in (soft_topk, perturbed_topk):
        (gradient,) = torch.autograd.grad((select(scores, 2).mask ** 2).sum(), scores, create_graph=True)
        with pytest.raises(RuntimeError):
            torch.autograd.grad(gradient.sum(), scores)


def test_perturbed_topk_of_no_rows():
    assert perturbed_topk(torch.empty(0, 5), 2).mask.shape == (0, 5)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_soft_topk_leaves_out_scores_of_minus_infinity(k: int) -> None:
    """As if they were not there; a row with k others selects these."""
    scores = torch.tensor([[0.2, 0.9, 0.4, 0.7, 0.1]], dtype=torch.float64, requires_grad=True)
    shown = torch.tensor([[True, False, True, True, True]])
    masked = torch.where(shown, scores, -torch.inf)
    found, wanted = soft_topk(masked, k), soft_topk(scores[shown][None], k)
    assert torch.allclose(found.mask[shown], wanted.mask[0], atol=1e-12) and found.mask[0, 1] == 0
    assert found.mask.sum().item() == pytest.approx(k)
    assert 1 not in found.indices.tolist()[0]
    weights = torch.arange(4.0, dtype=torch.float64)
    (ours,) = torch.autograd.grad((found.mask[shown] * weights).sum(), scores)
    (theirs,) = torch.autograd.grad((wanted.mask[0] * weights).sum(), scores)
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_soft_topk_selects_all_that_remain() -> None:
    scores = torch.tensor([[0.2, 0.9, -torch.inf], [0.3, 0.1, 0.8]], requires_grad=True)
    mask = soft_topk(scores, 2).mask
    assert mask[0].tolist() == [1.0, 1.0, 0.0]
    assert torch.allclose(mask[1:], soft_topk(scores[1:], 2).mask)
    mask.sum().backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all() and not scores.grad[0].any()
    everything = soft_topk(scores[1:], 3)
    assert everything.mask.tolist() == [[1.0] * 3] and everything.indices.tolist() == [[2, 0, 1]]


def test_soft_topk_is_flat_for_logits_and_sharp_for_their_sigmoid() -> None:
    """As its docstring says, with the remedy."""
    logits = torch.tensor([[-20.0, 2.0, 3.0, 20.0]])
    flat, sharp = soft_topk(logits, 2).mask[0], soft_topk(logits.sigmoid(), 2).mask[0]
    assert (flat[2] - flat[1]).abs() < 0.03 < 0.2 < sharp[2] - sharp[0]
    scores = torch.tensor([[3.0, 1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(soft_topk(scores, 1).mask[0, 0], scores)
    nudged = scores.detach() + torch.tensor([[1e-6, 0.0, 0.0]], dtype=torch.float64)
    numerical = (soft_topk(nudged, 1).mask[0, 0] - soft_topk(scores.detach(), 1).mask[0, 0]) / 1e-6
    assert ours[0, 0] > 0 > numerical, "the gradient of the largest cost is left out"


@pytest.mark.plain
def test_soft_topk_takes_numbers_of_numpy_and_names_what_is_wrong() -> None:
    scores = torch.tensor([[0.2, 0.9, 0.4]])
    assert torch.equal(soft_topk(scores, np.int64(2)).mask, soft_topk(scores, 2).mask)  # type: ignore[arg-type]
    for wrong, k, words in (
        (scores[0], 2, r"give scores\[None\]"),
        (scores, 4, "from 1 to 3, the number of scores"),
        (scores, 1.5, "whole number"),
        (torch.tensor([[0.2, -torch.inf, -torch.inf]]), 2, "fewer than k = 2 scores"),
        (torch.tensor([[0.2, torch.inf, 0.1]]), 2, "NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=words):
            soft_topk(wrong, k)  # type: ignore[arg-type]
