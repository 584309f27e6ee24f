"""Whether a system fits a folder of your own, or house numbers."""

from __future__ import annotations

import math
import os

from mistnn.data import FolderConfig, NumbersConfig, SvhnConfig
from mistnn.data.number_list import DIGITS
from mistnn.data.own_folder import read_folder
from mistnn.errors import MistError
from mistnn.models.mist import MistConfig, StepConfig
from mistnn.presets.systems import ModelConfig, TrainingStepConfig
from mistnn.training import TrainConfig

NUMBERS_AN_INPUT = 5
"""What a training step keeps of a patch: so many numbers for each of its pixels and channels of the first level
(measured with the small auto-encoder: 4.6)."""
MEMORY_SHARE = 0.8
"""Of the computer's memory, that the patches of a step may take (our choice)."""


def check_numbers(model: ModelConfig, data: SvhnConfig | NumbersConfig) -> None:
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


def check_folder(model: ModelConfig, step: TrainingStepConfig, data: FolderConfig, train: TrainConfig) -> None:
    """Refuses a system that is not for a folder of one's own, or one that doesn't fit what it holds.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    if not isinstance(model, MistConfig) or not isinstance(step, StepConfig):
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
