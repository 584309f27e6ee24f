"""``mist reproduce``: trains and measures what a table of a paper lacks, and writes it to the ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mistnn.cli.parsing import Folder, OptionalFolder, OptionalNumber, parse, renamed
from mistnn.errors import MistError

DESCRIPTION = """\
Trains and measures what a table of the paper lacks, skips what the ledger already holds, resumes runs that were \
stopped, and writes an entry for each run.

  table1      reconstruction without labels: MIST, Grid, Channel-wise, Esl16, Zha18
  table2      detection and classification: MIST, Channel-wise, Supervised
  table3      lifting against SOFT top-K: MIST, Xie20
  table4      photographs of PASCAL+COCO: MIST, Xie20; needs --data-root, a folder that `mist build pascal-coco` made,
              and --backbone, a file with the weights of ResNet34
  voc07       the same for all of VOC 2007 (`mist build voc07`), with four anchors
  table5      how much the K of the training matters, and K that nobody tells
  svhn        house numbers of two digits: MIST, Supervised, on SVHN's full numbers or, under their own name, on its
              re-assembled test crops, whichever `--data-root` holds
  air         how many runs of AIR count no, one or two digits, of five unless `--seeds` tells otherwise
  spair       SPAIR, AIR, DAIR and ConnComp on one, five and nine digits, SPAIR on larger and fuller images than it
              was trained on; quick is 2,000 steps of 32 images, full 8,000
  stn-distorted       distorted MNIST: FCN, CNN, ST-FCN, ST-CNN; a run at quick size is 10,000 steps, of an FCN some
                      minutes on a core, of a CNN hours
  stn-addition        MNIST addition: FCN, CNN, ST-FCN, 2xST-FCN; the same
  stn-colocalisation  co-localisation of each digit without labels, T and TC: twenty trainings of some minutes on a
                      core; quick is 1,200 steps of 20 images, full 2,400

`--budget quick` trains a table's rows for 300 steps of 8 images each, with one seed half an hour or less a table of \
digits on two cores; full is the presets' own size. At quick size the learning rates of every system that reads are \
chosen on validation scenes, the best of three. A table also makes docs/results.md anew, from the ledger results, \
where there is a folder docs."""
LEDGER, PAGE = Path("results"), Path("docs/results.md")
"""The ledger and the page of its entries, which is made anew after a table where there is such a folder."""
MOST_JOBS = 4
"""Trainings at a time unless told otherwise: each takes up to 2 GiB."""
MOST_SEEDS = 1000
MOVED = {
    "off-centre": "benchmarks.off_centre",
    "choices": "benchmarks.choices",
    "precision": "benchmarks.precision",
    "blood-cells": "benchmarks.blood_cells --data-root BCCD",
}
"""Studies that are no table of a paper -> the module that runs them, in the source repository."""
STN = ("stn-distorted", "stn-addition", "stn-colocalisation")
TABLE_NAMES = ("table1", "table2", "table3", "table4", "table5", "voc07", "svhn", "air", "spair", *STN)


@dataclass(frozen=True)
class Reproduce:
    """The arguments.

    Attributes:
        name: which table: table1, table2, table3, table4, table5, voc07, svhn, air, spair, stn-distorted,
            stn-addition or stn-colocalisation.
        budget: quick (stated smaller size) or full (the presets as they are; hours).
        only: a word that the rows' presets must contain: grid, channelwise, esl16, zha18, xie20,
            supervised, numbers; a distortion or a family of networks, such as rts or fcn.
        ledger: folder of the entries, made if it is missing.
        runs: folder of the run folders.
        seeds: how many runs of each row; 1 if not given, 5 of air.
        jobs: trainings at a time, each with its share of the cores; one a core if not given, at most 4.
        data_root: the folder that holds MNIST, for which the environment variable MIST_DATA stands too; or that of the
            photographs that `mist build` made, or of the house numbers.
        backbone: of photographs: weights of ResNet34, a file; or hub, to fetch them.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    budget: Literal["quick", "full"] = "quick"
    only: Annotated[str | None, tyro.conf.arg(metavar="WORD", help_behavior_hint="")] = None
    ledger: Folder = LEDGER
    runs: Folder = Path("runs/tables")
    seeds: OptionalNumber = None
    jobs: OptionalNumber = None
    data_root: OptionalFolder = None
    backbone: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.name not in TABLE_NAMES:
            raise MistError(f"no table is called {self.name!r}: choose one of {', '.join(TABLE_NAMES)}")
        if self.seeds is not None and not 1 <= self.seeds <= MOST_SEEDS:
            raise MistError(f"--seeds {self.seeds} must be from 1 to {MOST_SEEDS}: how many runs of each row")
        if self.jobs is not None and not 1 <= self.jobs <= most_jobs():
            raise MistError(f"--jobs {self.jobs} must be from 1 to {most_jobs()}: trainings at a time, a core each")
        if self.only is not None and not self.only.strip():
            raise MistError("--only is empty: give a word of the rows that are wanted, or leave it away for all")

    @property
    def runs_each(self) -> int:
        """How many runs of each row."""
        from mistnn.reproduce.tables.generative import AIR_RUNS

        if self.seeds is not None:
            return self.seeds
        return AIR_RUNS if self.name == "air" else 1


def most_jobs() -> int:
    """Trainings that may be asked for at a time: as many as there are cores, or a few more on a small computer."""
    return max(MOST_JOBS, os.cpu_count() or 1)


def run(arguments: Sequence[str]) -> int:
    """Fills the table and makes the page of results anew."""
    for study in MOVED.keys() & set(arguments):
        raise MistError(f"{study} is no table of a paper: in the source repository run `python -m {MOVED[study]}`")
    request = parse(Reproduce, renamed(arguments, "--data.root", "--data-root"), "mist reproduce", DESCRIPTION)
    from mistnn.reproduce.fill import cores, fill_table
    from mistnn.reproduce.ledger import QUICK, read_ledger
    from mistnn.reproduce.results_page import results_page, table_lines
    from mistnn.reproduce.tables import find_table
    from mistnn.training.runfolder import write_atomically

    table = find_table(request.name)
    if request.ledger.exists() and not request.ledger.is_dir():
        raise MistError(f"--ledger {request.ledger} is no folder: give the one that holds the entries")
    if request.ledger.is_dir():
        read_ledger(request.ledger)  # a broken entry is reported before hours of work
    jobs = min(cores(), MOST_JOBS) if request.jobs is None else request.jobs
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
    )
    print(f"\n{table.title}, {request.budget}\n")
    print("\n".join(table_lines(table, read_ledger(request.ledger), QUICK if request.budget == "quick" else "")))
    print(f"\n{new} new entries in {request.ledger}")
    if request.ledger == LEDGER and PAGE.parent.is_dir():
        write_atomically(PAGE, results_page(read_ledger(request.ledger)).encode())
        print(f"{PAGE} is made of them")
    return 0
