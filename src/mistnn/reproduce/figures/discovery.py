"""Figures 3, 4, 7 and 8 of MIST (CVPR 2021): what models find that were trained without labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mistnn.data import GaborNoise
from mistnn.data.gabor import gabor_kernel, tone
from mistnn.errors import MistError
from mistnn.experiments import Experiment, read_log
from mistnn.inference.judged import OVERLAP
from mistnn.models.mist import Mist
from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.presets import find_preset
from mistnn.presets.mist.discover import UNEVEN
from mistnn.records import Sample
from mistnn.reproduce.figures.source import Request, first_samples, images_of, nearest_steps, scenes_of, train_aside
from mistnn.training.runfolder import METRICS
from mistnn.viz import Curve, Explained, draw_evolution, draw_parts, draw_syntheses
from mistnn.weights import load_model, read_config, resolve, shipped_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HARD_MODEL = "mist-discover-mnist-hard"
UNEVEN_MODEL = "mist-discover-mnist-hard-one-scale"
GABOR_MODEL = "mist-discover-gabor"
TRAINED = "demo-discover-paper"  #: The preset that figure 7 trains if no run is given.
EXAMPLES = 2  #: Images in figures 3 and 4; figure 3 of the paper shows two.
UNEVEN_EXAMPLES = 5  #: Scenes in figure 8 (our choice).
KERNELS = 9  #: Kernels below an image of figure 4 (our choice).
NEAR = 0.5  #: A keypoint finds an impulse within this share of the kernel's width (not stated for figure 4).
MOMENTS = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Moments at which figure 7 shows the heat map, as shares of the training; most changes early."""


def figure_3(request: Request) -> Figure:
    """Two test scenes: input, boxes, reconstruction, and every patch before and after the auto-encoder.

    K is each scene's true number of digits.

    Reference: MIST (CVPR 2021), figure 3.
    """
    model = request.model or HARD_MODEL
    network, scenes = _network(model), first_samples(scenes_of(model, request, "fig3"), EXAMPLES)
    return draw_parts([explain(network, scene) for scene in scenes])


def figure_4(request: Request) -> Figure:
    """Two images of Gabor noise: input, impulses (right, wrong, missed), reconstruction, and some kernels.

    A detection is right if it lies within half a kernel's width of an impulse, one to one, nearest pairs first. Below:
    the right detections of highest response, the true kernel above the reconstructed one.

    Reference: MIST (CVPR 2021), figure 4.
    """
    model = request.model or GABOR_MODEL
    problem = f"fig4 shows Gabor noise and {model} was trained on scenes of digits: train {GABOR_MODEL}"
    noise = GaborNoise(images_of(model, ("gabor",), problem, request), "test", EXAMPLES)
    network = _network(model)
    examples = [_explain_noise(network, noise, index) for index in range(EXAMPLES)]
    return draw_parts(examples, marks="points", rows=("true", "found"))


def figure_7(request: Request) -> Figure:
    """The two losses over a training; if it is trained here, also the heat map of a test scene at some steps.

    The request's model is a run folder, whose log is drawn. Without one, the preset ``demo-discover-paper`` is trained
    with the request's seed and steps, on digits that ship with the package.

    Reference: MIST (CVPR 2021), figure 7.
    """
    model, steps = request.model, request.steps
    if model is not None:
        if steps is not None:
            raise MistError(f"--steps {steps} is of a new training, and --model {model} draws its log: leave one out")
        folder = resolve(model)
        if not (folder / METRICS).is_file() and str(model) in shipped_names():
            raise MistError(f"--model {model} is shipped without the log of its training: give a run folder, or none")
        return draw_evolution(_losses(read_log(folder)))
    experiment = _training(request.seed, steps)
    (scene,) = first_samples(experiment.data, 1)
    history: dict[int, tuple[Tensor, Tensor]] = {}

    def look(step: int, network: object) -> None:
        mist = cast(Mist, network)
        with torch.no_grad():
            heatmaps = mist.heatmaps(scene.image[None].to(next(mist.parameters()).device))
            points = mist.keypoints(heatmaps).keypoints[0, :, :2]
        history[step] = (heatmaps[0].sum(0).cpu(), points.cpu())

    losses = _losses(train_aside(experiment, look))
    moments = nearest_steps(history, MOMENTS, max(history))
    return draw_evolution(losses, scene.image, [(step, *history[step]) for step in moments])


def figure_8(request: Request) -> Figure:
    """Test scenes of unevenly placed digits: boxes, and below them the reconstruction.

    The scenes are those of the preset ``mist-discover-mnist-uneven``, made of the digits on which the model was trained
    (MNIST, or those that ship with the package). K is each scene's true number of digits.

    Reference: MIST supplement, figure 8.
    """
    model, seed = request.model or UNEVEN_MODEL, UNEVEN.seed if request.seed is None else request.seed
    own = scenes_of(model, request, "fig8")
    data = dataclasses.replace(UNEVEN, source=own.source, root=own.root, seed=seed)
    network = _network(model)
    return draw_syntheses([explain(network, scene) for scene in first_samples(data, UNEVEN_EXAMPLES)])


