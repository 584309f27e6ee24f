"""Which changes of our fast preset pay: each is taken back alone, and all train for the same time.

    python -m benchmarks.equal_time [--json FILE] [--minutes 5] [--seeds 3] [--variants NAME ...] [--images 300]
                                    [--threads 1] [--data-root DIR] [--clock wall|cpu]

Contract:
    * Variants: the presets ``mist-mnist-hard-fast`` and ``mist-mnist-hard``, and the fast one with one setting of the
      other: "network", the heat map's network; "passes", two inner steps with passes of their own; "mirrored", images
      that are not mirrored; "start", a heat map that is trained from the first step; "strength", its softmax.
    * A run has as many steps as fit into the time, by ``PROBED`` steps before and after the start of the heat map's
      training; its schedules are shortened to that. The time is that of the steps and their batches.
    * After it, ``both`` (detected and classified) is measured on validation images, read at the strength of the
      training and at ``READ``, where a search often ends (docs/logbook.md).
    * ``--json`` is written after every run. Runs that the file holds are skipped, so a stopped study goes on; a file of
      another time is refused.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measuring import CLOCKS, Clock, Options, write
from mistnn.experiments import Experiment, build, evaluate
from mistnn.presets import find_preset
from mistnn.training.batches import batches
from mistnn.training.memory import keep_freed_memory

FAST, PAPER = "mist-mnist-hard-fast", "mist-mnist-hard"
PROBED = 4
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


def seconds_of(experiment: Experiment, clock: Clock) -> float:
    """The time of a step, as the mean of steps near the beginning and near the end of a run."""
    taken: list[float] = []
    for first in (0, experiment.train.steps - PROBED - 1):
        step = build(experiment)
        drawn = batches(
            experiment.data.open("train"), start=first, stop=first + PROBED + 1,
            batch_size=experiment.train.batch_size, seed=experiment.train.seed,
        )  # fmt: skip
        before = clock()
        for turn, (iteration, batch) in enumerate(drawn):
            step(batch, iteration)
            if turn:  # not the first step, which is slower
                taken.append(clock() - before)
            before = clock()
    return sum(taken) / len(taken)


def run(experiment: Experiment, seed: int, seconds: float, images: int, clock: Clock) -> dict[str, Any]:
    """Trains as many steps as fit into the time, and measures."""
    each = seconds_of(experiment, clock)
    experiment = experiment.with_seed_and_steps(seed, max(2, min(experiment.train.steps, round(seconds / each))))
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


def known(path: Path | None, minutes: float) -> dict[str, Any]:
    """The runs of an earlier call."""
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"]["minutes"] != minutes:
        raise SystemExit(f"{path} has runs of {found['settings']['minutes']:g} minutes: give another file")
    return found["runs"]


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
    runs = known(given.json, given.minutes)
    for seed in range(given.seeds):
        for name in given.variants:
            if (key := f"{name}, seed {seed}") in runs:
                continue
            experiment = variants()[name].at(given.data_root)
            if given.smoke:
                data: Any = experiment.data
                experiment = dataclasses.replace(experiment, data=dataclasses.replace(data, source="embedded"))
            begun = time.perf_counter()
            runs[key] = run(experiment, seed, 1.0 if given.smoke else 60 * given.minutes, given.images, clock)
            print(f"{key}: {runs[key]}, {time.perf_counter() - begun:.0f} s in all", flush=True)
            write({"runs": runs, "settings": settings}, given.json)


if __name__ == "__main__":
    main()
