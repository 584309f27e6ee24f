"""Measuring a model that is not given the number of objects in an image: Table 5 of MIST (CVPR 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mistnn.errors import MistError
from mistnn.experiments.measuring import IMAGES_AT_ONCE, evaluating
from mistnn.experiments.system import system_of
from mistnn.inference.counting import above, choose_threshold
from mistnn.interfaces import DataConfig, Split
from mistnn.nn.finder import Finder
from mistnn.records import Detections, Sample, collate


def evaluate_unknown_k(model: Finder, data: DataConfig, split: Split, images: int) -> dict[str, float]:
    """Average precision with a fixed K, and with K estimated from the image.

    The threshold is chosen on as many training images, by their numbers of objects alone; the candidates are twice as
    many positions as the fullest image has objects.

    Args:
        model: with classes; left in its mode.
        data: the images.
        split: of the measured images.
        images: how many.

    Returns:
        ``ap50_fixed_k``, with the K of training in every image; ``ap50_free_k`` and ``count_error_free_k``, with K by
        the threshold; ``threshold``.

    Raises:
        MistError: if these images leave no K to estimate.
    """
    from mistnn.metrics import DetectionMetrics

    reason = system_of(model.config).measurement_class(model.config, data).fixed_k
    if reason:
        raise MistError(f"there is no K to estimate: {reason}")
    if not data.known.counts:
        raise MistError("there is no K to estimate: the largest number of objects in these images is unknown")
    most = 2 * max(data.known.counts)
    known, samples = data.open("train", images), data.open(split, images)
    learnt, tested = [known[index] for index in range(images)], [samples[index] for index in range(images)]
    scores = [one.scores for one in _detect(model, learnt, most)]
    threshold = choose_threshold(scores, [len(_boxes(sample)) for sample in learnt])
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


def _detect(model: Finder, samples: Sequence[Sample], k: int) -> list[Detections]:
    device = next(model.parameters()).device
    found: list[Detections] = []
    with evaluating(model):
        for start in range(0, len(samples), IMAGES_AT_ONCE):
            batch = collate(samples[start : start + IMAGES_AT_ONCE])
            found += [one.cpu() for one in model.explain(batch.images.to(device), k).detections]
    return found
