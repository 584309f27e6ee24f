"""Measuring a classifier of distorted digits."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mistnn.data import DistortedConfig, Split
from mistnn.data.distorted import CLASSES
from mistnn.errors import MistError
from mistnn.models.stn import StnClassifier, StnConfig, target_of
from mistnn.presets.systems import DataConfig, ModelConfig, open_data
from mistnn.training.batches import BatchDataset, to_device

BATCH = 250
"""Images at once."""


def check_classifier(model: ModelConfig, data: DataConfig) -> None:
    """Refuses a classifier and digits that don't fit each other.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    if not isinstance(data, DistortedConfig) or not isinstance(model, StnConfig):
        raise MistError("distorted digits and the classifiers with spatial transformers go together: train a stn-...")
    if model.side != data.canvas:
        raise MistError(f"model.side={model.side}, but data.canvas={data.canvas}: make them equal")
    if model.channels != data.digits:
        raise MistError(f"model.channels={model.channels}, but data.digits={data.digits}: a channel for each digit")
    sums = data.digits * (CLASSES - 1) + 1
    if model.classes != sums:
        raise MistError(f"model.classes={model.classes}, but there are {sums} values to tell: give {sums}")


def evaluate_classifier(
    model: StnClassifier,
    data: DataConfig,
    split: Split,
    images: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """How often the class is wrong, 0-1.

    Args:
        model: in any mode; left in it.
        data: distorted digits.
        split: of them.
        images: how many; digit i of the split is in image i.
        progress: called with (done, of how many).

    Returns:
        ``error``; ``images``; and ``outside_1`` ..., the share of what a spatial transformer reads outside the image.

    Raises:
        MistError: if the images are not distorted digits.
    """
    if not isinstance(data, DistortedConfig):
        raise MistError("this network tells digits apart and finds no objects: measure it on distorted digits")
    samples = open_data(data, split, images)
    assert isinstance(samples, BatchDataset)
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    wrong, outside = 0, [0.0] * model.config.transformers
    with torch.inference_mode():
        for start in range(0, images, BATCH):
            batch = to_device(samples.batch(range(start, min(start + BATCH, images))), device)
            done = model(batch.images)
            wrong += int((done.logits.argmax(1) != target_of(batch)).sum())
            for number, warp in enumerate(done.warps):
                outside[number] += float(warp.outside.sum())
            if progress is not None:
                progress(min(start + BATCH, images), images)
    model.train(was_training)
    shares = {f"outside_{number}": total / images for number, total in enumerate(outside, 1)}
    return {"error": wrong / images, "images": images, **shares}
