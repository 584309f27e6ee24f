"""Shared by all benchmarks: options, alternating rounds, spread, separate processes, and the origin of a result.

Run any benchmark with ``python -m benchmarks.NAME`` or ``python benchmarks/NAME.py``; ``--smoke`` makes it small.

Contract, unless a benchmark says otherwise:
    * Rounds alternate between the ways and begin with another one each, so that a machine that slows down slows all of
      them. The first rounds are dropped. Reported are the median of a round and its interquartile range.
    * Peak resident memory is measured in a separate process for each point.
"""

import argparse
import dataclasses
import importlib
import json
import mmap
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mistnn.experiments import Experiment
from mistnn.training.runlog import peak_memory_mib
from mistnn.weights import commit, hardware, versions

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
GIB = 2**30


class Options(argparse.ArgumentParser):
    """The command line of a benchmark: ``--json``, ``--smoke``, ``--threads`` and the sizes that it adds."""

    def __init__(self, description: str | None, threads: int = 1) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.sizes: dict[str, tuple[Any, Any, int]] = {}
        self.add_argument("--json", type=Path, help="write the result to this file")
        self.add_argument("--smoke", action="store_true", help="run the smallest size; its numbers mean nothing")
        self.size("threads", threads, 1, "CPU threads")

    def size(self, name: str, usual: Any, smallest: Any, help: str, least: int = 1) -> None:
        """Adds an option whose default depends on ``--smoke``: a number, a word, or a sequence of either."""
        several = not isinstance(usual, int | str)
        kind = type(usual[0] if several else usual)
        shown = " ".join(map(str, usual)) if several else usual
        nargs = "+" if several else None
        self.add_argument(f"--{name}", type=kind, nargs=nargs, help=f"{help}; default: {shown}")
        self.sizes[name.replace("-", "_")] = usual, smallest, least

    def clock(self) -> None:
        """Adds ``--clock``."""
        self.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu suits one thread on a busy machine")

    def parse(self) -> argparse.Namespace:
        """The options, checked; also sets the number of threads."""
        given = self.parse_args()
        for name, (usual, smallest, least) in self.sizes.items():
            if getattr(given, name) is None:
                setattr(given, name, smallest if given.smoke else usual)
            value = getattr(given, name)
            for number in value if isinstance(value, list | tuple) else [value]:
                if isinstance(number, int) and number < least:
                    self.error(f"--{name.replace('_', '-')} must be {least} or more")
        torch.set_num_threads(given.threads)
        return given

    def settings(self, given: argparse.Namespace) -> dict[str, object]:
        """The sizes that were used, for the result."""
        return {name: getattr(given, name) for name in self.sizes}


def alternate(
    ways: Mapping[str, Callable[[int], object]], rounds: int, warm_up: int = 1, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each way, called with the number of the round, in each round after the first ``warm_up`` ones."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds + warm_up):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            begun = clock()
            ways[name](turn)
            seconds[name].append(clock() - begun)
    return {name: spent[warm_up:] for name, spent in seconds.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, interquartile range and minimum."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    low, middle, high = quartiles
    return {"median": middle, "quartile_1": low, "quartile_3": high, "iqr": high - low, "best": min(values)}


def milliseconds(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median and interquartile range of each way, as ``NAME_ms`` and ``NAME_iqr_ms``."""
    measured = {name: spread(values) for name, values in seconds.items()}
    parts = {"ms": "median", "iqr_ms": "iqr"}
    return {f"{name}_{unit}": 1e3 * one[part] for name, one in measured.items() for unit, part in parts.items()}


def peak_bytes() -> int:
    return round(peak_memory_mib() * 2**20)


def cost_of(step: Callable[[Any, int], object], batches: Sequence[Any]) -> dict[str, float]:
    """Median seconds of the steps after the first one, and the peak of resident memory minus that held before."""
    try:  # the system counts what is held more exactly than the peak, which may be a few pages lower
        before = int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        before = peak_bytes()
    seconds = alternate({"step": lambda turn: step(batches[turn], turn)}, len(batches) - 1)["step"]
    return {"seconds": statistics.median(seconds), "bytes": max(0, peak_bytes() - before)}


def in_own_process(function: Callable[..., Any], *arguments: Any, timeout: float | None = None) -> Any:
    """Calls a benchmark's function in a new process; arguments and result must be JSON, but paths become text.

    Raises:
        subprocess.TimeoutExpired: if it takes longer than ``timeout`` seconds.
        subprocess.CalledProcessError: if it fails, for example for lack of memory.
    """
    module = f"benchmarks.{Path(function.__code__.co_filename).stem}"
    call = json.dumps([module, function.__name__, torch.get_num_threads(), arguments], default=str)
    command = [sys.executable, "-c", "from benchmarks.measuring import answer; answer()", call]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout, cwd=root)
    return json.loads(done.stdout.splitlines()[-1])


def answer() -> None:
    """The other side of ``in_own_process``."""
    module, function, threads, arguments = json.loads(sys.argv[1])
    torch.set_num_threads(threads)
    print(json.dumps(getattr(importlib.import_module(module), function)(*arguments)))


def write(result: Mapping[str, object], path: Path | None) -> None:
    """Writes the result and its origin as JSON; does nothing without a path."""
    if path is not None:
        origin = {"hardware": hardware(), "versions": versions(), "commit": commit()}
        path.write_text(json.dumps({**result, **origin}, indent=2) + "\n", encoding="utf-8")


def earlier(path: Path | None, **settings: Any) -> dict[str, Any]:
    """What an earlier call wrote; empty if there is nothing. A result of other settings ends the program."""
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if (other := found["settings"][name]) != value:
            raise SystemExit(f"{path} has runs of {other:g} {name}: give another file")
    return dict(found)


def located(experiment: Experiment, given: argparse.Namespace) -> Experiment:
    """An experiment with the folder of ``--data-root``; with ``--smoke`` on the digits of the package."""
    experiment = experiment.at(given.data_root)
    if not given.smoke:
        return experiment
    data: Any = experiment.data
    return dataclasses.replace(experiment, data=dataclasses.replace(data, source="embedded"))


def print_and_write(result: Mapping[str, object], given: argparse.Namespace, *settings: str) -> None:
    """Prints the result and some of the given options as JSON, and writes them with ``--json``."""
    result = {**result, "settings": {name: getattr(given, name) for name in settings}}
    print(json.dumps(result, indent=2))
    write(result, given.json)
