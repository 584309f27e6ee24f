"""Does compilation pay: steps of a preset in float32 and bfloat16, compiled and as they are.

    python -m benchmarks.compiled [--json FILE] [--preset NAME ...] [--steps 50] [--device auto] [--threads N]

Contract:
    * Each way has its own network with the same initial weights, and all see the same batches, which are on the device.
    * The steps are the last ones of a run, in which all parts are trained. The time of a way ends when the device has
      finished. The first step of a way, with its compilation, is reported as "first_seconds".
    * "ratio" = plain float32 / the fastest way; "pays_after" is the number of steps after which the time of compilation
      is won back, or null if it never is. bfloat16 is measured only where the hardware has instructions for it.
    * "batch_seconds" is the time to make a batch and to move it to the device. ``--train.workers`` overlaps it.
"""

import dataclasses
import os
import time
from statistics import median
from typing import Any

import torch

from benchmarks.measuring import Options, alternate, spread, write
from mistnn.devices import find_device
from mistnn.experiments import build
from mistnn.nn.mixed_precision import has_bfloat16
from mistnn.presets import find_preset
from mistnn.records import Batch
from mistnn.training.batches import batches, to_device
from mistnn.training.compilation import compiled_networks
from mistnn.training.memory import keep_freed_memory

BATCHES = 4


class Way:
    """The steps of a preset in one precision, compiled or not."""

    def __init__(self, experiment: Any, compiled: bool, drawn: list[Batch], device: torch.device) -> None:
        step = build(experiment)
        step.model.to(device).train()
        self.drawn, self.device, self.last = drawn, device, experiment.train.steps - 1
        self.context = compiled_networks(step, compiled, experiment.train.steps, device)
        self.step = self.context.__enter__()
        begun = time.perf_counter()
        self(0)
        self.first = time.perf_counter() - begun

    def __call__(self, turn: int) -> None:
        """One step."""
        self.step(self.drawn[turn % len(self.drawn)], self.last)
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def batches_of(experiment: Any, device: torch.device) -> tuple[list[Batch], float]:
    """Some batches on the device, and the median of the seconds that one takes."""
    made, seconds = [], []
    data = dataclasses.replace(experiment.data, source="embedded").open("train")
    loop = experiment.train
    drawn = batches(data, start=0, stop=BATCHES, batch_size=loop.batch_size, seed=loop.seed)
    begun = time.perf_counter()
    for _, batch in drawn:
        made.append(to_device(batch, device))
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    return made, median(seconds)


def measure(name: str, steps: int, device: torch.device) -> dict[str, Any]:
    """The ways of a preset in turns."""
    experiment: Any = find_preset(name).experiment
    experiment = experiment.with_seed_and_steps(0, experiment.train.steps)
    drawn, batch_seconds = batches_of(experiment, device)
    ways = {}
    for precision in ("float32", "bfloat16") if has_bfloat16(device.type) else ("float32",):
        in_it = dataclasses.replace(experiment, step=dataclasses.replace(experiment.step, precision=precision))
        for kind in ("plain", "compiled"):
            ways[f"{kind}-{precision}"] = Way(in_it, kind == "compiled", drawn, device)
    taken = {way: spread(seconds) for way, seconds in alternate(ways, steps).items()}
    result: dict[str, Any] = {"preset": name, "batch_seconds": batch_seconds, "ways": {}}
    for way, seconds in taken.items():
        kind, _, precision = way.partition("-")
        gain = taken[f"plain-{precision}"]["median"] - seconds["median"]
        more = ways[way].first - ways[f"plain-{precision}"].first
        pays = {"pays_after": round(more / gain) if gain > 0 else None} if kind == "compiled" else {}
        result["ways"][way] = {"seconds": seconds, "first_seconds": ways[way].first, **pays}
    result["ratio"] = taken["plain-float32"]["median"] / min(each["median"] for each in taken.values())
    return result


def main() -> None:
    options = Options(__doc__, os.cpu_count() or 1)
    options.size("preset", ("mist-mnist-hard-fast", "mist-mnist-hard"), ("demo",), "presets of digits")
    options.size("steps", 50, 1, "measured steps of each way")
    options.add_argument("--device", default="auto", help="auto, cpu or cuda")
    given = options.parse()
    keep_freed_memory()
    device = find_device(given.device)
    runs = []
    for name in given.preset:
        run = measure(name, given.steps, device)
        runs.append(run)
        print(f"{name} on {device}: {run['ratio']:.2f}; a batch is made in {run['batch_seconds']:.4f} s")
        for way, one in run["ways"].items():
            pays = f", pays after {one['pays_after']} steps" if "pays_after" in one else ""
            print(f"  {way:18} {one['seconds']['median']:.4f} s, first {one['first_seconds']:.1f} s{pays}", flush=True)
    write({"runs": runs, "settings": options.settings(given), "device": str(device)}, given.json)


if __name__ == "__main__":
    main()
