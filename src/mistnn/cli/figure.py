"""``mist figure``: figures of the papers, drawn with our models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mistnn.cli.parsing import Folder, OptionalFolder, OptionalNumber, parse, renamed
from mistnn.errors import MistError

DESCRIPTION = """\
Draws a figure of the papers with a trained model, as PNG and PDF.

  fig5     boxes and classes on test scenes (MIST, CVPR 2021, figure 5):
           right ones green and solid, wrong ones red and dashed, missed digits grey and dotted
  samples  scenes of every kind with their true boxes; needs no model"""


@dataclass(frozen=True)
class Figure:
    """The arguments.

    Attributes:
        name: which figure: fig5, samples.
        model: a run folder, or the name of a shipped model.
        out: folder for the two files, made if it is missing.
        seed: of the scenes; the one of the training run if not given.
        data_root: the folder that holds MNIST, if the model was trained on it; the environment variable MIST_DATA says
            the same.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    model: Annotated[str, tyro.conf.arg(metavar="MODEL")] = "mist-mnist-hard"
    out: Folder = Path("figures")
    seed: OptionalNumber = None
    data_root: OptionalFolder = None

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.seed is not None and self.seed < 0:
            raise MistError(f"--seed {self.seed} is negative: give 0 or more")


def run(arguments: Sequence[str]) -> int:
    """Draws, and says where the files are."""
    given = renamed(arguments, "--data.root", "--data-root")
    if {"-h", "--help"} & set(given) and given[0] not in ("-h", "--help"):
        given = ["--help"]  # `mist figure fig5 --help` asks for this page too
    request = parse(Figure, given, "mist figure", DESCRIPTION)
    from mistnn.studies.figures import draw_figure

    for path in draw_figure(request.name, request.model, request.out, request.seed, request.data_root):
        print(path)
    return 0
