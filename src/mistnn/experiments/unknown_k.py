"""Measuring a model that is not given the number of objects in an image: Table 5 of MIST (CVPR 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mistnn.errors import MistError
from mistnn.experiments.measuring import IMAGES_AT_ONCE, evaluating
from mistnn.experiments.system import system_of
from mistnn.inference.counting import above, choose_threshold
from mistnn.interfaces import DataConfig, Split
from mistnn.nn.finder import Finder
from mistnn.records import Detections, Sample, collate

READING_IMAGES = 300
"""Training images on which readings are compared for an unknown K."""


def evaluate_unknown_k(model: Finder, data: DataConfig, split: Split, images: int) -> dict[str, float]:
    """Average precision with a fixed K, and with K estimated from the image.

    The threshold is chosen on as many training images, by their numbers of objects alone; the candidates are twice as
    many positions as the fullest image has objects. A heat map with a strength is read for this measurement by the
    strength and window with the least error in counting ``READING_IMAGES`` of those images: the reading that is best
    for a given K can make the scores of all positions alike (docs/logbook.md).

    Args:
        model: with classes; left in its mode.
        data: the images.
        split: of the measured images.
        images: how many.

    Returns:
        ``ap50_fixed_k``, with the K of training in every image, as the model is read; ``ap50_free_k`` and
        ``count_error_free_k``, with K by the ``threshold``; ``strength_free_k`` and ``window_free_k`` of their reading,
        where there was one to choose.

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
    fixed, free = DetectionMetrics(), DetectionMetrics()
    boxes, labels = [_boxes(one) for one in tested], [one.labels for one in tested]
    named = [one for one in labels if one is not None] if model.class_names else None
    fixed.update(_detect(model, tested, model.config.k), boxes, named)
    trained = model.config
    try:
        model.config, reading = _counting_reading(model, learnt[:READING_IMAGES], most)
        scores = [one.scores for one in _detect(model, learnt, most)]
        threshold = choose_threshold(scores, [len(_boxes(sample)) for sample in learnt])
        free.update([above(one, threshold) for one in _detect(model, tested, most)], boxes, named)
    finally:
        model.config = trained
    result = {"threshold": threshold, "count_error_free_k": free.compute()["count_error"], **reading}
    for name, metrics in (("ap50_fixed_k", fixed), ("ap50_free_k", free)):
        values = metrics.compute()
        if "ap50" in values:
            result[name] = values["ap50"]
    return result


def _counting_reading(model: Finder, known: Sequence[Sample], most: int) -> tuple[Any, dict[str, float]]:
    """The model's configuration with the strength and window that count these images best, and these two.

    The first of several; the configuration as it is if nothing can be chosen.
    """
    config: Any = model.config
    counts = [len(_boxes(sample)) for sample in known]
    readings = [
        (strength, window) for strength in config.reading_strengths for window in config.reading_windows or (None,)
    ]

    def error(reading: tuple[float, int | None]) -> int:
        model.config = config.with_reading(*reading)
        scores = [one.scores for one in _detect(model, known, most)]
        threshold = choose_threshold(scores, counts)
        found = (int((one.double() >= threshold).sum()) for one in scores)
        return sum(abs(one - count) for one, count in zip(found, counts, strict=True))

    if not readings:
        return config, {}
    strength, window = min(readings, key=error)
    chosen = {"strength_free_k": float(strength)} | ({} if window is None else {"window_free_k": float(window)})
    return config.with_reading(strength, window), chosen


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
