"""The one list of papers.

A paper's parts have its name on each floor: ``mistnn.models.<paper>`` (networks, steps and their configurations),
``mistnn.experiments.<paper>`` (how its systems are initialised, watched and measured) and ``mistnn.presets.<paper>``
(its tables and figures). A new paper adds its name to ``PAPERS``; no other file changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

PAPERS = ("mist", "rivals", "air", "spair", "conncomp", "stn", "photos")


def modules(floor: str) -> Iterator[ModuleType]:
    """The modules of all papers on one floor, such as "mistnn.models", in the order of ``PAPERS``."""
    return (import_module(f"{floor}.{paper}") for paper in PAPERS)
