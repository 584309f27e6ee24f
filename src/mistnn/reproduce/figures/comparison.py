"""Systems side by side on the same scenes: reconstructions of Table 1 (figure 2), detections of Tables 2 and 3."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mistnn.data import Scenes, ScenesConfig
from mistnn.errors import MistError
from mistnn.inference.judged import JudgedScene, draw_judged, judge_scenes
from mistnn.presets.mist.digits import HARD
from mistnn.presets.mist.discover import EASY
from mistnn.reproduce.figures.source import Request, stored_run
from mistnn.viz import draw_comparison
from mistnn.weights import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

EXAMPLES = 2
"""Scenes of each kind."""

SYSTEMS = {
    "MIST": ("mist-discover-mnist-easy", "mist-discover-mnist-hard-one-scale"),
    "Grid": ("grid-mnist-easy", "grid-mnist-hard"),
    "Ch.-wise": ("channelwise-mnist-easy", "channelwise-mnist-hard"),
    "Esl16": ("esl16-mnist-easy", "esl16-mnist-hard"),
    "Zha18": ("zha18-mnist-easy", "zha18-mnist-hard"),
}
"""The paper's name of a system -> its presets on MNIST easy and MNIST hard."""

SLOW = ("Esl16",)
"""Systems that train for hours and are left out if there is no run."""

READERS = {
    "MIST, small": "mist-mnist-hard",
    "MIST, paper's": "mist-mnist-hard-paper",
    "Supervised": "supervised-mnist-hard",
    "Xie20": "xie20-mnist-hard",
    "Ch.-wise": "channelwise-read-mnist-hard",
}
"""Title of a tile -> its preset on MNIST hard; systems without a run are left out."""


def figure_2(request: Request) -> Figure:
    """Test scenes, easy above hard, and each system's reconstruction with its error on that scene.

    Args:
        request: its model is the folder of the runs of Table 1, as `mist reproduce table1` leaves them.

    Raises:
        MistError: if the run of a system is missing.

    Reference: MIST (CVPR 2021), figure 2.
    """
    folders: dict[str, list[Path | str]] = {}
    for system, names in SYSTEMS.items():
        with contextlib.suppress(MistError) if system in SLOW else contextlib.nullcontext():
            folders[system] = [stored_run(request.runs, name) for name in names]
    rows: list[dict[str, Tensor]] = []
    for kind, data in enumerate((EASY, HARD)):
        models = {system: _load(pair[kind]) for system, pair in folders.items()}
        scenes = Scenes(_with_source(data, request), "test", EXAMPLES)
        for index in range(EXAMPLES):
            rows.append(_row(("easy", "hard")[kind], scenes[index].image, models, max(data.counts)))
    return draw_comparison(rows)


def figure_readers(request: Request) -> Figure:
    """Boxes and classes of the systems of Tables 2 and 3 on the same test scenes: right, wrong, missed.

    Args:
        request: its model is the folder of the tables' runs, as `mist reproduce` leaves them. Of several learning
            rates, the preset's own is preferred.

    Raises:
        MistError: if there is no run of any system.
    """
    scenes = Scenes(_with_source(HARD, request), "test", EXAMPLES)
    samples = [scenes[index] for index in range(EXAMPLES)]
    columns: dict[str, list[JudgedScene]] = {}
    for title, name in READERS.items():
        try:
            folder = stored_run(request.runs, name)
        except MistError:
            continue
        columns[title] = judge_scenes(load_model(folder), samples)
    if not columns:
        raise MistError(
            f"{request.runs} holds no run of Table 2 or 3: train some with `mist reproduce table2 --budget quick`"
        )
    return draw_judged(
        [judged[index] for index in range(EXAMPLES) for judged in columns.values()],
        tuple(str(digit) for digit in range(10)),
        len(columns),
        [*columns] * EXAMPLES,
    )


@torch.inference_mode()
def _row(title: str, image: Tensor, models: dict[str, Any], k: int) -> dict[str, Tensor]:
    row = {title: image}
    for system, network in models.items():
        rebuilt = network.explain(image[None], k).reconstruction
        error = (rebuilt[0] - image).square().mean().sqrt().item()
        row[f"{system} {error:.3f}"] = rebuilt[0]
    return row


def _load(folder: Path | str) -> Any:
    network: Any = load_model(folder)
    if not network.reconstructs:
        raise MistError(f"{folder} does not reconstruct images: it is no model of Table 1")
    return network


def _with_source(data: ScenesConfig, request: Request) -> ScenesConfig:
    return dataclasses.replace(data, seed=request.seed or 0, root=request.root)
