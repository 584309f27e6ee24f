"""Checks that several systems share: whether a model and its images fit together. All raise ``MistError``."""

from __future__ import annotations

import os
from typing import Any

from mistnn.errors import MistError


def check_channels(model: Any, data: Any) -> None:
    """Compares the channels of the model and of the images."""
    there = data.known.channels
    if model.channels != there:
        kind = "grey" if there == 1 else "in colour"
        raise MistError(f"model.channels={model.channels}, but these images are {kind}: give {there}")


def check_classes(model: Any, data: Any) -> None:
    """Compares the classes of a model that has some with those of the images."""
    mine, theirs = len(model.class_names), len(data.class_names)
    if mine and not theirs:
        raise MistError(
            f"these images have no classes to learn, and model.class_names has {mine}: give --model.class-names "
            "without values, or use another preset"
        )
    if mine and mine != theirs:
        raise MistError(f"model.class_names has {mine} classes, and these images have {theirs}: make them equal")


def check_k(model: Any, data: Any) -> None:
    """Checks that an image has a pixel for each of the K objects."""
    height, width = data.size
    if not 1 <= model.k <= height * width:
        raise MistError(f"model.k={model.k} must be from 1 to the {height * width} pixels of the image")


def check_equal(left: str, left_value: object, right: str, right_value: object) -> None:
    """Checks that two settings are equal."""
    if left_value != right_value:
        raise MistError(f"{left}={left_value}, but {right}={right_value}: make them equal")


def check_one_process(systems: str, otherwise: str) -> None:
    """Refuses to train in several processes.

    Args:
        systems: in words.
        otherwise: what several processes would do.

    Raises:
        MistError: if there are several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise MistError(
            f"{systems} train in one process, because several would {otherwise}: start the training without "
            "accelerate launch, or with --num_processes 1"
        )
