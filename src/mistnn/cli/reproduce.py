"""``mist reproduce``: trains and measures what a table of a paper lacks, and writes it to the ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mistnn.cli.parsing import Device, Folder, Name, OptionalFolder, OptionalNumber, Options, parse, renamed
from mistnn.config import Rule, between
from mistnn.errors import MistError

DESCRIPTION = """\
Trains and measures the missing rows of a table with `--budget full`, skips those that the ledger holds, resumes runs \
that were stopped, and writes an entry for each run. Without it, tries out whether each row runs.

  table1      reconstruction without labels: MIST, Grid, Channel-wise, Esl16, Zha18
  table2      detection and classification: MIST, Channel-wise, Supervised
  table3      lifting against SOFT top-K: MIST, Xie20
  table4      photographs of PASCAL+COCO: MIST, Xie20; needs --data-root, a folder that `mist build pascal-coco` made,
              and --backbone, a file with the weights of ResNet34
  voc07       the same for all of VOC 2007 (`mist build voc07`), with four anchors
  table5      the effect of the K of the training, and unknown K
  svhn        house numbers of two digits: MIST, Supervised, on SVHN's full numbers or, under another name, on its
              re-assembled test crops, whichever `--data-root` holds
  air         AIR on zero, one and two digits: how many of its runs learn to count; five runs by default
  spair       SPAIR, AIR, DAIR and ConnComp on one, five and nine digits, SPAIR on larger and fuller images than in
              training: 8,000 steps of 32 images
  stn-distorted       distorted MNIST: FCN, CNN, ST-FCN, ST-CNN
  stn-addition        MNIST addition: FCN, CNN, ST-FCN, 2xST-FCN
  stn-colocalisation  co-localisation of each digit without labels, T and TC: twenty trainings of a few minutes each on
                      one core
  all         everything above that needs neither photographs nor house numbers: lists what is missing with the hours
              that it takes on this machine, by a few measured steps of each row; with `--budget full`, works through
              it, the shortest run first, and can be stopped and started again

