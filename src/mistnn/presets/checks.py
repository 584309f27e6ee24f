"""Whether the parts of an experiment fit each other: said before anything is trained."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from mistnn.data import (
    CommonObjectConfig,
    FolderConfig,
    GaborConfig,
    NaturalConfig,
    NumbersConfig,
    ScatterConfig,
    ScenesConfig,
    SvhnConfig,
)
from mistnn.data.digits.scatter import CLASSES
from mistnn.data.folder.content import read_folder
from mistnn.data.house_numbers.number_list import DIGITS
from mistnn.errors import MistError
from mistnn.models.air import AirConfig
from mistnn.models.conncomp import ConnCompConfig
from mistnn.models.mist import LiftedStepConfig, MistConfig
from mistnn.models.rivals import Xie20Config
from mistnn.models.stn import ColocaliserConfig
from mistnn.presets import natural_evaluation
from mistnn.presets.stn_evaluation import check_classifier, check_colocaliser
from mistnn.presets.systems import (
    ClassifiedConfig,
    ClassifierConfig,
    GenerativeConfig,
    ModelConfig,
    NaturalModelConfig,
    TrainingStepConfig,
)
from mistnn.training import TrainConfig

if TYPE_CHECKING:
    from mistnn.presets.experiment import Experiment

NUMBERS_AN_INPUT = 5
"""What a training step keeps of a patch: so many numbers for each of its pixels and channels of the first level
(measured with the small auto-encoder: 4.6)."""
MEMORY_SHARE = 0.8
"""Of the computer's memory, that the patches of a step may take (our choice)."""


def check(experiment: Experiment) -> None:
    """Refuses an experiment whose parts don't fit each other.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    if experiment.evaluation_images < 0:
        raise MistError(
            f"evaluation_images={experiment.evaluation_images} is negative: give 0 to measure nothing while training"
        )
    model, data = experiment.model, experiment.data
    if isinstance(data, ClassifiedConfig) or isinstance(model, ClassifierConfig):
        check_classifier(model, data)
        return
    if isinstance(data, CommonObjectConfig) or isinstance(model, ColocaliserConfig):
        check_colocaliser(model, data)
        _check_alone("Localisers of a common object", "each keep means of places of its own")
        if experiment.train.batch_size < 2:
            raise MistError("train.batch_size=1: what images have in common takes 2 or more of them in a batch")
        return
    if isinstance(data, FolderConfig):
        _check_folder(model, experiment.step, data, experiment.train)
        return
    if isinstance(data, NaturalConfig) or isinstance(model, NaturalModelConfig):
        natural_evaluation.check_natural(model, data)
        return
    if isinstance(data, SvhnConfig | NumbersConfig):
        _check_numbers(model, data)
        return
    if isinstance(model, GenerativeConfig):
        _check_generative(model, data)
        return
    if model.class_names and isinstance(data, GaborConfig):
        raise MistError("Gabor noise has no classes to learn: give --model.class-names nothing, or another preset")
    if model.class_names and isinstance(data, ScenesConfig) and len(model.class_names) != data.classes:
        raise MistError(
            f"model.class_names has {len(model.class_names)} classes and data.classes={data.classes}: make them equal"
        )
    if isinstance(data, GaborConfig) and data.ground == "grey" and isinstance(model, MistConfig) and model.decoder:
        raise MistError(
            "data.ground=grey can't be redrawn as a sum of patches on black, which is all this decoder makes: leave "
            "data.ground=black"
        )
    if not 1 <= model.k <= data.canvas**2:
        raise MistError(f"model.k={model.k} must be from 1 to the {data.canvas**2} pixels of the canvas")
    if model.class_names and isinstance(data, ScatterConfig) and len(model.class_names) != CLASSES:
        raise MistError(f"model.class_names has {len(model.class_names)} classes, and there are {CLASSES} digits")
    if isinstance(model, Xie20Config) and not model.k < (data.canvas // model.stride) ** 2:
        raise MistError(
            f"model.k={model.k} must be below the {(data.canvas // model.stride) ** 2} places that model.stride="
            f"{model.stride} leaves on a canvas of {data.canvas} px: give a smaller stride or K"
        )
    if model.channels != 1:
        raise MistError(f"model.channels={model.channels}, but these images are grey: give 1")


def _check_generative(model: GenerativeConfig, data: ScenesConfig | ScatterConfig | GaborConfig) -> None:
    """Systems that draw the image: nothing is named, and there must be room for every object."""
    _check_alone("SPAIR, AIR, DAIR and ConnComp", "draw the same noise")
    if model.channels != 1:
        raise MistError(f"model.channels={model.channels}, but these images are grey: give 1")
    most = max(data.counts)
    if isinstance(model, AirConfig):
        if model.canvas != data.canvas or (isinstance(data, ScatterConfig) and data.crop not in (None, data.canvas)):
            raise MistError(
                f"model.canvas={model.canvas}, and AIR sees images of that one size: give data.canvas={model.canvas} "
                "and no data.crop"
            )
        if most > model.k:
            raise MistError(
                f"data.counts: an image may hold {most} objects, and AIR finds at most model.k={model.k}, one a step: "
                f"give --k {most} or fewer objects"
            )
        return
    if isinstance(model, ConnCompConfig):
        return
    sides = {"canvas": data.canvas}
    if isinstance(data, ScatterConfig) and data.crop is not None:
        sides["crop"] = data.crop
    for name, side in sides.items():
        if side % model.cell:
            raise MistError(
                f"data.{name}={side}: an image of {side} x {side} pixels is not made of cells of {model.cell} x "
                f"{model.cell}, as SPAIR needs it: give a multiple of {model.cell}"
            )
    seen = min(sides.values())
    if model.background_side not in (0, seen) or (model.background_side and seen != data.canvas):
        raise MistError(
            f"model.background_side={model.background_side}, but images of {seen} of {data.canvas} px are seen: a "
            "background is shared by whole images of one size; give that size and no data.crop"
        )
    rows, columns = model.grid(seen, seen)
    if most > rows * columns:
        raise MistError(
            f"data.counts: an image may hold {most} objects, and SPAIR finds at most one a cell, {rows * columns} in "
            f"the {seen} x {seen} pixels that it sees in training: give fewer objects or a larger data."
            f"{min(sides, key=sides.__getitem__)}"
        )


def _check_alone(system: str, otherwise: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise MistError(
            f"{system} train in one process: several would {otherwise}. Start it without accelerate launch, or with "
            "--num_processes 1"
        )


def _check_numbers(model: ModelConfig, data: SvhnConfig | NumbersConfig) -> None:
    """Refuses a system that is not for house numbers.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    if not isinstance(model, MistConfig):
        raise MistError("house numbers are for MIST and its supervised twin: train a preset mist-... or supervised-...")
    if model.class_names and len(model.class_names) != DIGITS:
        raise MistError(f"model.class_names has {len(model.class_names)} classes, and there are {DIGITS} digits")
    if model.channels != 3:
        raise MistError(f"model.channels={model.channels}, but these images are in colour: give 3")
    if model.preparation.changes:
        raise MistError("model.preparation must leave house numbers as they are: their size is data.height, data.width")
    if not 1 <= model.k <= data.height * data.width:
        raise MistError(f"model.k={model.k} must be from 1 to the {data.height * data.width} pixels of the image")


