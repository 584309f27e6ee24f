"""``mist demo``: from nothing to a network that finds digits, and a report of how."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mistnn.cli.parsing import Number, OptionalFile, OptionalNumber, OptionalPath, parse
from mistnn.errors import MistError

DESCRIPTION = (
    "Trains a small network on scenes of three handwritten digits. It is told how many of each digit a scene holds, "
    "never where they are; afterwards it finds and reads them. With --task discover it is told nothing but that there "
    "are three; afterwards it finds and redraws them. Needs no data and no network, and takes minutes on a laptop. "
    "Open report.html in the output folder when it is done."
)


@dataclass(frozen=True)
class Demo:
    """The arguments.

    Attributes:
        task: classify (learn from counts of each digit) or discover (learn from the number of parts alone).
        out: folder for report.html and metrics.json, made if it is missing; if not given, demo, and demo-discover for
            that task.
        seed: of the starting weights and of training; another seed is another run.
        steps: of training; fewer are faster and worse. The preset's number if not given.
        force: replace what an earlier demo left in the folder.
        record: a file for an entry of the ledger, see `mist evaluate`.
    """

    task: Literal["classify", "discover"] = "classify"
    out: OptionalPath = None
    seed: Number = 0
    steps: OptionalNumber = None
    force: bool = False
    record: OptionalFile = None

    def __post_init__(self) -> None:
        """Refuses impossible numbers."""
        if self.seed < 0:
            raise MistError(f"--seed {self.seed} is negative: give 0 or more")
        if self.steps is not None and self.steps < 1:
            raise MistError(f"--steps {self.steps} trains nothing: give 1 or more")
        if self.record is not None and (self.record.is_dir() or not self.record.absolute().parent.is_dir()):
            raise MistError(f"--record {self.record} can't be written: give a file in a folder that exists")


def run(arguments: Sequence[str]) -> int:
    """Runs the demo and says where its report is."""
    start = time.monotonic()
    demo = parse(Demo, arguments, "mist demo", DESCRIPTION)
    from mistnn.reports.demo import STORIES, run_demo

    story = STORIES[demo.task]
    out = Path("demo" if demo.task == "classify" else "demo-discover") if demo.out is None else demo.out
    metrics = run_demo(out, demo.seed, demo.steps, demo.force, start, demo.task)
    if demo.record is not None:
        from mistnn.reproduce.ledger import make_entry, write_entry

        measured = {name: metrics[name] for name in (*story.metrics, "seconds")}
        task = "" if demo.task == "classify" else f" --task {demo.task}"
        command = f"mist demo{task} --seed {demo.seed}"
        command += "" if demo.steps is None else f" --steps {demo.steps}"
        entry = make_entry(out, measured, int(metrics["images"]), demo.seed, command, story.preset)
        write_entry(entry, demo.record)
    found = "Found and read right" if "both" in metrics else "Found"
    share = metrics["both"] if "both" in metrics else metrics["iou50"]
    print(f"{found} on test images: a share of {share:.3f}, after {metrics['seconds']:.0f} s.")
    print(f"Open {out / 'report.html'} to see them.")
    return 0
