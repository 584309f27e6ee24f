"""Figure 7 of MIST: its losses and its heat map over a training, on MNIST hard and on house numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from mistnn.data.house_numbers.placed_numbers import holds_numbers
from mistnn.data.house_numbers.svhn import holds_svhn
from mistnn.errors import MistError
from mistnn.experiments import Experiment, read_log, restore
from mistnn.models.mist import Mist
from mistnn.presets import find_preset
from mistnn.reproduce.figures.source import Request, first_samples, nearest_steps, train_aside
from mistnn.training.runfolder import METRICS
from mistnn.viz import Curve, draw_evolution
from mistnn.weights import resolve, shipped_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIGITS = "mist-mnist-hard"  #: The preset of figure 7: classification on MNIST hard.
NUMBERS = (("mist-svhn", holds_svhn), ("mist-numbers", holds_numbers))
"""Presets of house numbers, and what tells whether a folder holds their images."""
MOMENTS = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Moments at which the heat map is shown, as shares of the training; most changes early (our choice)."""


def figure_7(request: Request) -> Figure:
    """The two losses while digits of MNIST hard are learnt from class counts; trained here, also the heat map.

    The request's model is a run of such a preset, whose log is drawn. Without one, the preset ``mist-mnist-hard`` is
    trained with the request's seed and steps, and the heat map of a test scene is shown below the curves.

    Reference: MIST (CVPR 2021), figure 7.
    """
    if request.model is not None:
        return draw_evolution(_log_of(request, "fig7", ("scenes",), DIGITS))
    return _trained(request, find_preset(DIGITS).experiment.at(request.root))


def svhn_figure_7(request: Request) -> Figure:
    """The heat map of a test image of a house number while MIST is trained on them, below the two losses.

    Each heat map is as bright as its own peak, as in the paper. The request's root decides which house numbers are
    trained on: SVHN's own, or the re-assembled test crops. With a run as the model, only its losses are drawn.

    Reference: earlier MIST version (S001), figure 7 (c).
    """
    if request.model is not None:
        return draw_evolution(_log_of(request, "svhn-fig7", ("svhn", "numbers"), NUMBERS[0][0]))
    if request.root is None:
        raise MistError("svhn-fig7 trains on house numbers: give their folder with --data-root DIR")
    held = [name for name, holds in NUMBERS if holds(Path(request.root).expanduser())]
    if not held:
        raise MistError(
            f"{request.root} holds no house numbers: give the folder of SVHN's full numbers (train/, test/) or of the "
            "re-assembled ones (boxes.json)"
        )
    return _trained(request, find_preset(held[0]).experiment.at(request.root), own_scale=True)


def _trained(request: Request, preset: Experiment, own_scale: bool = False) -> Figure:
    """Trains, and draws the losses and the heat map of the first test image at some steps."""
    experiment = request.on_device(_with_lines_at_moments(preset, request.seed, request.steps))
    (sample,) = first_samples(experiment.data, 1)
    history: dict[int, tuple[Tensor, Tensor]] = {}

    def look(step: int, network: object) -> None:
        mist = cast(Mist, network)
        with torch.no_grad():
            heatmaps = mist.heatmaps(sample.image[None].to(next(mist.parameters()).device))
            points = mist.keypoints(heatmaps).keypoints[0, :, :2]
        history[step] = (heatmaps[0].sum(0).cpu(), points.cpu())

    losses = losses_of(train_aside(experiment, look))
    moments = nearest_steps(history, MOMENTS, max(history))
    return draw_evolution(losses, sample.image, [(step, *history[step]) for step in moments], own_scale)


def _log_of(request: Request, figure: str, kinds: tuple[str, ...], preset: str) -> dict[str, Curve]:
    """The losses in a run's log.

    Raises:
        MistError: if the run has no log, or was not trained by lifting to classify such images.
    """
    model = request.needed(f"{figure} needs a run")
    if request.steps is not None:
        raise MistError(
            f"--steps {request.steps} is of a new training, and --model {model} draws its log: leave one out"
        )
    folder, stored = resolve(model), restore(model)
    network: Any = stored.model
    if stored.data.kind not in kinds or stored.step.kind != "lifted" or not network.class_names:
        raise MistError(
            f"{figure} shows how MIST learns to classify, and {model} is no run of that kind: give one of the preset "
            f"{preset}, or none"
        )
    if not (folder / METRICS).is_file() and str(model) in shipped_names():
        raise MistError(f"--model {model} is shipped without the log of its training: give a run folder, or none")
    return losses_of(read_log(folder))


def _with_lines_at_moments(preset: Experiment, seed: int | None, steps: int | None) -> Experiment:
    """The preset with a seed and a length, and a line in the log near every moment shown."""
    length = preset.train.steps if steps is None else steps
    experiment = preset.with_steps(length) if seed is None else preset.with_seed_and_steps(seed, length)
    every = min(preset.train.log_every, max(1, int(length * MOMENTS[1])))
    loop = dataclasses.replace(experiment.train, log_every=every, evaluate_every=0)
    return dataclasses.replace(experiment, train=loop, evaluation_images=0)


def losses_of(log: list[dict[str, float]]) -> dict[str, Curve]:
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
