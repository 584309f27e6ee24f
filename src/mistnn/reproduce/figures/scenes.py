"""Figures 2, 5 and 6 of MIST (CVPR 2021), its Tables 2 and 3, house numbers, and a sheet of training scenes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mistnn.data import NaturalConfig, NaturalImages, ScenesConfig
from mistnn.data.base import DIGIT_NAMES
from mistnn.devices import device_of
from mistnn.errors import MistError
from mistnn.inference.judged import JudgedScene, draw_judged, judge_scenes, right_by_centre
from mistnn.presets.mist.digits import HARD
from mistnn.presets.mist.discover import EASY
from mistnn.reproduce.figures.source import Request, first_samples, images_of, scenes_of, stored_run
from mistnn.viz import draw_comparison, draw_samples
from mistnn.weights import read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

EXAMPLES = 2  #: Scenes of each kind in figure 2 and the comparison of Tables 2 and 3.
SYSTEMS = {
    "MIST": ("mist-discover-mnist-easy", "mist-discover-mnist-hard-one-scale"),
    "Grid": ("grid-mnist-easy", "grid-mnist-hard"),
    "Ch.-wise": ("channelwise-mnist-easy", "channelwise-mnist-hard"),
    "Esl16": ("esl16-mnist-easy", "esl16-mnist-hard"),
    "Zha18": ("zha18-mnist-easy", "zha18-mnist-hard"),
}
"""The paper's name of a system -> its presets on MNIST easy and MNIST hard."""
SLOW = ("Esl16",)  #: Systems that train for hours and are left out if there is no run.
READERS = {
    "MIST, small": "mist-mnist-hard",
    "MIST, paper's": "mist-mnist-hard-paper",
    "Supervised": "supervised-mnist-hard",
    "Xie20": "xie20-mnist-hard",
    "Ch.-wise": "channelwise-read-mnist-hard",
}
"""Title of a tile -> its preset on MNIST hard; systems without a run are left out."""
CLASSES_MODEL = "mist-mnist-hard"  #: Default model of figure 5.
NUMBER_IMAGES = 18  #: House numbers in the figure of S001 (our choice).
SCENES = 8  #: Scenes in figure 5; the paper shows two.
SHEET_COLUMNS = 5
SHEET: Mapping[str, ScenesConfig] = {
    "MNIST easy": ScenesConfig(layout="easy"),
    "MNIST hard": ScenesConfig(layout="hard"),
    "uneven": ScenesConfig(layout="uneven"),
    "varying size": ScenesConfig(layout="hard", canvas=96, object_size=(14, 28), counts=(6,)),
    "three digits": ScenesConfig(layout="hard", canvas=48, counts=(3,)),
    "embedded digits": ScenesConfig(layout="hard", source="embedded", canvas=48, counts=(3,)),
}
PHOTOGRAPHS = 6  #: Photographs in a row; the paper shows about as many.
PARTS = {"MIST": ("mist-pascal-coco-1221", "mist-voc-2607"), "Xie20": ("xie20-pascal-coco-1221", "xie20-voc-2607")}
PHOTOGRAPH_SYSTEMS = {
    "MIST": ("natural-mist", ("mist-pascal-coco", "mist-pascal-coco-32", "mist-voc07", *PARTS["MIST"])),
    "Xie20": ("natural-xie20", ("xie20-pascal-coco", "xie20-voc07", *PARTS["Xie20"])),
}
"""Title of a row -> the kind of its model and the presets of which the first with a run is shown."""


def figure_2(request: Request) -> Figure:
    """Test scenes, easy above hard, and each system's reconstruction with its error on that scene.

    The request's model is the folder of the runs of Table 1, as `mist reproduce table1` leaves them.

    Reference: MIST (CVPR 2021), figure 2.
    """
    folders: dict[str, list[Path | str]] = {}
    for system, names in SYSTEMS.items():
        with contextlib.suppress(*((MistError,) if system in SLOW else ())):
            folders[system] = [stored_run(request.runs, name) for name in names]
    rows: list[dict[str, Tensor]] = []
    for kind, data in enumerate((EASY, HARD)):
        models = {system: _load(request.load(pair[kind]), pair[kind]) for system, pair in folders.items()}
        scenes = first_samples(request.own(data), EXAMPLES)
        rows += [_row(("easy", "hard")[kind], scene.image, models, max(data.counts)) for scene in scenes]
    return draw_comparison(rows)


def figure_readers(request: Request) -> Figure:
    """Boxes and classes of the systems of Tables 2 and 3 on the same test scenes: right, wrong, missed.

    The request's model is the folder of the tables' runs, as `mist reproduce` leaves them.
    """
    folders: dict[str, Path | str] = {}
    for title, name in READERS.items():
        with contextlib.suppress(MistError):
            folders[title] = stored_run(request.runs, name)
    if not folders:
        raise MistError(
            f"{request.runs} holds no run of Table 2 or 3: train some with `mist reproduce table2 --budget full`"
        )
    samples = first_samples(request.own(HARD), EXAMPLES)
    columns = [judge_scenes(request.load(folder), samples) for folder in folders.values()]
    judged = [column[index] for index in range(EXAMPLES) for column in columns]
    return draw_judged(judged, DIGIT_NAMES, len(folders), [*folders] * EXAMPLES)


