"""Systems side by side on the same scenes: what those of Table 1 redraw (figure 2), what those of 2 and 3 read."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mistnn.data import Scenes, ScenesConfig
from mistnn.errors import MistError
from mistnn.presets.mist_digits import HARD
from mistnn.presets.mist_discover import EASY
from mistnn.presets.systems import SceneModel
from mistnn.studies.demo import view_scenes
from mistnn.studies.ledger import QUICK
from mistnn.studies.report import SceneView
from mistnn.viz import draw_comparison, draw_scenes
from mistnn.weights import load_model, shipped_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

RUNS = Path("runs/tables")
"""Where `mist reproduce` leaves its run folders unless told otherwise."""

EXAMPLES = 2
"""Scenes of each kind."""

SYSTEMS = {
    "MIST": ("mist-discover-mnist-easy", "mist-discover-mnist-hard-one-scale"),
    "Grid": ("grid-mnist-easy", "grid-mnist-hard"),
    "Ch.-wise": ("channelwise-mnist-easy", "channelwise-mnist-hard"),
    "Esl16": ("esl16-mnist-easy", "esl16-mnist-hard"),
    "Zha18": ("zha18-mnist-easy", "zha18-mnist-hard"),
}
"""As the paper calls them -> the presets on MNIST easy and MNIST hard."""

SLOW = ("Esl16",)
"""Left out where there is no run: they take hours."""


def figure_2(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """Test scenes, easy above hard, and what each system redraws of them, with its error on that scene.

    Args:
        model: the folder that holds the runs of Table 1, as `mist reproduce table1` leaves them.
        seed: of the scenes; 0 if not given.
        root: where MNIST lies, see ``ScenesConfig``.

    Raises:
        MistError: if the run of a system is missing.

    Reference: MIST (CVPR 2021), figure 2.
    """
    runs = RUNS if model is None else Path(model)
    folders: dict[str, list[Path | str]] = {}
    for system, names in SYSTEMS.items():
        with contextlib.suppress(MistError) if system in SLOW else contextlib.nullcontext():
            folders[system] = [stored_run(runs, name) for name in names]
    rows: list[dict[str, Tensor]] = []
    for kind, data in enumerate((EASY, HARD)):
        models = {system: _load(pair[kind]) for system, pair in folders.items()}
        scenes = Scenes(_seeded(data, seed, root), "test", EXAMPLES)
        for index in range(EXAMPLES):
            rows.append(_row(("easy", "hard")[kind], scenes[index].image, models, max(data.counts)))
    return draw_comparison(rows)


READERS = {
    "MIST, small": "mist-mnist-hard",
    "MIST, paper's": "mist-mnist-hard-paper",
    "Supervised": "supervised-mnist-hard",
    "Xie20": "xie20-mnist-hard",
    "Ch.-wise": "channelwise-read-mnist-hard",
}
"""What a tile is called -> the preset on MNIST hard; those without a run are left out."""


def figure_readers(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """Boxes and classes of the systems of Tables 2 and 3 on the same test scenes, judged: right, wrong, missed.

    Args:
        model: the folder that holds the runs of the tables, as `mist reproduce` leaves them. Of several learning rates
            the preset's own come first.
        seed: of the scenes; 0 if not given.
        root: where MNIST lies, see ``ScenesConfig``.

    Raises:
        MistError: if there is no run of any system.
    """
    runs = RUNS if model is None else Path(model)
    scenes = Scenes(_seeded(HARD, seed, root), "test", EXAMPLES)
    samples = [scenes[index] for index in range(EXAMPLES)]
    views: list[SceneView] = []
    titles: list[str] = []
    for title, name in READERS.items():
        try:
            folder = stored_run(runs, name)
        except MistError:
            continue
        network = load_model(folder)
        assert isinstance(network, SceneModel)
        views += view_scenes(network, samples)
        titles += [title] * EXAMPLES
    if not views:
        raise MistError(f"{runs} holds no run of Table 2 or 3: train some with `mist reproduce table2 --budget quick`")
    columns = len(views) // EXAMPLES
    order = [column * EXAMPLES + row for row in range(EXAMPLES) for column in range(columns)]
    return draw_scenes(
        [views[place].image for place in order],
        [views[place].detections for place in order],
        [_known(views[place].boxes) for place in order],
        [_known(views[place].labels) for place in order],
        tuple(str(digit) for digit in range(10)),
        correct=[_known(views[place].correct) for place in order],
        titles=[titles[place] for place in order],
        columns=columns,
    )


def _known(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def stored_run(runs: Path, name: str) -> Path | str:
    """The run of a preset with seed 0: of full size if there is one, or of quick size, or the shipped model.

    Raises:
        MistError: if there is none.
    """
    for ending in ("-seed0", *(f"{QUICK}-{factor}-seed0" for factor in ("x1", "x3", "x0.3"))):
        if (runs / f"{name}{ending}" / "model.safetensors").is_file():
            return runs / f"{name}{ending}"
    if name in shipped_names():
        return name
    raise MistError(
        f"{runs} holds no run of {name}: train it with `mist reproduce table1 --budget quick --seeds 1 --only {name}`, "
        "or give the folder of the table's runs with --model"
    )


@torch.inference_mode()
def _row(title: str, image: Tensor, models: dict[str, SceneModel], k: int) -> dict[str, Tensor]:
    row = {title: image}
    for system, network in models.items():
        rebuilt = network.explain(image[None], k).reconstruction
        assert rebuilt is not None
        error = (rebuilt[0] - image).square().mean().sqrt().item()
        row[f"{system} {error:.3f}"] = rebuilt[0]
    return row


def _load(folder: Path | str) -> SceneModel:
    network = load_model(folder)
    assert isinstance(network, SceneModel)
    if not network.reconstructs:
        raise MistError(f"{folder} does not redraw: it is no model of Table 1")
    return network


def _seeded(data: ScenesConfig, seed: int | None, root: str | None) -> ScenesConfig:
    return dataclasses.replace(data, seed=0 if seed is None else seed, root=root)