`--budget full` trains the presets unchanged, which takes hours. In Tables 1, 2, 3 and 5 every heat map with a \
strength is then read as `mist tune` chooses on validation images. Where there is a folder docs, docs/results.md is \
then made from the ledger. `--budget quick`, the default, is a smoke test: 20 steps of 8 images for each row, no entry \
and no table. Where the package ships the weights of a row, seed 0 measures those again and says so."""
LEDGER, PAGE = Path("results"), Path("docs/results.md")
"""The default ledger, and the page of its entries."""
MOST_JOBS = 4
"""Parallel trainings by default: each takes up to 2 GiB."""
MOST_SEEDS = 1000
MOVED = {
    "off-centre": "benchmarks.off_centre",
    "choices": "benchmarks.choices",
    "precision": "benchmarks.precision",
    "blood-cells": "benchmarks.blood_cells --data-root BCCD",
}
"""Studies that are not a table of a paper -> the module of the source repository that runs them."""
STN = ("stn-distorted", "stn-addition", "stn-colocalisation")
WORD = Rule(lambda text: bool(text.strip()), "a word of the rows to fill; leave it out for all rows")
ALL = "all"
TABLE_NAMES = ("table1", "table2", "table3", "table4", "table5", "voc07", "svhn", "air", "spair", *STN, ALL)


def most_jobs() -> int:
    """The most trainings that may run in parallel: one per core, but a few on a small computer, too."""
    return max(MOST_JOBS, os.cpu_count() or 1)


@dataclass(frozen=True)
class Reproduce(Options):
    """The arguments.

    Attributes:
        name: one of the tables above, or all.
        budget: quick (a smoke test, which leaves no entry) or full (the presets unchanged; hours).
        only: a word that the names of the rows' presets must contain: grid, channelwise, esl16, zha18, xie20,
            supervised, numbers; a distortion or a family of networks, such as rts or fcn.
        ledger: folder of the entries, created if it is missing.
        runs: folder of the run folders.
        seeds: how many runs of each row; 5 for air and 1 for the others if not given.
        jobs: parallel trainings, each with its share of the cores; one per core if not given, at most 4.
        data_root: the folder that holds MNIST, which the environment variable MIST_DATA also names; or the photographs
            that `mist build` made, or the house numbers.
        backbone: for photographs: a file with the weights of ResNet34; or hub, to download them.
        device: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
    """

    name: Name
    budget: Literal["quick", "full"] = "quick"
    only: Annotated[str | None, tyro.conf.arg(metavar="WORD", help_behavior_hint=""), WORD] = None
    ledger: Folder = LEDGER
    runs: Folder = Path("runs/tables")
    seeds: Annotated[OptionalNumber, between(1, MOST_SEEDS)] = None
    jobs: Annotated[OptionalNumber, between(1, most_jobs())] = None
    data_root: OptionalFolder = None
    backbone: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    device: Device = "auto"

    def check(self) -> None:
        """Checks the name of the table."""
        if self.name not in TABLE_NAMES:
            raise MistError(f"no table is called {self.name!r}: choose one of {', '.join(TABLE_NAMES)}")

    @property
    def runs_each(self) -> int:
        """How many runs of each row."""
        from mistnn.reproduce.tables.generative import AIR_RUNS

        if self.seeds is not None:
            return self.seeds
        return AIR_RUNS if self.name == "air" else 1


def run(arguments: Sequence[str]) -> int:
    """Fills the table and updates the page of results."""
    for study in MOVED.keys() & set(arguments):
        raise MistError(f"{study} is not a table of a paper: in the source repository run `python -m {MOVED[study]}`")
    request = parse(Reproduce, renamed(arguments, "--data.root", "--data-root"), "mist reproduce", DESCRIPTION)
    from mistnn.devices import cores, find_device
    from mistnn.reproduce.fill import fill_table
    from mistnn.reproduce.ledger import read_ledger
    from mistnn.reproduce.results_page import table_lines
    from mistnn.reproduce.tables import find_table

    find_device(request.device)  # a missing one is reported before hours of work
    if request.ledger.exists() and not request.ledger.is_dir():
        raise MistError(f"--ledger {request.ledger} is not a folder: give the one that holds the entries")
    if request.ledger.is_dir():
        read_ledger(request.ledger)  # a broken entry is reported before hours of work
    jobs = min(cores(), MOST_JOBS) if request.jobs is None else request.jobs
    if request.name == ALL:
        return _everything(request, jobs)
    table = find_table(request.name)
    new = fill_table(
        table,
        request.budget,
        request.runs_each,
        request.ledger,
        request.runs,
        request.only,
        request.data_root,
        jobs=jobs,
        backbone=request.backbone,
        device=request.device,
    )
    if request.budget == "quick":
        runs = "1 run works" if new == 1 else f"{new} runs work"
        print(f"\n{runs}: a smoke test, without entries. `--budget full` measures {table.command}")
        return 0
    print(f"\n{table.title}\n")
    print("\n".join(table_lines(table, read_ledger(request.ledger))))
    print(f"\n{new} new entries in {request.ledger}")
    _update_page(request.ledger)
    return 0


def _everything(request: Reproduce, jobs: int) -> int:
    """Lists what all tables lack and, at full size, works through it. Returns 1 if a run failed."""
    from mistnn.reproduce.everything import fill_everything, listing, missing_runs
    from mistnn.reproduce.fill import Filler
    from mistnn.reproduce.tables import TABLES

    filler = Filler(TABLES[0], "full", request.ledger, request.runs, request.data_root, print, None, request.device)
    runs = missing_runs(TABLES, request.seeds, filler, request.only)
    if not runs:
        print(f"nothing is missing: {request.ledger} has every run")
        return 0
    print("\n".join(["", *listing(runs)]))
    if request.budget == "quick":
        print("`--budget full` works through them, the shortest first")
        return 0
    print()
    done, failed = fill_everything(runs, filler, jobs)
    print(f"\n{done} new entries in {request.ledger}")
    _update_page(request.ledger)
    if failed:
        print(f"failed: {'; '.join(failed)}")
    return 1 if failed else 0


def _update_page(ledger: Path) -> None:
    """Makes the page of results anew, where the ledger is the repository's."""
    from mistnn.reproduce.ledger import read_ledger
    from mistnn.reproduce.results_page import results_page
    from mistnn.training.runfolder import write_atomically

    if ledger == LEDGER and PAGE.parent.is_dir():
        write_atomically(PAGE, results_page(read_ledger(ledger)).encode())
        print(f"{PAGE} is updated")
