"""Which columns hold counts: what is said about one that is left out by its name."""

from __future__ import annotations

import pytest

from mistnn.data.folder.columns import explained, not_counts


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
