"""SPAIR on larger and fuller images than it was trained on: errors by the number of digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mistnn.devices import find_device
from mistnn.errors import MistError
from mistnn.experiments import evaluate, restore
from mistnn.weights import load_model, read_config

MOST = 20  #: Digits in the fullest images (SPAIR, section 5.2).
IMAGES = 50  #: Test images for each number of digits (our choice).
MEASURED = ("count_error", "ap50")


def transfer_curve(
    weights: Path | str,
    root: str | None = None,
    images: int = IMAGES,
    seed: int | None = None,
    most: int = MOST,
    device: str = "cpu",
) -> dict[str, float]:
    """Measures a run on test images of 1 to 20 digits, in the size of its own test images.

    Args:
        weights: a run folder.
        root: the folder of MNIST.
        images: test images for each number of digits.
        seed: of the images; the run's own if not given.
        most: digits in the fullest images.
        device: for the network, see ``devices.find_device``.

    Returns:
        ``count_error_1`` to ``count_error_20`` and ``ap50_1`` to ``ap50_20``.

    Raises:
        MistError: if it is no run of SPAIR on crops of scattered digits, or finds fewer than ``most`` objects.
    """
    data: Any = restore(weights).data
    network: Any = load_model(weights).to(find_device(device))
    if read_config(weights).kind != "spair" or data.crop is None or data.crop >= data.canvas:
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
