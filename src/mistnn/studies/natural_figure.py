"""Figure 6 of MIST (CVPR 2021): boxes and classes on photographs, of MIST and of Xie20."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mistnn.data import NaturalConfig, NaturalImages
from mistnn.errors import MistError
from mistnn.models.mist import NaturalMist
from mistnn.models.rivals import NaturalXie20
from mistnn.records import Detections
from mistnn.studies.comparison import RUNS, known, stored_run
from mistnn.studies.count_examples import right_by_centre
from mistnn.viz import draw_scenes
from mistnn.weights import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
"""Photographs in a row; the paper shows about as many."""
SYSTEMS = {
    "MIST": ("mist-pascal-coco", "mist-pascal-coco-32", "mist-voc07"),
    "Xie20": ("xie20-pascal-coco", "xie20-voc07"),
}
"""What a row is called -> the presets whose run it may be, the first that there is."""


def figure_6(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """Photographs of the test split with what each system found: right ones green, wrong ones red, missed ones grey.

    A box is right if its centre lies in an object's box and the class agrees, as in Table 4. The photographs are drawn
    at random from the test split, not chosen.

    Args:
        model: the folder that holds the runs of Table 4, as `mist reproduce` leaves them, or a single run.
        seed: of the draw; 0 if not given.
        root: the folder that `mist build` made.

    Raises:
        MistError: no run of either system; or no such folder.

    Reference: MIST (CVPR 2021), figure 6.
    """
    runs = _runs(RUNS if model is None else Path(model))
    if root is None:
        raise MistError("fig6 needs the photographs: give the folder that `mist build` made with --data-root DIR")
    images = NaturalImages(NaturalConfig(root=root), "test", sys.maxsize)
    places = np.random.default_rng(0 if seed is None else seed).permutation(len(images))[:COLUMNS].tolist()
    samples = [images[place] for place in sorted(places)]
    found: list[Detections] = []
    titles: list[str] = []
    for title, folder in runs.items():
        network = load_model(folder)
        assert isinstance(network, NaturalMist | NaturalXie20)
        if network.class_names != images.class_names:
            raise MistError(f"{root} has other classes than {folder}: give the photographs that it was trained on")
        found += [network.explain(sample.image[None], network.config.k).detections[0] for sample in samples]
        titles += [title] * len(samples)
    shown = samples * len(runs)
    return draw_scenes(
        [sample.image for sample in shown],
        found,
        [known(sample.boxes) for sample in shown],
        [known(sample.labels) for sample in shown],
        images.class_names,
        correct=[
            right_by_centre(one, known(sample.boxes), sample.labels) for one, sample in zip(found, shown, strict=True)
        ],
        titles=titles,
        columns=len(samples),
    )


def _runs(model: Path) -> dict[str, Path | str]:
    """The runs to draw, by what their rows are called."""
    if (model / "config.json").is_file():
        network = load_model(model)
        if not isinstance(network, NaturalMist | NaturalXie20):
            raise MistError(f"{model} holds a {type(network).__name__}: fig6 shows systems for photographs")
        return {"MIST" if isinstance(network, NaturalMist) else "Xie20": model}
    runs: dict[str, Path | str] = {}
    for title, names in SYSTEMS.items():
        for name in names:
            try:
                runs.setdefault(title, stored_run(model, name))
            except MistError:
                continue
    if not runs:
        raise MistError(
            f"{model} holds no run of {SYSTEMS['MIST'][0]} or {SYSTEMS['Xie20'][0]}: train them with `mist reproduce "
            "table4`, or give a run's folder with --model"
        )
    return runs
