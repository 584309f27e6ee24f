"""How a trained model is measured: one loop over the images of a split, and what is measured on which data.

A ``Measurement`` belongs to one model and one split. The loop hands it the images batch by batch; it runs the model on
them and collects what it needs; ``result`` computes the metrics. Which measurement applies to which data is said by
each system, see ``mistnn.experiments.system``.
"""

from __future__ import annotations

import abc
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mistnn.interfaces import DataConfig, Split
from mistnn.nn.finder import Finder
from mistnn.records import Batch, Detections, Sample, collate

Progress = Callable[[int, int], None]
"""Is called with (images done, images in all)."""

IMAGES_AT_ONCE = 50


class Measurement(abc.ABC):
    """Measures one model on one split.

    Args:
        model: in eval mode while images are added.
        data: the configuration of the images.
        split: which of them.
        samples: the opened split.

    Attributes:
        at_once: images in a batch.
        fixed_k: why there is no unknown number of objects to measure on such images; empty if there is.
    """

    at_once: ClassVar[int] = IMAGES_AT_ONCE
    fixed_k: ClassVar[str] = ""

    def __init__(self, model: Any, data: Any, split: Split, samples: Any) -> None:
        self.model, self.data, self.split, self.samples = model, data, split, samples
        self.device = next(model.parameters()).device

    @abc.abstractmethod
    def add(self, indices: range) -> None:
        """Runs the model on some images and collects what ``result`` needs."""

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """The metrics of all images added."""

    def run(self, images: int, progress: Progress | None = None) -> dict[str, float]:
        """Adds the first ``images`` images and returns the metrics."""
        self.collect(images, progress)
        return self.result()

    def collect(self, images: int = sys.maxsize, progress: Progress | None = None) -> None:
        """The one loop: adds the first ``images`` images, or all."""
        total = min(images, len(self.samples))
        with evaluating(self.model):
            for indices in self.batches(total):
                self.add(indices)
                if progress is not None:
                    progress(indices.stop, total)

    @classmethod
    def open(cls, model: Any, data: Any, split: Split, images: int | None) -> Any:
        """The split on which a model is measured."""
        return data.open(split, images)

    def batches(self, total: int) -> Iterator[range]:
        """The indices of the first ``total`` images, batch by batch."""
        return (range(start, min(start + self.at_once, total)) for start in range(0, total, self.at_once))

    def read(self, indices: Iterable[int]) -> list[Sample]:
        """The samples of some indices."""
        return [self.samples[index] for index in indices]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode, without gradients, and restores its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


