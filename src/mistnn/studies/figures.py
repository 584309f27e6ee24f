"""Figures of the papers, drawn with our own models."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mistnn.data import NumbersConfig, Scenes, ScenesConfig, SvhnConfig
from mistnn.errors import MistError
from mistnn.presets import open_data, restore
from mistnn.presets.systems import SceneModel
from mistnn.studies.comparison import figure_2, figure_readers
from mistnn.studies.demo import view_scenes
from mistnn.studies.discovery import data_of, figure_3, figure_4, figure_7, figure_8
from mistnn.studies.natural_figure import figure_6
from mistnn.studies.spair_figure import figure_objects
from mistnn.studies.spair_transfer import figure_transfer
from mistnn.studies.stn_figures import Animated, figure_addition, figure_colocalisation, stn_samples
from mistnn.viz import draw_samples, draw_scenes, save_animation, save_figure
from mistnn.weights import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[str | Path | None, int | None, str | None], "Figure | Animated"]
"""Draws from a model (folder or name), a seed of the scenes and the folder of MNIST, where they are given."""

CLASSES_MODEL = "mist-mnist-hard"
"""The model of figure 5."""

NUMBER_IMAGES = 18
"""House numbers in the figure of S001 (our choice)."""

SCENES = 8
"""Scenes in figure 5; the paper shows two."""


def draw_figure(
    name: str,
    model: str | Path | None,
    out: Path,
    seed: int | None = None,
    root: str | None = None,
    steps: int | None = None,
) -> tuple[Path, ...]:
    """Draws a figure and writes it as PNG and PDF; one that moves also as GIF and as a folder of PNG frames.

    Args:
        name: key into ``FIGURES``.
        model: a run folder or a shipped model; the figure's own if not given.
        out: folder of the files, made if it is missing.
        seed: of the scenes; the experiment's own if not given.
        root: where MNIST lies, see ``ScenesConfig``.
        steps: of the training that ``fig7`` and ``stn-colocalisation`` show; no other figure trains.

    Returns:
        The files, PNG and PDF first; of frames, their folder.

    Raises:
        MistError: no such figure or model; no digits; ``out`` can't be written to.
    """
    if name not in FIGURES:
        raise MistError(f"no figure is called {name!r}: choose one of {', '.join(FIGURES)}")
    draw = FIGURES[name]
    if steps is not None:
        if name not in TRAINING:
            raise MistError(f"--steps {steps} is for the figures that train, {' and '.join(TRAINING)}: leave it out")
        draw = functools.partial(TRAINING[name], steps=steps)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    with _writing(out):  # before it is drawn: what can't be written need not be trained
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    try:
        drawn = draw(model, seed, root)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    figure, frames = drawn if isinstance(drawn, Animated) else (drawn, ())
    with _writing(out), tempfile.TemporaryDirectory(dir=out) as aside:  # moved in when all are written
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


def _finder(model: str | Path) -> SceneModel:
    network = load_model(model)
    if not isinstance(network, SceneModel):
        raise MistError(f"{model} finds no objects in scenes, which this figure shows: give a run of MIST or a rival")
    return network


def figure_5(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """Boxes and classes on test scenes: right ones, wrong ones and missed digits.

    K is each scene's own number of digits, as in the papers' evaluation.

    Reference: MIST (CVPR 2021), figure 5.
    """
    model = CLASSES_MODEL if model is None else model
    network = _finder(model)
    scenes = Scenes(data_of(model, seed, root, "fig5"), "test", SCENES)
    views = view_scenes(network, [scenes[index] for index in range(SCENES)])
    return draw_scenes(
        [view.image for view in views],
        [view.detections for view in views],
        [view.boxes for view in views if view.boxes is not None],
        [view.labels for view in views if view.labels is not None] if network.class_names else None,
        network.class_names,
        correct=[view.correct for view in views if view.correct is not None],
    )


def svhn_figure_6(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """Boxes and digits on test images of house numbers: right ones, wrong ones and missed digits.

    Raises:
        MistError: if no run on house numbers is given: weights trained on them don't ship with the package.

    Reference: earlier MIST version (S001), figure 6.
    """
    if model is None:
        raise MistError("svhn-fig6 needs a run on house numbers: train mist-svhn or mist-numbers, and give --model RUN")
    data = restore(model).data
    if not isinstance(data, SvhnConfig | NumbersConfig):
        raise MistError(f"svhn-fig6 shows house numbers, and {model} was trained on other images: give another run")
    data = dataclasses.replace(data, root=root, seed=data.seed if seed is None else seed)
    network, images = _finder(model), open_data(data, "test", NUMBER_IMAGES)
    views = view_scenes(network, [images[index] for index in range(len(images))])
    return draw_scenes(
        [view.image for view in views],
        [view.detections for view in views],
        [view.boxes for view in views if view.boxes is not None],
        [view.labels for view in views if view.labels is not None] if network.class_names else None,
        network.class_names,
        columns=3,
        correct=[view.correct for view in views if view.correct is not None],
        inches=2.8,
    )


def sample_sheet(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """Scenes of every layout with their true boxes; the model plays no part."""
    seed = 0 if seed is None else seed
    sheets = {}
    for title, config in SHEET.items():
        scenes = Scenes(dataclasses.replace(config, seed=seed, root=root), "train", SHEET_COLUMNS)
        sheets[title] = [scenes[index] for index in range(SHEET_COLUMNS)]
    return draw_samples(sheets, tuple(str(digit) for digit in range(10)))


SHEET_COLUMNS = 5
SHEET: Mapping[str, ScenesConfig] = {
    "MNIST easy": ScenesConfig(layout="easy"),
    "MNIST hard": ScenesConfig(layout="hard"),
    "uneven": ScenesConfig(layout="uneven"),
    "varying size": ScenesConfig(layout="hard", canvas=96, object_size=(14, 28), counts=(6,)),
    "three digits": ScenesConfig(layout="hard", canvas=48, counts=(3,)),
    "embedded digits": ScenesConfig(layout="hard", source="embedded", canvas=48, counts=(3,)),
}

TRAINING: Mapping[str, Callable[..., Figure | Animated]] = {
    "fig7": figure_7,
    "stn-colocalisation": figure_colocalisation,
}
FIGURES: Mapping[str, Draw] = {
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
}
