"""Figure 5 of MIST (CVPR 2021), the house numbers of its earlier version, and a sheet of training scenes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mistnn.data import Scenes, ScenesConfig
from mistnn.inference.judged import draw_judged, judge_scenes
from mistnn.records import Sample
from mistnn.reproduce.figures.source import Request, images_of, scenes_of
from mistnn.viz import draw_samples
from mistnn.weights import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES_MODEL = "mist-mnist-hard"
"""Default model of figure 5."""

NUMBER_IMAGES = 18
"""House numbers in the figure of S001 (our choice)."""

SCENES = 8
"""Scenes in figure 5; the paper shows two."""

SHEET_COLUMNS = 5
SHEET: Mapping[str, ScenesConfig] = {
    "MNIST easy": ScenesConfig(layout="easy"),
    "MNIST hard": ScenesConfig(layout="hard"),
    "uneven": ScenesConfig(layout="uneven"),
    "varying size": ScenesConfig(layout="hard", canvas=96, object_size=(14, 28), counts=(6,)),
    "three digits": ScenesConfig(layout="hard", canvas=48, counts=(3,)),
    "embedded digits": ScenesConfig(layout="hard", source="embedded", canvas=48, counts=(3,)),
}


def figure_5(request: Request) -> Figure:
    """Boxes and classes on test scenes: right, wrong and missed digits.

    K is each scene's true number of digits, as in the papers' evaluation.

    Reference: MIST (CVPR 2021), figure 5.
    """
    model = request.model or CLASSES_MODEL
    scenes = Scenes(scenes_of(model, request, "fig5"), "test", SCENES)
    return _draw(load_model(model), [scenes[index] for index in range(SCENES)])


def svhn_figure_6(request: Request) -> Figure:
    """Boxes and digits on test images of house numbers: right, wrong and missed digits.

    Raises:
        MistError: if no run on house numbers is given: weights trained on them don't ship with the package.

    Reference: earlier MIST version (S001), figure 6.
    """
    model = request.needed(
        "svhn-fig6 needs a run on house numbers: train mist-svhn or mist-numbers, and give --model RUN"
    )
    problem = f"svhn-fig6 shows house numbers, and {model} was trained on other images: give another run"
    images = images_of(model, ("svhn", "numbers"), problem, request).open("test", NUMBER_IMAGES)
    return _draw(load_model(model), [images[index] for index in range(len(images))], columns=3, inches=2.8)


def sample_sheet(request: Request) -> Figure:
    """Scenes of every layout with their true boxes; the request's model is not used."""
    sheets = {}
    for title, config in SHEET.items():
        scenes = Scenes(dataclasses.replace(config, seed=request.seed or 0, root=request.root), "train", SHEET_COLUMNS)
        sheets[title] = [scenes[index] for index in range(SHEET_COLUMNS)]
    return draw_samples(sheets, tuple(str(digit) for digit in range(10)))


def _draw(network: Any, samples: Sequence[Sample], columns: int = 4, inches: float = 1.9) -> Figure:
    return draw_judged(judge_scenes(network, samples), network.class_names, columns, inches=inches)
