"""The order of an endless training set: round after round, each with all images once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Drawn(NamedTuple):
    """A sample of an endless training set.

    Attributes:
        image: index of the image.
        coins: two fair coins for this image in this round, for example to flip it.
    """

    image: int
    coins: tuple[bool, bool]


class Rounds:
    """Index i of an endless training set is element i of an endless sequence of shuffled rounds.

    The random numbers of a round and the index alone determine a sample. The last round is cached, since indices mostly
    come in order.

    Args:
        random: makes the generator of a round from the round's number.
    """

    def __init__(self, images: int, random: Callable[[int], np.random.Generator]) -> None:
        """Draws nothing yet."""
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


def generator(seed: int, *key: int) -> np.random.Generator:
    """The generator of ``SeedSequence(seed, spawn_key=key)``."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def seeded(seed: int) -> Callable[[int], np.random.Generator]:
    """Generators for the rounds of a training set."""
    return lambda turn: generator(seed, 0, turn)
