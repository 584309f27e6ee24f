"""Measuring a model where it is not told how many objects an image holds: Table 5 of MIST (CVPR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from mistnn.data import DistortedConfig, FolderConfig, NaturalConfig, NumbersConfig, Split, SvhnConfig
from mistnn.errors import MistError
from mistnn.inference.counting import above, choose_threshold
from mistnn.presets.evaluation import EVALUATION_BATCH
from mistnn.presets.systems import DataConfig, SceneModel, open_data
from mistnn.records import Detections, Sample, collate


def evaluate_unknown_k(model: SceneModel, data: DataConfig, split: Split, images: int) -> dict[str, float]:
    """Average precision with a fixed K, and with K from the image.

    The threshold is chosen on as many training scenes, by their number of objects alone; candidates are twice as many
    places as the fullest scene has objects.

    Args:
        model: with classes; put in eval mode.
        data: the images.
        split: of the measured scenes.
        images: how many.

    Returns:
        ``ap50_fixed_k``, the K of training in every image; ``ap50_free_k`` and ``count_error_free_k``, K by the
        threshold; ``threshold``.
    """
    from mistnn.metrics import DetectionMetrics

    if isinstance(data, NaturalConfig):
        raise MistError("photographs are always measured without being told how many objects they hold")
    if isinstance(data, DistortedConfig):
        raise MistError("distorted digits are told apart, not counted: there is no K to find")
    if isinstance(data, FolderConfig):
        raise MistError("a folder of your own is always measured without K: `mist evaluate` does so")
    if isinstance(data, SvhnConfig | NumbersConfig):
        raise MistError("all house numbers here have as many digits: there is no K to find")
    most = 2 * max(data.counts)
    known = open_data(data, "train", images)
    learnt = [known[index] for index in range(images)]
    scores = [one.scores for one in _detect(model, learnt, most)]
    threshold = choose_threshold(scores, [_objects(sample) for sample in learnt])
    samples = open_data(data, split, images)
    tested = [samples[index] for index in range(images)]
    fixed, free = DetectionMetrics(), DetectionMetrics()
    boxes, labels = [_boxes(one) for one in tested], [one.labels for one in tested]
    named = [one for one in labels if one is not None] if model.class_names else None
    fixed.update(_detect(model, tested, model.config.k), boxes, named)
    free.update([above(one, threshold) for one in _detect(model, tested, most)], boxes, named)
    result = {"threshold": threshold, "count_error_free_k": free.compute()["count_error"]}
    for name, metrics in (("ap50_fixed_k", fixed), ("ap50_free_k", free)):
        values = metrics.compute()
        if "ap50" in values:
            result[name] = values["ap50"]
    return result


def _boxes(sample: Sample) -> Tensor:
    assert sample.boxes is not None
    return sample.boxes


def _objects(sample: Sample) -> int:
    return len(_boxes(sample))


@torch.inference_mode()
def _detect(model: SceneModel, samples: list[Sample], k: int) -> list[Detections]:
    model.eval()
    device = next(model.parameters()).device
    found: list[Detections] = []
    for start in range(0, len(samples), EVALUATION_BATCH):
        batch = collate(samples[start : start + EVALUATION_BATCH])
        for one in model.explain(batch.images.to(device), k).detections:
            found.append(
                Detections(one.boxes.cpu(), one.scores.cpu(), None if one.labels is None else one.labels.cpu())
            )
    return found
