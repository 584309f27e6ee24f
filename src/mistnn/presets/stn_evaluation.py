"""Measuring a classifier of the spatial transformer paper: of distorted digits, house numbers or birds."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mistnn.data import (
    CommonObjectConfig,
    CubConfig,
    CubImages,
    DistortedConfig,
    NumberCropsConfig,
    Split,
)
from mistnn.data.digits.distorted import CLASSES
from mistnn.data.photographs.cub import read_cub
from mistnn.errors import MistError
from mistnn.models.stn import (
    BirdsConfig,
    Colocaliser,
    ColocaliserConfig,
    NumberReaderConfig,
    StnConfig,
)
from mistnn.presets.systems import ClassifiedConfig, Classifier, DataConfig, ModelConfig, open_data
from mistnn.records import collate
from mistnn.training.batches import BatchDataset, to_device
from mistnn.weights import load_model

ENCODER = "stn-coloc-encoder"
"""The preset whose weights teach co-localisation."""

BATCH = 250
"""Images at once."""


def check_classifier(model: ModelConfig, data: DataConfig) -> None:
    """Refuses a classifier and images that don't fit each other.

    Raises:
        MistError: naming the fields, their values and the mend.
    """
    if isinstance(model, NumberReaderConfig) and isinstance(data, NumberCropsConfig):
        if model.side != data.side:
            raise MistError(f"model.side={model.side}, but data.side={data.side}: make them equal")
        return
    if isinstance(data, NumberCropsConfig) or isinstance(model, NumberReaderConfig):
        raise MistError("crops of house numbers and the networks that read them go together: train a stn-svhn-...")
    if isinstance(model, BirdsConfig) and isinstance(data, CubConfig):
        if model.side != data.side:
            raise MistError(f"model.side={model.side}, but data.side={data.side}: make them equal")
        if data.root is not None and (known := len(read_cub(data.root).class_names)) != model.classes:
            raise MistError(f"model.classes={model.classes}, but {data.root} has {known} classes: make them equal")
        return
    if isinstance(data, CubConfig) or isinstance(model, BirdsConfig):
        raise MistError("CUB-200-2011 and the networks for birds go together: train a stn-birds-...")
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


def load_encoder(model: Colocaliser, start_from: str | None) -> None:
    """Gives a localiser the encoder that teaches it, a classifier's weights.

    Args:
        model: the localiser.
        start_from: the classifier.

    Raises:
        MistError: if none is named, or it is another network than the localiser's.
    """
    if start_from is None:
        raise MistError(
            f"co-localisation needs an encoder that tells digits apart: `mist train {ENCODER}`, then give "
            f"--start-from runs/{ENCODER}"
        )
    model.load_encoder(load_model(start_from), start_from)


def evaluate_classifier(
    model: Classifier,
    data: DataConfig,
    split: Split,
    images: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """How often an image is taken for another, 0-1: of a house number, how often any of its digits is wrong.

    Args:
        model: in any mode; left in it.
        data: distorted digits, of which digit i of the split is in image i; crops of house numbers; or birds, each of
            which is judged by the mean of what is said of its ten views.
        split: of them.
        images: how many, at most as many house numbers or birds as there are.
        progress: called with (done, of how many).

    Returns:
        ``error``; ``images``; and ``outside_1`` ..., the share of what a spatial transformer reads outside the image.

    Raises:
        MistError: if the images are not those of the network.
    """
    if not isinstance(data, ClassifiedConfig):
        raise MistError("this network tells images apart and finds no objects: measure it on images of its own kind")
    check_classifier(model.config, data)
    samples = open_data(data, split, images)
    images = min(images, len(samples))
    many_views = samples.views if isinstance(samples, CubImages) else None
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    mistakes, outside = 0, list[torch.Tensor]()
    step = BATCH if many_views is None else 1
    with torch.inference_mode():
        for start in range(0, images, step):
            some = range(start, min(start + step, images))
            read = samples.batch(some) if isinstance(samples, BatchDataset) else collate([samples[i] for i in some])
            views = None if many_views is None else many_views(start)[None].to(device)
            misclassified, shares = model.measure(to_device(read, device), views)
            mistakes += int(misclassified.sum())
            outside.append(shares.double())
            if progress is not None:
                progress(some.stop, images)
    model.train(was_training)
    means = {f"outside_{number}": float(mean) for number, mean in enumerate(torch.cat(outside).mean(0), 1)}
    return {"error": mistakes / images, "images": images, **means}
