"""``mist figure``: figures of the papers, drawn with our models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mistnn.cli.parsing import (
    Device,
    Folder,
    Name,
    OptionalFolder,
    OptionalModel,
    OptionalSeed,
    OptionalSteps,
    Options,
    parse,
    renamed,
    takes,
)

DESCRIPTION = """\
Draws a figure of the papers with a trained model, as PNG and PDF.

  fig2     the same scenes reconstructed by each system of Table 1, with its error on them; `--model DIR`
           is the folder of the runs of `mist reproduce table1` (default: runs/tables)
  fig3     two test scenes: input, boxes and reconstruction; each patch before and after the auto-encoder
  fig4     Gabor noise: input, impulses and reconstruction; true kernels above the ones found.
           An impulse counts as found within half a kernel's width
  fig5     boxes and classes on test scenes
  fig6     photographs: boxes and classes of MIST, and below of Xie20. `--model DIR` is the folder of the
           runs of `mist reproduce table4` (default: runs/tables) or one run; needs `--data-root`,
           the folder that `mist build` made
  fig7     both losses while MNIST hard is learnt from class counts. `--model RUN` draws a run's log; without
           it, mist-mnist-hard is trained, and the heat map of a test scene is shown at some steps
  fig8     boxes and reconstruction on unevenly placed digits, by a model that learnt on them; `--model RUN` is a
           run of mist-discover-mnist-uneven (default: runs/mist-discover-mnist-uneven)
  readers  boxes and classes of the systems of Tables 2 and 3 on the same scenes; `--model DIR` as for fig2
  samples  scenes of every kind with their true boxes; needs no model
  spair-objects  what SPAIR renders: input, boxes numbered by depth (1 is nearest), the image, each object;
           `--model RUN` is a run of a preset spair-...
  spair-transfer  count error and AP of a run of spair-transfer-... on images of 1 to 20 digits
  stn-addition  where each spatial transformer looks; `--model RUN` is a run of stn-...-addition, or any stn-...
  stn-colocalisation  windows that find what images have in common, during training: also GIF and PNG frames;
           `--model RUN` is a run of stn-coloc-encoder
  stn-samples  distorted digits of every kind; needs no model
  svhn-fig6  boxes and digits on test images of house numbers; `--model RUN` is a run of mist-svhn or
           mist-numbers, `--data-root` the folder of their images
  svhn-fig7  the heat map of a house number while mist-svhn or mist-numbers is trained, whichever images
           `--data-root` holds, and both losses; `--model RUN` draws the losses of a run
  validation  how each run of the ledger learnt, on validation images: whether it was long enough; `--model DIR`
           is the folder of the ledger (default: results)

Correct boxes are green, wrong ones red, missed objects grey."""


@dataclass(frozen=True)
class Figure(Options):
    """The arguments.

    Attributes:
        name: one of the figures above.
        model: a run folder, or the name of a shipped model; each figure has its own default.
        out: folder for the two files, created if it is missing.
        seed: of the scenes; that of the training run if not given.
        steps: length of the training for fig7, svhn-fig7 or stn-colocalisation; the preset's own if not given.
        data_root: the folder that holds the images' files. For MNIST, the environment variable MIST_DATA also names it.
        device: auto, cpu, cuda or mps; auto is a CUDA device if there is one, else the CPU.
    """

    name: Name
    model: OptionalModel = None
    out: Folder = Path("figures")
    seed: OptionalSeed = None
    steps: OptionalSteps = None
    data_root: OptionalFolder = None
    device: Device = "auto"


def run(arguments: Sequence[str]) -> int:
    """Draws the figure and prints where its files are."""
    given = ["--help"] if takes(arguments, "-h", "--help") else renamed(arguments, "--data.root", "--data-root")
    request = parse(Figure, given, "mist figure", DESCRIPTION)
    from mistnn.devices import find_device
    from mistnn.reproduce.figures import Request, draw_figure

    find_device(request.device)  # checked first: some figures use no network
    shown = Request(request.model, request.seed, request.data_root, request.steps, request.device)
    for path in draw_figure(request.name, shown, request.out):
        print(path)
    return 0
