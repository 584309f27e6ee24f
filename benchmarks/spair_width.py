"""SPAIR with the paper's 128 filters in the backbone and with the presets' 64: what is found after equal steps.

    python -m benchmarks.spair_width [--json FILE] [--steps 2000] [--seeds 3] [--images 300] [--threads 1]
                                     [--data-root DIR]

Contract:
    * The preset ``spair-5`` and the same with the paper's width, with the same seeds and schedules. Measured on
      validation images: ``ap50_ink`` (average precision by the bounds of the ink) and ``count_error``.
    * ``--json`` is written after every run. Runs that the file holds are skipped; a file of another number of steps is
      refused.
"""

import dataclasses
import time
from typing import Any

from benchmarks.measuring import Options, earlier, located, write
from benchmarks.spair import PRESET
from mistnn.experiments import Experiment, build, evaluate
from mistnn.models.spair import SpairConfig
from mistnn.presets import find_preset
from mistnn.training.batches import batches
from mistnn.training.memory import keep_freed_memory

MEASURES = ("ap50_ink", "count_error")


def widths() -> dict[str, Experiment]:
    """The two experiments."""
    preset = find_preset(PRESET).experiment
    assert isinstance(preset.model, SpairConfig)
    paper = dataclasses.replace(preset, model=dataclasses.replace(preset.model, width=SpairConfig().width))
    return {"preset": preset, "paper": paper}


def run(experiment: Experiment, seed: int, steps: int, images: int) -> dict[str, Any]:
    """Trains and measures."""
    experiment = experiment.with_seed_and_steps(seed, steps)
    loop, step = experiment.train, build(experiment)
    assert isinstance(experiment.model, SpairConfig)
    begun = time.process_time()
    for iteration, batch in batches(
        experiment.data.open("train"), start=0, stop=steps, batch_size=loop.batch_size, seed=loop.seed
    ):
        step(batch, iteration)
    taken = time.process_time() - begun
    measured = evaluate(step.model.eval(), experiment.data, "validation", images)
    return {
        "width": experiment.model.width,
        "cpu_seconds": round(taken, 1),
        **{name: round(measured[name], 4) for name in MEASURES},
    }


def main() -> None:
    options = Options(__doc__)
    options.size("steps", 2000, 2, "of each run")
    options.size("seeds", 3, 1, "runs of each width, with seeds from 0")
    options.size("images", 300, 2, "validation images")
    options.add_argument("--data-root", help="the folder of MNIST; default: that of MIST_DATA")
    given = options.parse()
    keep_freed_memory()
    runs = earlier(given.json, steps=given.steps).get("runs", {})
    for seed in range(given.seeds):
        for name, experiment in widths().items():
            if (key := f"{name}, seed {seed}") in runs:
                continue
            runs[key] = run(located(experiment, given), seed, given.steps, given.images)
            print(f"{key}: {runs[key]}", flush=True)
            write({"runs": runs, "settings": options.settings(given)}, given.json)


if __name__ == "__main__":
    main()
