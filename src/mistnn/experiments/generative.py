"""What SPAIR, AIR, DAIR and ConnComp share: they find objects by drawing the image, and most count them themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from mistnn.data import GaborConfig, Scatter, ScatterConfig, ScenesConfig
from mistnn.experiments.checks import check_channels, check_one_process
from mistnn.experiments.experiment import Experiment
from mistnn.experiments.measuring import Measurement
from mistnn.experiments.system import System
from mistnn.interfaces import DataConfig, Split
from mistnn.nn.finder import Finder
from mistnn.records import collate

if TYPE_CHECKING:
    from mistnn.metrics import AveragePrecision

THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))
"""SPAIR's AP is the mean over these IoU thresholds."""

POINTS = 11
"""Recall points of SPAIR's AP."""


class ObjectMeasurement(Measurement):
    """Detection by systems that draw the image.

    Metrics: ``ap``, average precision averaged over IoU above .1, .2 ... .9, each by 11 recall points, regardless of
    class; ``ap50``, the one above .5; for scattered digits also ``ap_ink`` and ``ap50_ink``, where the true box of a
    digit surrounds its ink instead of its frame; ``iou50`` (``mistnn.metrics.iou50``). For a model that counts:
    ``count_error``, the mean absolute error; ``count_accuracy``, the share of images with the right number;
    ``count_bias``, found minus true objects per image. For a model that reconstructs: ``rmse``, ``rmse_black``,
    ``rmse_mean`` and ``r2``. Always ``images`` and ``objects``.

    Reference: SPAIR (AAAI 2019), section 5.1, and its released code.
    """

    model: Finder

    def __init__(self, model: Finder, data: DataConfig, split: Split, samples: Any) -> None:
        from mistnn.metrics import DetectionMetrics, ReconstructionMetrics

        super().__init__(model, data, split, samples)
        assert data.size is not None
        self.metrics = DetectionMetrics()
        self.precision, self.inked = _precision(), _precision()
        self.errors = ReconstructionMetrics((model.config.channels, *data.size))
        self.differences: list[int] = []

    def add(self, indices: range) -> None:
        """Runs the model on the images; a model that needs counts is given the true ones."""
        batch = collate(self.read(indices))
        assert batch.boxes is not None
        counts = torch.tensor([len(boxes) for boxes in batch.boxes], device=self.device)
        explained = self.model.explain(batch.images.to(self.device), counts if self.model.needs_counts else None)
        found = [one.cpu() for one in explained.detections]
        self.metrics.update(found, batch.boxes)
        self.precision.update(found, batch.boxes)
        if isinstance(self.samples, Scatter):
            self.inked.update(found, [self.samples.inked(index) for index in indices])
        if explained.reconstruction is not None:
            self.errors.update(explained.reconstruction.cpu(), batch.images)
        self.differences += [len(one.boxes) - len(boxes) for one, boxes in zip(found, batch.boxes, strict=True)]

    def result(self) -> dict[str, float]:
        """The metrics."""
        result = self.metrics.compute() | _means(self.precision)
        result |= {f"{name}_ink": value for name, value in _means(self.inked).items()}
        if self.model.reconstructs:
            result |= self.errors.compute()
        for name in ("greedy_optimal_gap", "count_error"):  # absent if no image holds an object
            result.pop(name, None)
        if not self.model.needs_counts:
            differences, images = self.differences, len(self.differences)
            result["count_error"] = sum(map(abs, differences)) / images
            result["count_accuracy"] = sum(one == 0 for one in differences) / images
            result["count_bias"] = sum(differences) / images
        return result


class GenerativeSystem(System):
    """A system that finds objects by drawing the image, without labels."""

    measured_on: ClassVar = {
        ScenesConfig: ObjectMeasurement,
        ScatterConfig: ObjectMeasurement,
        GaborConfig: ObjectMeasurement,
    }
    images = "digits or Gabor noise"

    def check_parts(self, model: Any, data: Any, experiment: Experiment) -> None:
        """Refuses several processes, which would draw the same noise."""
        check_one_process("SPAIR, AIR, DAIR and ConnComp", "draw the same noise")
        check_channels(model, data)


def _precision() -> AveragePrecision:
    from mistnn.metrics import AveragePrecision  # torchmetrics loads slowly

    return AveragePrecision(THRESHOLDS, class_aware=False, points=POINTS, strict=True)


def _means(precision: AveragePrecision) -> dict[str, float]:
    """The mean over the thresholds, and the one above .5; empty if there is no object."""
    each = precision.compute()
    return {"ap": sum(each.values()) / len(each), "ap50": each["ap50"]} if each else {}
