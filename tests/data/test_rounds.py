from __future__ import annotations

import numpy as np

from mistnn.data.corners import centred
from mistnn.data.random_numbers import Rounds, seeded


def test_every_image_once_a_round() -> None:
    rounds = Rounds(7, seeded(3))
    drawn = [[rounds[turn * 7 + place].image for place in range(7)] for turn in range(4)]
    assert all(sorted(one) == list(range(7)) for one in drawn)
    assert len({tuple(one) for one in drawn}) > 1


def test_the_index_alone_says_what_it_is() -> None:
    rounds, other = Rounds(5, seeded(0)), Rounds(5, seeded(0))
    assert [rounds[index] for index in range(20)] == [other[index] for index in reversed(range(20))][::-1]
    assert [rounds[index] for index in range(20)] != [Rounds(5, seeded(1))[index] for index in range(20)]


def test_the_random_numbers_of_a_round() -> None:
    """The order first, then two coins an image, from the generator of the round."""
    asked: list[int] = []

    def random(turn: int) -> np.random.Generator:
        asked.append(turn)
        return np.random.default_rng((9, turn))

    rounds = Rounds(6, random)
    for index in (0, 5, 6, 11, 3):
        turn, place = divmod(index, 6)
        mine = np.random.default_rng((9, turn))
        order, coins = mine.permutation(6), mine.random((6, 2)) < 0.5
        assert rounds[index] == (order[place], tuple(coins[place]))
    assert asked == [0, 1, 0], "a round is drawn once as long as it lasts"


def test_corners() -> None:
    assert centred(np.array([[1.0, 2.0, 4.0, 10.0]])).tolist() == [[2.5, 6.0, 3.0, 8.0]]
    assert centred(np.zeros((0, 4))).shape == (0, 4)
