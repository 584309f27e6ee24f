"""Measuring a classifier of distorted digits."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mistnn.data import CommonObjectConfig, DistortedConfig, DistortedDigits, Split
from mistnn.data.distorted import CLASSES
from mistnn.errors import MistError
from mistnn.models.stn import Colocaliser, ColocaliserConfig, StnClassifier, StnConfig, target_of
from mistnn.presets.systems import DataConfig, ModelConfig, open_data
from mistnn.training.batches import BatchDataset, to_device
from mistnn.weights import load_model

ENCODER = "stn-coloc-encoder"
"""The preset whose weights teach co-localisation."""

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


def check_colocaliser(model: ModelConfig, data: DataConfig) -> None:
    """Refuses a localiser and images that don't fit each other.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    if not isinstance(data, CommonObjectConfig) or not isinstance(model, ColocaliserConfig):
        raise MistError("images with a common object and the localiser go together: train a stn-coloc-...")
    if model.side != data.canvas:
        raise MistError(f"model.side={model.side}, but data.canvas={data.canvas}: make them equal")


def load_encoder(model: Colocaliser, data: DataConfig, start_from: str | None) -> None:
    """Gives a localiser the encoder that teaches it, a classifier's weights, and how long its descriptors are.

    Args:
        model: the localiser.
        data: of its training; tells where digits lie.
        start_from: the classifier.

    Raises:
        MistError: if none is named, or it is another network than the localiser's.
    """
    if start_from is None:
        raise MistError(
            f"co-localisation needs an encoder that tells digits apart: `mist train {ENCODER}`, then give "
            f"--start-from runs/{ENCODER}"
        )
    found = load_model(start_from)
    if not isinstance(found, StnClassifier) or found.config != model.config.encoder:
        raise MistError(f"--start-from {start_from} is not the encoder of model.encoder.*: give a run of {ENCODER}")
    model.encoder.load_state_dict(found.state_dict())
    assert isinstance(data, CommonObjectConfig)
    whole = DistortedConfig("t", found.config.side, source=data.source, root=data.root)
    model.measure(DistortedDigits(whole, "validation", BATCH).batch(range(BATCH)).images)


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