def figure_5(request: Request) -> Figure:
    """Boxes and classes on test scenes: right, wrong and missed digits.

    K is each scene's true number of digits, as in the papers' evaluation.

    Reference: MIST (CVPR 2021), figure 5.
    """
    model = request.model or CLASSES_MODEL
    scenes = first_samples(scenes_of(model, request, "fig5"), SCENES)
    network = request.load(model)
    return draw_judged(judge_scenes(network, scenes), network.class_names, 4)


def figure_6(request: Request) -> Figure:
    """Random photographs of the test split with each system's detections: right (green), wrong (red), missed (grey).

    A box is right if its centre lies in an object's box and the class agrees, as in Table 4. The request's model is the
    folder of the runs of Table 4, as `mist reproduce` leaves them, or a single run; its root is the folder that
    `mist build` made.

    Reference: MIST (CVPR 2021), figure 6.
    """
    runs, root = _photograph_runs(request.runs), request.root
    if root is None:
        raise MistError("fig6 needs the photographs: give the folder that `mist build` made with --data-root DIR")
    images = NaturalImages(NaturalConfig(root=root), "test", sys.maxsize)
    places = np.random.default_rng(request.seed or 0).permutation(len(images))[:PHOTOGRAPHS].tolist()
    samples = [images[place] for place in sorted(places)]
    judged: list[JudgedScene] = []
    for folder in runs.values():
        network = request.load(folder)
        if network.class_names != images.class_names:
            raise MistError(f"{root} has other classes than {folder}: give the photographs that it was trained on")
        for sample in samples:
            assert sample.boxes is not None
            found = network.explain(sample.image[None].to(device_of(network)), network.config.k).detections[0].cpu()
            correct = right_by_centre(found, sample.boxes, sample.labels)
            judged.append(JudgedScene(sample.image, found, sample.boxes, sample.labels, correct))
    titles = [title for title in runs for _ in samples]
    return draw_judged(judged, images.class_names, len(samples), titles)


def svhn_figure_6(request: Request) -> Figure:
    """Boxes and digits on test images of house numbers: right, wrong and missed digits.

    Reference: earlier MIST version (S001), figure 6.
    """
    model = request.needed(
        "svhn-fig6 needs a run on house numbers: train mist-svhn or mist-numbers, and give --model RUN"
    )
    problem = f"svhn-fig6 shows house numbers, and {model} was trained on other images: give another run"
    images = first_samples(images_of(model, ("svhn", "numbers"), problem, request), NUMBER_IMAGES)
    network = request.load(model)
    return draw_judged(judge_scenes(network, images), network.class_names, 3, inches=2.8)


def sample_sheet(request: Request) -> Figure:
    """Scenes of every layout with their true boxes; the request's model is not used."""
    sheets = {title: first_samples(request.own(data), SHEET_COLUMNS, "train") for title, data in SHEET.items()}
    return draw_samples(sheets, DIGIT_NAMES)


@torch.inference_mode()
def _row(title: str, image: Tensor, models: dict[str, Any], k: int) -> dict[str, Tensor]:
    row = {title: image}
    for system, network in models.items():
        rebuilt = network.explain(image[None].to(device_of(network)), k).reconstruction[0].cpu()
        error = (rebuilt - image).square().mean().sqrt().item()
        row[f"{system} {error:.3f}"] = rebuilt
    return row


def _load(network: Any, folder: Path | str) -> Any:
    if not network.reconstructs:
        raise MistError(f"{folder} does not reconstruct images: it is no model of Table 1")
    return network


def _photograph_runs(model: Path) -> dict[str, Path | str]:
    """The runs to draw, by the title of their row."""
    if (model / "config.json").is_file():
        stored = read_config(model).kind
        titles = [title for title, (kind, _) in PHOTOGRAPH_SYSTEMS.items() if kind == stored]
        if not titles:
            raise MistError(
                f"{model} is of kind {stored}: fig6 shows the systems of the paper's Table 4; for a model of your own, "
                "`mist predict` draws its boxes, and --report makes a page"
            )
        return {titles[0]: model}
    runs: dict[str, Path | str] = {}
    for title, (_, names) in PHOTOGRAPH_SYSTEMS.items():
        for name in reversed(names):
            with contextlib.suppress(MistError):
                runs[title] = stored_run(model, name)
    if not runs:
        raise MistError(
            f"{model} holds no run of {' or '.join(names[0] for _, names in PHOTOGRAPH_SYSTEMS.values())}: train them "
            "with `mist reproduce table4`, or give a run's folder with --model"
        )
    return runs
