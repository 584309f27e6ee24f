"""After a run on photographs: learns to measure the size of each object, where features tell objects apart."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mistnn.data.folder.images import FolderImages
from mistnn.experiments.experiment import Experiment
from mistnn.models.photos import PhotoMist
from mistnn.models.photos.extents import Extent, learn_extent
from mistnn.weights import load_model

MOST_IMAGES = 60
"""Training images from which it is learned, evenly spaced (our choice)."""
LEAST_ACCURACY = 0.9
"""The least ``Extent.accuracy`` with which sizes are measured; objects that touch stay below it (our choice)."""


@torch.inference_mode()
def extent_of(model: PhotoMist, images: FolderImages) -> Extent:
    """What tells objects from their surroundings in the training images; the model is in eval mode.

    Keypoints are the best maxima, as many of each class as an image has objects.
    """
    chosen = range(0, len(images.images), math.ceil(len(images.images) / MOST_IMAGES))
    seen: list[tuple[Tensor, Tensor, tuple[int, ...]]] = []
    for index in chosen:
        pixels, counts = images.prepared(index), images.images[index].counts
        if counts is not None:
            seen.append((model.pyramid(pixels[None])[0].half(), torch.tensor(pixels.shape[-2:]), counts))

    def features(index: int) -> Tensor:
        packed, size, _ = seen[index]
        return model.gridded(packed.float(), size)

    def points(index: int) -> Tensor:
        packed, size, counts = seen[index]
        maps = model(packed[None].float(), size[None])
        found = model.detections(model.response(maps)[0], list(counts), maps.inside[0])
        return found.boxes[:, :2] / model.config.stride

    return learn_extent(features, points, len(seen), model.config.cells)


def store_extent(out: Path, experiment: Experiment) -> bool:
    """Lets the model of a run measure the sizes of objects, if features tell them apart; returns whether they do."""
    from mistnn.experiments.run import save_again

    model: Any = load_model(out)
    data: Any = experiment.data
    found = extent_of(model, data.open("train"))
    measured = found.accuracy >= LEAST_ACCURACY
    model.extent.copy_(found.weight if measured else torch.zeros_like(found.weight))
    model.extent_bias.copy_(found.bias if measured else torch.zeros_like(found.bias))
    save_again(
        out, out, model, dataclasses.replace(experiment, model=dataclasses.replace(model.config, measured=measured))
    )
    return measured
