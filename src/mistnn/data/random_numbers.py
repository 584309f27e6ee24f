"""Random numbers that depend on a seed and an index alone: of generated images, and of the order of stored ones.

One ``numpy.random.Generator`` per image may cost more than the image. In ``CounterRandom`` the numbers of an index come
from a mixed counter: one array operation computes those of many indices, and an index alone gets the same numbers.

Reference: Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014 (the mixing of SplitMix64);
Box and Muller, 1958.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt64

_STEP = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio in 64 bits: an odd number whose multiples spread evenly
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BITS = 53  #: Random bits per number: the precision of a float64.


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


class Drawn(NamedTuple):
    """A sample of an endless training set."""

    image: int  #: Index of the image.
    coins: tuple[bool, bool]  #: Two fair coins for this image in this round, for example to flip it.


class Rounds:
    """Index i of an endless training set is element i of an endless sequence of shuffled rounds.

    The random numbers of a round and the index alone determine a sample. The last round is cached, since indices mostly
    come in order.

    Args:
        random: makes the generator of a round from the round's number.
    """

    def __init__(self, images: int, random: Callable[[int], np.random.Generator]) -> None:
        self._images, self._random = images, random
        self._turn, self._order, self._coins = -1, np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=bool)

    def __getitem__(self, index: int) -> Drawn:
        """The sample of an index, from 0."""
        turn, place = divmod(index, self._images)
        if turn != self._turn:
            random = self._random(turn)
            self._order = random.permutation(self._images)
            self._coins = random.random((self._images, 2)) < 0.5
            self._turn = turn
        first, second = self._coins[place].tolist()
        return Drawn(int(self._order[place]), (first, second))


def darts(random: np.random.Generator, numbers: int, block: int) -> Iterator[list[float]]:
    """Endless rows of numbers in [0, 1), drawn ``block`` rows at a time, which is faster."""
    while True:
        yield from random.random((block, numbers)).tolist()


def hash_share(name: bytes) -> float:
    """A number in [0, 1) from a hash of a name, which never changes."""
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64


def generator(seed: int, *key: int) -> np.random.Generator:
    """The generator of ``SeedSequence(seed, spawn_key=key)``."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def seeded(seed: int) -> Callable[[int], np.random.Generator]:
    """Generators for the rounds of a training set."""
    return lambda turn: generator(seed, 0, turn)
