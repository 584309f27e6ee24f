"""``mist inspect``: what a folder of your own holds, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mistnn.cli.parsing import OptionalFile, parse
from mistnn.cli.screen import progress_bar

DESCRIPTION = """\
Reads a folder of images and what is known of them, says what it found and what looks wrong, and draws some of them.

  DIR/images/          the images; or in JPEGImages/, or in DIR itself
  DIR/counts.csv       file,class,count; or file and a column a class
  DIR/labels.csv       instead: file,class; only which classes are present
  DIR/Annotations/     PASCAL VOC; or COCO JSON, or boxes.json: boxes, for evaluation only
  DIR/ImageSets/Main/  train.txt, val.txt, test.txt; or a column split in the table

Only the images must be there. Nothing is ever written into DIR."""


@dataclass(frozen=True)
class Inspect:
    """The arguments.

    Attributes:
        folder: of the images.
        out: the contact sheet, a PNG file; NAME-contact-sheet.png in the current folder if not given.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    out: OptionalFile = None


def run(arguments: Sequence[str]) -> int:
    """Prints what was found, and draws the contact sheet."""
    request = parse(Inspect, arguments, "mist inspect", DESCRIPTION)
    from mistnn.studies.inspection import describe, inspect_folder, sheet_path, write_sheet

    path = sheet_path(request.folder, request.out)
    with progress_bar("looking") as progress:
        found = inspect_folder(request.folder, progress)
    if path is not None:
        write_sheet(found, path)
    print("\n".join(describe(found)))
    where = "not drawn: the current folder lies in DIR; name a file elsewhere with --out" if path is None else path
    print(f"\ncontact sheet  {where}")
    return 0
