"""The warning that SPAIR or AIR has collapsed, while a training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mistnn.models import air, spair
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
        return spair.collapse_note(values)


class AirCollapseWatch(Watch):
    """Says once that AIR draws nothing, that it draws at every step, or that z_what says nothing.

    Args:
        say: is told.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__("kl_what", 0, LINES, say)

    def note(self, values: Mapping[str, float]) -> str | None:
        """See ``mistnn.models.air.collapse_note``."""
        return air.collapse_note(values)
