"""``mist tune``: chooses how a trained heat map is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mistnn.cli.parsing import Model, Number, OptionalFolder, parse, renamed
from mistnn.errors import MistError

DESCRIPTION = (
    "Chooses how the heat map of a trained model is read: the strength of its softmax and the window in which only the "
    "largest response survives. Every combination is measured on validation scenes, by what the training was told and "
    "no box: the share counted in the right class or, without classes, the error of the redrawn images. The model is "
    "written again with the best one. The weights stay as they are."
)


@dataclass(frozen=True)
class Tune:
    """The arguments.

    Attributes:
        model: a run folder, or the name of a shipped model.
        out: folder for the model that is read best.
        images: how many validation scenes.
        strengths: of the softmax, to try.
        windows: sides of the suppression window in pixels, odd, to try.
        data_root: the folder that holds MNIST, if the model was trained on it; the environment variable MIST_DATA says
            the same.
    """

    model: Model
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    images: Number = 300
    strengths: tuple[float, ...] = (10.0, 3.0, 1.0, 0.5, 0.2, 0.1)
    windows: tuple[int, ...] = (5, 11)
    data_root: OptionalFolder = None

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        if self.images < 1:
            raise MistError(f"--images {self.images} measures nothing: give 1 or more")


def run(arguments: Sequence[str]) -> int:
    """Measures, chooses and writes."""
    request = parse(Tune, renamed(arguments, "--data.root", "--data-root"), "mist tune", DESCRIPTION)
    from mistnn.presets.readout import tune_readout

    tune_readout(request.model, request.out, request.images, request.strengths, request.windows, root=request.data_root)
    print(f"The best is in {request.out}.")
    return 0
