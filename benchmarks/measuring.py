"""What the benchmarks share: rounds that alternate, spread, processes of their own, where a result is from."""

from __future__ import annotations

import json
import mmap
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mistnn.training.runlog import peak_memory_mib
from mistnn.weights import commit, hardware, versions

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""The processor's time is for one thread on a machine that is busy."""


def alternate(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every way in every round that counts.

    Each round begins with another way, so that a machine that slows down slows all of them.

    Args:
        ways: what is timed.
        rounds: how many count.
        warm_up: how many before them don't.
        clock: seconds since some moment.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds + warm_up):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            begun = clock()
            ways[name]()
            spent = clock() - begun
            if turn >= warm_up:
                seconds[name].append(spent)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles, their distance and the least."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "quartile_1": low, "quartile_3": high, "iqr": high - low, "best": min(values)}


def milliseconds(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Median and interquartile range of every way, as ``NAME_ms`` and ``NAME_iqr_ms``."""
    found = {}
    for name, values in seconds.items():
        measured = spread(values)
        found |= {f"{name}_ms": 1e3 * measured["median"], f"{name}_iqr_ms": 1e3 * measured["iqr"]}
    return found


def peak_bytes() -> int:
    """Most memory this process ever held."""
    return round(peak_memory_mib() * 2**20)


def resident_bytes() -> int:
    """Memory this process holds now, where the system tells it, else the most it ever held.

    The system counts this more exactly than the peak, which may be some pages less.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes()
    return pages * mmap.PAGESIZE


def in_own_process(benchmark: str, *arguments: object, timeout: float | None = None) -> Any:
    """What a benchmark prints as JSON in its last line, run by itself, so that peaks of memory don't mix.

    Args:
        benchmark: its module, as ``benchmarks.cost``.
        arguments: of its command line.
        timeout: seconds it may take.

    Raises:
        subprocess.TimeoutExpired: if it takes longer.
        subprocess.CalledProcessError: if it fails, for example for want of memory.
    """
    command = [sys.executable, "-m", benchmark, *map(str, arguments)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout, cwd=root)
    return json.loads(done.stdout.splitlines()[-1])


def origin() -> dict[str, object]:
    """Machine, versions and commit."""
    return {"hardware": hardware(), "versions": versions(), "commit": commit()}


def write(result: Mapping[str, object], path: Path | None) -> None:
    """The result and its origin, as JSON; nowhere without a path."""
    if path is not None:
        path.write_text(json.dumps({**result, **origin()}, indent=2) + "\n", encoding="utf-8")
