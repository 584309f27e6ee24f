"""Which columns hold counts: what is said about one that is left out by its name, and classes that count others."""

from __future__ import annotations

import numpy as np
import pytest

from mistnn.data.folder.columns import closeness, explained, not_counts, sum_of_some


@pytest.mark.parametrize("name", ["plate", "tray", "Plates"])
def test_counts_in_a_column_named_like_a_place_are_said(name: str) -> None:
    counts = ["3", "0", "7", "2", "5", "1"]
    left = not_counts({"cell": ["1", "2", "0", "4", "1", "9"], name: counts})
    assert left == {name: "by its name, although its values could be counts"}
    said = explained(left, "file,class,count")
    assert f"'{name}' (by its name, although its values could be counts)" in said and f"call it '{name} count'" in said
    assert not_counts({f"{name} count": counts}) == {}


def test_other_columns_are_left_out_without_that_doubt() -> None:
    cells = ["1", "2", "0", "4", "1", "9"]
    for values in (["A1", "A2", "A3", "B1", "B2", "B3"], ["1", "2", "3", "4", "5", "6"], ["12"] * 6):
        assert not_counts({"cell": cells, "plate": values}) == {"plate": "by its name"}


def test_a_dish_is_an_object() -> None:
    assert not_counts({"dish": ["3", "0", "7", "2", "5", "1"]}) == {}


def test_counts_that_grow_stay() -> None:
    cells = ["1", "2", "0", "4", "1", "9"]
    for values in (["0", "1", "1", "2", "3", "3"], ["2", "2", "3", "3", "4", "4"], ["0", "0", "0", "1", "1", "1"]):
        assert not_counts({"cell": cells, "bud": values}) == {}
    for name in ("cells per image", "cells_per_field"):
        assert not_counts({"bud": cells, name: ["12", "3", "8", "28", "0", "7"]}) == {}


@pytest.mark.parametrize(
    "name",
    [
        "viability", "viability %", "% dead", "dead(%)", "Confluence", "confluency", "passage", "Passage no", "rep",
        "sex", "threshold", "CFU/ml", "cells / µl", "cells/mm2", "cells/mm²", "cells per ml", "colonies/100 ml",
        "10^6/l", "plants/ha", "cells/min",
    ],
)  # fmt: skip
def test_settings_shares_and_amounts_are_no_counts(name: str) -> None:
    assert not_counts({"cell": ["1", "2", "0", "4", "1", "9"], name: ["90", "85", "97", "88", "92", "79"]}).keys() == {
        name
    }


@pytest.mark.parametrize(
    "name",
    [
        "mouse", "group", "cells/image", "cells / field", "cells/HPF", "live/dead", "f/m", "S/M/L", "red/blue", "r/g/b",
        "male/female", "viability count",
    ],
)  # fmt: skip
def test_names_that_may_be_objects_stay(name: str) -> None:
    assert not_counts({"cell": ["1", "2", "0", "4", "1", "9"], name: ["3", "0", "7", "2", "5", "1"]}) == {}


RANDOM = np.random.default_rng(0)


def test_two_people_who_count_the_same_objects() -> None:
    for low, high, images in ((3, 40, 12), (0, 12, 40), (50, 300, 8)):
        first = RANDOM.integers(low, high, images)
        second = np.maximum(0, first + RANDOM.integers(-1, 2, images))
        found = closeness(first, second, compared=1)
        assert found is not None and found.same >= 0.8 * found.images


@pytest.mark.parametrize("mean", [0.5, 1, 2, 3, 5, 20])
@pytest.mark.parametrize("images", [8, 20, 200])
def test_independent_classes_are_hardly_ever_close(mean: float, images: int) -> None:
    """Tolerance: two of 200 are expected at most, as each is named with a probability below 0.01."""
    pairs = RANDOM.poisson(mean, (200, 2, images))
    assert sum(closeness(first, second, compared=1) is not None for first, second in pairs) <= 5


def test_a_sum_of_some_others() -> None:
    new, old, diff = RANDOM.integers(0, 12, (3, 20))
    numbers = np.stack((new + old, diff, new, old), axis=1)
    found = sum_of_some(numbers, 0)
    assert found is not None and found.classes == (2, 3) and found.same == found.images
    assert all(sum_of_some(numbers, place) is None for place in (1, 2, 3))
    a, b, c = RANDOM.integers(1, 9, (3, 12))
    numbers = np.stack((a, b, c, a + b, a + b + c), axis=1)
    sums = [sum_of_some(numbers, place) for place in range(5)]
    assert [one and one.classes for one in sums] == [None, None, None, (0, 1), (2, 3)], "the shorter sum of two"
    numbers[:3, 3] += 1
    assert sum_of_some(numbers, 3) is None, "in 9 of 12"


@pytest.mark.parametrize("mean", [0.5, 2, 10])
@pytest.mark.parametrize(("images", "classes"), [(6, 4), (6, 8), (20, 5), (60, 8)])
def test_independent_classes_are_hardly_ever_sums(mean: float, images: int, classes: int) -> None:
    """Tolerance: each table has one by chance with a probability below 0.01, so that 0.1 of 10 are expected at most."""
    tables = RANDOM.poisson(mean, (10, images, classes))
    assert sum(any(sum_of_some(one, place) for place in range(classes)) for one in tables) <= 1
