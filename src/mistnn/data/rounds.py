"""The order of an endless training set: round after round, each with all images once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Drawn(NamedTuple):
    """An image of an endless training set.

    Attributes:
        image: which of the images.
        coins: two fair coins that belong to it in this round, for whoever needs any.
    """

    image: int
    coins: tuple[bool, bool]


class Rounds:
    """Index i of an endless training set is image i of an endless sequence of shuffled rounds.

    So the random numbers of a round and the index alone say what a sample is. The last round is kept, for indices
    mostly come in their order.

    Args:
        images: how many there are.
        random: makes the generator of a round, by its number.
    """

    def __init__(self, images: int, random: Callable[[int], np.random.Generator]) -> None:
        """Draws nothing yet."""
        self._images, self._random = images, random
        self._turn, self._order, self._coins = -1, np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=bool)

    def __getitem__(self, index: int) -> Drawn:
        """What is at an index, from 0 on."""
        turn, place = divmod(index, self._images)
        if turn != self._turn:
            random = self._random(turn)
            self._order = random.permutation(self._images)
            self._coins = random.random((self._images, 2)) < 0.5
            self._turn = turn
        first, second = self._coins[place].tolist()
        return Drawn(int(self._order[place]), (first, second))


def seeded(seed: int) -> Callable[[int], np.random.Generator]:
    """Generators for the rounds of a training set with a seed."""

    def random(turn: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0, turn))))

    return random
