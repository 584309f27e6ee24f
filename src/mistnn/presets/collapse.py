"""The warning that SPAIR has collapsed, while a training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mistnn.models.spair import collapse_note
from mistnn.presets.watch import Watch

LINES = 5
"""Lines of the log, one after the other, that a collapse must hold for (our choice)."""


class CollapseWatch(Watch):
    """Says once that all objects are off, that none is, or that z_what says nothing about them.

    Args:
        say: is told.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__("kl_presence", 0, LINES, say)

    def note(self, values: Mapping[str, float]) -> str | None:
        """See ``mistnn.models.spair.collapse_note``."""
        return collapse_note(values)
