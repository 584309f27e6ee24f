"""``mist report``: a page that shows how well a model counts in a folder of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mistnn.cli.parsing import Model, parse, renamed
from mistnn.errors import MistError

DESCRIPTION = """\
Compares what a model counts in a folder of your own with the counts you know, and writes one HTML page: counted \
against true numbers, the best and the worst images with their boxes, heat maps, the measures and every image's \
counts. It needs no network to be read, and can be sent as it is.

  mist report runs/my-folder --data-root my-folder --out report.html

MODEL is a run of `mist train my-folder`. For images without counts see `mist predict --report`."""


@dataclass(frozen=True)
class Report:
    """The arguments.

    Attributes:
        model: a run folder.
        data_root: the folder of images with their counts.
        out: the page.
        split: which images; others where the folder has none of these, and the page says so.
    """

    model: Model
    data_root: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("report.html")
    split: Literal["test", "validation"] = "test"

    def __post_init__(self) -> None:
        """Refuses a page that can't be written."""
        check_page("--out", self.out)


def check_page(option: str, path: Path) -> None:
    """Refuses a file that can't be a page.

    Raises:
        MistError: naming the option.
    """
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir() or not path.absolute().parent.is_dir():
        raise MistError(f"{option} {path} can't be written: give a file that ends in .html, in a folder that exists")


def run(arguments: Sequence[str]) -> int:
    """Writes the page, and says where it is and what it says."""
    request = parse(Report, renamed(arguments, "--data.root", "--data-root"), "mist report", DESCRIPTION)
    from mistnn.reports.count_page import render_counts
    from mistnn.reports.folder_report import report_on_folder
    from mistnn.reports.page import write_page

    page = report_on_folder(request.model, request.data_root, request.split)
    write_page(render_counts(page), request.out, "--out")
    for note in page.notes:
        print(f"mist: {note}")
    print(page.summary)
    print(f"Open {request.out} to see it.")
    return 0
