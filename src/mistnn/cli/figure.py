"""``mist figure``: figures of the papers, drawn with our models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mistnn.cli.parsing import Folder, OptionalFolder, OptionalModel, OptionalNumber, parse, renamed
from mistnn.errors import MistError

DESCRIPTION = """\
Draws a figure of MIST (CVPR 2021) with a trained model, as PNG and PDF.

  fig2     how each system of Table 1 redraws the same scenes, with its error on them; `--model DIR` is
           the folder of the runs of `mist reproduce table1` (runs/tables if not given)
  fig3     two test scenes: input, boxes and synthesis; each patch before and after the auto-encoder
  fig4     Gabor noise: input, impulses and synthesis; true kernels above the ones found.
           An impulse counts as found within half a kernel's width
  fig5     boxes and classes on test scenes
  fig6     photographs: boxes and classes of MIST, and below of Xie20. `--model DIR` is the folder of the
           runs of `mist reproduce table4` (runs/tables if not given) or one run; needs `--data-root`,
           the folder that `mist build` made
  fig7     both losses over a training. `--model RUN` draws a run's log; without it the preset
           demo-discover is trained, and the heat map of a test scene is shown at some steps
  fig8     boxes and synthesis on scenes of unevenly placed digits
  readers  boxes and classes of the systems of Tables 2 and 3 on the same scenes; `--model DIR` as for fig2
  samples  scenes of every kind with their true boxes; needs no model
  spair-objects  what SPAIR drew: input, boxes numbered by depth (1 is nearest), the picture, each object;
           `--model RUN` is a run of a preset spair-...
  spair-transfer  count error and AP of a run of spair-transfer-... on images of 1 to 20 digits
  stn-addition  what each spatial transformer looks at; `--model RUN` is a run of stn-...-addition, or any stn-...
  stn-colocalisation  windows that find what images have in common, over a training: also GIF and PNG frames;
           `--model RUN` is a run of stn-coloc-encoder
  stn-samples  distorted digits of every kind; needs no model
  svhn-fig6  boxes and digits on test images of house numbers; `--model RUN` is a run of mist-svhn or
           mist-numbers, `--data-root` the folder of their images

Right ones are green, wrong ones red, missed ones grey."""


@dataclass(frozen=True)
class Figure:
    """The arguments.

    Attributes:
        name: which figure: fig2, fig3, fig4, fig5, fig6, fig7, fig8, readers, samples, spair-objects,
            spair-transfer, stn-addition, stn-colocalisation, stn-samples, svhn-fig6.
        model: a run folder, or the name of a shipped model; the figure's own if not given.
        out: folder for the two files, made if it is missing.
        seed: of the scenes; the one of the training run if not given.
        steps: how long fig7 or stn-colocalisation trains; the preset's own number if not given.
        data_root: the folder that holds MNIST, if the model was trained on it, which the environment variable MIST_DATA
            says too; for fig6 that of the photographs, for svhn-fig6 that of the house numbers.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    model: OptionalModel = None
    out: Folder = Path("figures")
    seed: OptionalNumber = None
    steps: OptionalNumber = None
    data_root: OptionalFolder = None

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.seed is not None and self.seed < 0:
            raise MistError(f"--seed {self.seed} is negative: give 0 or more")
        if self.steps is not None and self.steps < 1:
            raise MistError(f"--steps {self.steps} is no training: give 1 or more")


def run(arguments: Sequence[str]) -> int:
    """Draws, and says where the files are."""
    given = renamed(arguments, "--data.root", "--data-root")
    if {"-h", "--help"} & set(given) and given[0] not in ("-h", "--help"):
        given = ["--help"]  # `mist figure fig5 --help` asks for this page too
    request = parse(Figure, given, "mist figure", DESCRIPTION)
    from mistnn.reproduce.figures import draw_figure

    for path in draw_figure(request.name, request.model, request.out, request.seed, request.data_root, request.steps):
        print(path)
    return 0
