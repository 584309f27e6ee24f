"""Measuring systems that find objects by drawing the image: they say themselves how many there are, or are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mistnn.data import FolderConfig, NaturalConfig, Scatter, Split
from mistnn.errors import MistError
from mistnn.presets.systems import ClassifiedConfig, DataConfig, GenerativeModel, open_data, size_of
from mistnn.records import collate

if TYPE_CHECKING:
    from mistnn.metrics import AveragePrecision

EVALUATION_BATCH = 50
"""Images at once."""

THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))
"""The IoU thresholds that SPAIR's AP is the mean over."""

POINTS = 11
"""Recall points of SPAIR's AP."""


def evaluate_objects(
    model: GenerativeModel,
    data: DataConfig,
    split: Split,
    images: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """The metrics of a system that finds objects by drawing the image.

    Args:
        model: in any mode; left in it.
        data: the images.
        split: "validation" while training, "test" for a number that is reported.
        images: how many.
        progress: called with (done, of how many).

    Returns:
        ``ap``: average precision, the mean over IoU above .1, .2 ... .9, each by 11 recall points, whatever the class;
        ``ap50``: the one above .5; of scattered digits also ``ap_ink`` and ``ap50_ink``, where the true box of a digit
        is the one around its ink instead of its frame; ``iou50``, see ``mistnn.metrics.iou50``; ``count_error``, the
        mean of the absolute difference, and ``count_accuracy``, the share of images with the right number, neither of a
        model that is told it; ``count_bias``, found minus true objects an image; ``rmse``, ``rmse_black``,
        ``rmse_mean`` and ``r2`` of the images redrawn, where the model redraws them; ``images`` and ``objects``.

    Raises:
        MistError: if the images' objects are not known, or are not those of this system.

    Reference: SPAIR (AAAI 2019), section 5.1, and its released code.
    """
    from mistnn.metrics import AveragePrecision, DetectionMetrics, ReconstructionMetrics

    if isinstance(data, FolderConfig | NaturalConfig | ClassifiedConfig):
        raise MistError("systems that draw the image are measured on digits or Gabor noise: give such a preset")
    samples = open_data(data, split, images)
    metrics, precision = DetectionMetrics(), AveragePrecision(THRESHOLDS, class_aware=False, points=POINTS, strict=True)
    inked = AveragePrecision(THRESHOLDS, class_aware=False, points=POINTS, strict=True)
    errors = ReconstructionMetrics((model.config.channels, *size_of(data)))
    off: list[int] = []
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        for start in range(0, images, EVALUATION_BATCH):
            these = range(start, min(start + EVALUATION_BATCH, images))
            batch = collate([samples[index] for index in these])
            assert batch.boxes is not None
            counts = torch.tensor([len(boxes) for boxes in batch.boxes])
            explained = model.explain(batch.images.to(device), counts.to(device) if model.needs_counts else None)
            found = [one._replace(boxes=one.boxes.cpu(), scores=one.scores.cpu()) for one in explained.detections]
            metrics.update(found, batch.boxes)
            precision.update(found, batch.boxes)
            if isinstance(samples, Scatter):
                inked.update(found, [samples.inked(index) for index in these])
            if explained.reconstruction is not None:
                errors.update(explained.reconstruction.cpu(), batch.images)
            off += [len(one.boxes) - len(boxes) for one, boxes in zip(found, batch.boxes, strict=True)]
            if progress is not None:
                progress(min(start + EVALUATION_BATCH, images), images)
    model.train(was_training)
    result = metrics.compute() | _means(precision)
    if isinstance(samples, Scatter):
        result |= {f"{name}_ink": value for name, value in _means(inked).items()}
    if model.reconstructs:
        result |= errors.compute()
    for name in ("greedy_optimal_gap", "count_error"):  # not there if no image holds an object
        result.pop(name, None)
    if not model.needs_counts:
        result["count_error"] = sum(map(abs, off)) / len(off)
        result["count_accuracy"] = sum(one == 0 for one in off) / len(off)
        result["count_bias"] = sum(off) / len(off)
    return result


def _means(precision: AveragePrecision) -> dict[str, float]:
    """The mean over the thresholds, and the one above .5; nothing if there is no object."""
    each = precision.compute()
    return {"ap": sum(each.values()) / len(each), "ap50": each["ap50"]} if each else {}
