"""``mist demo``: trains a network that finds digits, and writes a report about it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mistnn.cli.parsing import Device, NewFile, OptionalPath, OptionalSteps, Options, Seed, parse

DESCRIPTION = (
    "Trains a small network on images of three handwritten digits. It is supervised by how many of each digit an image "
    "holds, never by where they are; afterwards it detects and classifies them. With --task discover, all it knows is "
    "that there are three objects; afterwards it detects and reconstructs them. Needs neither data nor internet "
    "access, and takes minutes on a laptop. When it is done, open report.html in the output folder."
)


@dataclass(frozen=True)
class Demo(Options):
    """The arguments.

    Attributes:
        task: classify (learn from the count of each digit) or discover (learn from the number of objects alone).
        out: folder for report.html and metrics.json, created if it is missing; demo, or demo-discover for that task, if
            not given.
        seed: of the initial weights and of training.
        steps: of training; fewer are faster and less accurate. The preset's number if not given.
        device: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
        force: replace the files of an earlier demo in the folder.
        record: write an entry of the ledger to this file, see `mist evaluate`.
    """

    task: Literal["classify", "discover"] = "classify"
    out: OptionalPath = None
    seed: Seed = 0
    steps: OptionalSteps = None
    device: Device = "auto"
    force: bool = False
    record: NewFile = None


def run(arguments: Sequence[str]) -> int:
    """Runs the demo and prints where its report is."""
    start = time.monotonic()
    demo = parse(Demo, arguments, "mist demo", DESCRIPTION)
    from mistnn.cli.evaluate import ENTRY_KEYS, check_replaceable
    from mistnn.reports.demo import STORIES, run_demo

    check_replaceable(demo.record, "--record", ENTRY_KEYS)
    story = STORIES[demo.task]
    out = Path("demo" if demo.task == "classify" else "demo-discover") if demo.out is None else demo.out
    metrics = run_demo(out, demo.seed, demo.steps, demo.force, start, demo.task, demo.device)
    if demo.record is not None:
        from mistnn.reproduce.ledger import make_entry, write_entry

        measured = {name: metrics[name] for name in (*story.metrics, "seconds")}
        task = "" if demo.task == "classify" else f" --task {demo.task}"
        command = f"mist demo{task} --seed {demo.seed}"
        command += "" if demo.steps is None else f" --steps {demo.steps}"
        entry = make_entry(out, measured, int(metrics["images"]), demo.seed, command, story.preset)
        write_entry(entry, demo.record)
    what, metric = ("detected and classified", "both") if "both" in metrics else ("detected", "iou50")
    print(f"{metrics[metric]:.1%} of the objects in test images {what}, after {metrics['seconds']:.0f} s.")
    print(f"Open {out / 'report.html'} to see them.")
    return 0
