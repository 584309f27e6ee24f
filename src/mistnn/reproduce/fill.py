"""``mist reproduce TABLE``: trains and measures the rows of a table that the ledger lacks, and writes their entries."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from mistnn.errors import MistError
from mistnn.experiments import Experiment, evaluate_stored, train
from mistnn.presets import find_preset
from mistnn.reproduce.ledger import QUICK, make_entry, read_entry, write_entry
from mistnn.reproduce.spair_transfer import IMAGES as CURVE_IMAGES
from mistnn.reproduce.spair_transfer import transfer_curve
from mistnn.reproduce.table import Row, Table
from mistnn.reproduce.tables import rows_of
from mistnn.training.runfolder import CONFIG
from mistnn.weights import shipped_names

Budget = Literal["quick", "full"]
SEARCH_IMAGES = 300  #: Validation images on which learning rates are compared.
STOP_SECONDS = 60.0  #: How long a training may take to write its checkpoint after another one has failed.
FACTORS: Mapping[str, float] = MappingProxyType({"x0.3": 0.3, "x1": 1.0, "x3": 3.0})
"""Factors of the learning rates that the search compares, by their name in run folders."""
RANDOM = "random"  #: Stands for a backbone without pretrained weights. For tests.


def rows_with_data(rows: Sequence[Row], root: str | None, say: Callable[[str], None]) -> list[Row]:
    """The rows that need no particular folder or whose images it holds. Raises ``MistError`` if there are none."""
    folder = None if root is None else Path(root).expanduser()
    kept = [row for row in rows if row.holds_data is None or (folder and row.holds_data(folder))]
    if not kept:
        raise MistError(
            "these rows need house numbers, which are not part of the package: give --data-root, the folder of SVHN's "
            f"full numbers (train/, test/) or of the re-assembled ones (boxes.json), not {root}"
        )
    for row in rows:
        if row not in kept:
            say(f"{row.name}: left out, {root} holds other images")
    return kept


def experiment_of(
    table: Table,
    row: Row,
    budget: Budget,
    seed: int,
    root: str | None,
    factor: float = 1.0,
    backbone: str | None = None,
) -> Experiment:
    """The preset of a row at the size of a budget.

    Args:
        table: sets the size.
        row: of the table.
        budget, root: as in ``fill_table``.
        seed: of weights and training images.
        factor: multiplies every learning rate.
        backbone: weights of the backbone for a table of photographs; "random" for none.
    """
    preset, size = find_preset(row.name).experiment, table.size
    own = (preset.train.steps, preset.train.batch_size)
    steps, batch = (size.steps, size.batch) if budget == "quick" else size.full or own
    changed = preset.with_seed_and_steps(seed, min(steps, preset.train.steps))
    rates = [field.name for field in dataclasses.fields(changed.step) if field.name.endswith("rate")]
    scaled = {name: getattr(changed.step, name) * factor for name in rates}
    model: Any = changed.model
    if table.photographs:
        weights = None if backbone == RANDOM else backbone
        model = dataclasses.replace(model, backbone=dataclasses.replace(model.backbone, weights=weights))
    return dataclasses.replace(
        changed,
        model=model,
        data=changed.data.at(root),
        step=dataclasses.replace(changed.step, **scaled),
        train=dataclasses.replace(changed.train, batch_size=batch, evaluate_every=0),
        evaluation_images=0,
    )


def fill_table(
    table: Table,
    budget: Budget,
    seeds: int,
    results: Path,
    runs: Path,
    only: str | None = None,
    root: str | None = None,
    say: Callable[[str], None] = print,
    jobs: int = 1,
    backbone: str | None = None,
) -> int:
    """Fills a table: keeps what the ledger holds, resumes what was stopped, trains what is missing.

    At quick size, tables with ``searched_by`` get the same search for every system: seed 0 is trained with the
    preset's learning rates, with 0.3 times and with 3 times as much; the best on validation images is used for all
    seeds. Full size takes the presets unchanged.

    Args:
        table: of the paper.
        budget: "quick" (the table's size) or "full" (the presets' own).
        seeds: runs of each row, with seeds from 0.
        results: folder of the ledger.
        runs: folder of the run folders, one for each row, factor and seed.
        only: a word that a row's preset or system must contain.
        root: the folder of the images, where the data set needs one.
        say: receives progress messages.
        jobs: trainings at a time, each in its own process with its share of the cores.
        backbone: weights for a table of photographs: a file, "hub", or "random" for tests.

    Returns:
        The number of new entries.

    Raises:
        MistError: if a table of photographs lacks a folder or weights; and whatever the trainings raise.
    """
    if table.photographs and (root is None or backbone is None):
        raise MistError(
            f"{table.command} is of photographs: give the folder that `mist build` made with --data-root DIR, and the "
            "backbone's weights with --backbone FILE (or hub, to fetch them)"
        )
    if table.photographs and backbone == RANDOM:
        say("--backbone random is for trying out the commands: without pretrained features the numbers mean nothing")
    filler = _Filler(table, budget, results, runs, root, say, backbone)
    rows = rows_with_data(rows_of(table, only), root, say)
    if table.start_preset and any(filler.lacking(row, seeds) for row in rows):
        filler.train_start()
    if jobs > 1:
        filler.train_together(rows, seeds, jobs)
    return sum(filler.fill(row, seeds) for row in rows)


@dataclasses.dataclass(frozen=True)
class _Filler:
    """What all runs of a table have in common."""

    table: Table
    budget: Budget
    results: Path
    runs: Path
    root: str | None
    say: Callable[[str], None]
    backbone: str | None

    def train_start(self) -> None:
        """Trains the preset whose weights all rows start from, unless that is done."""
        name = self.table.start_preset
        out, experiment = self.runs / name, find_preset(name).experiment
        if not (out / CONFIG).exists():
            self.say(f"{name}: trained first, into {out}")
        self._trained(experiment.at(self.root), out)

    def train_together(self, rows: Sequence[Row], seeds: int, jobs: int) -> None:
        """Trains what rows lack, several at a time: first the runs of the searches, then the rest."""
        incomplete = {row: lacking for row in rows if (lacking := self.lacking(row, seeds))}
        tries = [(row, 0, factor) for row in incomplete for factor in FACTORS if self._searches]
        self._train_in_processes([one for one in tries if not self._search_file(one[0], one[2]).exists()], jobs)
        factors = {row: self._factor(row) for row in incomplete}
        whole = [(row, seed, factors[row]) for row, lacking in incomplete.items() for seed in lacking]
        self._train_in_processes([one for one in whole if not self._is_shipped(*one[:2])], jobs)

    def _train_in_processes(self, trainings: Sequence[tuple[Row, int, str]], jobs: int) -> None:
        """Runs each training in its own process. If one fails or is interrupted, all stop as at Ctrl-C."""
        if not trainings:
            return
        jobs = min(jobs, len(trainings))
        threads = max(1, cores() // jobs)
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
        try:
            running = {pool.submit(_train, *self._training(*one), threads): self._out(*one) for one in trainings}
            for place, future in enumerate(as_completed(running), 1):
                if _with_hint(future.result, running[future]):
                    raise KeyboardInterrupt
                self.say(f"{place} of {len(running)} trained: {running[future]}")
        except BaseException:
            workers = multiprocessing.active_children()
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join(STOP_SECONDS)
                worker.kill()  # it had taken its next training, or hangs
            raise
        pool.shutdown()

    def fill(self, row: Row, seeds: int) -> int:
        """Trains and measures what a row lacks; returns the number of new entries."""
        name, lacking, size = self._name(row), self.lacking(row, seeds), self.table.size
        for seed in set(range(seeds)) - set(lacking):
            self.say(f"{name}, seed {seed}: already in the ledger")
        if not lacking:
            return 0
        factor = self._factor(row)
        all_images = sys.maxsize if self.table.photographs else size.full_images
        images = size.images if self.budget == "quick" else all_images
        for seed in lacking:
            weights = row.name if self._is_shipped(row, seed) else self._trained(*self._training(row, seed, factor))
            of = seed if self.table.tested_on_training_images else 0
            metrics = evaluate_stored(weights, images, of, self.root, unknown_k=row.unknown_k)
            measured = int(metrics["images"])  # a folder may hold fewer
            if row.curve:
                metrics |= transfer_curve(weights, self.root, min(images, CURVE_IMAGES), seed=0)
            command, note = self._command(row, seed), self._note(factor)
            entry = make_entry(weights, metrics, measured, of, command, name, note, self.root)
            write_entry(entry, self._file(name, seed))
            self.say(_line(f"{name}, seed {seed}", self.table.columns, metrics))
        return len(lacking)

    def _command(self, row: Row, seed: int) -> str:
        return f"mist reproduce {self.table.command} --budget {self.budget} --seeds {seed + 1} --only {row.name}"

    def _file(self, name: str, seed: int) -> Path:
        shipped = self.results / f"{name}.json"  # of the package's weights, which have seed 0
        return shipped if seed == 0 and shipped.exists() else self.results / f"{name}-seed{seed}.json"

    def _complete(self, file: Path) -> bool:
        """Whether the entry exists, with the measures of an unknown K if this table shows them."""
        needed = [name for name in self.table.columns if name.endswith("_free_k")]
        return file.exists() and (not needed or set(needed) <= read_entry(file).metrics.keys())

    def _name(self, row: Row) -> str:
        return f"{row.name}{QUICK}" if self.budget == "quick" else row.name

    def lacking(self, row: Row, seeds: int) -> list[int]:
        """The seeds whose entries are missing."""
        return [seed for seed in range(seeds) if not self._complete(self._file(self._name(row), seed))]

    def _is_shipped(self, row: Row, seed: int) -> bool:
        return self.budget == "full" and seed == 0 and row.name in shipped_names()

    def _out(self, row: Row, seed: int, factor: str) -> Path:
        quick = f"{row.name}{QUICK}-{factor}-seed{seed}"
        return self.runs / (quick if self.budget == "quick" else f"{row.name}-seed{seed}")

    def _training(self, row: Row, seed: int, factor: str) -> tuple[Experiment, Path]:
        changed = experiment_of(self.table, row, self.budget, seed, self.root, FACTORS[factor], self.backbone)
        if self.table.start_preset:
            changed = dataclasses.replace(changed, start_from=str(self.runs / self.table.start_preset))
        return changed, self._out(row, seed, factor)

    def _trained(self, experiment: Experiment, out: Path) -> Path:
        if _with_hint(lambda: _train(experiment, out), out):
            raise KeyboardInterrupt
        return out

    @property
    def _searches(self) -> bool:
        return self.budget == "quick" and bool(self.table.searched_by)

    def _search_file(self, row: Row, factor: str) -> Path:
        return self.results / f"search-{row.name}-{factor}.json"

    def _factor(self, row: Row) -> str:
        """The factor of the learning rates that is best on validation images; each attempt gets an entry."""
        if not self._searches:
            return "x1"
        reached, metric = {}, self.table.searched_by
        for factor in FACTORS:
            file = self._search_file(row, factor)
            if not file.exists():
                out = self._trained(*self._training(row, 0, factor))
                metrics = evaluate_stored(out, SEARCH_IMAGES, 0, self.root, "validation")
                note = f"Learning rates {factor}, on validation scenes; at quick size."
                entry = make_entry(out, metrics, SEARCH_IMAGES, 0, self._command(row, 0), file.stem, note, self.root)
                write_entry(entry, file)
                self.say(_line(f"{row.name}, rates {factor}, validation", (metric,), metrics))
            entry = read_entry(file)
            if metric not in entry.metrics:
                raise MistError(f"{file}: the entry has no {metric!r}: remove the file to measure again")
            reached[factor] = entry.metrics[metric]
        # Equal results, such as 0 everywhere, keep the preset's own rates.
        return max(reached, key=lambda factor: (reached[factor], factor == "x1"))

    def _note(self, factor: str) -> str:
        if self.budget == "full":
            return ""
        size = f"Quick size: {self.table.size.steps} steps of {self.table.size.batch} images, not the paper's."
        rates = f" Learning rates {factor} of the preset's, of {', '.join(FACTORS)} the best on validation scenes."
        return size + (rates if self.table.searched_by else "")


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_hint(training: Callable[[], bool], out: Path) -> bool:
    """The result of a training; errors say how to start anew."""
    try:
        return training()
    except MistError as error:
        raise MistError(f"{error}; to train it anew, remove {out}" if out.exists() else str(error)) from error


def _train(experiment: Experiment, out: Path, threads: int | None = None) -> bool:
    """Starts or resumes a run, with a number of threads if given; returns whether it was interrupted."""
    if threads is not None:
        torch.set_num_threads(threads)
    return train(experiment, out, resume=(out / CONFIG).exists()).interrupted


def _line(what: str, names: tuple[str, ...], metrics: Mapping[str, float]) -> str:
    return f"{what}: " + ", ".join(f"{name} {metrics[name]:.3f}" for name in names if name in metrics)
