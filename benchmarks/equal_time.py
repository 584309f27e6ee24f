"""Which changes of our fast preset pay: each is taken back alone, and all train for the same time.

    python -m benchmarks.equal_time [--json FILE] [--minutes 5] [--seeds 3] [--variants NAME ...] [--images 300]
                                    [--threads 1] [--data-root DIR] [--clock wall|cpu]

Contract:
    * Variants: the presets ``mist-mnist-hard-fast`` and ``mist-mnist-hard``, and the fast one with one setting of the
      other: "network", the heat map's network; "passes", two inner steps with passes of their own; "mirrored", images
      that are not mirrored; "start", a heat map that is trained from the first step; "strength", its softmax.
    * A run has as many steps as fit into the time, and its schedules are shortened to that. The time of a step is
      measured for all variants in turns, in ``PROBED`` rounds, before and after the heat map's training starts: what
      else the machine does then slows all alike. "seconds" is what the steps of a run took.
    * After it, ``both`` (detected and classified) is measured on validation images, read at the strength of the
      training and at ``READ``, where a search often ends (docs/logbook.md).
    * ``--json`` is written after every run. Runs that the file holds are skipped, so a stopped study goes on; a file of
      another time is refused.
"""

import dataclasses
import time
from collections.abc import Mapping
from statistics import mean, median
from typing import Any

from benchmarks.measuring import CLOCKS, Clock, Options, alternate, earlier, located, write
from mistnn.experiments import Experiment, build, evaluate
from mistnn.presets import find_preset
from mistnn.training.batches import batches
from mistnn.training.memory import keep_freed_memory

FAST, PAPER = "mist-mnist-hard-fast", "mist-mnist-hard"
PROBED = 7
READ = 0.1
MEASURE = "both"


def variants() -> dict[str, Experiment]:
    """The experiments by name."""
    fast, paper = (find_preset(name).experiment for name in (FAST, PAPER))
    model: Any = paper.model
    step: Any = paper.step

    def fast_but(of_model: Mapping[str, Any], of_step: Mapping[str, Any]) -> Experiment:
        return dataclasses.replace(
            fast, model=dataclasses.replace(fast.model, **of_model), step=dataclasses.replace(fast.step, **of_step)
        )

    passes = {name: getattr(step, name) for name in ("order", "inner_steps", "keypoint_step")}
    return {
        "fast": fast,
        "network": fast_but({"heatmap": model.heatmap}, {}),
        "passes": fast_but({}, passes),
        "mirrored": fast_but({}, {"mirrored": step.mirrored}),
        "start": fast_but({}, {"heatmap_start": step.heatmap_start}),
        "strength": fast_but({"softmax_strength": model.softmax_strength}, {}),
        "paper": paper,
    }


class Probe:
    """A variant whose steps are timed, near the beginning or near the end of a run."""

    def __init__(self, experiment: Experiment, first: int) -> None:
        self.step: Any = build(experiment)
        loop = experiment.train
        self.drawn = batches(
            experiment.data.open("train"), start=first, stop=loop.steps, batch_size=loop.batch_size, seed=loop.seed
        )

    def __call__(self, turn: int) -> None:
        """One step."""
        iteration, batch = next(self.drawn)
        self.step(batch, iteration)


def step_seconds(experiments: Mapping[str, Experiment], clock: Clock) -> dict[str, float]:
    """The time of a step of each: the mean of the medians near the beginning and near the end, all in turns."""
    ways = {
        f"{name} {place}": Probe(one, first)
        for name, one in experiments.items()
        for place, first in (("begin", 0), ("end", one.train.steps - PROBED - 2))
    }
    taken = alternate(ways, PROBED, clock=clock)
    return {name: mean(median(taken[f"{name} {place}"]) for place in ("begin", "end")) for name in experiments}


def run(experiment: Experiment, seed: int, steps: int, images: int, clock: Clock) -> dict[str, Any]:
    """Trains and measures."""
    experiment = experiment.with_seed_and_steps(seed, steps)
    loop = experiment.train
    step: Any = build(experiment)
    drawn = batches(experiment.data.open("train"), start=0, stop=loop.steps, batch_size=loop.batch_size, seed=loop.seed)
    begun = clock()
    for iteration, batch in drawn:
        step(batch, iteration)
    taken, model = clock() - begun, step.model.eval()
    read = {}
    for strength in (model.config.softmax_strength, READ):
        model.config = dataclasses.replace(model.config, softmax_strength=strength)
        measured = evaluate(model, experiment.data, "validation", images)
        read[f"{strength:g}"] = {name: round(measured[name], 4) for name in (MEASURE, "iou50")}
    return {"steps": loop.steps, "seconds": round(taken, 1), "read": read}


def main() -> None:
    options = Options(__doc__)
    options.size("seeds", 3, 1, "runs of each variant, with seeds from 0")
    options.size("images", 300, 2, "validation images")
    options.size("variants", tuple(variants()), ("fast", "paper"), "which")
    options.add_argument("--minutes", type=float, default=5.0, help="of each run; default: 5")
    options.add_argument("--data-root", help="the folder of MNIST; default: that of MIST_DATA")
    options.clock()
    given = options.parse()
    keep_freed_memory()
    clock, settings = CLOCKS[given.clock], {**options.settings(given), "minutes": given.minutes, "clock": given.clock}
    found = earlier(given.json, minutes=given.minutes)
    result = {name: found.get(name, {}) for name in ("step_seconds", "runs")}
    experiments = {name: located(variants()[name], given) for name in given.variants}
    if not set(experiments) <= set(result["step_seconds"]):
        result = {"step_seconds": step_seconds(experiments, clock), "runs": {}}
        print({name: round(each, 3) for name, each in result["step_seconds"].items()}, flush=True)
    for seed in range(given.seeds):
        for name, experiment in experiments.items():
            if (key := f"{name}, seed {seed}") in result["runs"]:
                continue
            begun, budget = time.perf_counter(), 1.0 if given.smoke else 60 * given.minutes
            steps = max(2, min(experiment.train.steps, round(budget / result["step_seconds"][name])))
            result["runs"][key] = run(experiment, seed, steps, given.images, clock)
            print(f"{key}: {result['runs'][key]}, {time.perf_counter() - begun:.0f} s in all", flush=True)
            write({**result, "settings": settings}, given.json)


if __name__ == "__main__":
    main()
