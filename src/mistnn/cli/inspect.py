"""``mist inspect``: what an image folder holds, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mistnn.cli.parsing import Device, OptionalFile, OptionalModel, OptionalNumber, Options, parse
from mistnn.cli.screen import progress_bar
from mistnn.config import at_least
from mistnn.errors import MistError

if TYPE_CHECKING:
    from mistnn.reports.inspection import Inspection

DESCRIPTION = """\
Reads an image folder and its labels, reports what it holds and what looks wrong, and draws a sample of its images.

  DIR/images/          the images; or in JPEGImages/, or in DIR itself
  DIR/counts.csv       file,class,count; or file and one column per class
  DIR/labels.csv       instead: file,class; only which classes are present
  DIR/Annotations/     PASCAL VOC; or COCO JSON, or boxes.json: boxes, for evaluation only
  DIR/ImageSets/Main/  train.txt, val.txt, test.txt; or a column split in the table

Only the images are required. Nothing is ever written into DIR. A few training steps are run to estimate how long \
training would take on this computer; --no-estimate skips them."""


@dataclass(frozen=True)
class Inspect(Options):
    """The arguments.

    Attributes:
        folder: the image folder.
        out: the contact sheet, a PNG file; NAME-contact-sheet.png in the current folder if not given.
        k: how many objects an image holds, if the folder has no counts: for the size of the objects and the estimate.
        model: a run folder, or the name of a shipped model: also report which images it can't process, and where it has
            fewer slots than there are objects.
        device: for the model: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
        estimate: run a few steps of `mist train my-folder` to estimate its time and memory.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    out: OptionalFile = None
    k: Annotated[OptionalNumber, at_least(1)] = None
    model: OptionalModel = None
    device: Device = "auto"
    estimate: bool = True


def run(arguments: Sequence[str]) -> int:
    """Prints what was found, and draws the contact sheet."""
    request = parse(Inspect, arguments, "mist inspect", DESCRIPTION)
    from mistnn.inference import Predictor
    from mistnn.reports.inspection import describe, describe_fit, inspect_folder, sheet_path

    predictor = None if request.model is None else Predictor.from_pretrained(request.model, request.device)
    path = sheet_path(request.folder, request.out)
    with progress_bar("reading") as progress:
        found = inspect_folder(request.folder, progress, request.k)
    where = "not drawn: the current folder lies in DIR; name a file elsewhere with --out"
    if path is not None:
        where = _sheet(found, path, request.out is None)
    print("\n".join(describe(found)))
    if predictor is not None:
        print("\n".join(("", *describe_fit(found, predictor))))
    if request.estimate:
        from mistnn.reports.estimate import expect

        with progress_bar("trying a few steps") as progress:
            print("\n".join(("", *expect(found, progress))))
    print(f"\ncontact sheet  {where}")
    return 0


def _sheet(found: Inspection, path: Path, is_default: bool) -> str:
    """Draws the contact sheet; returns its path. The default one may be missing: the report is worth more."""
    from mistnn.reports.inspection import write_sheet

    try:
        write_sheet(found, path)
    except MistError:
        if not is_default:
            raise
        return "not drawn: the current folder can't be written to; name a file elsewhere with --out"
    return str(path)
