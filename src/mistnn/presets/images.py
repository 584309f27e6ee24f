"""Images that presets of several papers share."""

from __future__ import annotations

from mistnn.data import ScenesConfig

HARD = ScenesConfig(layout="hard", source="mnist", canvas=80, counts=(9,))
SIX_TO_NINE = ScenesConfig(layout="hard", source="mnist", canvas=80, counts=(6, 7, 8, 9))
THREE_TO_NINE = ScenesConfig(layout="hard", source="mnist", canvas=80, counts=(3, 4, 5, 6, 7, 8, 9))
THREE = ScenesConfig(layout="hard", source="mnist", canvas=48, counts=(3,))
EASY = ScenesConfig(layout="easy", source="mnist", canvas=80, counts=(9,))
UNEVEN = ScenesConfig(layout="uneven", source="mnist", canvas=80, counts=(9,))
VARYING = ScenesConfig(layout="hard", source="mnist", canvas=96, counts=(9,), object_size=(14, 28))
EMBEDDED_THREE = ScenesConfig(layout="hard", source="embedded", canvas=48, counts=(3,))
