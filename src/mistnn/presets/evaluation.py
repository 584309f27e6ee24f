"""Measuring a model on images whose number of objects is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mistnn.data import FolderConfig, GaborConfig, NaturalConfig, NumbersConfig, Split, SvhnConfig
from mistnn.errors import MistError
from mistnn.models.mist import Mist
from mistnn.models.stn import StnClassifier
from mistnn.presets.fixed_box import fixed_box_metrics, precision_metrics
from mistnn.presets.natural_evaluation import evaluate_natural
from mistnn.presets.object_evaluation import evaluate_objects
from mistnn.presets.stn_evaluation import evaluate_classifier
from mistnn.presets.systems import AnyModel, DataConfig, GenerativeModel, SceneModel, open_data, size_of
from mistnn.records import Batch, Detections, Sample, collate

EVALUATION_BATCH = 50
"""Images at once."""


def evaluate(
    model: AnyModel, data: DataConfig, split: Split, images: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """The metrics of a model on images whose number of objects is known: K is each image's own count.

    Args:
        model: in any mode; left in it.
        data: the images.
        split: "validation" while training, "test" for a number that is reported.
        images: how many, at most as many as there are.
        progress: called with (done, of how many).

    Returns:
        Of a classifier see ``mistnn.presets.stn_evaluation.evaluate_classifier``.
        Of a folder of your own see ``mistnn.presets.own_folder.evaluate_folder``: there K is not told; nor of
        photographs, see ``mistnn.presets.natural_evaluation.evaluate_natural``; nor of systems that draw the image, see
        ``mistnn.presets.object_evaluation.evaluate_objects``. Otherwise see
        ``mistnn.metrics.DetectionMetrics``. Of a model that reconstructs also ``rmse``, ``rmse_black``,
        ``rmse_mean`` and ``r2``, see ``mistnn.metrics.ReconstructionMetrics``. On Gabor noise also ``precision`` and
        ``recall`` of the impulses, found within half the width of a kernel; ``recall_close``, within half the least
        distance between two; and what places drawn at random reach (``..._chance``). Of a model with several scales
        also ``size_correlation`` and ``size_error`` in pixels, beside ``size_error_constant`` of the best constant size
        and ``iou50_fixed_size`` of the same places with the median size. On house numbers also the numbers of
        ``mistnn.presets.fixed_box``.
    """
    from mistnn.metrics import DetectionMetrics, ReconstructionMetrics

    if isinstance(model, StnClassifier):
        return evaluate_classifier(model, data, split, images, progress)
    if isinstance(data, FolderConfig):
        return _evaluate_folder(model, data, split, images)
    if isinstance(data, NaturalConfig):
        return evaluate_natural(model, data, split, images, progress)
    if isinstance(model, GenerativeModel):
        return evaluate_objects(model, data, split, images, progress)
    samples = open_data(data, split, images)
    images = min(images, len(samples))
    metrics, errors = DetectionMetrics(), ReconstructionMetrics((model.config.channels, *size_of(data)))
    all_found: list[Detections] = []
    all_boxes: list[Tensor] = []
    all_labels: list[Tensor] = []
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        for start in range(0, images, EVALUATION_BATCH):
            some = [samples[index] for index in range(start, min(start + EVALUATION_BATCH, images))]
            for count, batch in _by_count(some):
                assert batch.boxes is not None
                seen = batch.images.to(device)
                # There is no K of 0: in a scene without objects, 1 is found and left out again.
                explained = model.explain(seen, max(1, count))
                found = [_first(one, count) for one in explained.detections]
                metrics.update(found, batch.boxes, batch.labels if model.class_names else None)
                if explained.reconstruction is not None:
                    rebuilt = explained.reconstruction.cpu() if count else torch.zeros_like(batch.images)
                    errors.update(rebuilt, batch.images)
                all_found.extend(found)
                all_boxes.extend(batch.boxes)
                all_labels.extend(batch.labels or [])
            if progress is not None:
                progress(min(start + EVALUATION_BATCH, images), images)
    model.train(was_training)
    # K was given, so the number of detections is always right and says nothing.
    result = {name: value for name, value in metrics.compute().items() if name != "count_error"}
    if model.reconstructs:
        result |= errors.compute()
    if isinstance(data, GaborConfig):
        result |= _impulse_metrics(all_found, all_boxes, data)
    if isinstance(data, SvhnConfig | NumbersConfig) and model.class_names:
        result |= precision_metrics(all_found, all_boxes, all_labels) | fixed_box_metrics(data, all_boxes, all_labels)
    if isinstance(model, Mist) and len(model.config.scales) > 1:
        result |= _size_metrics(all_found, all_boxes)
    return result


def _evaluate_folder(model: SceneModel, data: FolderConfig, split: Split, images: int) -> dict[str, float]:
    from mistnn.presets.folder_discovery import evaluate_discovery
    from mistnn.presets.own_folder import evaluate_folder

    if not isinstance(model, Mist):
        raise MistError(f"a {type(model).__name__} is not for a folder of your own: train the preset my-folder")
    if not model.class_names:
        return evaluate_discovery(model, data, split, images)
    return evaluate_folder(model, data, split, images)


def _size_metrics(found: list[Detections], boxes: list[Tensor]) -> dict[str, float]:
    """Whether the size was told, and what the same places with one size for all would reach."""
    from mistnn.metrics import iou50, size_scores

    if not any(len(one) for one in boxes):
        return {}
    middle = torch.cat([one[:, 2] for one in boxes]).median()
    fixed = [one._replace(boxes=torch.cat((one.boxes[:, :2], middle.expand(len(one.boxes), 2)), 1)) for one in found]
    scores = size_scores(found, boxes)
    result = {
        "iou50_fixed_size": iou50(fixed, boxes),
        "size_correlation": scores.correlation,
        "size_error": scores.error,
        "size_error_constant": scores.constant_error,
    }
    return {name: value for name, value in result.items() if not math.isnan(value)}


def _impulse_metrics(found: list[Detections], boxes: list[Tensor], data: GaborConfig) -> dict[str, float]:
    """How many impulses were found, and how many as many places drawn at random would find."""
    from mistnn.metrics import impulse_scores

    low, high = data.margin, data.canvas - data.margin
    random = torch.Generator().manual_seed(0)
    guesses = []
    for one in found:
        places = torch.rand(len(one.boxes), 2, generator=random) * (high - low) + low
        guesses.append(one._replace(boxes=torch.cat((places, one.boxes[:, 2:]), dim=1)))
    scores, chance = impulse_scores(found, boxes), impulse_scores(guesses, boxes)
    result = {"precision": scores.precision, "recall": scores.recall, "precision_chance": chance.precision}
    if data.min_distance:
        # Within half the least distance no place can stand for two impulses.
        radius = data.min_distance / 2
        result["recall_close"] = impulse_scores(found, boxes, radius).recall
        result["recall_close_chance"] = impulse_scores(guesses, boxes, radius).recall
    return result


def _by_count(samples: Sequence[Sample]) -> Iterator[tuple[int, Batch]]:
    """The samples in batches of one number of objects."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        assert sample.boxes is not None
        groups.setdefault(len(sample.boxes), []).append(sample)
    return ((count, collate(group)) for count, group in groups.items())


def _first(found: Detections, count: int) -> Detections:
    """The best detections, on the CPU."""
    labels = None if found.labels is None else found.labels[:count].cpu()
    return Detections(found.boxes[:count].cpu(), found.scores[:count].cpu(), labels)
