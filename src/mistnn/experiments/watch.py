"""A warning while a training goes on: said once, as soon as it has held for a while."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping


class Watch(abc.ABC):
    """Says once what has gone wrong: as soon as it has held for some lines of the log, or at the end.

    Args:
        key: a scalar that only the lines have that are looked at; an evaluation's lines say nothing about it.
        after: iterations before which nothing is said.
        lines: of the log, one after the other, that it must hold for.
        say: is told.
    """

    def __init__(self, key: str, after: int, lines: int, say: Callable[[str], None]) -> None:
        self.key, self.after, self.lines, self.say = key, after, lines, say
        self.held = 0
        self.last: Mapping[str, float] = {}
        self.said = False

    @abc.abstractmethod
    def note(self, values: Mapping[str, float]) -> str | None:
        """What is wrong with a line of the log, in one line; nothing if it is well."""

    def line(self, iteration: int, values: Mapping[str, float]) -> None:
        """Looks at a line of the log."""
        if self.key not in values:
            return
        self.last = values
        if iteration <= self.after or self.said:
            return
        note = self.note(values)
        self.held = 0 if note is None else self.held + 1
        if note is not None and self.held == self.lines:
            self.tell(f"after {iteration} steps {note}")

    def end(self) -> None:
        """Looks at the last line, if nothing was said before."""
        note = self.note(self.last) if self.last and not self.said else None
        if note is not None:
            self.tell(note)

    def tell(self, note: str) -> None:
        """Passes the note on."""
        self.said = True
        self.say(note)
