"""Training steps with and without ``keep_freed_memory``.

    python -m benchmarks.freed_memory [--json FILE] [--preset NAME ...] [--steps N] [--rounds N] [--threads N]

Contract:
    * Forward, backward and update of a preset's step on one fixed batch of scenes of embedded digits; each measurement
      has its own process, since ``keep_freed_memory`` can't be undone. The first step of a process is dropped.
    * Reported are the median processor time of a step, the part of it that the system takes (this is what keeping
      memory saves), and the largest peak of resident memory.
"""

import dataclasses
import itertools
import resource
import statistics

from benchmarks.measuring import Options, in_own_process, print_and_write
from mistnn.experiments import build
from mistnn.presets import find_preset
from mistnn.records import collate
from mistnn.training.memory import keep_freed_memory

PRESETS = ("demo", "mist-mnist-hard", "spair-5", "stn-fcn-affine-rts", "stn-cnn-rts", "stn-cnn-tc")
WAYS = ("returned", "kept")


def run_steps(preset: str, way: str, steps: int) -> dict[str, float]:
    if way == "kept" and not keep_freed_memory():
        raise SystemExit("the C library of this machine can't keep freed memory, or a MALLOC_ variable is set")
    experiment = find_preset(preset).experiment
    scenes = dataclasses.replace(experiment.data, source="embedded").open("train", None)
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


def measure(preset: str, steps: int, rounds: int) -> dict[str, float]:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for way in itertools.islice(itertools.cycle((*WAYS[::-1], *WAYS)), rounds * len(WAYS)):
        found[way].append(in_own_process(run_steps, preset, way, steps))
    merged = {"step_ms": statistics.median, "system_ms": statistics.median, "peak_mib": max}
    result = {
        f"{way}_{name}": merge(run[name] for run in runs)
        for way, runs in found.items()
        for name, merge in merged.items()
    }
    return {"ratio": result["returned_step_ms"] / result["kept_step_ms"]} | result


def main() -> None:
    options = Options(__doc__)
    options.size("preset", PRESETS, ("stn-fcn-affine-rts",), "presets to measure")
    options.size("steps", 5, 1, "measured steps of a process")
    options.size("rounds", 3, 1, "processes of each way")
    given = options.parse()
    result = {preset: measure(preset, given.steps, given.rounds) for preset in given.preset}
    print_and_write(result, given, "steps", "rounds", "threads")


if __name__ == "__main__":
    main()
