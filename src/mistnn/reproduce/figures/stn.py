"""Figures of Spatial Transformer Networks: their images, where each transformer looks, co-localisation over time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from mistnn.data import CommonObjects, DistortedConfig, DistortedDigits
from mistnn.data.digits.distorted import Distortion
from mistnn.devices import device_of
from mistnn.errors import MistError
from mistnn.experiments.stn import ENCODER
from mistnn.inference.judged import right_by_overlap
from mistnn.models.stn import Colocaliser, StnClassifier
from mistnn.presets import find_preset
from mistnn.presets.stn.digits import CANVAS
from mistnn.records import Detections
from mistnn.reproduce.figures.source import Request, first_samples, images_of, nearest_steps, train_aside
from mistnn.viz import TransformerExample, draw_samples, draw_scenes, draw_transformers
from mistnn.weights import read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 6  #: Test images in the figure of addition; the paper shows one.
COLUMNS = 8
TITLES: dict[Distortion, str] = {
    "r": "R, rotated",
    "rts": "RTS, rotated, translated, scaled",
    "p": "P, projected",
    "e": "E, elastic",
    "tc": "TC, translated in clutter",
}
COLOCALISATION = "stn-coloc-tc-8"  #: The digit of the paper's figure 1.
SHOWN = 3  #: Images of figure 1, as in the paper.
MOMENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.48, 0.64, 1.0)  #: Moments that figure 1 shows, as shares of the training.
FRAMES = 60  #: Frames of the animation after the first; one for each line of the log.


class Animated(NamedTuple):
    """A figure of some moments, and the frames of all."""

    figure: Figure
    frames: tuple[Figure, ...]


def stn_samples(request: Request) -> Figure:
    """A sheet of distorted test digits; the request's model is not used.

    Reference: S003, section 1.3.
    """
    images = {title: DistortedConfig(distortion, CANVAS[distortion]) for distortion, title in TITLES.items()}
    sheets = {title: first_samples(request.own(config), COLUMNS) for title, config in images.items()}
    return draw_samples(sheets, boxes=False)


def figure_addition(request: Request) -> Figure:
    """Test images with the border of what each transformer reads, and the class that the network predicts.

    Reference: S003, table 1, right.
    """
    model = request.needed("stn-addition shows a trained network: give --model RUN, a run of stn-2xfcn-tps-addition")
    problem = (
        f"stn-addition shows spatial transformers on distorted digits, and {model} has none: give a run of a preset "
        "such as stn-2xfcn-tps-addition"
    )
    data = images_of(model, ("distorted",), problem, request)
    network = cast(StnClassifier, request.load(model))
    if read_config(model).kind != "stn" or network.transformers is None:
        raise MistError(problem)
    batch = DistortedDigits(data, "test", EXAMPLES).batch(range(EXAMPLES))
    with torch.inference_mode():
        done = network(batch.images.to(device_of(network)))
    predicted, true = done.logits.argmax(1).tolist(), network.target(batch).tolist()
    what = "sum" if data.digits > 1 else "digit"
    examples = []
    for index, (image, label, guess) in enumerate(zip(batch.images, true, predicted, strict=True)):
        outlines = [outline_of(warp.grid[index].cpu(), data.canvas) for warp in done.warps]
        outputs = [warp.features[index].cpu() for warp in done.warps]
        truth, prediction = f"{what} {label}", f"says {guess}"
        examples.append(TransformerExample(image, outlines, outputs, truth, prediction, guess == label))
    return draw_transformers(examples)


def outline_of(grid: Tensor, side: int) -> Tensor:
    """(points, 2): where the border pixels of a transformer's output read the image, in its pixels, clockwise."""
    border = torch.cat((grid[0], grid[1:, -1], grid[-1, :-1].flip(0), grid[1:-1, 0].flip(0)))
    return (border + 1) * side / 2


def figure_colocalisation(request: Request) -> Animated:
    """How the windows of three images find what all hundred have in common. Trains with the request's encoder.

    Reference: S003, figure 1.
    """
    encoder = request.needed(
        f"stn-colocalisation needs an encoder: `mist train {ENCODER}`, and give --model runs/{ENCODER}"
    )
    preset = find_preset(COLOCALISATION).experiment
    length = preset.train.steps if request.steps is None else request.steps
    changed = preset.with_seed_and_steps(request.seed or 0, length)
    data: Any = changed.data.at(request.root)
    loop = dataclasses.replace(changed.train, log_every=-(-length // FRAMES), evaluate_every=0)
    experiment = dataclasses.replace(changed, data=data, train=loop, evaluation_images=0, start_from=str(encoder))
    images = CommonObjects(data, "test", SHOWN)
    batch, history = images.batch(range(SHOWN)), dict[int, list[Detections]]()

    def look(step: int, network: nn.Module) -> None:
        colocaliser = cast(Colocaliser, network)
        colocaliser.eval()  # in training mode these few images would change its statistics
        images = batch.images.to(device_of(colocaliser))
        history[step] = [one.cpu() for one in colocaliser.explain(images, 1).detections]

    train_aside(request.on_device(experiment), look)
    assert batch.boxes is not None
    moments, boxes = nearest_steps(history, MOMENTS, length), batch.boxes
    frames = tuple(_windows(batch.images, boxes, {step: found}) for step, found in history.items())
    return Animated(_windows(batch.images, boxes, {step: history[step] for step in moments}), frames)


def _windows(images: Tensor, boxes: list[Tensor], history: dict[int, list[Detections]]) -> Figure:
    """One row per image and one column per step; for a single step, one row of images."""
    cells = [(row, step) for row in range(len(images)) for step in history]
    found = [history[step][row] for row, step in cells]
    return draw_scenes(
        [images[row] for row, _ in cells],
        found,
        [boxes[row] for row, _ in cells],
        columns=max(len(history), len(images) if len(history) == 1 else 1),
        correct=[right_by_overlap(one, boxes[row], None) for one, (row, _) in zip(found, cells, strict=True)],
        titles=[f"step {step}" for _, step in cells],
        inches=1.4,
    )
