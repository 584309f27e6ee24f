"""The prior of SPAIR over z_pres by counting all vectors, and equations B1 and B2 by a plain loop over cells."""

from __future__ import annotations

import itertools
import math


def vectors(cells):
    """All binary vectors of that length."""
    return list(itertools.product((0, 1), repeat=cells))


def prior(z, s):
    """Section A as printed: p(z)."""
    n, ones = len(z), sum(z)
    return s * (1 - s) ** ones / ((1 - (1 - s) ** (n + 1)) * math.comb(n, ones))


def conditionals(z, s):
    """p(z_k = 1 | z_1 .. z_(k-1)) for each k, by B1, with p(C | ...) updated by B2."""
    n = len(z)
    counts = [s * (1 - s) ** c for c in range(n + 1)]
    counts = [value / sum(counts) for value in counts]
    found, before = [], 0
    for k in range(1, n + 1):
        # A count below the ones seen, or above what the slots left allow, has the probability 0 by now.
        given = [min(max((c - before) / (n - (k - 1)), 0.0), 1.0) for c in range(n + 1)]
        found.append(sum(one * count for one, count in zip(given, counts, strict=True)))
        counts = [(one if z[k - 1] else 1 - one) * count for one, count in zip(given, counts, strict=True)]
        counts = [value / sum(counts) for value in counts]
        before += z[k - 1]
    return found


def bernoulli_kl(beta, p):
    """KL(Bernoulli(beta) || Bernoulli(p)), with 0 log 0 = 0."""
    total = 0.0
    for q, r in ((beta, p), (1 - beta, 1 - p)):
        if q > 0:
            total += q * math.log(q / r)
    return total
