"""``mist app``: a page in the browser for images, counts, training and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mistnn.cli.parsing import Device, Number, OptionalPath, Options, parse
from mistnn.config import between

DESCRIPTION = """\
Serves a page for everything that photographs need: add images, give counts, train, watch the training, count, correct \
wrong counts and train on. No terminal is needed from then on.

DIR is the folder of the images; it is created if it is missing. Counts are kept in DIR/counts.csv, as by \
`mist label`. Models and results go to the folder named by --out. The page is served on 127.0.0.1 only and contacts \
no other computer. Ctrl-C ends it; a training that is running saves its state, and can go on the next time.

Needs the extra "web": pip install 'mistnn[web]'."""


@dataclass(frozen=True)
class App(Options):
    """The arguments.

    Attributes:
        folder: the folder of the images.
        out: the folder for models and results; by default DIR-results, beside DIR.
        port: of the page; 0 for any free one.
        open: open the page in the browser.
        device: for training and counting: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = Path("my-images")
    out: OptionalPath = None
    port: Annotated[Number, between(0, 65535)] = 8766
    open: bool = True
    device: Device = "auto"


def run(arguments: Sequence[str]) -> int:
    """Serves the page until Ctrl-C."""
    request = parse(App, arguments, "mist app", DESCRIPTION)
    import webbrowser

    from mistnn.web.app_server import check_installed, serving
    from mistnn.web.labels import session
    from mistnn.web.workshop import Workshop

    check_installed()  # before a folder is created
    root = request.folder
    out = root.resolve().with_name(f"{root.resolve().name}-results") if request.out is None else request.out
    workshop = Workshop(root, out, request.device)
    with session(root), serving(workshop, request.port) as (server, address):
        print(f"Open {address} in a browser on this computer. Ctrl-C ends.", flush=True)
        if request.open:
            webbrowser.open(address)
        try:
            server.run()
        except KeyboardInterrupt:
            print()
    return 0