def _check_folder(model: ModelConfig, step: TrainingStepConfig, data: FolderConfig, train: TrainConfig) -> None:
    """Refuses a system that is not for a folder of one's own, or one that doesn't fit what it holds.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    if not isinstance(model, MistConfig) or not isinstance(step, LiftedStepConfig):
        raise MistError("a folder of your own is for MIST: train the preset my-folder")
    if model.preparation != data.preparation or model.channels != data.channels:
        raise MistError(
            "data.preparation and data.channels must be those of the model: give --model.preparation.zoom (or .ground) "
            "and --data.preparation.zoom the same value"
        )
    if data.root is None:
        return
    folder = read_folder(data.root)
    if model.class_names and folder.class_names != model.class_names:
        raise MistError(f"model.class_names={model.class_names}, but {data.root} has the classes {folder.class_names}")
    room, smallest = min((math.prod(data.preparation.size(one.height, one.width)), one.name) for one in folder.images)
    if model.k > room:
        raise MistError(
            f"K = {model.k} is more than the {room} pixels of the smallest image after it was resized ({smallest}): "
            "take it out of the folder, mend counts.csv, or give a smaller --k"
        )
    needed, there = patch_bytes(model) * model.k * train.batch_size, _memory()
    if there and needed > MEMORY_SHARE * there:
        raise MistError(
            f"K = {model.k} patches of {train.batch_size} images at once take about {needed / 2**30:.0f} GiB, and this "
            f"computer has {there / 2**30:.0f}: give a smaller --train.batch-size or --k, or mend counts.csv"
        )


def patch_bytes(model: MistConfig) -> int:
    """About how much memory a training step needs for each patch."""
    return NUMBERS_AN_INPUT * model.patch_size**2 * model.encoder.width * 4


def _memory() -> int:
    """Bytes of memory of this computer; 0 where the system doesn't tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 0
