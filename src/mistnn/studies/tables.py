"""``mist reproduce table1|table2|table3``: trains what a table of the paper lacks, measures it, and enters it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mistnn.errors import MistError
from mistnn.presets import Experiment, evaluate_stored, find_preset, train
from mistnn.presets.systems import at_root
from mistnn.studies.ablation import at
from mistnn.studies.ledger import QUICK, TABLES, Row, Table, make_entry, write_entry
from mistnn.training.runfolder import CHECKPOINT

Budget = Literal["quick", "full"]
QUICK_STEPS = 300
QUICK_BATCH = 8
QUICK_IMAGES = 300
FULL_IMAGES = 1000


def find_table(command: str) -> Table:
    """The table of a command.

    Raises:
        MistError: if there is none.
    """
    for table in TABLES:
        if table.command == command:
            return table
    raise MistError(f"no table is called {command!r}: choose one of {', '.join(table.command for table in TABLES)}")


def rows_of(table: Table, only: str | None) -> list[Row]:
    """The rows whose preset's name or system contains a word; all of them without one.

    Raises:
        MistError: if there is none.
    """
    word = (only or "").lower()
    if "esl16" in word or "zha18" in word:
        raise MistError(f"--only {only}: this system is not in the package yet")
    rows = [row for row in table.rows if word in row.name or word in row.system.lower()]
    if not rows:
        names = ", ".join(row.name for row in table.rows)
        raise MistError(f"--only {only}: {table.command} has no such system; its presets are {names}")
    return rows


def experiment_of(row: Row, budget: Budget, seed: int, root: str | None) -> Experiment:
    """The preset of a row with a seed for its weights and its training scenes, at the size of a budget."""
    preset = find_preset(row.name).experiment
    steps = QUICK_STEPS if budget == "quick" else preset.train.steps
    batch = QUICK_BATCH if budget == "quick" else preset.train.batch_size
    changed = at(preset, seed, steps)
    train_config = dataclasses.replace(changed.train, batch_size=batch, evaluate_every=0)
    return dataclasses.replace(changed, data=at_root(changed.data, root), train=train_config, evaluation_images=0)


def run_table(
    table: Table,
    budget: Budget,
    seeds: int,
    results: Path,
    runs: Path,
    only: str | None = None,
    root: str | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Fills a table: what the ledger holds is kept, what was stopped goes on, what is missing is trained.

    Args:
        table: of the paper.
        budget: "quick" (300 steps of 8 images, 300 test images) or "full" (the presets as they are).
        seeds: how many runs of each row, seeds from 0.
        results: folder of the ledger.
        runs: folder of the run folders, one a row and seed.
        only: a word that a row's preset or system must contain.
        root: where MNIST lies, see ``ScenesConfig``.
        say: told what is done.

    Returns:
        How many entries are new.
    """
    ending = QUICK if budget == "quick" else ""
    images = QUICK_IMAGES if budget == "quick" else FULL_IMAGES
    new = 0
    for row in rows_of(table, only):
        for seed in range(seeds):
            name = f"{row.name}{ending}"
            shipped_entry = results / f"{name}.json"  # of the weights in the package, which are of seed 0
            entry_file = results / f"{name}-seed{seed}.json"
            if entry_file.exists() or (seed == 0 and shipped_entry.exists()):
                say(f"{name}, seed {seed}: kept as the ledger has it")
                continue
            out = runs / f"{name}-seed{seed}"
            result = train(experiment_of(row, budget, seed, root), out, resume=(out / CHECKPOINT).exists())
            if result.interrupted:
                raise KeyboardInterrupt
            metrics = evaluate_stored(out, images, seed=0, root=root)
            command = f"mist reproduce {table.command} --budget {budget} --seeds {seed + 1} --only {row.name}"
            note = f"Quick size: {QUICK_STEPS} steps of {QUICK_BATCH} images, not the paper's." if ending else ""
            write_entry(make_entry(out, metrics, images, 0, command, name, note), entry_file)
            new += 1
            shown = ", ".join(f"{key} {metrics[key]:.3f}" for key in table.columns if key in metrics)
            say(f"{name}, seed {seed}: {shown}, {result.seconds:.0f} s")
    return new
