"""``mist reproduce TABLE``: trains and measures the rows of a table that the ledger lacks, and writes their entries."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal

import torch

from mistnn.data.photographs.built import read_built
from mistnn.devices import DeviceName
from mistnn.errors import MistError
from mistnn.experiments import Experiment, evaluate_stored, train
from mistnn.experiments.readout import TUNING_IMAGES, tune_readout
from mistnn.presets import find_preset
from mistnn.reproduce.ledger import Entry, check_measures, make_entry, read_entry, validation_curve, write_entry
from mistnn.reproduce.pool import in_processes, share_of_cores
from mistnn.reproduce.protocol import chooses_reading, difference, stands
from mistnn.reproduce.spair_transfer import IMAGES as CURVE_IMAGES
from mistnn.reproduce.spair_transfer import transfer_curve
from mistnn.reproduce.table import Row, Table
from mistnn.reproduce.tables import rows_of
from mistnn.training.runfolder import CONFIG
from mistnn.weights import shipped_names

Budget = Literal["quick", "full"]
SMOKE_STEPS, SMOKE_BATCH, SMOKE_IMAGES = 20, 8, 20
"""Size of a smoke test: iterations, images in each, and test images."""
QUICK = "-quick"  #: In the names of the folders of smoke tests.
READ = "-read"  #: Ends the name of the folder of a model whose reading was chosen.
EARLIER = "-earlier"  #: Ends the name of the file of an entry that was measured by another protocol.
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


def rows_of_size(rows: Sequence[Row], root: str | None, say: Callable[[str], None]) -> list[Row]:
    """The rows whose data have about as many photographs as a folder. Raises ``MistError`` if there are none."""
    if root is None or all(row.photographs is None for row in rows):
        return list(rows)
    number = sum(map(len, read_built(root).images.values()))
    kept = [row for row in rows if row.photographs is None or abs(number - row.photographs) <= row.photographs / 10]
    for row in rows:
        if row not in kept:
            say(f"{row.name}: left out, its {row.data} has {row.photographs:,} photographs, and {root} has {number:,}")
    if not kept:
        raise MistError(
            f"{root} has {number:,} photographs, which fits no row: train a preset on it with `mist train NAME "
            f"--data.root {root}`, and measure it with `mist evaluate`"
        )
    return kept


def experiment_of(
    table: Table, row: Row, budget: Budget, seed: int, root: str | None, backbone: str | None = None
) -> Experiment:
    """The preset of a row at the size of a budget.

    Args:
        table: sets the size.
        row: of the table.
        budget, root: as in ``fill_table``.
        seed: of weights and training images.
        backbone: weights of the backbone for a table of photographs; "random" for none.
    """
    preset = find_preset(row.name).experiment
    own = (preset.train.steps, preset.train.batch_size)
    steps, batch = (SMOKE_STEPS, SMOKE_BATCH) if budget == "quick" else table.size.loop or own
    changed = preset.with_seed_and_steps(seed, min(steps, preset.train.steps))
    model: Any = changed.model
    if table.photographs:
        weights = None if backbone == RANDOM else backbone
        model = dataclasses.replace(model, backbone=dataclasses.replace(model.backbone, weights=weights))
    return dataclasses.replace(
        changed,
        model=model,
        data=changed.data.at(root),
        train=dataclasses.replace(
            changed.train, batch_size=batch, evaluate_every=changed.train.evaluate_every if budget == "full" else 0
        ),
        evaluation_images=changed.evaluation_images if budget == "full" and not table.photographs else 0,
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
    device: DeviceName = "auto",
) -> int:
    """Fills a table: keeps what the ledger holds, resumes what was stopped, trains what is missing.

    Where a table says so (``Table.tuned``), every row whose heat map has a strength is read as ``mist tune`` chooses on
    validation images, by the same search for all.

    Args:
        table: of the paper.
        budget: "full" for the presets' own size. "quick" is a smoke test: each row is trained for a few steps, read and
            measured, to see that it runs; the ledger gets no entry.
        seeds: runs of each row, with seeds from 0.
        results: folder of the ledger.
        runs: folder of the run folders, one for each row and seed.
        only: a word that a row's preset or system must contain.
        root: the folder of the images, where the data set needs one.
        say: receives progress messages.
        jobs: trainings at a time, each in its own process with its share of the cores.
        backbone: weights for a table of photographs: a file, "hub", or "random" for tests.
        device: for trainings and measurements.

    Returns:
        The number of runs measured; at full size, of new entries.

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
    filler = Filler(table, budget, results, runs, root, say, backbone, device)
    rows = rows_with_data(rows_of(table, only), root, say)
    rows = rows_of_size(rows, root, say) if budget == "full" else rows
    if table.start_preset and any(filler.lacking(row, seeds) for row in rows):
        filler.train_start()
    if jobs > 1:
        filler.train_together(rows, seeds, jobs)
    return sum(filler.fill(row, seeds) for row in rows)


