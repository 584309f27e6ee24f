from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistnn.ops.priors import (
    concrete_log_density,
    count_log_prior,
    presence_kl,
    presence_log_conditionals,
    presence_log_prior,
    relaxed_presence_kl,
    sample_concrete,
    scheduled_s,
)
from tests.reference import priors as reference

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CELLS = st.integers(1, 7)
SUCCESS = st.sampled_from([1e-6, 0.0099, 0.3, 0.5, 0.9, 0.9877])


def every_vector(cells):
    return torch.tensor(reference.vectors(cells), dtype=torch.float64)


def joint(z, probabilities):
    """Product of Bernoulli probabilities along the last axis."""
    return torch.where(z > 0.5, probabilities, 1 - probabilities).prod(-1)


def test_shapes():
    logits, present = torch.randn(2, 3, 9), torch.rand(2, 3, 9)
    assert count_log_prior(9, 0.5).shape == (10,)
    assert presence_log_prior(present, 0.5).shape == (2, 3)
    assert all(part.shape == (2, 3, 9) for part in presence_log_conditionals(present, 0.5))
    assert presence_kl(logits, present, 0.5).shape == (2, 3)
    assert sample_concrete(logits, 1.0).shape == concrete_log_density(logits, logits, 1.0).shape == (2, 3, 9)
    assert relaxed_presence_kl(logits, logits, 0.5, 1.0).shape == (2, 3)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)])
def test_no_images_or_no_cells(shape):
    nothing = torch.zeros(shape)
    assert presence_kl(nothing, nothing, 0.5).tolist() == [0.0] * shape[0]
    assert presence_log_prior(nothing, 0.5).tolist() == [0.0] * shape[0]


