"""Random numbers as a function of (seed, stream, index), for whole batches at once and in any order.

One ``numpy.random.Generator`` per image would cost more than the image. Here the numbers of an index come from a mixed
counter: one array operation computes those of many indices, and an index alone gets the same numbers.

Reference: Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014 (the mixing of SplitMix64);
Box and Muller, 1958.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, Int64, UInt64

_STEP = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio in 64 bits: an odd number whose multiples spread evenly
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BITS = 53
"""Random bits per number: the precision of a float64."""


class CounterRandom:
    """A table of random numbers, one row per index and one column per draw, computed on demand.

    Args:
        seed: from 0.
        stream: streams of one seed share no numbers.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._key = np.random.SeedSequence(seed, spawn_key=(stream,)).generate_state(1, np.uint64)

    def uniform(self, indices: Int64[np.ndarray, " n"], first: int, count: int) -> Float64[np.ndarray, "n draws"]:
        """Numbers in [0, 1): for each index, ``count`` draws from ``first`` on."""
        rows = _mixed(self._key + (indices.astype(np.uint64) + np.uint64(1)) * _STEP)
        columns = np.arange(first + 1, first + 1 + count, dtype=np.uint64) * _STEP
        return (_mixed(rows[:, None] + columns) >> np.uint64(64 - _BITS)) * 2.0**-_BITS

    def normal(self, indices: Int64[np.ndarray, " n"], first: int, count: int) -> Float64[np.ndarray, "n draws"]:
        """Numbers of mean 0 and variance 1, which use 2 ``count`` draws from ``first`` on."""
        flat = self.uniform(indices, first, 2 * count)
        return np.sqrt(-2 * np.log1p(-flat[:, :count])) * np.cos(math.tau * flat[:, count:])

    def integers(
        self, indices: Int64[np.ndarray, " n"], first: int, count: int, below: int
    ) -> Int64[np.ndarray, "n draws"]:
        """Integers from 0 to ``below`` - 1, all equally likely."""
        return (self.uniform(indices, first, count) * below).astype(np.int64)


def _mixed(values: UInt64[np.ndarray, ...]) -> UInt64[np.ndarray, ...]:
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
