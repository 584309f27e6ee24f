"""``mist report``: a page that shows how well a model counts in an image folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mistnn.cli.parsing import PAGE, Device, Folder, Model, Options, parse, renamed

DESCRIPTION = """\
Compares the counts of a model with the known counts of an image folder, and writes one HTML page: predicted against \
true counts, the best and the worst images with their boxes, heat maps, the metrics and the counts of every image. \
The page loads nothing from the internet, so it can be shared as one file.

  mist report runs/my-folder --data-root my-folder --out report.html

MODEL is a run of `mist train my-folder`. For images without counts see `mist predict --report`."""


@dataclass(frozen=True)
class Report(Options):
    """The arguments.

    Attributes:
        model: a run folder.
        data_root: the folder of images with their counts.
        out: the page.
        split: which images; if the folder has none of these, others are used, and the page says so.
        device: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
    """

    model: Model
    data_root: Folder
    out: Annotated[Path, tyro.conf.arg(metavar="FILE"), PAGE] = Path("report.html")
    split: Literal["test", "validation"] = "test"
    device: Device = "auto"


def run(arguments: Sequence[str]) -> int:
    """Writes the page, and prints where it is and its summary."""
    request = parse(Report, renamed(arguments, "--data.root", "--data-root"), "mist report", DESCRIPTION)
    from mistnn.reports.count_page import render_counts
    from mistnn.reports.folder_report import report_on_folder
    from mistnn.reports.page import write_page

    page = report_on_folder(request.model, request.data_root, request.split, request.device)
    write_page(render_counts(page), request.out, "--out")
    for note in page.notes:
        print(f"mist: {note}")
    print(page.summary)
    print(f"Open {request.out} to see it.")
    return 0
