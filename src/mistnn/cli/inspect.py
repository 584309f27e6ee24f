"""``mist inspect``: what a folder of your own holds, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mistnn.cli.parsing import OptionalFile, OptionalModel, OptionalNumber, parse
from mistnn.cli.screen import progress_bar
from mistnn.errors import MistError

if TYPE_CHECKING:
    from mistnn.reports.inspection import Inspection

DESCRIPTION = """\
Reads a folder of images and what is known of them, says what it found and what looks wrong, and draws some of them.

  DIR/images/          the images; or in JPEGImages/, or in DIR itself
  DIR/counts.csv       file,class,count; or file and a column a class
  DIR/labels.csv       instead: file,class; only which classes are present
  DIR/Annotations/     PASCAL VOC; or COCO JSON, or boxes.json: boxes, for evaluation only
  DIR/ImageSets/Main/  train.txt, val.txt, test.txt; or a column split in the table

Only the images must be there. Nothing is ever written into DIR. A few steps of training tell how long it would take \
here; --no-estimate leaves them out."""


@dataclass(frozen=True)
class Inspect:
    """The arguments.

    Attributes:
        folder: of the images.
        out: the contact sheet, a PNG file; NAME-contact-sheet.png in the current folder if not given.
        k: how many objects an image holds, where the folder doesn't tell: for the size of the objects and the estimate.
        model: a run folder, or the name of a shipped model: which images it can't take, and where it has fewer slots
            than there are objects.
        estimate: take a few steps of `mist train my-folder` to tell how long it would take, and how much memory.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    out: OptionalFile = None
    k: OptionalNumber = None
    model: OptionalModel = None
    estimate: bool = True

    def __post_init__(self) -> None:
        """Refuses an impossible value."""
        if self.k is not None and self.k < 1:
            raise MistError(f"--k {self.k} is no number of objects: give 1 or more")


def run(arguments: Sequence[str]) -> int:
    """Prints what was found, and draws the contact sheet."""
    request = parse(Inspect, arguments, "mist inspect", DESCRIPTION)
    from mistnn.inference import Predictor
    from mistnn.reports.inspection import describe, describe_fit, inspect_folder, sheet_path, write_sheet

    predictor = None if request.model is None else Predictor.from_pretrained(request.model)
    path = sheet_path(request.folder, request.out)
    with progress_bar("looking") as progress:
        found = inspect_folder(request.folder, progress, request.k)
    if path is not None:
        write_sheet(found, path)
    print("\n".join(describe(found)))
    if predictor is not None:
        print()
        print("\n".join(describe_fit(found, predictor)))
    if request.estimate:
        print()
        print("\n".join(_estimate(found)))
    where = "not drawn: the current folder lies in DIR; name a file elsewhere with --out" if path is None else path
    print(f"\ncontact sheet  {where}")
    return 0


def _estimate(found: Inspection) -> list[str]:
    """What a training would take, or why nothing can be said of it."""
    from mistnn.reports.estimate import describe_estimate, estimate_training

    try:
        with progress_bar("trying a few steps") as progress:
            return describe_estimate(estimate_training(found, progress))
    except MistError as error:
        return [f"training     can't be planned yet: {error}"]
