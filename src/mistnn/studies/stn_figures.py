"""Figures of Spatial Transformer Networks: what is seen, what each transformer looks at, how co-localisation goes."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mistnn.data import CommonObjectConfig, CommonObjects, DistortedConfig, DistortedDigits
from mistnn.data.digits.distorted import Distortion
from mistnn.errors import MistError
from mistnn.models.stn import Colocaliser, StnClassifier
from mistnn.presets import find_preset, restore, train
from mistnn.presets.stn import CANVAS
from mistnn.presets.stn_evaluation import ENCODER
from mistnn.records import Detections
from mistnn.studies.demo import right_detections
from mistnn.viz import Looked, draw_samples, draw_scenes, draw_transformers
from mistnn.weights import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 6
"""Test images in the figure of addition; the paper shows one."""
COLUMNS = 8
TITLES: dict[Distortion, str] = {
    "r": "R, rotated",
    "rts": "RTS, rotated, translated, scaled",
    "p": "P, projected",
    "e": "E, elastic",
    "tc": "TC, translated in clutter",
}
COLOCALISATION = "stn-coloc-tc-8"
"""The digit of the paper's figure 1."""
SHOWN = 3
"""Images of figure 1, as in the paper."""
MOMENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.48, 0.64, 1.0)
"""Shares of the training that figure 1 shows."""
FRAMES = 60
"""Of the animation, after the first: as many lines of the log."""


class Animated(NamedTuple):
    """A figure, and how it came about.

    Attributes:
        figure: some moments.
        frames: every moment.
    """

    figure: Figure
    frames: tuple[Figure, ...]


def stn_samples(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """A sheet of distorted test digits; the model plays no part.

    Reference: S003, section 1.3.
    """
    sheets = {}
    for distortion, title in TITLES.items():
        config = DistortedConfig(distortion, CANVAS[distortion], seed=0 if seed is None else seed, root=root)
        digits = DistortedDigits(config, "test", COLUMNS)
        sheets[title] = [digits[index] for index in range(COLUMNS)]
    return draw_samples(sheets, boxes=False)


def figure_addition(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """What each transformer looks at: test images with the border of what each reads, and what it makes of them.

    Raises:
        MistError: without a run, or with one that has no spatial transformer.

    Reference: S003, table 1, right.
    """
    if model is None:
        raise MistError("stn-addition shows a trained network: give --model RUN, a run of stn-2xfcn-tps-addition")
    network, data = load_model(model), restore(model).data
    if not isinstance(network, StnClassifier) or not isinstance(data, DistortedConfig) or network.transformers is None:
        raise MistError(
            f"stn-addition shows spatial transformers on distorted digits, and {model} has none: give a run of a "
            "preset such as stn-2xfcn-tps-addition"
        )
    data = dataclasses.replace(data, root=root, seed=data.seed if seed is None else seed)
    batch = DistortedDigits(data, "test", EXAMPLES).batch(range(EXAMPLES))
    with torch.inference_mode():
        done = network(batch.images)
    said, true = done.logits.argmax(1).tolist(), network.target(batch).tolist()
    what = "sum" if data.digits > 1 else "digit"
    return draw_transformers(
        [
            Looked(
                image,
                [outline_of(warp.grid[index], data.canvas) for warp in done.warps],
                [warp.features[index] for warp in done.warps],
                f"{what} {true[index]}",
                f"says {said[index]}",
                said[index] == true[index],
            )
            for index, image in enumerate(batch.images)
        ]
    )


def outline_of(grid: Tensor, side: int) -> Tensor:
    """(points, 2), where the pixels along the border of the output read an image of a side, in pixels; clockwise."""
    border = torch.cat((grid[0], grid[1:, -1], grid[-1, :-1].flip(0), grid[1:-1, 0].flip(0)))
    return (border + 1) * side / 2


def figure_colocalisation(
    model: str | Path | None = None, seed: int | None = None, root: str | None = None, steps: int | None = None
) -> Animated:
    """How the windows of three images find what all hundred have in common; trains.

    Args:
        model: a run of the encoder's preset.
        seed: of images and weights; 0 if not given.
        root: where MNIST lies.
        steps: of the training; the preset's if not given.

    Raises:
        MistError: without an encoder.

    Reference: S003, figure 1.
    """
    if model is None:
        raise MistError(f"stn-colocalisation needs an encoder: `mist train {ENCODER}`, and give --model runs/{ENCODER}")
    preset = find_preset(COLOCALISATION).experiment
    seed, length = 0 if seed is None else seed, preset.train.steps if steps is None else steps
    assert isinstance(preset.data, CommonObjectConfig)
    every = -(-length // FRAMES)
    data = dataclasses.replace(preset.data, root=root, seed=seed)
    experiment = dataclasses.replace(
        preset,
        data=data,
        step=dataclasses.replace(preset.step, decay_steps=length),
        train=dataclasses.replace(preset.train, seed=seed, steps=length, log_every=every, evaluate_every=0),
        evaluation_images=0,
        start_from=str(model),
    )
    images = CommonObjects(data, "test", SHOWN)
    batch, history = images.batch(range(SHOWN)), dict[int, list[Detections]]()

    def look(step: int, network: nn.Module) -> None:
        assert isinstance(network, Colocaliser)
        network.eval()  # while it learns it would take these few images for a batch
        device = next(network.parameters()).device
        found = network.explain(batch.images.to(device), 1).detections
        history[step] = [Detections(one.boxes.cpu(), one.scores.cpu(), None) for one in found]

    with tempfile.TemporaryDirectory() as folder:
        if train(experiment, Path(folder) / "run", observe=look).interrupted:
            raise KeyboardInterrupt
    moments = sorted({min(history, key=lambda step: abs(step - share * length)) for share in MOMENTS})
    assert batch.boxes is not None
    boxes = batch.boxes
    frames = tuple(_windows(batch.images, boxes, {step: found}) for step, found in history.items())
    return Animated(_windows(batch.images, boxes, {step: history[step] for step in moments}), frames)


def _windows(images: Tensor, boxes: list[Tensor], history: dict[int, list[Detections]]) -> Figure:
    """A row an image and a column a step; of a single step, one row of images."""
    cells = [(row, step) for row in range(len(images)) for step in history]
    found = [history[step][row] for row, step in cells]
    return draw_scenes(
        [images[row] for row, _ in cells],
        found,
        [boxes[row] for row, _ in cells],
        columns=max(len(history), len(images) if len(history) == 1 else 1),
        correct=[right_detections(one, boxes[row], None) for one, (row, _) in zip(found, cells, strict=True)],
        titles=[f"step {step}" for _, step in cells],
        inches=1.4,
    )
