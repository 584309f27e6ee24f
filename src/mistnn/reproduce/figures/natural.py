"""Figure 6 of MIST (CVPR 2021): boxes and classes on photographs, of MIST and of Xie20."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mistnn.data import NaturalConfig, NaturalImages
from mistnn.errors import MistError
from mistnn.inference.judged import JudgedScene, draw_judged, right_by_centre
from mistnn.reproduce.figures.source import Request, stored_run
from mistnn.weights import load_model, read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
"""Photographs in a row; the paper shows about as many."""
SYSTEMS = {
    "MIST": ("natural-mist", ("mist-pascal-coco", "mist-pascal-coco-32", "mist-voc07")),
    "Xie20": ("natural-xie20", ("xie20-pascal-coco", "xie20-voc07")),
}
"""Title of a row -> the kind of its model and the presets of which the first with a run is shown."""


def figure_6(request: Request) -> Figure:
    """Random photographs of the test split with each system's detections: right (green), wrong (red), missed (grey).

    A box is right if its centre lies in an object's box and the class agrees, as in Table 4. The request's model is the
    folder of the runs of Table 4, as `mist reproduce` leaves them, or a single run; its root is the folder that
    `mist build` made.

    Reference: MIST (CVPR 2021), figure 6.
    """
    runs, root = _runs(request.runs), request.root
    if root is None:
        raise MistError("fig6 needs the photographs: give the folder that `mist build` made with --data-root DIR")
    images = NaturalImages(NaturalConfig(root=root), "test", sys.maxsize)
    places = np.random.default_rng(request.seed or 0).permutation(len(images))[:COLUMNS].tolist()
    samples = [images[place] for place in sorted(places)]
    judged: list[JudgedScene] = []
    for folder in runs.values():
        network: Any = load_model(folder)
        if network.class_names != images.class_names:
            raise MistError(f"{root} has other classes than {folder}: give the photographs that it was trained on")
        for sample in samples:
            assert sample.boxes is not None
            found = network.explain(sample.image[None], network.config.k).detections[0]
            correct = right_by_centre(found, sample.boxes, sample.labels)
            judged.append(JudgedScene(sample.image, found, sample.boxes, sample.labels, correct))
    titles = [title for title in runs for _ in samples]
    return draw_judged(judged, images.class_names, len(samples), titles)


def _runs(model: Path) -> dict[str, Path | str]:
    """The runs to draw, by the title of their row."""
    if (model / "config.json").is_file():
        stored = read_config(model).kind
        titles = [title for title, (kind, _) in SYSTEMS.items() if kind == stored]
        if not titles:
            raise MistError(f"{model} is of kind {stored}: fig6 shows systems for photographs")
        return {titles[0]: model}
    runs: dict[str, Path | str] = {}
    for title, (_, names) in SYSTEMS.items():
        for name in reversed(names):
            with contextlib.suppress(MistError):
                runs[title] = stored_run(model, name)
    if not runs:
        raise MistError(
            f"{model} holds no run of {' or '.join(names[0] for _, names in SYSTEMS.values())}: train them with "
            "`mist reproduce table4`, or give a run's folder with --model"
        )
    return runs
