"""Shared by the studies that write to the ledger; most train variants of one experiment with several seeds."""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measuring import Options
from mistnn.experiments import Experiment, evaluate, read_log, train
from mistnn.reproduce.ledger import Entry, study_entry, write_entry
from mistnn.training.runfolder import write_atomically
from mistnn.weights import load_model

TEST_IMAGES = 300


class Variant(NamedTuple):
    """A variant of an experiment, before seed and number of steps are set; ``name`` is that of its ledger entry."""

    name: str
    note: str
    experiment: Experiment


def fill_ledger(
    results: Path, studies: Mapping[str, Callable[[], Entry]], say: Callable[[str], None] = print
) -> list[Entry]:
    """Measures and writes the entries that the ledger lacks, and returns them.

    Args:
        results: folder of the ledger, created if missing.
        studies: the function that measures each entry, by the name of its file.
        say: receives each result.
    """
    write_atomically(results / ".writable", b"")  # fails before hours of work
    (results / ".writable").unlink()
    entries = []
    for name, measured in studies.items():
        path = results / f"{name}.json"
        if path.exists():
            say(f"{name}: already in the ledger")
            continue
        entries.append(measured())
        write_entry(entries[-1], path)
        say(f"{name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in entries[-1].metrics.items()))
    return entries


def variant_entry(
    variant: Variant, command: str, metrics: Sequence[str], seeds: int, steps: int, images: int = TEST_IMAGES
) -> Entry:
    """Trains and tests a variant: means over the seeds, the worst seed's IoU50 and "both", and each seed's IoU50.

    Args:
        variant: what to train.
        command: reproduces the numbers, without ``--seeds`` and ``--steps``.
        metrics: of ``measure``, to keep.
        seeds: their number, from 0.
        steps: iterations of each run.
        images: test images of each run.
    """
    begun = time.monotonic()
    measured = [measure(variant.experiment.with_seed_and_steps(seed, steps), images) for seed in range(seeds)]
    values = {name: sum(one[name] for one in measured) / seeds for name in metrics if name in measured[0]}
    values |= {f"{name}_worst": min(one[name] for one in measured) for name in ("iou50", "both") if name in values}
    values |= {f"iou50_seed{seed}": one["iou50"] for seed, one in enumerate(measured)}
    return study_entry(
        variant.name,
        {name: round(value, 4) for name, value in values.items()},
        images,
        f"{command} --seeds {seeds} --steps {steps}",
        f"{variant.note}; seeds 0 to {seeds - 1}, each tested on {images} scenes of its own seed.",
        steps,
        variant.experiment.train.batch_size,
        round(time.monotonic() - begun, 1),
    )


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
    """The command line of a study that writes to the ledger; ``steps`` of 0 means as many as a plan chooses."""
    options = Options(description)
    options.add_argument("--ledger", type=Path, help="folder of the entries; default: results, temporary with --smoke")
    options.size("seeds", 3, 1, "runs of each variant")
    planned = "" if steps else "; 0: as planned"
    options.size("steps", steps, 1, f"iterations of each run{planned}", least=min(1, steps))
    return options


def report(given: argparse.Namespace, studies: Mapping[str, Callable[[], Entry]]) -> None:
    """Fills the ledger of a command line."""
    with tempfile.TemporaryDirectory() as aside:
        ledger = given.ledger or Path(aside if given.smoke else "results")
        print(f"{len(fill_ledger(ledger, studies))} new entries in {ledger}")


def main(name: str, description: str | None, variants: Iterable[Variant], metrics: Sequence[str], steps: int) -> None:
    """Runs a study; with ``--smoke`` its first variant only."""
    given = ledger_options(description, steps).parse()
    plan = (f"python -m benchmarks.{name}", metrics, given.seeds, given.steps, 4 if given.smoke else TEST_IMAGES)
    chosen = list(variants)[: 1 if given.smoke else None]
    report(given, {variant.name: partial(variant_entry, variant, *plan) for variant in chosen})
