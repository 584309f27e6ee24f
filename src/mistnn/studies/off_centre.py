"""The off-centre trap: classification alone lets all keypoints settle beside their objects; what helps against it.

Every combination of objective, start of the heat-map network and window on the patch is trained a few hundred steps on
the demo's scenes, with several seeds.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from mistnn.data import Scenes
from mistnn.presets import Experiment, build, evaluate, find_preset
from mistnn.records import collate
from mistnn.studies.ledger import Entry, commit, hardware, versions, write_entry
from mistnn.training.runfolder import write_atomically

STEPS = 200
BATCH = 16
TEST_IMAGES = 300
WINDOW = 0.3


class Cell(NamedTuple):
    """One combination.

    Attributes:
        objective: "eq. 9", or "joint" for equation 9 + beta x equation 8 with the demo's beta.
        start: of the heat-map network.
        window: standard deviation of the Gaussian window on the patch, 0 for none.
    """

    objective: Literal["eq. 9", "joint"]
    start: Literal["energy", "random"]
    window: float

    @property
    def name(self) -> str:
        """Of the ledger entry."""
        objective = "joint" if self.objective == "joint" else "eq9"
        return f"off-centre-{objective}-{self.start}-{'window' if self.window else 'plain'}"


def cells() -> Iterator[Cell]:
    """All combinations."""
    for objective in ("eq. 9", "joint"):
        for start in ("energy", "random"):
            for window in (0.0, WINDOW):
                yield Cell(objective, start, window)


def experiment_of(cell: Cell, seed: int, steps: int) -> Experiment:
    """The demo's experiment with one combination of choices."""
    demo = find_preset("demo").experiment
    joint = cell.objective == "joint"
    return dataclasses.replace(
        demo,
        model=dataclasses.replace(
            demo.model,
            decoder=demo.model.decoder if joint else 0,
            patch_window=cell.window,
            heatmap=dataclasses.replace(demo.model.heatmap, start=cell.start),
        ),
        data=dataclasses.replace(demo.data, seed=seed),
        step=dataclasses.replace(
            demo.step, reconstruction=demo.step.reconstruction if joint else 0.0, decay_steps=steps
        ),
        train=dataclasses.replace(demo.train, steps=steps, seed=seed, batch_size=BATCH),
    )


def run_off_centre(
    results: Path, seeds: int = 3, steps: int = STEPS, say: Callable[[str], None] = print
) -> list[Entry]:
    """Trains and tests every combination that the ledger does not hold yet, and writes an entry for each.

    Args:
        results: folder of the ledger.
        seeds: how many, from 0.
        steps: iterations of each run.
        say: told each result.

    Returns:
        The new entries. Their metrics are means over the seeds, the worst seed, and each seed's IoU50; offset is the
        length of the mean offset of the keypoints in the last step, in pixels.
    """
    write_atomically(results / ".writable", b"")
    (results / ".writable").unlink()
    entries = []
    for cell in cells():
        path = results / f"{cell.name}.json"
        if path.exists():
            say(f"{cell.name}: kept as the ledger has it")
            continue
        begun = time.monotonic()
        measured = [measure(experiment_of(cell, seed, steps)) for seed in range(seeds)]
        metrics = {name: sum(one[name] for one in measured) / seeds for name in ("iou50", "both", "offset")}
        metrics["iou50_worst"] = min(one["iou50"] for one in measured)
        metrics["both_worst"] = min(one["both"] for one in measured)
        metrics |= {f"iou50_seed{seed}": one["iou50"] for seed, one in enumerate(measured)}
        entry = Entry(
            name=cell.name,
            metrics={name: round(value, 4) for name, value in metrics.items()},
            images=TEST_IMAGES,
            seed=0,
            train_seed=0,
            steps=steps,
            batch_size=BATCH,
            train_seconds=round(time.monotonic() - begun, 1),
            peak_memory_mib=0.0,
            hardware=hardware(),
            versions=versions(),
            commit=commit(),
            command=f"mist reproduce off-centre --seeds {seeds} --steps {steps}",
            note=f"{cell.objective}, start {cell.start}, window {cell.window:g}; seeds 0 to {seeds - 1}",
        )
        write_entry(entry, path)
        entries.append(entry)
        say(f"{cell.name}: " + ", ".join(f"{name} {value:.3f}" for name, value in entry.metrics.items()))
    return entries


def measure(experiment: Experiment) -> dict[str, float]:
    """Trains without a run folder, and tests; adds the keypoints' mean offset in the last step."""
    step = build(experiment)
    scenes, size = Scenes(experiment.data, "train", None), experiment.train.batch_size
    logged = {}
    for iteration in range(experiment.train.steps):
        batch = collate([scenes[iteration * size + index] for index in range(size)])
        logged = step(batch, iteration)
    return evaluate(step.model, experiment.data, "test", TEST_IMAGES) | {
        "offset": math.hypot(float(logged["offset_x"]), float(logged["offset_y"]))
    }
