"""The off-centre warning while a training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mistnn.models.mist import off_centre_note
from mistnn.presets.watch import Watch

WATCHED_AFTER = 200
"""Iterations (our choice): before, keypoints still wander, and often come back."""

LINES = 5
"""Lines of the log, one after the other, that an offset must hold for (our choice)."""


class OffCentreWatch(Watch):
    """Says once that the keypoints have settled beside the objects.

    Args:
        box_size: in pixels.
        say: is told.
    """

    def __init__(self, box_size: float, say: Callable[[str], None]) -> None:
        super().__init__("offset_x", WATCHED_AFTER, LINES, say)
        self.box_size = box_size

    def note(self, values: Mapping[str, float]) -> str | None:
        """See ``mistnn.models.mist.off_centre_note``."""
        return off_centre_note(values, self.box_size)
