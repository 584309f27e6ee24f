"""Figures of the papers, drawn with our own models."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mistnn.errors import MistError
from mistnn.reproduce.figures.discovery import figure_3, figure_4, figure_8
from mistnn.reproduce.figures.evolution import figure_7, svhn_figure_7
from mistnn.reproduce.figures.scenes import figure_2, figure_5, figure_6, figure_readers, sample_sheet, svhn_figure_6
from mistnn.reproduce.figures.source import Request
from mistnn.reproduce.figures.spair import figure_objects, figure_transfer
from mistnn.reproduce.figures.stn import Animated, figure_addition, figure_colocalisation, stn_samples
from mistnn.reproduce.figures.validation import figure_validation
from mistnn.viz import save_animation, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING = ("fig7", "svhn-fig7", "stn-colocalisation")  #: Figures that train.
FIGURES: Mapping[str, Callable[[Request], Figure | Animated]] = {
    "fig2": figure_2,
    "fig3": figure_3,
    "fig4": figure_4,
    "fig5": figure_5,
    "fig6": figure_6,
    "fig7": figure_7,
    "fig8": figure_8,
    "readers": figure_readers,
    "samples": sample_sheet,
    "spair-objects": figure_objects,
    "spair-transfer": figure_transfer,
    "stn-addition": figure_addition,
    "stn-colocalisation": figure_colocalisation,
    "stn-samples": stn_samples,
    "svhn-fig6": svhn_figure_6,
    "svhn-fig7": svhn_figure_7,
    "validation": figure_validation,
}


def draw_figure(name: str, request: Request, out: Path) -> tuple[Path, ...]:
    """Draws a figure and writes it as PNG and PDF; an animated one also as GIF and as a folder of PNG frames.

    Args:
        name: key into ``FIGURES``.
        request: what to show.
        out: folder of the files, created if missing.

    Returns:
        The files, PNG and PDF first; for frames, their folder.

    Raises:
        MistError: if there is no such figure, model or data, or ``out`` can't be written to.
    """
    if name not in FIGURES:
        raise MistError(f"no figure is called {name!r}: choose one of {', '.join(FIGURES)}")
    if request.steps is not None and name not in TRAINING:
        raise MistError(f"--steps {request.steps} is for the figures that train, {', '.join(TRAINING)}: leave it out")
    created = [folder for folder in (out, *out.parents) if not folder.exists()]
    with _writing(out):  # checked first, since drawing may train for a long time
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    try:
        drawn = FIGURES[name](request)
    except BaseException:
        for folder in created:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    figure, frames = drawn if isinstance(drawn, Animated) else (drawn, ())
    with _writing(out), tempfile.TemporaryDirectory(dir=out) as aside:  # moved to their place when all are written
        files = [*save_figure(figure, Path(aside) / name)]
        if frames:
            files += save_animation(frames, Path(aside) / name)
            shutil.rmtree(out / files[-1].name, ignore_errors=True)
        return tuple(file.replace(out / file.name) for file in files)


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MistError(f"can't write to --out {out} ({error.strerror}): give another folder") from error
