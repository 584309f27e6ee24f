"""Early stopping of a run on photographs: of the weights during a run, those that count the validation images best.

The heads are small, so their weights are kept at each checkpoint. Their errors on the validation images are compared
after the last step. All states of a run are compared, since the error of a few images is not smooth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mistnn.data.folder.images import FolderImages, known_images
from mistnn.errors import MistError
from mistnn.experiments.experiment import Experiment
from mistnn.models.photos import PhotoMist
from mistnn.training.runfolder import STATES, write_atomically
from mistnn.weights import load_model

FROZEN = "pyramid."
"""The weights of this part are never trained, and not kept."""
LEAST_JUDGES, MOST_JUDGES = 20, 200
"""With fewer validation images the last weights stay; of more, some are used, evenly spaced (our choice)."""


class Judge(NamedTuple):
    """A validation image: its packed features (channels, rows, columns), height and width, and counts (classes,)."""

    features: Tensor
    size: Tensor
    counts: Tensor


def heads_of(model: PhotoMist) -> dict[str, Tensor]:
    """Copies of all weights but those of the pretrained network."""
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith(FROZEN)}
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in kept.items()}


def keep_state(model: PhotoMist, folder: Path, steps: int) -> None:
    """Writes the weights of the heads after so many iterations into a run folder."""
    write_atomically(folder / STATES / f"{steps:08d}.safetensors", save(heads_of(model)))


def stored_states(folder: Path) -> dict[int, dict[str, Tensor]]:
    """What ``keep_state`` wrote, by the number of iterations.

    Raises:
        MistError: if a file can't be read.
    """
    states = {}
    for path in sorted((folder / STATES).glob("*.safetensors")):
        try:
            states[int(path.stem)] = load_file(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise MistError(f"{path}: can't be read ({error}): remove it, and run the same command again") from error
    return states


@torch.inference_mode()
def judges_of(model: PhotoMist, images: FolderImages) -> list[Judge]:
    """The validation images that judge, with their features."""
    judges = []
    for index in range(0, len(images.images), math.ceil(len(images.images) / MOST_JUDGES)):
        pixels, counts = images.prepared(index), images.images[index].counts
        if counts is not None:
            features = model.pyramid(pixels[None])[0].half()
            judges.append(Judge(features, torch.tensor(pixels.shape[-2:]), torch.tensor(counts)))
    return judges


@torch.inference_mode()
def validation_error(model: PhotoMist, judges: Iterable[Judge]) -> float:
    """The mean over images of the absolute errors of the counts of all classes together; the model is in eval mode.

    The sums of the density are not rounded, so that the error changes smoothly with the weights.
    """
    errors = []
    for one in judges:
        sums = model(one.features[None].float(), one.size[None]).density.sum((2, 3))[0]
        errors.append((sums - one.counts).abs().sum())
    return float(torch.stack(errors).double().mean())


def best_state(model: PhotoMist, states: Mapping[int, Mapping[str, Tensor]], judges: list[Judge]) -> int:
    """The number of iterations of the state with the smallest error, whose weights the model has afterwards.

    With fewer than ``LEAST_JUDGES`` images it is the last one. The model is in eval mode afterwards.
    """
    model.eval()

    def error(steps: int) -> float:
        model.load_state_dict(states[steps], strict=False)
        return validation_error(model, judges)

    best = max(states) if len(judges) < LEAST_JUDGES else min(sorted(states), key=error)
    model.load_state_dict(states[best], strict=False)
    return best


def choose_state(out: Path, experiment: Experiment) -> tuple[int, int]:
    """Gives the model of a run the weights with the smallest error on the validation images.

    Returns:
        The number of iterations of these weights, and that of the last ones.

    Raises:
        MistError: if a file of weights can't be read, or is of another network.
    """
    from mistnn.experiments.run import save_again

    model: Any = load_model(out)
    states = stored_states(out)
    wanted = {name: value.shape for name, value in heads_of(model).items()}
    for steps, state in states.items():
        if {name: value.shape for name, value in state.items()} != wanted:
            raise MistError(f"{out / STATES}: the weights of step {steps} are of another network: remove the folder")
    data: Any = experiment.data
    enough = states and len(known_images(data.content(), "validation")) >= LEAST_JUDGES
    judges = judges_of(model, data.open("validation")) if enough else []
    last = max(states, default=experiment.train.steps)
    best = best_state(model, states, judges) if states else last
    chosen = dataclasses.replace(model.config, chosen_at=best)
    save_again(out, out, model, dataclasses.replace(experiment, model=chosen))
    return best, last
