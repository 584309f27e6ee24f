"""Measuring a model that was trained on a folder of images and K alone: how well it redraws, and what it finds."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.nn import functional as F

from mistnn.data import FolderConfig, Split
from mistnn.data.folder.images import FolderImages
from mistnn.models.mist import Mist
from mistnn.presets.own_folder import of_one_size
from mistnn.records import Detections


@torch.inference_mode()
def evaluate_discovery(model: Mist, data: FolderConfig, split: Split, images: int | None = None) -> dict[str, float]:
    """How well a model without classes redraws the images of a folder, and finds the objects whose boxes are known.

    K boxes are sought in every image, the K of the model: nothing ever told it how many there are.

    Args:
        model: in any mode; left in it.
        data: the folder; its classes, if it has any, don't matter.
        split: which images.
        images: at most so many; all if not given.

    Returns:
        ``rmse``, ``rmse_black``, ``rmse_mean`` and ``r2`` of the prepared images, padded to one size, see
        ``mistnn.metrics.ReconstructionMetrics``, and ``images``. Of the images whose boxes are known ``precision``,
        ``recall`` and ``f1``: a box is right if its centre lies in an object's box of any class; and their ``objects``.
    """
    from mistnn.metrics import CentreMetrics, ReconstructionMetrics

    seen = FolderImages(data, split, images or sys.maxsize)
    errors, centres = ReconstructionMetrics((data.channels, seen.height, seen.width)), CentreMetrics()
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    objects = boxed = 0
    for samples in of_one_size(seen):
        batch = torch.stack([sample.image for sample in samples])
        explained = model.explain(batch.to(device), model.config.k)
        if explained.reconstruction is not None:
            down, right = seen.height - batch.shape[-2], seen.width - batch.shape[-1]
            errors.update(*(F.pad(some, (0, right, 0, down)) for some in (explained.reconstruction.cpu(), batch)))
        for sample, found in zip(samples, explained.detections, strict=True):
            if sample.boxes is not None:
                centres.update([_unnamed(found)], [sample.boxes], [_one_class(sample.boxes)])
                objects, boxed = objects + len(sample.boxes), boxed + 1
    model.train(was_training)
    result = {"images": float(len(seen)), **(errors.compute() if model.reconstructs else {})}
    return result | ({**centres.compute(), "objects": float(objects)} if boxed else {})


def _unnamed(found: Detections) -> Detections:
    """On the CPU, all of one class."""
    return Detections(found.boxes.cpu(), found.scores.cpu(), _one_class(found.boxes))


def _one_class(boxes: Tensor) -> Tensor:
    return torch.zeros(len(boxes), dtype=torch.int64)
