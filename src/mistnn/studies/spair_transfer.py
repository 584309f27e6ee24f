"""SPAIR on larger, fuller images than it was trained on: errors by the number of digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mistnn.data import ScatterConfig
from mistnn.errors import MistError
from mistnn.models.spair import Spair
from mistnn.presets import evaluate, restore
from mistnn.viz import Curve, draw_curves
from mistnn.weights import load_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 20
"""Digits in the fullest images (SPAIR, section 5.2)."""

IMAGES = 50
"""Test images of each number of digits (our choice)."""

MEASURED = ("count_error", "ap50")


def is_transfer(data: object) -> bool:
    """Whether images are trained on in parts and measured whole."""
    return isinstance(data, ScatterConfig) and data.crop is not None and data.crop < data.canvas


def transfer_curve(
    weights: Path | str, root: str | None = None, images: int = IMAGES, seed: int | None = None, most: int = MOST
) -> dict[str, float]:
    """How a run does on test images of 1 to 20 digits, of the size of its test images.

    Args:
        weights: a run folder.
        root: where MNIST lies.
        images: of each number of digits.
        seed: of the images; the run's own if not given.
        most: digits in the fullest ones.

    Returns:
        ``count_error_1`` to ``count_error_20`` and ``ap50_1`` to ``ap50_20``.

    Raises:
        MistError: if it is no run of SPAIR on parts of scattered digits, or finds fewer than ``most`` objects.
    """
    data, network = restore(weights).data, load_model(weights)
    if not isinstance(data, ScatterConfig) or not isinstance(network, Spair) or not is_transfer(data):
        raise MistError(
            f"{weights} is no run of SPAIR on parts of larger images of scattered digits: train spair-transfer-15"
        )
    slots = network.most(data.canvas, data.canvas)
    if most > slots:
        raise MistError(
            f"{weights} finds at most {slots} objects in images of {data.canvas} x {data.canvas} pixels, one a cell, "
            f"and the curve goes to {most} digits: train it with a larger data.canvas"
        )
    data = dataclasses.replace(data, root=root, seed=data.seed if seed is None else seed)
    result = {}
    for number in range(1, most + 1):
        metrics = evaluate(network, dataclasses.replace(data, counts=(number,)), "test", images)
        result |= {f"{name}_{number}": metrics[name] for name in MEASURED}
    return result


def draw_transfer(curve: Mapping[str, float], trained: tuple[int, int]) -> Figure:
    """Count error and AP at an overlap of .5 over the number of digits; those of training images are shaded.

    Args:
        curve: of ``transfer_curve``.
        trained: fewest and most digits of a training image, before a part of it was cut out.
    """
    numbers = [int(name.rpartition("_")[2]) for name in curve if name.startswith("count_error_")]
    shaded = (trained[0] - 0.5, trained[1] + 0.5)
    axis = "digits (shaded: in training images)"
    errors, precision = ([curve[f"{name}_{number}"] for number in numbers] for name in MEASURED)
    plots = {
        "Count error": Curve(numbers, errors, scale="amount", unit="objects", axis=axis, shaded=shaded),
        "AP at IoU .5": Curve(numbers, precision, scale="fraction", axis=axis, shaded=shaded),
    }
    return draw_curves(plots, columns=2)


def figure_transfer(model: str | Path | None = None, seed: int | None = None, root: str | None = None) -> Figure:
    """Count error and AP of a run on images of 1 to 20 digits.

    Raises:
        MistError: if no run of SPAIR is given.

    Reference: SPAIR (AAAI 2019), section 5.2.
    """
    if model is None:
        raise MistError("spair-transfer needs a run of SPAIR: train spair-transfer-15, and give --model RUN")
    curve, data = transfer_curve(model, root, seed=seed), restore(model).data
    assert isinstance(data, ScatterConfig)
    return draw_transfer(curve, (min(data.counts), max(data.counts)))
