"""Advice for a computer whose cores are in use: several threads then wait for one another most of the time."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mistnn.devices import cores

COMMANDS = frozenset({"demo", "evaluate", "inspect", "predict", "report", "train", "tune"})
"""Commands that compute with networks in this process."""
LOAD = Path("/proc/loadavg")


def advice(command: str, load: str, cores: int, environment: Mapping[str, str]) -> str:
    """What to say before a command; empty if there is nothing to say.

    Args:
        command: its name.
        load: the content of ``LOAD``: the mean numbers of running threads, and "running/all" at present.
        cores: that this process may use.
        environment: its variables.
    """
    if command not in COMMANDS or cores < 2 or "OMP_NUM_THREADS" in environment:
        return ""
    try:
        lately, running = float(load.split()[0]), int(load.split()[3].split("/")[0])
    except (IndexError, ValueError):
        return ""
    others = min(lately, running - 1)  # without this thread
    if others < cores:
        return ""
    return (
        f"other programs use all {cores} cores, so the threads of this one would wait for one another: "
        f"`OMP_NUM_THREADS=1 mist {command} ...` can be several times faster"
    )


def advise(command: str) -> None:
    """Says so where a person reads it: in a terminal, on Linux."""
    if not (sys.stderr is not None and sys.stderr.isatty() and LOAD.exists()):
        return
    if said := advice(command, LOAD.read_text(), cores(), os.environ):
        print(f"mist: {said}", file=sys.stderr)
