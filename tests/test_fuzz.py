"""Broken inputs: 200 of ``tests.fuzz`` here, 2,000 with ``make fuzz``."""

from __future__ import annotations

import pytest

from tests import fuzz

FAILED: tuple[int, ...] = (
    432603372,
    432603590,
    432603591,
    772756230,
    772757734,
    323367889,
    81430279,
    54487445,
    243274197,
    243289558,
)
"""Seeds that once failed; they stay."""


def test_broken_inputs_are_read_or_refused_in_one_line() -> None:
    for seed in (*FAILED, *range(200)):
        try:
            fuzz.attempt(seed)
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")


def test_the_inputs_are_broken_and_the_test_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most folders are refused; and an error that is not ours is a failure."""

    def wrong(root: object) -> None:
        raise KeyError("a reader fails")

    monkeypatch.setattr(fuzz, "read_folder", wrong)
    failures = 0
    for seed in range(10):
        try:
            fuzz.attempt(seed)
        except KeyError:
            failures += 1
    assert failures > 2
