"""The metrics as torchmetrics classes: they accumulate over batches and, under torch.distributed, over processes.

All states are sums or concatenated lists, and no result depends on the order of the images, so several processes give
the result of one. A key whose denominator is 0, or whose annotation is missing, is absent from the result. ``update``
adds images; ``pad_scenes`` describes its arguments and raises ``ValueError`` if they don't fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from mistnn.metrics.average_precision import COCO_THRESHOLDS, Ranking, check_parameters, mean_area, rank
from mistnn.metrics.centre import CentreTally, centre_tally
from mistnn.metrics.counts import accounted_for, missed_paper
from mistnn.metrics.detection import matched_objects, ratio
from mistnn.metrics.reconstruction import ReconstructionSums, empty_sums, reconstruction_sums
from mistnn.metrics.scenes import Scenes, pad_scenes
from mistnn.records import Detections


class _SumMetric(Metric):
    """Base of all metrics: states that are summed over batches and processes."""

    full_state_update = False

    def _add_sums(self, **defaults: int | Tensor) -> None:
        for name, default in defaults.items():
            self.add_state(name, default=torch.as_tensor(default), dist_reduce_fx="sum")


def _known(results: dict[str, float]) -> dict[str, float]:
    """The results that are defined."""
    return {name: value for name, value in results.items() if not math.isnan(value)}


class _RankingMetric(_SumMetric):
    """Base of the metrics that need average precision: keeps the ranking of all images."""

    def __init__(self, thresholds: tuple[float, ...]) -> None:
        super().__init__()
        self._thresholds = thresholds
        for name in Ranking._fields:
            self.add_state(f"ranked_{name}", default=[], dist_reduce_fx="cat")
        self._begin()

    def reset(self) -> None:
        """Discards all images."""
        super().reset()
        self._begin()

    def _begin(self) -> None:
        """Adds the ranking of no image: else a process without images would gather arrays of other types and ranks."""
        numbers, labels = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
        self._append(Ranking(numbers, labels, torch.empty(0, len(self._thresholds), dtype=torch.bool), labels))

    def _append(self, ranking: Ranking) -> None:
        for name, part in ranking._asdict().items():
            kind = torch.uint8 if part.dtype == torch.bool else part.dtype  # not all backends gather bool
            getattr(self, f"ranked_{name}").append(part.to(self.device, kind))

    def _rank(self, scenes: Scenes, class_aware: bool, strict: bool = False) -> None:
        self._append(rank(scenes, self._thresholds, class_aware, strict))

    def _ranking(self) -> Ranking:
        ranking = Ranking(*(_joined(getattr(self, f"ranked_{name}")) for name in Ranking._fields))
        return ranking._replace(hits=ranking.hits.bool())


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """A list state as one tensor. After gathering the processes, torchmetrics has replaced the list by a tensor."""
    return parts.cpu() if isinstance(parts, Tensor) else torch.cat([part.cpu() for part in parts])


class DetectionMetrics(_RankingMetric):
    """All metrics of a detector in one pass over the images.

    ``compute`` returns a dict of floats, shares from 0 to 1:

    ======================= ===========================================================================================
    iou50                   objects detected, see ``iou50``
    both                    objects detected and correctly classified, see ``both``; needs labels
    classified              objects whose class was counted, see ``classified``; needs labels
    classified_paper        the released code's rule, for comparison only, see ``classified_paper``; needs labels
    ap50, ap                class-aware average precision at IoU 0.5, and its mean over 0.5, 0.55 ... 0.95; need labels
    count_error             mean over images of abs(number of detections - number of objects), in objects
    images, objects         numbers of images and of objects
    greedy_optimal_gap      how much ``iou50`` would gain from optimal instead of greedy matching
    ======================= ===========================================================================================

    Without labels, the keys that need them are absent; without objects, all shares are.

    Example::

        metrics = DetectionMetrics()
        for batch in loader:
            metrics.update(model.detect(batch.images), batch.boxes, batch.labels)
        print(metrics.compute()["both"])
    """

    images: Tensor
    labelled_images: Tensor
    objects: Tensor
    found: Tensor
    found_optimal: Tensor
    found_as_labelled: Tensor
    accounted_for: Tensor
    missed_paper: Tensor
    miscounted: Tensor

    def __init__(self) -> None:
        super().__init__(COCO_THRESHOLDS)
        self._add_sums(images=0, labelled_images=0, objects=0, found=0, found_optimal=0, found_as_labelled=0)
        self._add_sums(accounted_for=0, missed_paper=0, miscounted=0)

    def update(
        self, detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor] | None = None
    ) -> None:
        """Adds images."""
        scenes = pad_scenes(detections, boxes, labels)
        self.images += len(detections)
        self.objects += scenes.objects
        self.found += matched_objects(scenes).sum().to(self.device)
        self.found_optimal += matched_objects(scenes, optimal=True).sum().to(self.device)
        self.miscounted += (scenes.is_found.sum(1) - scenes.is_true.sum(1)).abs().sum().to(self.device)
        if scenes.true_labels is None:
            return
        predicted, true = scenes.histograms()
        self.labelled_images += len(detections)
        self.found_as_labelled += matched_objects(scenes, same_label=True).sum().to(self.device)
        self.accounted_for += accounted_for(predicted, true).sum().to(self.device)
        self.missed_paper += missed_paper(predicted, true).sum().to(self.device)
        self._rank(scenes, class_aware=True)

    def compute(self) -> dict[str, float]:
        """The results over all images.

        Raises:
            ValueError: if only some of the images had labels.
        """
        images, labelled, objects = int(self.images), int(self.labelled_images), int(self.objects)
        if labelled not in (0, images):
            raise ValueError(f"{labelled} of {images} images carry labels: evaluate them apart from the others")
        results = {
            "iou50": ratio(int(self.found), objects),
            "count_error": ratio(int(self.miscounted), images),
            "images": float(images),
            "objects": float(objects),
            "greedy_optimal_gap": ratio(int(self.found_optimal) - int(self.found), objects),
        }
        if labelled:
            precision = mean_area(self._ranking())
            results |= {
                "both": ratio(int(self.found_as_labelled), objects),
                "classified": ratio(int(self.accounted_for), objects),
                "classified_paper": ratio(objects - int(self.missed_paper), objects),
                "ap50": float(precision[COCO_THRESHOLDS.index(0.5)]),
                "ap": float(precision.mean()),
            }
        return _known(results)


class AveragePrecision(_RankingMetric):
    """Average precision at the given IoU thresholds; see ``average_precision``.

    ``compute`` returns one key per threshold, named by its percentage: ``ap00``, ``ap50``.
    """

    def __init__(
        self,
        thresholds: Sequence[float] = (0.5,),
        class_aware: bool = True,
        points: int | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(check_parameters(thresholds, points))
        self._strict, self._class_aware, self._points = strict, class_aware, points

    def update(
        self, detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor] | None = None
    ) -> None:
        """Adds images. A class-aware metric needs labels."""
        self._rank(pad_scenes(detections, boxes, labels), self._class_aware, self._strict)

    def compute(self) -> dict[str, float]:
        """The average precision at each threshold."""
        precision = mean_area(self._ranking(), self._points).tolist()
        names = [f"ap{100 * threshold:04.1f}".removesuffix(".0") for threshold in self._thresholds]
        return _known(dict(zip(names, precision, strict=True)))


class CentreMetrics(_SumMetric):
    """``precision``, ``recall`` and ``f1`` by the centres of detections; see ``centre_scores``."""

    hits: Tensor
    found: Tensor
    objects: Tensor

    def __init__(self, background: int | None = None) -> None:
        super().__init__()
        self._background = background
        self._add_sums(hits=0, found=0, objects=0)

    def update(self, detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """Adds images with labels."""
        tally = centre_tally(pad_scenes(detections, boxes, labels), self._background)
        self.hits += tally.hits
        self.found += tally.found
        self.objects += tally.objects

    def compute(self) -> dict[str, float]:
        """The results over all images."""
        return _known(CentreTally(int(self.hits), int(self.found), int(self.objects)).scores()._asdict())


class ReconstructionMetrics(_SumMetric):
    """Reconstruction errors over images of one shape: ``rmse``, ``rmse_black``, ``rmse_mean``, ``r2``."""

    squared_error: Tensor
    squared: Tensor
    image: Tensor
    images: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """Takes the (channels, height, width) of the images, because the metric keeps their sum."""
        super().__init__()
        self._add_sums(**empty_sums(shape)._asdict())

    def update(self, reconstructions: Tensor, images: Tensor) -> None:
        """Adds images of the metric's shape; see ``reconstruction_errors``."""
        if images.shape[1:] != self.image.shape:
            raise ValueError(f"images must have the shape {tuple(self.image.shape)}, got {tuple(images.shape[1:])}")
        sums = reconstruction_sums(reconstructions, images)
        self.squared_error += sums.squared_error.to(self.device)
        self.squared += sums.squared.to(self.device)
        self.image += sums.image.to(self.device)
        self.images += sums.images

    def compute(self) -> dict[str, float]:
        """The results over all images."""
        sums = ReconstructionSums(self.squared_error, self.squared, self.image, int(self.images))
        return _known(sums.errors()._asdict())
