"""``mist reproduce tableN``: trains what a table of the paper lacks, measures it, and enters it."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch

from mistnn.data import NumbersConfig, SvhnConfig
from mistnn.data.house_numbers.placed_numbers import holds_numbers
from mistnn.data.house_numbers.svhn import holds_svhn
from mistnn.errors import MistError
from mistnn.models.mist import MistConfig
from mistnn.models.stn import ColocaliserConfig
from mistnn.presets import Experiment, evaluate_stored, find_preset, train
from mistnn.presets.stn_evaluation import ENCODER
from mistnn.presets.systems import ClassifierConfig, NaturalModelConfig, at_root
from mistnn.studies.ablation import at
from mistnn.studies.ledger import QUICK, TABLES, make_entry, read_entry, write_entry
from mistnn.studies.natural_tables import NATURAL_TABLES
from mistnn.studies.paper_table import Row, Size, Table
from mistnn.studies.spair_transfer import IMAGES as CURVE_IMAGES
from mistnn.studies.spair_transfer import is_transfer, transfer_curve
from mistnn.studies.stn_colocalise import train_encoder
from mistnn.training.runfolder import CONFIG
from mistnn.weights import shipped_names

Budget = Literal["quick", "full"]
QUICK_STEPS = 300
QUICK_BATCH = 8
QUICK_IMAGES = 300
FULL_IMAGES = 1000
STOP_SECONDS = 60.0
"""How long a training has to write its checkpoint when another has failed."""

FACTORS: Mapping[str, float] = MappingProxyType({"x0.3": 0.3, "x1": 1.0, "x3": 3.0})
"""What the learning rates of a system's preset are multiplied by in the search, and how run folders call it."""
SEARCHED_BY, SEARCHED_BY_NATURAL = "both", "f1"
"""The metric of the search, on validation scenes, and on photographs."""

RANDOM = "random"
"""In place of a backbone's weights: none. For tests."""


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
    rows = [row for row in table.rows if word in row.name or word in row.system.lower()]
    rows = [row for row in rows if row.name == word] or rows  # a whole name means that one, not all that begin like it
    if not rows:
        systems = ", ".join(dict.fromkeys(row.system.partition(",")[0] for row in table.rows))
        raise MistError(f"--only {only}: {table.command} has no such system or preset; it has {systems}")
    return rows


def served(rows: Sequence[Row], root: str | None, say: Callable[[str], None]) -> list[Row]:
    """The rows whose images lie in a folder; house numbers are of one kind or the other. All others are kept.

    Raises:
        MistError: if rows on house numbers are all there is, and the folder holds neither kind.
    """
    kept = []
    for row in rows:
        data = find_preset(row.name).experiment.data
        holds = {SvhnConfig: holds_svhn, NumbersConfig: holds_numbers}.get(type(data))
        if holds is None or (root is not None and holds(Path(root).expanduser())):
            kept.append(row)
    if not kept:
        raise MistError(
            "these rows need house numbers, which are not part of the package: give --data-root, the folder of SVHN's "
            f"full numbers (train/, test/) or of the re-assembled ones (boxes.json), not {root}"
        )
    for row in rows:
        if row not in kept:
            say(f"{row.name}: left out, {root} holds other images")
    return kept


def digits_size() -> Size:
    """The size of the tables of digits."""
    return Size(QUICK_STEPS, QUICK_BATCH, QUICK_IMAGES, FULL_IMAGES)


def experiment_of(
    row: Row,
    budget: Budget,
    seed: int,
    root: str | None,
    factor: float = 1.0,
    backbone: str | None = None,
    size: Size | None = None,
) -> Experiment:
    """The preset of a row with a seed for its weights and its training scenes, at the size of a budget.

    Args:
        row: of the table.
        budget: "quick" or "full".
        seed: of weights and training scenes.
        root: where MNIST lies, see ``ScenesConfig``.
        factor: multiplies every learning rate.
        backbone: weights of a backbone, where the row has one; "random" or none for none.
        size: of the runs; that of the tables of digits if not given.
    """
    preset = find_preset(row.name).experiment
    size = digits_size() if size is None else size
    own = (preset.train.steps, preset.train.batch_size)
    steps, batch = (size.steps, size.batch) if budget == "quick" else size.full or own
    steps = min(steps, preset.train.steps)
    changed = at(preset, seed, steps)
    rates = [field.name for field in dataclasses.fields(changed.step) if field.name.endswith("rate")]
    scaled = {name: getattr(changed.step, name) * factor for name in rates}
    model = changed.model
    if isinstance(model, NaturalModelConfig):
        weights = None if backbone == RANDOM else backbone
        model = dataclasses.replace(model, backbone=dataclasses.replace(model.backbone, weights=weights))
    return dataclasses.replace(
        changed,
        model=model,
        data=at_root(changed.data, root),
        step=dataclasses.replace(changed.step, **scaled),
        train=dataclasses.replace(changed.train, batch_size=batch, evaluate_every=0),
        evaluation_images=0,
    )


