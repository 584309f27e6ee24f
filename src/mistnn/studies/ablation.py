"""Ablations: variants of one experiment, a few hundred steps each, several seeds, one entry of the ledger a variant."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mistnn.models.air import AirStepConfig
from mistnn.models.conncomp import ConnCompStepConfig
from mistnn.models.spair import SpairStepConfig
from mistnn.presets import Experiment, evaluate, read_log, train
from mistnn.presets.systems import SceneModel, TrainingStepConfig
from mistnn.studies.ledger import Entry, write_entry
from mistnn.training.runfolder import write_atomically
from mistnn.weights import commit, hardware, load_model, versions

TEST_IMAGES = 300


@dataclass(frozen=True)
class Cell:
    """One variant.

    Attributes:
        name: of its ledger entry and file.
        note: what it is, in words.
        experiment: with the seed and the number of steps still to be set.
    """

    name: str
    note: str
    experiment: Experiment


def lasting(step: TrainingStepConfig, before: int, steps: int) -> TrainingStepConfig:
    """A step whose schedule ends after so many iterations, or is as many times shorter as the run is.

    SPAIR's training wheels are not shortened, for objects need their iterations to be drawn at all.
    """
    match step:
        case AirStepConfig():
            return dataclasses.replace(step, annealing=step.annealing * steps / before)
        case SpairStepConfig():
            scale, wheels = step.schedule_scale * steps / before, round(step.wheels * before / steps)
            return dataclasses.replace(step, schedule_scale=scale, decay_steps=steps, wheels=wheels)
        case ConnCompStepConfig():
            return step
        case _:
            return dataclasses.replace(step, decay_steps=steps)


def at(experiment: Experiment, seed: int, steps: int) -> Experiment:
    """An experiment with a seed for its data and its weights, and so many steps."""
    return dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, seed=seed),
        step=lasting(experiment.step, experiment.train.steps, steps),
        train=dataclasses.replace(experiment.train, seed=seed, steps=steps),
    )


def run_cells(
    cells: Iterable[Cell],
    results: Path,
    command: str,
    metrics: tuple[str, ...],
    seeds: int,
    steps: int,
    say: Callable[[str], None] = print,
) -> list[Entry]:
    """Trains and tests every variant that the ledger does not hold yet, and writes an entry for each.

    Args:
        cells: the variants.
        results: folder of the ledger, made if it is missing.
        command: what makes the numbers again, without ``--seeds`` and ``--steps``.
        metrics: of ``measure`` that are kept.
        seeds: how many, from 0.
        steps: iterations of each run.
        say: told each result.

    Returns:
        The new entries. Their metrics are means over the seeds, the worst seed's IoU50 and "both", and each seed's
        IoU50.
    """
    write_atomically(results / ".writable", b"")
    (results / ".writable").unlink()
    entries = []
    for cell in cells:
        path = results / f"{cell.name}.json"
        if path.exists():
            say(f"{cell.name}: kept as the ledger has it")
            continue
        begun = time.monotonic()
        measured = [measure(at(cell.experiment, seed, steps)) for seed in range(seeds)]
        values = {name: sum(one[name] for one in measured) / seeds for name in metrics if name in measured[0]}
        for name in ("iou50", "both"):
            if name in values:
                values[f"{name}_worst"] = min(one[name] for one in measured)
        values |= {f"iou50_seed{seed}": one["iou50"] for seed, one in enumerate(measured)}
        entry = Entry(
            name=cell.name,
            metrics={name: round(value, 4) for name, value in values.items()},
            images=TEST_IMAGES,
            seed=0,
            train_seed=0,
            steps=steps,
            batch_size=cell.experiment.train.batch_size,
            train_seconds=round(time.monotonic() - begun, 1),
            peak_memory_mib=0.0,
            hardware=hardware(),
            versions=versions(),
            commit=commit(),
            command=f"{command} --seeds {seeds} --steps {steps}",
            note=f"{cell.note}; seeds 0 to {seeds - 1}, each tested on {TEST_IMAGES} scenes of its own seed.",
        )
        write_entry(entry, path)
        entries.append(entry)
        say(f"{cell.name}: " + ", ".join(f"{name} {value:.3f}" for name, value in entry.metrics.items()))
    return entries


def measure(experiment: Experiment) -> dict[str, float]:
    """Trains and tests; adds the keypoints' mean offset over the last lines of the log, in pixels."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        result = train(experiment, run)
        if result.interrupted:
            raise KeyboardInterrupt
        last = [line for line in read_log(run) if "offset_x" in line][-1]
        model = load_model(run)
        assert isinstance(model, SceneModel)
        return evaluate(model, experiment.data, "test", TEST_IMAGES) | {
            "offset": math.hypot(last["offset_x"], last["offset_y"])
        }