class SceneMeasurement(Measurement):
    """Detection where the number of objects is given: K is each image's own count.

    Metrics: see ``mistnn.metrics.DetectionMetrics`` and, for a model that reconstructs, ``ReconstructionMetrics``. For
    a model with several scales also ``size_correlation`` and ``size_error`` in pixels, beside ``size_error_constant``
    of the best constant size and ``iou50_fixed_size`` of the same positions with the median size.
    """

    model: Finder

    def __init__(self, model: Finder, data: DataConfig, split: Split, samples: Any) -> None:
        from mistnn.metrics import DetectionMetrics, ReconstructionMetrics

        super().__init__(model, data, split, samples)
        assert data.size is not None
        self.metrics = DetectionMetrics()
        self.errors = ReconstructionMetrics((model.config.channels, *data.size))
        self.found: list[Detections] = []
        self.boxes: list[Tensor] = []
        self.labels: list[Tensor] = []

    def add(self, indices: range) -> None:
        """Runs the model on the images, grouped by their number of objects."""
        for count, batch in by_count(self.read(indices)):
            assert batch.boxes is not None
            # There is no K of 0: in a scene without objects, one object is found and dropped again.
            explained = self.model.explain(batch.images.to(self.device), max(1, count))
            found = [one.first(count).cpu() for one in explained.detections]
            self.metrics.update(found, batch.boxes, batch.labels if self.model.class_names else None)
            if explained.reconstruction is not None:
                rebuilt = explained.reconstruction.cpu() if count else torch.zeros_like(batch.images)
                self.errors.update(rebuilt, batch.images)
            self.found.extend(found)
            self.boxes.extend(batch.boxes)
            self.labels.extend(batch.labels or [])

    def result(self) -> dict[str, float]:
        """The metrics; without the count error, which is 0 where K is given."""
        result = {name: value for name, value in self.metrics.compute().items() if name != "count_error"}
        if self.model.reconstructs:
            result |= self.errors.compute()
        return result | (self.sizes() if self.model.finds_sizes else {})

    def sizes(self) -> dict[str, float]:
        """How well sizes are found, and what the same positions with one size for all would reach."""
        from mistnn.metrics import iou50, size_scores

        if not any(len(one) for one in self.boxes):
            return {}
        middle = torch.cat([one[:, 2] for one in self.boxes]).median()
        fixed = [
            one._replace(boxes=torch.cat((one.boxes[:, :2], middle.expand(len(one.boxes), 2)), 1)) for one in self.found
        ]
        scores = size_scores(self.found, self.boxes)
        result = {
            "iou50_fixed_size": iou50(fixed, self.boxes),
            "size_correlation": scores.correlation,
            "size_error": scores.error,
            "size_error_constant": scores.constant_error,
        }
        return {name: value for name, value in result.items() if not math.isnan(value)}


class ImpulseMeasurement(SceneMeasurement):
    """As ``SceneMeasurement``, for Gabor noise.

    Metrics: also ``precision`` and ``recall`` of the impulses, found within half the width of a kernel;
    ``recall_close``, found within half the least distance between two; and the same of random positions
    (``..._chance``).
    """

    def result(self) -> dict[str, float]:
        """The metrics."""
        from mistnn.metrics import impulse_scores

        data = self.data
        low, high = data.margin, data.canvas - data.margin
        random = torch.Generator().manual_seed(0)
        guesses = []
        for one in self.found:
            places = torch.rand(len(one.boxes), 2, generator=random) * (high - low) + low
            guesses.append(one._replace(boxes=torch.cat((places, one.boxes[:, 2:]), dim=1)))
        scores, chance = impulse_scores(self.found, self.boxes), impulse_scores(guesses, self.boxes)
        result = super().result()
        result |= {"precision": scores.precision, "recall": scores.recall, "precision_chance": chance.precision}
        if data.min_distance:
            # Within half the least distance no position can stand for two impulses.
            radius = data.min_distance / 2
            result["recall_close"] = impulse_scores(self.found, self.boxes, radius).recall
            result["recall_close_chance"] = impulse_scores(guesses, self.boxes, radius).recall
        return result


class NumberMeasurement(SceneMeasurement):
    """As ``SceneMeasurement``, for house numbers.

    Metrics: also average precision at the thresholds of Table 4 of S001 (``ap00`` for classes alone, ``ap50`` ...
    ``ap90``), and the same of a guess that sees no image (``fixed_...``), see ``mistnn.experiments.fixed_box``.
    """

    fixed_k = "all house numbers here have the same number of digits"

    def result(self) -> dict[str, float]:
        """The metrics."""
        from mistnn.experiments.fixed_box import fixed_box_metrics, precision_metrics

        result = super().result()
        if not self.model.class_names:
            return result
        result |= precision_metrics(self.found, self.boxes, self.labels)
        return result | fixed_box_metrics(self.data, self.boxes, self.labels)


class CommonObjectMeasurement(SceneMeasurement):
    """As ``SceneMeasurement``, for images with one common object."""

    fixed_k = "each of these images holds one object"


def by_count(samples: Sequence[Sample]) -> Iterator[tuple[int, Batch]]:
    """The samples in batches with the same number of objects."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        assert sample.boxes is not None
        groups.setdefault(len(sample.boxes), []).append(sample)
    return ((count, collate(group)) for count, group in groups.items())