@torch.inference_mode()
def explain(model: Mist, sample: Sample) -> Explained:
    """How a model with a decoder explains an image with known boxes; K is their number.

    A box is right if its IoU with a true box is above ``OVERLAP``, one to one, whatever the class.
    """
    assert sample.boxes is not None
    image = sample.image[None]
    keypoints = model.keypoints(model.heatmaps(image), len(sample.boxes)).keypoints
    patches = model.cut(image, keypoints)
    decoded = model.task_network(patches).decoded
    assert decoded is not None
    rebuilt, boxes = model.rebuild(decoded, keypoints, image)[0], model.boxes(keypoints)[0]
    match = greedy_match(box_iou(boxes, sample.boxes), OVERLAP)
    numbers = tuple(str(number) for number in range(1, len(boxes) + 1))
    return Explained(sample.image, rebuilt, boxes, sample.boxes, match, patches[0], decoded[0], numbers)


def match_places(found: Tensor, truth: Tensor, radius: float) -> Int[Tensor, " k"]:
    """For each found position the index of its true one, or ``UNMATCHED``: one to one, the nearest pair first.

    Args:
        found: (k, 2) positions, or (k, 4) boxes, whose centres are used.
        truth: (n, 2) or (n, 4).
        radius: in pixels; a pair at exactly this distance still matches.
    """
    distance = torch.cdist(found[:, :2].double(), truth[:, :2].double())
    return greedy_match(-distance, -torch.inf, distance <= radius)


def _explain_noise(model: Mist, noise: GaborNoise, index: int) -> Explained:
    explained = explain(model, noise[index])
    match = match_places(explained.found, explained.truth, NEAR * noise.config.box_size)
    best = (match != UNMATCHED).nonzero()[:KERNELS, 0]  # sorted by response
    squares = explained.found[best].clone()
    squares[:, 2:] *= model.config.patch_extent / model.config.box_size
    true = [
        _true_kernel(noise, index, int(match[row]), square, model.config.patch_size)
        for row, square in zip(best.tolist(), squares, strict=True)
    ]
    upper = torch.stack(true) if true else explained.upper[:0]
    return explained._replace(match=match, upper=upper, lower=explained.lower[best], names=())


def _true_kernel(noise: GaborNoise, index: int, impulse: int, square: Tensor, size: int) -> Tensor:
    """(1, size, size): the kernel of one impulse, seen in a square (x, y, width, height) of the image."""
    config, impulses = noise.config, noise.impulses(index)
    across = ((np.arange(size) + 0.5) / size - 0.5) * float(square[2])
    offsets = np.stack(np.meshgrid(across, across), axis=-1) + square[:2].double().numpy() - impulses.positions[impulse]
    frequency, orientation = float(impulses.frequencies[impulse]), float(impulses.orientations[impulse])
    kernel = gabor_kernel(offsets, frequency, orientation, config.bandwidth, config.ground)
    kernel = kernel * impulses.weights[impulse] * (np.abs(offsets) <= config.box_size / 2).all(-1)
    return torch.from_numpy(tone(kernel, config.ground, config.gain)).float()[None]


def _network(model: str | Path) -> Mist:
    kind = read_config(model).kind
    if kind != "mist":
        raise MistError(f"{model} is of kind {kind}, whose patches this figure can't draw: draw fig2 with it")
    network = cast(Mist, load_model(model))
    if not network.config.decoder:
        raise MistError(
            f"{model} has no decoder (model.decoder=0) to reconstruct patches: give a model of a mist-discover preset"
        )
    return network


def _training(seed: int | None, steps: int | None) -> Experiment:
    """The preset that figure 7 trains, with a line in the log near every moment shown."""
    preset = find_preset(TRAINED).experiment
    length = preset.train.steps if steps is None else steps
    experiment = preset.with_steps(length) if seed is None else preset.with_seed_and_steps(seed, length)
    every = min(preset.train.log_every, max(1, int(length * MOMENTS[1])))
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, log_every=every))


def _losses(log: list[dict[str, float]]) -> dict[str, Curve]:
    """The task loss and the heat-map loss, from the lines that have them: those of an evaluation have not."""
    lines = [line for line in log if "task" in line and "heatmap" in line]
    if not lines:
        raise MistError(f"{METRICS} holds no line with the losses yet: train the run for some more steps")
    steps = [int(line["step"]) for line in lines]
    task, heatmap = [line["task"] for line in lines], [1000 * line["heatmap"] for line in lines]
    return {
        r"(a)  task loss  $\mathcal{L}_\mathrm{task}$": Curve(steps, task, "log", "per image"),
        r"(b)  heat-map loss  $\|G(\{x_k\}) - H_\eta(I)\|^2$": Curve(steps, heatmap, "linear", "per pixel, in 1/1000"),
    }
