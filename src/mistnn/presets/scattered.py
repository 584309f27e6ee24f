"""Scattered digits, on which SPAIR, AIR, DAIR and ConnComp are compared."""

from __future__ import annotations

from mistnn.data import ScatterConfig

DIGITS = (1, 3, 5, 7, 9)
"""Digits per image."""
SCATTERED = {count: ScatterConfig(counts=(count,)) for count in DIGITS}


def digits_in_words(count: int) -> str:
    """The number of digits in words, such as "3 digits"."""
    return "one digit" if count == 1 else f"{count} digits"
