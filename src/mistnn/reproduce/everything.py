"""``mist reproduce all``: lists the runs that the ledger lacks, with hours on this machine, and works through them."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from mistnn.devices import find_device
from mistnn.errors import MistError
from mistnn.experiments import Experiment, build
from mistnn.experiments.system import system_of
from mistnn.presets import find_preset
from mistnn.reproduce.fill import Filler
from mistnn.reproduce.pool import in_processes, share_of_cores
from mistnn.reproduce.table import Row, Table
from mistnn.reproduce.tables import rows_of
from mistnn.reproduce.tables.generative import AIR, AIR_RUNS
from mistnn.training.batches import batches
from mistnn.training.runfolder import write_atomically
from mistnn.weights import hardware

SPEEDS = "speeds.json"  #: In the folder of the runs: the measured time of a step of each preset.
WARM_UP, STEPS, SECONDS = 1, 5, 8.0
"""Steps before the measurement, measured steps, and the time after which no further one begins."""


class Missing(NamedTuple):
    """A run that the ledger lacks.

    Attributes:
        seconds: of the training on this machine, on one core; 0 where the package ships the weights.
    """

    table: Table
    row: Row
    seed: int
    seconds: float

    @property
    def name(self) -> str:
        """The preset and the seed."""
        return f"{self.row.name}, seed {self.seed}"


def own_data(table: Table) -> list[Row]:
    """The rows of a table that need no folder of photographs or house numbers."""
    return [] if table.photographs else [row for row in table.rows if row.holds_data is None]


def step_seconds(experiment: Experiment, device: str = "auto") -> float:
    """The median time of a training step, in seconds, by a few steps from the middle of the run.

    Args:
        experiment: it is built with random weights, whatever it starts from.
        device: for the steps.
    """
    fresh = dataclasses.replace(experiment, start_from=None)
    with torch.random.fork_rng():
        step: Any = build(fresh, resuming=True)  # initialised at random: weights do not change the time of a step
        step.model.to(find_device(device))
        samples = system_of(fresh.model).training_samples(step.model, fresh, fresh.data.open("train"))
        middle = fresh.train.steps // 2
        drawn = batches(samples, start=middle, stop=middle + WARM_UP + STEPS, batch_size=fresh.train.batch_size, seed=0)
        seconds: list[float] = []
        begun = before = time.perf_counter()
        for turn, batch in drawn:
            step(batch, turn)
            now = time.perf_counter()
            seconds.append(now - before)
            before = now
            if len(seconds) > WARM_UP and now - begun > SECONDS:
                break
    return median(seconds[WARM_UP:])


class Speeds:
    """The time of a step of each preset on one core of this machine, measured once and kept in a file."""

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        self.file, self.say = file, say
        self.machine = hardware()
        try:
            known = json.loads(file.read_text())
            self.known: dict[str, float] = dict(known["seconds"]) if known["machine"] == self.machine else {}
        except (OSError, ValueError, KeyError, TypeError):
            self.known = {}

    def of(self, name: str, experiment: Experiment, device: str) -> float:
        """The seconds of a step of the preset with this name."""
        if name not in self.known:
            self.say(f"measuring a step of {name}")
            self.known[name] = round(step_seconds(experiment, device), 5)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            content = {"machine": self.machine, "seconds": self.known}
            write_atomically(self.file, (json.dumps(content, indent=2) + "\n").encode())
        return self.known[name]


def missing_runs(tables: Sequence[Table], seeds: int | None, filler: Filler, only: str | None = None) -> list[Missing]:
    """The runs of all tables that the ledger lacks, the shortest first.

    Args:
        tables: rows that need a folder of photographs or house numbers are left out.
        seeds: runs of each row; ``None`` for each table's own number.
        filler: says where the ledger and the runs are; its table does not matter.
        only: a word that a row's preset or system must contain.

    Raises:
        MistError: if no row of any table matches the word.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one training a core
    try:
        speeds = Speeds(filler.runs / SPEEDS, filler.say)
        found: dict[str, Missing] = {}
        matched = False
        for table in tables:
            own = dataclasses.replace(filler, table=table)
            try:
                rows = [row for row in rows_of(table, only) if row in own_data(table)]
            except MistError:
                continue
            matched = matched or bool(rows)
            for row in rows:
                for seed in own.lacking(row, seeds or (AIR_RUNS if table is AIR else 1)):
                    run = Missing(table, row, seed, 0.0)
                    if run.name not in found:
                        found[run.name] = run._replace(seconds=_seconds(own, run, speeds))
    finally:
        torch.set_num_threads(threads)
    if not matched:
        raise MistError(f"--only {only}: no table that needs neither photographs nor house numbers has such a row")
    return sorted(found.values(), key=lambda run: run.seconds)


def _seconds(filler: Filler, run: Missing, speeds: Speeds) -> float:
    if filler.is_shipped(run.row, run.seed):
        return 0.0
    experiment, _ = filler.training(run.row, run.seed)
    return experiment.train.steps * speeds.of(run.row.name, experiment, filler.device)


def fill_everything(runs: Sequence[Missing], filler: Filler, jobs: int) -> tuple[int, list[str]]:
    """Trains and measures runs, several at a time, in their order. Each writes its entry as soon as it is measured.

    A run that fails is reported, and the others go on. Ctrl-C stops all; the next call continues them.

    Args:
        runs: of ``missing_runs``.
        filler: as there.
        jobs: runs at a time, each with its share of the cores.

    Returns:
        The number of new entries, and the names of the runs that failed.
    """
    for table in {run.table.command: run.table for run in runs if run.table.start_preset}.values():
        dataclasses.replace(filler, table=table).train_start()
    threads = share_of_cores(min(jobs, max(1, len(runs))))
    plain = dataclasses.replace(filler, say=print)  # what the caller gave may not go to another process
    calls = {run.name: functools.partial(_fill_one, plain, run, threads) for run in runs}
    done, failed = 0, list[str]()

    def finished(name: str, future: Future[list[str]]) -> None:
        nonlocal done
        try:
            for line in future.result():
                filler.say(line)
        except Exception as error:  # a run may fail in any way; the others must go on
            failed.append(name)
            filler.say(f"{name}: failed: {error}")
            return
        done += 1
        filler.say(f"{done} of {len(calls)} in the ledger")

    in_processes(calls, jobs, finished)
    return done, failed


def _fill_one(filler: Filler, run: Missing, threads: int) -> list[str]:
    """Trains and measures one run; returns what there is to say."""
    torch.set_num_threads(threads)
    said: list[str] = []
    dataclasses.replace(filler, table=run.table, say=said.append).fill_seed(run.row, run.seed)
    return said


def listing(runs: Sequence[Missing]) -> list[str]:
    """The missing runs as a table in plain text, and their sum."""
    lines = [f"{'hours':>7}  {'steps':>7}  {'table':<20} run"]
    for run in runs:
        preset = find_preset(run.row.name).experiment
        steps = min(run.table.size.loop[0], preset.train.steps) if run.table.size.loop else preset.train.steps
        shown = f"{run.seconds / 3600:7.2f}  {steps:7,}" if run.seconds else f"{'shipped':>7}  {'':>7}"
        lines.append(f"{shown}  {run.table.command:<20} {run.name}")
    total = sum(run.seconds for run in runs) / 3600
    return [*lines, "", f"{len(runs)} runs, {total:.1f} hours of one core of this machine"]
