"""The off-centre warning while a training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mistnn.models.mist import off_centre_note

WATCHED_AFTER = 200
"""Iterations (our choice): before, keypoints still wander, and often come back."""

LINES = 5
"""Lines of the log, one after the other, that an offset must hold for (our choice)."""


class OffCentreWatch:
    """Says once that the keypoints have settled beside the objects: as soon as it has held for a while, or at the end.

    Args:
        box_size: in pixels.
        say: is told.
    """

    def __init__(self, box_size: float, say: Callable[[str], None]) -> None:
        self.box_size, self.say = box_size, say
        self.held = 0
        self.last: Mapping[str, float] = {}
        self.said = False

    def line(self, iteration: int, values: Mapping[str, float]) -> None:
        """Looks at a line of the log; lines without an offset, such as an evaluation's, say nothing about it."""
        if "offset_x" not in values:
            return
        self.last = values
        if iteration <= WATCHED_AFTER or self.said:
            return
        note = off_centre_note(values, self.box_size)
        self.held = 0 if note is None else self.held + 1
        if note is not None and self.held == LINES:
            self.tell(f"after {iteration} steps {note}")

    def end(self) -> None:
        """Looks at the last line with an offset, if nothing was said before."""
        note = off_centre_note(self.last, self.box_size) if self.last and not self.said else None
        if note is not None:
            self.tell(note)

    def tell(self, note: str) -> None:
        """Passes the note on."""
        self.said = True
        self.say(note)
