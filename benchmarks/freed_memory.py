"""Training steps with and without ``keep_freed_memory``.

    python -m benchmarks.freed_memory [--json FILE] [--preset NAME ...] [--steps N] [--rounds N] [--threads N]

Contract:
    * Forward, backward and descent of a preset's step on a batch of scenes of embedded digits that is made once; a
      process of its own each time, since what it keeps can't be undone. The first step of a process is dropped.
    * Rounds alternate between the two. What is reported is the median processor time of a step, of which the system's
      part is what keeping memory saves, and the largest peak of resident memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
from pathlib import Path

import torch

from benchmarks.measuring import in_own_process, write
from mistnn.presets import find_preset
from mistnn.presets.experiment import build
from mistnn.presets.systems import open_data
from mistnn.records import collate
from mistnn.training.memory import keep_freed_memory

PRESETS = ("demo", "mist-mnist-hard", "spair-5", "stn-fcn-affine-rts", "stn-cnn-rts", "stn-cnn-tc")
WAYS = ("returned", "kept")


def run_steps(preset: str, way: str, steps: int, threads: int) -> dict[str, float]:
    """Steps of a preset in this process."""
    torch.set_num_threads(threads)
    if way == "kept" and not keep_freed_memory():
        raise SystemExit("this machine's C library can't be asked to keep freed memory, or a MALLOC_ variable is set")
    experiment = find_preset(preset).experiment
    scenes = open_data(dataclasses.replace(experiment.data, source="embedded"), "train", None)
    step = build(experiment)
    batch = collate([scenes[index] for index in range(experiment.train.batch_size)])
    step(batch, 0)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for iteration in range(1, steps + 1):
        step(batch, iteration)
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    return {
        "step_ms": 1e3 * (after.ru_utime - before.ru_utime + system) / steps,
        "system_ms": 1e3 * system / steps,
        "peak_mib": after.ru_maxrss / 1024,
    }


def measure(preset: str, steps: int, rounds: int, threads: int) -> dict[str, float]:
    """Both ways, each round in a process of its own."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS if number % 2 else WAYS[::-1]:
            settings = ("--steps", steps, "--threads", threads)
            found[way].append(in_own_process("benchmarks.freed_memory", "--child", preset, way, *settings))
    result = {}
    for way, runs in found.items():
        for name in ("step_ms", "system_ms"):
            result[f"{way}_{name}"] = statistics.median(run[name] for run in runs)
        result[f"{way}_peak_mib"] = max(run["peak_mib"] for run in runs)
    return {"ratio": result["returned_step_ms"] / result["kept_step_ms"]} | result


def main() -> None:
    """Measures every preset and prints how many times faster steps are that keep memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--preset", nargs="+", default=PRESETS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    for name, value in (("steps", 5), ("rounds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(run_steps(given.child[0], given.child[1], given.steps, given.threads)))
        return
    result = {preset: measure(preset, given.steps, given.rounds, given.threads) for preset in given.preset} | {
        "settings": {name: getattr(given, name) for name in ("steps", "rounds", "threads")},
    }
    print(json.dumps(result, indent=2))
    write(result, given.json)


if __name__ == "__main__":
    main()
