"""A warning during training: given once, as soon as a problem has lasted for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping

LINES = 5
"""Consecutive lines of the log for which a problem must last (our choice)."""


class Watch:
    """Warns once of a problem: as soon as it has lasted for ``LINES`` lines of the log, or at the end of training.

    Args:
        note: from the values of a line to the problem in one line of text, or ``None``.
        key: a scalar that a line must have; lines of evaluations don't have it.
        say: is called with the warning.
        after: iterations before which no warning is given.
    """

    def __init__(
        self, note: Callable[[Mapping[str, float]], str | None], key: str, say: Callable[[str], None], after: int = 0
    ) -> None:
        self.note, self.key, self.say, self.after = note, key, say, after
        self.lasted = 0
        self.last: Mapping[str, float] = {}
        self.warned = False

    def line(self, iteration: int, values: Mapping[str, float]) -> None:
        """Checks a line of the log."""
        if self.key not in values:
            return
        self.last = values
        if iteration <= self.after or self.warned:
            return
        note = self.note(values)
        self.lasted = 0 if note is None else self.lasted + 1
        if self.lasted == LINES:
            self._warn(f"after {iteration} steps {note}")

    def end(self) -> None:
        """Checks the last line, unless a warning was given."""
        note = self.note(self.last) if self.last and not self.warned else None
        if note is not None:
            self._warn(note)

    def _warn(self, text: str) -> None:
        self.warned = True
        self.say(text)
