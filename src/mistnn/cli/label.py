"""``mist label``: counts the objects of images in a browser, one image at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mistnn.cli.parsing import Device, Number, OptionalModel, Options, parse
from mistnn.cli.screen import progress_bar
from mistnn.config import between

if TYPE_CHECKING:
    from mistnn.inference import Predictor

DESCRIPTION = """\
Serves a page that shows the images of a folder one at a time. Type the number of objects, press Enter, and the next \
image appears. DIR/counts.csv is replaced after each image, so nothing is lost; labelling continues where \
it stopped.

  Enter  save and next      Up, Down, Tab  change the class      Left, Right  previous and next image
  U      undo               Z              full size

With --model, the model's counts are filled in, and the images that it is least certain about come first: the widest \
interval, or else the most detections near the threshold. The page is served on 127.0.0.1 only and contacts no other \
computer. Ctrl-C ends it."""


@dataclass(frozen=True)
class Label(Options):
    """The arguments.

    Attributes:
        folder: the folder of the images.
        classes: names of the classes; by default those of counts.csv or of the model, else "object".
        model: a run folder, or the name of a shipped model, that can count.
        port: of the page; 0 for any free one.
        device: for the model: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    classes: tuple[str, ...] = ()
    model: OptionalModel = None
    port: Annotated[Number, between(0, 65535)] = 8765
    device: Device = "auto"


def run(arguments: Sequence[str]) -> int:
    """Serves the page until Ctrl-C."""
    request = parse(Label, arguments, "mist label", DESCRIPTION)
    from mistnn.inference import Predictor
    from mistnn.web.labels import session

    predictor = None if request.model is None else Predictor.from_pretrained(request.model, request.device)
    with session(request.folder):
        _serve(request, predictor)
    return 0


def _serve(request: Label, predictor: Predictor | None) -> None:
    from mistnn.web.labels import COUNTS_FILE, Labels
    from mistnn.web.server import LabelServer

    classes = request.classes
    if predictor is not None and not classes and not (request.folder / COUNTS_FILE).exists():
        classes = predictor.model.class_names
    labels = Labels(request.folder, classes)
    if predictor is not None:
        with progress_bar("counting") as progress:
            labels.guess_with(predictor, progress)
    for note in labels.notes:
        print(f"mist: {note}", file=sys.stderr)
    with LabelServer(labels, request.port) as server:
        print(f"Open {server.url} in a browser on this computer. Ctrl-C ends.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    print(f"{len(labels.counts)} of {len(labels.headers)} images are counted in {labels.path}.")
