"""Whether the parts of an experiment fit each other: said before anything is trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mistnn.data import (
    FolderConfig,
    GaborConfig,
    NaturalConfig,
    NumbersConfig,
    ScenesConfig,
    SvhnConfig,
)
from mistnn.data.number_list import DIGITS
from mistnn.data.own_folder import read_folder
from mistnn.errors import MistError
from mistnn.models.mist import MistConfig, StepConfig
from mistnn.models.rivals import Xie20Config
from mistnn.presets import natural_evaluation
from mistnn.presets.stn_evaluation import check_classifier
from mistnn.presets.systems import ClassifiedConfig, ClassifierConfig, NaturalModelConfig

if TYPE_CHECKING:
    from mistnn.presets.experiment import Experiment


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
    if isinstance(data, FolderConfig):
        _check_folder(experiment, data)
        return
    if isinstance(data, NaturalConfig) or isinstance(model, NaturalModelConfig):
        natural_evaluation.check_natural(model, data)
        return
    if isinstance(data, SvhnConfig | NumbersConfig):
        _check_numbers(experiment, data)
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
    if isinstance(model, Xie20Config) and not model.k < (data.canvas // model.stride) ** 2:
        raise MistError(
            f"model.k={model.k} must be below the {(data.canvas // model.stride) ** 2} places that model.stride="
            f"{model.stride} leaves on a canvas of {data.canvas} px: give a smaller stride or K"
        )
    if model.channels != 1:
        raise MistError(f"model.channels={model.channels}, but these images are grey: give 1")


def _check_numbers(experiment: Experiment, data: SvhnConfig | NumbersConfig) -> None:
    model = experiment.model
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


def _check_folder(experiment: Experiment, data: FolderConfig) -> None:
    model = experiment.model
    if not isinstance(model, MistConfig) or not isinstance(experiment.step, StepConfig) or not model.class_names:
        raise MistError("a folder of your own is for MIST with classes: train the preset my-folder")
    if model.preparation != data.preparation or model.channels != data.channels:
        raise MistError(
            "data.preparation and data.channels must be those of the model: give --model.preparation.zoom (or .ground) "
            "and --data.preparation.zoom the same value"
        )
    if data.root is None:
        return
    folder = read_folder(data.root)
    if folder.class_names != model.class_names:
        raise MistError(f"model.class_names={model.class_names}, but {data.root} has the classes {folder.class_names}")
    room = min(math.prod(data.preparation.size(image.height, image.width)) for image in folder.images)
    if model.k > room:
        raise MistError(
            f"K = {model.k} is more than the {room} pixels of the smallest image after it was resized: mend "
            "counts.csv, or give --k"
        )
