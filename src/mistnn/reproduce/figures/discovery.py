"""Figures 3, 4 and 8 of MIST (CVPR 2021): what models find that were trained without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mistnn.data import GaborNoise
from mistnn.data.gabor import gabor_kernel, tone
from mistnn.devices import device_of
from mistnn.errors import MistError
from mistnn.inference.judged import OVERLAP
from mistnn.models.mist import Mist
from mistnn.ops.matching import UNMATCHED, box_iou, greedy_match
from mistnn.records import Sample
from mistnn.reproduce.figures.source import RUNS, Request, first_samples, images_of, scenes_of
from mistnn.training.runfolder import CONFIG
from mistnn.viz import Explained, draw_parts, draw_syntheses
from mistnn.weights import read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HARD_MODEL = "mist-discover-mnist-hard"
UNEVEN_MODEL = "mist-discover-mnist-uneven"
GABOR_MODEL = "mist-discover-gabor"
EXAMPLES = 2  #: Images in figures 3 and 4; figure 3 of the paper shows two.
UNEVEN_EXAMPLES = 5  #: Scenes in figure 8 (our choice).
KERNELS = 9  #: Kernels below an image of figure 4 (our choice).
NEAR = 0.5  #: A keypoint finds an impulse within this share of the kernel's width (not stated for figure 4).


def figure_3(request: Request) -> Figure:
    """Two test scenes: input, boxes, reconstruction, and every patch before and after the auto-encoder.

    K is each scene's true number of digits.

    Reference: MIST (CVPR 2021), figure 3.
    """
    model = request.model or HARD_MODEL
    network, scenes = _network(request, model), first_samples(scenes_of(model, request, "fig3"), EXAMPLES)
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
    network = _network(request, model)
    examples = [_explain_noise(network, noise, index) for index in range(EXAMPLES)]
    return draw_parts(examples, marks="points", rows=("true", "found"))


def figure_8(request: Request) -> Figure:
    """Test scenes of unevenly placed digits by a model that learnt on such scenes: boxes, and the reconstruction.

    The model is the request's, or the run of the preset ``mist-discover-mnist-uneven`` below ``runs``. K is each
    scene's true number of digits.

    Reference: MIST supplement, section D and figure 8: the method learns "even when the digits are placed unevenly".
    """
    model = request.model
    if model is None:
        model = RUNS.parent / UNEVEN_MODEL
        if not (model / CONFIG).is_file():
            raise MistError(
                f"fig8 shows a model that learnt on unevenly placed digits, and {model} holds none: `mist train "
                f"{UNEVEN_MODEL}`, or give its run with --model"
            )
    data = scenes_of(model, request, "fig8")
    if data.layout != "uneven":
        raise MistError(
            f"fig8 shows a model that learnt on unevenly placed digits, and {model} was trained on the layout "
            f"{data.layout}: `mist train {UNEVEN_MODEL}`, and give its run with --model"
        )
    network = _network(request, model)
    return draw_syntheses([explain(network, scene) for scene in first_samples(data, UNEVEN_EXAMPLES)])


@torch.inference_mode()
def explain(model: Mist, sample: Sample) -> Explained:
    """How a model with a decoder explains an image with known boxes; K is their number.

    A box is right if its IoU with a true box is above ``OVERLAP``, one to one, whatever the class.
    """
    assert sample.boxes is not None
    image = sample.image[None].to(device_of(model))
    keypoints = model.keypoints(model.heatmaps(image), len(sample.boxes)).keypoints
    patches = model.cut(image, keypoints)
    decoded = model.task_network(patches).decoded
    assert decoded is not None
    rebuilt, boxes = model.rebuild(decoded, keypoints, image)[0].cpu(), model.boxes(keypoints)[0].cpu()
    match = greedy_match(box_iou(boxes, sample.boxes), OVERLAP)
    numbers = tuple(str(number) for number in range(1, len(boxes) + 1))
    return Explained(sample.image, rebuilt, boxes, sample.boxes, match, patches[0].cpu(), decoded[0].cpu(), numbers)


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


def _network(request: Request, model: str | Path) -> Mist:
    kind = read_config(model).kind
    if kind != "mist":
        raise MistError(f"{model} is of kind {kind}, whose patches this figure can't draw: draw fig2 with it")
    network = cast(Mist, request.load(model))
    if not network.config.decoder:
        raise MistError(
            f"{model} has no decoder (model.decoder=0) to reconstruct patches: give a model of a mist-discover preset"
        )
    return network
