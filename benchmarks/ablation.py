"""Shared by the ablations: variants of one experiment, several seeds each, one entry of the ledger for each variant."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measuring import Options
from mistnn.experiments import Experiment, evaluate, read_log, train
from mistnn.reproduce.ledger import Entry, study_entry, write_entry
from mistnn.training.runfolder import write_atomically
from mistnn.weights import load_model

TEST_IMAGES = 300


class Variant(NamedTuple):
    """A variant of an experiment.

    Attributes:
        name: of its ledger entry and file.
        note: describes it.
        experiment: before seed and number of steps are set.
    """

    name: str
    note: str
    experiment: Experiment


def run_variants(
    variants: Iterable[Variant],
    results: Path,
    command: str,
    metrics: Sequence[str],
    seeds: int,
    steps: int,
    images: int = TEST_IMAGES,
    say: Callable[[str], None] = print,
) -> list[Entry]:
    """Trains and tests each variant that the ledger lacks, and writes its entry.

    Args:
        variants: of one study.
        results: folder of the ledger, created if missing.
        command: reproduces the numbers, without ``--seeds`` and ``--steps``.
        metrics: of ``measure``, to keep.
        seeds: their number, from 0.
        steps: iterations of each run.
        images: test images of each run.
        say: receives each result.

    Returns:
        The new entries: means over the seeds, the worst seed's IoU50 and "both", and each seed's IoU50.
    """
    write_atomically(results / ".writable", b"")  # fails before hours of work
    (results / ".writable").unlink()
    entries = []
    for variant in variants:
        path = results / f"{variant.name}.json"
        if path.exists():
            say(f"{variant.name}: already in the ledger")
            continue
        begun = time.monotonic()
        measured = [measure(variant.experiment.with_seed_and_steps(seed, steps), images) for seed in range(seeds)]
        values = {name: sum(one[name] for one in measured) / seeds for name in metrics if name in measured[0]}
        for name in ("iou50", "both"):
            if name in values:
                values[f"{name}_worst"] = min(one[name] for one in measured)
        values |= {f"iou50_seed{seed}": one["iou50"] for seed, one in enumerate(measured)}
        entry = study_entry(
            variant.name,
            {name: round(value, 4) for name, value in values.items()},
            images,
            f"{command} --seeds {seeds} --steps {steps}",
            f"{variant.note}; seeds 0 to {seeds - 1}, each tested on {images} scenes of its own seed.",
            steps,
            variant.experiment.train.batch_size,
            round(time.monotonic() - begun, 1),
        )
        write_entry(entry, path)
        entries.append(entry)
        say(f"{variant.name}: " + ", ".join(f"{name} {value:.3f}" for name, value in entry.metrics.items()))
    return entries


def measure(experiment: Experiment, images: int) -> dict[str, float]:
    """Trains and tests; adds the mean offset of the keypoints in the last lines of the log, in pixels."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if train(experiment, run).interrupted:
            raise KeyboardInterrupt
        last = [line for line in read_log(run) if "offset_x" in line][-1]
        model: Any = load_model(run)
        tested = evaluate(model, experiment.data, "test", images)
        return tested | {"offset": math.hypot(last["offset_x"], last["offset_y"])}


def ledger_options(description: str | None, steps: int) -> Options:
    """The command line of a study that writes to the ledger."""
    options = Options(description)
    options.add_argument("--ledger", type=Path, help="folder of the entries; default: results, temporary with --smoke")
    options.size("seeds", 3, 1, "runs of each variant")
    options.size("steps", steps, 1, "iterations of each run")
    return options


def main(name: str, description: str | None, variants: Iterable[Variant], metrics: Sequence[str], steps: int) -> None:
    """Runs a study; with ``--smoke`` its first variant only."""
    given = ledger_options(description, steps).parse()
    variants = list(variants)[: 1 if given.smoke else None]
    images = 4 if given.smoke else TEST_IMAGES
    with tempfile.TemporaryDirectory() as aside:
        ledger = given.ledger or (Path(aside) if given.smoke else Path("results"))
        command = f"python -m benchmarks.{name}"
        new = run_variants(variants, ledger, command, metrics, given.seeds, given.steps, images)
        print(f"{len(new)} new entries in {ledger}")