def run_table(
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
    """Fills a table: what the ledger holds is kept, what was stopped goes on, what is missing is trained.

    At quick size every system that reads gets the same search: seed 0 is trained with its preset's learning rates, with
    0.3 and with 3 times as much, and the best on validation scenes is taken for all seeds. Full size takes the presets
    as they are.

    Args:
        table: of the paper.
        budget: "quick" (300 steps of 8 images, 300 test images) or "full" (the presets as they are).
        seeds: how many runs of each row, seeds from 0.
        results: folder of the ledger.
        runs: folder of the run folders, one a row, factor and seed.
        only: a word that a row's preset or system must contain.
        root: where MNIST lies, see ``ScenesConfig``.
        say: told what is done.
        jobs: trainings at a time, each in a process of its own with its share of the processor's cores.
        backbone: weights of the backbone, which a table of photographs needs: a file, "hub", or "random" for tests.

    Returns:
        How many entries are new.

    Raises:
        MistError: if a table of photographs lacks a folder or weights, and for whatever its trainings refuse.
    """
    if table in NATURAL_TABLES and (root is None or backbone is None):
        raise MistError(
            f"{table.command} is of photographs: give the folder that `mist build` made with --data-root DIR, and the "
            "backbone's weights with --backbone FILE (or hub, to fetch them)"
        )
    if table in NATURAL_TABLES and backbone == RANDOM:
        say(
            "--backbone random: the features are those of random weights, for trying the commands out; the numbers say "
            "nothing about the systems"
        )
    filler = _Filler(table, budget, results, runs, root, say, backbone)
    rows = served(rows_of(table, only), root, say)
    missing = [row for row in rows if filler.lacking(row, seeds)]
    if any(isinstance(find_preset(row.name).experiment.model, ColocaliserConfig) for row in missing):
        encoder = runs / ENCODER
        if _told(lambda: train_encoder(encoder, root, say), encoder):
            raise KeyboardInterrupt
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

    @property
    def size(self) -> Size:
        return digits_size() if self.table.size is None else self.table.size

    def train_together(self, rows: Sequence[Row], seeds: int, jobs: int) -> None:
        """Trains what some rows lack, several at a time: first what the searches need, then the rest."""
        incomplete = {row: lacking for row in rows if (lacking := self.lacking(row, seeds))}
        self._each_apart(
            [
                (row, 0, factor)
                for row in incomplete
                if self._searches(row)
                for factor in FACTORS
                if not self._search_file(row, factor).exists()
            ],
            jobs,
        )
        factors = {row: self._factor(row) for row in incomplete}
        whole = [(row, seed, factors[row]) for row, lacking in incomplete.items() for seed in lacking]
        self._each_apart([one for one in whole if not self._is_shipped(*one[:2])], jobs)

    def _each_apart(self, trainings: Sequence[tuple[Row, int, str]], jobs: int) -> None:
        """Trainings in processes of their own. When one fails or is stopped, none begins any more and all stop.

        They stop as at Ctrl-C, between two steps and with a checkpoint.
        """
        if not trainings:
            return
        jobs = min(jobs, len(trainings))
        threads = max(1, cores() // jobs)
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
        try:
            running = {
                pool.submit(_train_apart, *self._training(row, seed, factor), threads): self._out(row, seed, factor)
                for row, seed, factor in trainings
            }
            for place, future in enumerate(as_completed(running), 1):
                if _told(future.result, running[future]):
                    raise KeyboardInterrupt
                self.say(f"{place} of {len(running)} trained: {running[future]}")
        except BaseException:
            workers = multiprocessing.active_children()
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join(STOP_SECONDS)
                worker.kill()  # one that took up its next training, or hangs
            raise
        pool.shutdown()

    def fill(self, row: Row, seeds: int) -> int:
        """Trains and measures what a row lacks; returns how many entries are new."""
        name, lacking = self._name(row), self.lacking(row, seeds)
        for seed in set(range(seeds)) - set(lacking):
            self.say(f"{name}, seed {seed}: kept as the ledger has it")
        if not lacking:
            return 0
        factor = self._factor(row)
        images = self.size.images if self.budget == "quick" else self.size.full_images
        if self.budget == "full" and self.table in NATURAL_TABLES:
            images = sys.maxsize  # all test images of the folder
        for seed in lacking:
            weights = row.name if self._is_shipped(row, seed) else self._trained(row, seed, factor)
            # A localiser is measured on the images that it was trained on.
            of = seed if isinstance(find_preset(row.name).experiment.model, ColocaliserConfig) else 0
            metrics = evaluate_stored(weights, images, of, self.root, unknown_k=_reads(row) and _finds_k(row))
            measured = int(metrics["images"])  # a folder may hold fewer
            if is_transfer(find_preset(row.name).experiment.data):
                metrics |= transfer_curve(weights, self.root, min(images, CURVE_IMAGES), seed=0)
            command = f"mist reproduce {self.table.command} --budget {self.budget} --seeds {seed + 1} --only {row.name}"
            entry = make_entry(weights, metrics, measured, of, command, name, self._note(row, factor), self.root)
            write_entry(entry, self._file(name, seed))
            self.say(_line(f"{name}, seed {seed}", self.table.columns, metrics))
        return len(lacking)

    def _file(self, name: str, seed: int) -> Path:
        shipped = self.results / f"{name}.json"  # of the weights in the package, which are of seed 0
        return shipped if seed == 0 and shipped.exists() else self.results / f"{name}-seed{seed}.json"

    def _complete(self, file: Path) -> bool:
        """Whether the entry is there and has been measured without K too, if this table asks for that."""
        return file.exists() and (not self.table.unknown_k or "ap50_free_k" in read_entry(file).metrics)

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
        changed = experiment_of(row, self.budget, seed, self.root, FACTORS[factor], self.backbone, self.size)
        if isinstance(changed.model, ColocaliserConfig):
            changed = dataclasses.replace(changed, start_from=str(self.runs / ENCODER))
        return changed, self._out(row, seed, factor)

    def _trained(self, row: Row, seed: int, factor: str) -> Path:
        experiment, out = self._training(row, seed, factor)
        if _told(lambda: train(experiment, out, resume=(out / CONFIG).exists()).interrupted, out):
            raise KeyboardInterrupt
        return out

    def _searches(self, row: Row) -> bool:
        return self.budget == "quick" and _reads(row)

    def _search_file(self, row: Row, factor: str) -> Path:
        return self.results / f"search-{row.name}-{factor}.json"

    def _factor(self, row: Row) -> str:
        """The factor of the learning rates that reads most on validation scenes; each try is an entry."""
        if not self._searches(row):
            return "x1"
        reached = {}
        searched_by = SEARCHED_BY_NATURAL if self.table in NATURAL_TABLES else SEARCHED_BY
        for factor in FACTORS:
            file = self._search_file(row, factor)
            if not file.exists():
                out = self._trained(row, 0, factor)
                metrics = evaluate_stored(out, QUICK_IMAGES, 0, self.root, "validation")
                command = f"mist reproduce {self.table.command} --budget quick --seeds 1 --only {row.name}"
                note = f"Learning rates {factor}, on validation scenes; at quick size."
                entry = make_entry(out, metrics, QUICK_IMAGES, 0, command, file.stem, note, self.root)
                write_entry(entry, file)
                self.say(_line(f"{row.name}, rates {factor}, validation", (searched_by,), metrics))
            entry = read_entry(file)
            if searched_by not in entry.metrics:
                raise MistError(f"{file}: the entry has no {searched_by!r}; remove it, and it is measured again")
            reached[factor] = entry.metrics[searched_by]
        # Where none reads anything the preset's own rates stay.
        return max(reached, key=lambda factor: (reached[factor], factor == "x1"))

    def _note(self, row: Row, factor: str) -> str:
        if self.budget == "full":
            return ""
        size = f"Quick size: {self.size.steps} steps of {self.size.batch} images, not the paper's."
        rates = f" Learning rates {factor} of the preset's, of {', '.join(FACTORS)} the best on validation scenes."
        return size + (rates if _reads(row) else "")


def cores() -> int:
    """Cores of the processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _told(training: Callable[[], bool], out: Path) -> bool:
    """What a training gives; its error with the way to begin anew."""
    try:
        return training()
    except MistError as error:
        raise MistError(f"{error}; to train it anew, remove {out}" if out.exists() else str(error)) from error


def _train_apart(experiment: Experiment, out: Path, threads: int) -> bool:
    """A training in this process, with so many cores; whether it was stopped."""
    torch.set_num_threads(threads)
    return train(experiment, out, resume=(out / CONFIG).exists()).interrupted


def _reads(row: Row) -> bool:
    model = find_preset(row.name).experiment.model
    return not isinstance(model, ClassifierConfig) and bool(model.class_names)


def _finds_k(row: Row) -> bool:
    """Whether it makes sense to measure it without K: all house numbers have two digits."""
    experiment = find_preset(row.name).experiment
    return isinstance(experiment.model, MistConfig) and not isinstance(experiment.data, SvhnConfig | NumbersConfig)


def _line(what: str, names: tuple[str, ...], metrics: Mapping[str, float]) -> str:
    return f"{what}: " + ", ".join(f"{name} {metrics[name]:.3f}" for name in names if name in metrics)