@given(CELLS, SUCCESS)
@settings(max_examples=40, deadline=None)
def test_the_prior_sums_to_one_over_all_vectors_and_is_the_printed_one(cells, s):
    z = every_vector(cells)
    found = presence_log_prior(z, s).exp()
    assert found.sum().item() == pytest.approx(1, abs=1e-12)
    # The printed form loses digits to 1 - (1 - s)^(n + 1) at a small s.
    expected = torch.tensor([reference.prior(one, s) for one in reference.vectors(cells)], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    for count in range(cells + 1):
        share = found[z.sum(1) == count].sum().log()
        torch.testing.assert_close(share, count_log_prior(cells, s)[count], atol=1e-11, rtol=0)


@given(CELLS, SUCCESS)
@settings(max_examples=40, deadline=None)
def test_reference(cells, s):
    """The table for all cells at once against B1 and B2 cell by cell."""
    z = every_vector(cells)
    off, on = presence_log_conditionals(z, s)
    expected = torch.tensor([reference.conditionals(one, s) for one in reference.vectors(cells)], dtype=torch.float64)
    torch.testing.assert_close(on.exp(), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(off.exp(), 1 - expected, atol=1e-12, rtol=0)


@given(CELLS, SUCCESS)
@settings(max_examples=40, deadline=None)
def test_the_chain_of_conditionals_is_the_closed_form(cells, s):
    z = every_vector(cells)
    off, on = presence_log_conditionals(z, s)
    chain = torch.where(z > 0.5, on, off).sum(-1)
    torch.testing.assert_close(chain, presence_log_prior(z, s), atol=1e-12, rtol=1e-12)


def test_a_large_grid_stays_exact():
    """400 cells: binomials up to 1e119, and a chain of 400 terms."""
    z = (torch.rand(8, 400, generator=torch.Generator().manual_seed(0)) < torch.linspace(0, 1, 8)[:, None]).double()
    for s in (1e-6, 0.5, 0.9877):
        off, on = presence_log_conditionals(z, s)
        assert off.isfinite().all() and on.isfinite().all()
        torch.testing.assert_close(torch.where(z > 0.5, on, off).sum(-1), presence_log_prior(z, s), atol=1e-9, rtol=0)


@given(st.integers(1, 6), SUCCESS, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_kl_is_exact_in_the_mean(cells, s, seed):
    """Over all 2^n samples, weighted with q; also where beta depends on the cells before."""
    random = torch.Generator().manual_seed(seed)
    z = every_vector(cells)
    coupling = torch.randn(cells, cells, generator=random, dtype=torch.float64).tril(-1)
    for logits in (torch.randn(cells, generator=random).double().expand_as(z), z @ coupling.T + 0.3):
        q = joint(z, logits.sigmoid())
        exact = (q * (q.log() - presence_log_prior(z, s))).sum()
        estimate = (q * presence_kl(logits, z, s)).sum()
        torch.testing.assert_close(estimate, exact, atol=1e-12, rtol=1e-12)


@given(st.integers(1, 6), SUCCESS, st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_kl_reference(cells, s, seed):
    random = torch.Generator().manual_seed(seed)
    z = (torch.rand(cells, generator=random) < 0.5).double()
    beta = torch.rand(cells, generator=random, dtype=torch.float64)
    given_before = reference.conditionals([int(one) for one in z], s)
    expected = sum(reference.bernoulli_kl(b, p) for b, p in zip(beta.tolist(), given_before, strict=True))
    assert presence_kl(beta.logit(), z, s).item() == pytest.approx(expected, abs=1e-12, rel=1e-9)


@given(CELLS, SUCCESS)
@settings(max_examples=30, deadline=None)
def test_a_certain_kl_is_the_closed_form(cells, s):
    z = every_vector(cells)
    logits = torch.where(z > 0.5, torch.inf, -torch.inf).double().requires_grad_()
    found = presence_kl(logits, z, s)
    torch.testing.assert_close(found, -presence_log_prior(z, s), atol=1e-12, rtol=1e-12)
    found.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_relaxed_values_count_above_a_half():
    relaxed, hard = torch.tensor([0.51, 0.5, 0.999, 0.001]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    logits = torch.tensor([0.3, -1.0, 2.0, -3.0])
    assert presence_kl(logits, relaxed, 0.7) == presence_kl(logits, hard, 0.7)
    assert presence_kl(logits, hard.bool(), 0.7) == presence_kl(logits, hard, 0.7)


def test_a_high_s_wants_few_objects():
    few, many = torch.full((1, 9), -4.0), torch.full((1, 9), 4.0)
    off, on = torch.zeros(1, 9), torch.ones(1, 9)
    assert presence_kl(few, off, 0.99) < presence_kl(many, on, 0.99)
    # Near 0 all counts are equally likely.
    torch.testing.assert_close(presence_kl(few, off, 1e-6), presence_kl(many, on, 1e-6), atol=1e-4, rtol=0)


def test_gradcheck():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, generator=random, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 5, generator=random, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda part: presence_kl(part, y.detach() > 0, 0.4), (logits,))
    assert torch.autograd.gradcheck(lambda a, b: relaxed_presence_kl(a, b, 0.4, 0.8, 1.2), (y, logits))


def test_gradient_not_missing():
    logits = torch.linspace(-3, 3, 7).requires_grad_()
    (grad,) = torch.autograd.grad(presence_kl(logits, logits.detach() > 0, 0.4), logits)
    assert (grad != 0).all()
    again = torch.Generator().manual_seed(3)
    (grad,) = torch.autograd.grad(sample_concrete(logits, 0.5, again).sum(), logits)
    torch.testing.assert_close(grad, torch.full((7,), 2.0))


@pytest.mark.parametrize("value", [-1e4, -90.0, 0.0, 90.0, 1e4])
def test_extreme_logits_stay_finite(value):
    """sigmoid(90) is 1 in float32, and 1 - 1 has no logarithm."""
    for s in (1e-6, 0.99):
        logits = torch.full((4,), value, requires_grad=True)
        y = sample_concrete(logits, 0.5, torch.Generator().manual_seed(0))
        total = presence_kl(logits, y.sigmoid(), s) + relaxed_presence_kl(y, logits, s, 0.5)
        total.backward()
        assert total.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize(("logit", "temperature"), [(0.0, 1.0), (2.0, 0.5), (-3.0, 2.0)])
def test_the_concrete_density_is_one_and_fits_the_samples(logit, temperature):
    y = torch.linspace(-120, 120, 240_001, dtype=torch.float64)
    density = concrete_log_density(y, torch.full_like(y, logit), temperature).exp()
    assert torch.trapezoid(density, y).item() == pytest.approx(1, abs=1e-9)
    above = torch.trapezoid(density[y >= 0], y[y >= 0]).item()
    assert above == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-3)
    random = torch.Generator().manual_seed(0)
    drawn = sample_concrete(torch.full((200_000,), logit, dtype=torch.float64), temperature, random)
    assert (drawn > 0).double().mean().item() == pytest.approx(above, abs=5e-3)
    assert drawn.mean().item() == pytest.approx(torch.trapezoid(density * y, y).item(), abs=0.03 / temperature)


def test_the_concrete_density_is_the_published_one():
    """Over z in (0, 1): t a z^(-t-1) (1-z)^(-t-1) / (a z^-t + (1-z)^-t)^2, and dy/dz = 1 / (z (1-z))."""
    z, t, a = torch.tensor([0.02, 0.4, 0.97], dtype=torch.float64), 0.7, 2.5
    published = t * a * (z * (1 - z)) ** (-t - 1) / (a * z**-t + (1 - z) ** -t) ** 2
    logits = torch.full_like(z, math.log(a))
    found = concrete_log_density(z.logit(), logits, t).exp() / (z * (1 - z))
    torch.testing.assert_close(found, published, atol=1e-12, rtol=1e-12)


def test_samples_are_finite_and_repeat():
    logits = torch.zeros(1_000_000)
    first = sample_concrete(logits, 0.1, torch.Generator().manual_seed(5))
    assert first.isfinite().all()
    assert torch.equal(first, sample_concrete(logits, 0.1, torch.Generator().manual_seed(5)))


def test_relaxed_kl_of_the_prior_itself_is_zero():
    s, cells = 0.6, 5
    y = torch.randn(3, cells, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    off, on = presence_log_conditionals((y > 0).double(), s)
    same = relaxed_presence_kl(y, on - off, s, 0.7)
    torch.testing.assert_close(same, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_relaxed_kl_reference():
    s, y = 0.3, [0.5, -1.0, 2.0]
    logits = [1.0, 0.0, -0.5]
    expected = 0.0
    for one, logit, p in zip(y, logits, reference.conditionals([1, 0, 1], s), strict=True):
        for sign, odds, temperature in ((1, logit, 0.5), (-1, math.log(p / (1 - p)), 2.0)):
            size = temperature * math.exp(odds - temperature * one) / (1 + math.exp(odds - temperature * one)) ** 2
            expected += sign * math.log(size)
    found = relaxed_presence_kl(torch.tensor(y).double(), torch.tensor(logits).double(), s, 0.5, 2.0)
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("iteration", "s", "digits"),
    [
        (0, 1e-6, 1e-11),
        (4000, 0.0099, 5e-5),
        (5000, 0.091, 5e-4),
        (6000, 0.497, 5e-4),
        (7000, 0.90, 5e-3),
        (8000, 0.978, 5e-4),
        (10_000, 0.9876, 5e-5),
        (300_000, 0.9877, 5e-5),
    ],
)
def test_schedule(iteration, s, digits):
    assert scheduled_s(iteration) == pytest.approx(s, abs=digits)
    assert scheduled_s(iteration / 10, scale=0.1) == pytest.approx(scheduled_s(iteration), rel=1e-9)


def test_the_schedule_rises_within_its_range():
    values = [scheduled_s(iteration) for iteration in range(0, 20_000, 100)]
    assert values == sorted(values) and 0 < values[0] and values[-1] < 1


@pytest.mark.parametrize("s", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_s_outside_its_range(s):
    ones = torch.ones(2, 3)
    for refused in (
        lambda: count_log_prior(3, s),
        lambda: presence_log_prior(ones, s),
        lambda: presence_log_conditionals(ones, s),
        lambda: presence_kl(ones, ones, s),
        lambda: relaxed_presence_kl(ones, ones, s, 1.0),
    ):
        with pytest.raises(ValueError, match=rf"\(0, 1\), got {s}"):
            refused()


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="-1"):
        count_log_prior(-1, 0.5)
    with pytest.raises(ValueError, match=r"-5"):
        scheduled_s(-5)
    with pytest.raises(ValueError, match="scale.*0"):
        scheduled_s(5, scale=0.0)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
            sample_concrete(torch.zeros(2), temperature)
        with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
            concrete_log_density(torch.zeros(2), torch.zeros(2), temperature)


@pytest.mark.plain
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        presence_kl(torch.zeros(2, 3), torch.zeros(2, 4), 0.5)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        concrete_log_density(torch.zeros(3), torch.zeros(2, 3), 0.5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_device(device, dtype):
    logits = torch.zeros(2, 4, dtype=dtype, device=device)
    y = sample_concrete(logits, 0.5, torch.Generator(device).manual_seed(0))
    for found in (y, presence_kl(logits, y.sigmoid(), 0.5), relaxed_presence_kl(y, logits, 0.5, 0.5)):
        assert found.dtype == dtype and found.device.type == device and found.isfinite().all()


def test_batch_equals_singles():
    random = torch.Generator().manual_seed(0)
    logits, present = torch.randn(6, 9, generator=random), torch.rand(6, 9, generator=random)
    singles = torch.stack([presence_kl(a, b, 0.4) for a, b in zip(logits, present, strict=True)])
    torch.testing.assert_close(presence_kl(logits, present, 0.4), singles)