@dataclasses.dataclass(frozen=True)
class Filler:
    """What all runs of a table have in common."""

    table: Table
    budget: Budget
    results: Path
    runs: Path
    root: str | None
    say: Callable[[str], None]
    backbone: str | None
    device: DeviceName = "auto"

    def train_start(self) -> None:
        """Trains the preset whose weights all rows start from, unless that is done."""
        name = self.table.start_preset
        out, experiment = self.start, find_preset(name).experiment
        if self.budget == "quick":
            experiment = experiment.with_steps(min(SMOKE_STEPS, experiment.train.steps))
        if not (out / CONFIG).exists():
            self.say(f"{name}: trained first, into {out}")
        self._trained(self._placed(experiment.at(self.root)), out)

    @property
    def start(self) -> Path:
        """The folder of the run that all rows start from."""
        return self.runs / (self.table.start_preset + (QUICK if self.budget == "quick" else ""))

    def train_together(self, rows: Sequence[Row], seeds: int, jobs: int) -> None:
        """Trains what rows lack, several at a time."""
        whole = [(row, seed) for row in rows for seed in self.lacking(row, seeds)]
        self._train_in_processes([one for one in whole if not self.is_shipped(*one)], jobs)

    def _train_in_processes(self, trainings: Sequence[tuple[Row, int]], jobs: int) -> None:
        """Runs each training in its own process. If one fails or is interrupted, all stop as at Ctrl-C."""
        threads = share_of_cores(min(jobs, max(1, len(trainings))))
        calls = {self.out_of(*one): functools.partial(_train, *self.training(*one), threads) for one in trainings}
        done: list[Path] = []

        def finished(out: Path, future: Future[bool]) -> None:
            if _with_hint(future.result, out):
                raise KeyboardInterrupt
            done.append(out)
            self.say(f"{len(done)} of {len(calls)} trained: {out}")

        in_processes(calls, jobs, finished)

    def fill(self, row: Row, seeds: int) -> int:
        """Trains and measures what a row lacks; returns the number of runs measured."""
        lacking = self.lacking(row, seeds)
        for seed in sorted(set(range(seeds)) - set(lacking)):
            self.say(f"{row.name}, seed {seed}: already in the ledger")
        for seed in lacking:
            self.fill_seed(row, seed)
        return len(lacking)

    def fill_seed(self, row: Row, seed: int) -> None:
        """Trains and measures one run."""
        weights = row.name if self.is_shipped(row, seed) else self._trained(*self.training(row, seed))
        read, reading = self._read(row, seed, weights)
        of = seed if self.table.tested_on_training_images else 0
        metrics = evaluate_stored(read, self.images, of, self.root, unknown_k=row.unknown_k, device=self.device)
        measured = int(metrics["images"])  # a folder may hold fewer
        if row.curve:
            metrics |= transfer_curve(read, self.root, min(self.images, CURVE_IMAGES), seed=0, device=self.device)
        self.say(_line(f"{row.name}, seed {seed}", self.table.columns, metrics))
        if self.budget == "full":
            command, note = self._command(row, seed), self._note(row, seed, reading)
            entry = make_entry(read, metrics, measured, of, command, row.name, note, self.root, reading)
            curve = validation_curve(weights, self.table.columns) or self._earlier_curve(row, seed, entry)
            entry = dataclasses.replace(entry, curve=curve)
            check_measures(entry, self._file(row.name, seed))  # before an earlier entry is set aside
            write_entry(entry, self._set_aside(row, self._file(row.name, seed)))

    @property
    def images(self) -> int:
        """How many test images are measured; all of a folder of photographs."""
        if self.budget == "quick":
            return SMOKE_IMAGES
        return sys.maxsize if self.table.photographs else self.table.size.images

    def _read(self, row: Row, seed: int, weights: Path | str) -> tuple[Path | str, str]:
        """The model with the reading that the table asks for, and that reading in words; "" if there is none."""
        if not chooses_reading(self.table, find_preset(row.name).experiment.model):
            return weights, ""
        images = min(TUNING_IMAGES, SMOKE_IMAGES) if self.budget == "quick" else TUNING_IMAGES
        out = self.out_of(row, seed).with_name(self.out_of(row, seed).name + READ)
        # Never kept: the weights may have been trained anew since.
        tuned = tune_readout(weights, out, images, root=self.root, device=self.device, say=lambda _: None, force=True)
        return out, f"{tuned.reading}: the best of {tuned.tried} on {images} validation images"

    def _command(self, row: Row, seed: int) -> str:
        return f"mist reproduce {self.table.command} --budget {self.budget} --seeds {seed + 1} --only {row.name}"

    def _note(self, row: Row, seed: int, reading: str) -> str:
        notes = ["Measures again the weights that ship with the package; trains nothing."]
        notes = notes if self.is_shipped(row, seed) else []
        return " ".join([*notes, *([f"Read at {reading}, by the search of `mist tune`."] if reading else [])])

    def _file(self, name: str, seed: int) -> Path:
        shipped = self.results / f"{name}.json"  # of the package's weights, which have seed 0
        return shipped if seed == 0 and shipped.exists() else self.results / f"{name}-seed{seed}.json"

    def _complete(self, row: Row, file: Path) -> bool:
        """Whether the entry exists, by the present protocol and with all measures that this table shows.

        Those of an unknown K may be missing, where another table measured the same run.
        """
        if self.budget == "quick" or not file.exists():
            return False
        entry, model = read_entry(file), find_preset(row.name).experiment.model
        needed = (name for name in self.table.columns if name.endswith("_free_k"))
        return not difference(self.table, model, entry) and all(stands(model, entry, name) for name in needed)

    def _earlier_curve(self, row: Row, seed: int, entry: Entry) -> dict[str, list[tuple[float, float]]]:
        """The validation curve of the same training in an earlier entry, since shipped weights have no log."""
        file = self._file(row.name, seed)
        earlier = read_entry(file) if file.exists() else entry
        return earlier.curve if (earlier.commit, earlier.steps) == (entry.commit, entry.steps) else entry.curve

    def _set_aside(self, row: Row, file: Path) -> Path:
        """Renames the file of an entry of another protocol, which a new one doesn't replace. Returns the free name."""
        if file.exists() and difference(self.table, find_preset(row.name).experiment.model, read_entry(file)):
            stem, number = f"{file.stem}{EARLIER}", 1
            while (aside := file.with_name(f"{stem}{'' if number == 1 else number}.json")).exists():
                number += 1
            file.replace(aside)
        return file

    def lacking(self, row: Row, seeds: int) -> list[int]:
        """The seeds whose entries are missing."""
        return [seed for seed in range(seeds) if not self._complete(row, self._file(row.name, seed))]

    def is_shipped(self, row: Row, seed: int) -> bool:
        """Whether the package ships the weights of this run."""
        return self.budget == "full" and seed == 0 and row.name in shipped_names()

    def out_of(self, row: Row, seed: int) -> Path:
        """The run folder."""
        return self.runs / f"{row.name}{QUICK if self.budget == 'quick' else ''}-seed{seed}"

    def training(self, row: Row, seed: int) -> tuple[Experiment, Path]:
        """What is trained, and the run folder."""
        changed = experiment_of(self.table, row, self.budget, seed, self.root, self.backbone)
        if self.table.start_preset:
            changed = dataclasses.replace(changed, start_from=str(self.start))
        return self._placed(changed), self.out_of(row, seed)

    def _placed(self, experiment: Experiment) -> Experiment:
        """The experiment on the device."""
        return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, device=self.device))

    def _trained(self, experiment: Experiment, out: Path) -> Path:
        if _with_hint(lambda: _train(experiment, out), out):
            raise KeyboardInterrupt
        return out


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
