"""The metrics as torchmetrics classes: they sum over batches and, under torch.distributed, over processes.

Imported on first use only (see ``mistnn.metrics``): torchmetrics is slow to import and loads pyplot.

Every state is a sum or a list that is joined, and no result depends on the order of the images, so several processes
give the result of one. A key whose denominator is 0, or whose annotation is missing, is absent from the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from mistnn.metrics.average_precision import (
    COCO_THRESHOLDS,
    Ranking,
    check_points,
    check_thresholds,
    precision_of,
    rank,
)
from mistnn.metrics.centre import CentreTally, centre_tally
from mistnn.metrics.classification import agreeing, missed_paper
from mistnn.metrics.detection import matched_objects, share
from mistnn.metrics.reconstruction import ReconstructionSums, empty_sums, reconstruction_sums
from mistnn.metrics.scenes import Scenes, pad_scenes
from mistnn.records import Detections


def _known(results: dict[str, float]) -> dict[str, float]:
    """The results that exist."""
    return {name: value for name, value in results.items() if not math.isnan(value)}


class _RankingMetric(Metric):
    """Base of the metrics that need average precision: keeps the ranking of all images."""

    full_state_update = False
    ranked_scores: list[Tensor]
    ranked_labels: list[Tensor]
    ranked_hits: list[Tensor]
    ranked_true_labels: list[Tensor]

    def __init__(self, thresholds: tuple[float, ...]) -> None:
        super().__init__()
        self._thresholds = thresholds
        for name in ("ranked_scores", "ranked_labels", "ranked_hits", "ranked_true_labels"):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._begin()

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self._begin()

    def _begin(self) -> None:
        """Puts the ranking of no image into the lists.

        A process that saw no image would otherwise join the gathering of the others with arrays of another type and
        number of axes, which ends in a failed collective.
        """
        self._append(
            Ranking(
                scores=torch.empty(0, dtype=torch.float64),
                labels=torch.empty(0, dtype=torch.int64),
                hits=torch.empty(0, len(self._thresholds), dtype=torch.bool),
                true_labels=torch.empty(0, dtype=torch.int64),
            )
        )

    def _append(self, ranking: Ranking) -> None:
        self.ranked_scores.append(ranking.scores.to(self.device))
        self.ranked_labels.append(ranking.labels.to(self.device))
        self.ranked_hits.append(ranking.hits.to(self.device, torch.uint8))  # not every backend gathers bool
        self.ranked_true_labels.append(ranking.true_labels.to(self.device))

    def _add(self, scenes: Scenes, class_aware: bool, strict: bool = False) -> None:
        self._append(rank(scenes, self._thresholds, class_aware, strict))

    def _ranking(self) -> Ranking:
        return Ranking(
            scores=_joined(self.ranked_scores),
            labels=_joined(self.ranked_labels),
            hits=_joined(self.ranked_hits).bool(),
            true_labels=_joined(self.ranked_true_labels),
        )


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """A joined list state. torchmetrics leaves a tensor instead of the list once it has gathered the processes."""
    return parts.cpu() if isinstance(parts, Tensor) else torch.cat([part.cpu() for part in parts])


class DetectionMetrics(_RankingMetric):
    """All the numbers of a detector in one pass over the images.

    ``compute`` returns a dict of floats, shares 0-1:

    ======================= ===========================================================================================
    iou50                   objects found, see ``iou50``
    both                    objects found with the right class, see ``both``; needs labels
    classified              objects whose class was counted, see ``classified``; needs labels
    classified_paper        the released code's rule, for comparison only, see ``classified_paper``; needs labels
    ap50, ap                class-aware average precision at IoU 0.5, and its mean over 0.5, 0.55 ... 0.95; need labels
    count_error             mean over images of abs(number of detections - number of objects), in objects
    images, objects         how many were seen
    greedy_optimal_gap      share of the objects that ``iou50`` would gain by optimal instead of greedy matching
    ======================= ===========================================================================================

    Where labels are missing the keys that need them are absent; where there is no object all shares are.

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
    agreeing: Tensor
    missed_paper: Tensor
    miscounted: Tensor

    def __init__(self) -> None:
        super().__init__(COCO_THRESHOLDS)
        for name in (
            "images",
            "labelled_images",
            "objects",
            "found",
            "found_optimal",
            "found_as_labelled",
            "agreeing",
            "missed_paper",
            "miscounted",
        ):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self, detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor] | None = None
    ) -> None:
        """Adds images.

        Args:
            detections: one an image.
            boxes: the true boxes of each image.
            labels: the true classes of each image, or ``None`` where they are not known.

        Raises:
            ValueError: see ``pad_scenes``.
        """
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
        self.agreeing += agreeing(predicted, true).sum().to(self.device)
        self.missed_paper += missed_paper(predicted, true).sum().to(self.device)
        self._add(scenes, class_aware=True)

    def compute(self) -> dict[str, float]:
        """The results over all images.

        Raises:
            ValueError: if only some of the images had labels.
        """
        images, labelled, objects = int(self.images), int(self.labelled_images), int(self.objects)
        if labelled not in (0, images):
            raise ValueError(f"{labelled} of {images} images carry labels: evaluate them apart from the others")
        results = {
            "iou50": share(int(self.found), objects),
            "count_error": share(int(self.miscounted), images),
            "images": float(images),
            "objects": float(objects),
            "greedy_optimal_gap": share(int(self.found_optimal) - int(self.found), objects),
        }
        if labelled:
            precision = precision_of(self._ranking())
            results |= {
                "both": share(int(self.found_as_labelled), objects),
                "classified": share(int(self.agreeing), objects),
                "classified_paper": share(objects - int(self.missed_paper), objects),
                "ap50": float(precision[COCO_THRESHOLDS.index(0.5)]),
                "ap": float(precision.mean()),
            }
        return _known(results)


class AveragePrecision(_RankingMetric):
    """Average precision at chosen IoU thresholds; see ``average_precision``.

    ``compute`` returns one key a threshold, named by its percentage: ``ap00``, ``ap50``.
    """

    def __init__(
        self,
        thresholds: Sequence[float] = (0.5,),
        class_aware: bool = True,
        points: int | None = None,
        strict: bool = False,
    ) -> None:
        check_points(points)
        super().__init__(check_thresholds(thresholds))
        self._strict = strict
        self._class_aware = class_aware
        self._points = points

    def update(
        self, detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor] | None = None
    ) -> None:
        """Adds images. Labels are needed if the metric is class-aware.

        Raises:
            ValueError: if labels are needed and missing; see also ``pad_scenes``.
        """
        self._add(pad_scenes(detections, boxes, labels), self._class_aware, self._strict)

    def compute(self) -> dict[str, float]:
        """The average precision at each threshold."""
        precision = precision_of(self._ranking(), self._points).tolist()
        names = [f"ap{100 * threshold:04.1f}".removesuffix(".0") for threshold in self._thresholds]
        return _known(dict(zip(names, precision, strict=True)))


class CentreMetrics(Metric):
    """Precision, recall and F1 by the centre of the detections; see ``centre_scores``.

    ``compute`` returns the keys ``precision``, ``recall``, ``f1``.
    """

    full_state_update = False
    hits: Tensor
    found: Tensor
    objects: Tensor

    def __init__(self, background: int | None = None) -> None:
        super().__init__()
        self._background = background
        for name in ("hits", "found", "objects"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """Adds images.

        Raises:
            ValueError: if the detections carry no labels; see also ``pad_scenes``.
        """
        tally = centre_tally(pad_scenes(detections, boxes, labels), self._background)
        self.hits += tally.hits
        self.found += tally.found
        self.objects += tally.objects

    def compute(self) -> dict[str, float]:
        """The results over all images."""
        return _known(CentreTally(int(self.hits), int(self.found), int(self.objects)).scores()._asdict())


class ReconstructionMetrics(Metric):
    """Reconstruction errors over images of one shape; see ``reconstruction_errors``.

    ``compute`` returns the keys ``rmse``, ``rmse_black``, ``rmse_mean``, ``r2``.
    """

    full_state_update = False
    squared_error: Tensor
    squared: Tensor
    image: Tensor
    images: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """Takes the (channels, height, width) of the images: their sum is kept to know the mean image."""
        super().__init__()
        sums = empty_sums(shape)
        self.add_state("squared_error", default=sums.squared_error, dist_reduce_fx="sum")
        self.add_state("squared", default=sums.squared, dist_reduce_fx="sum")
        self.add_state("image", default=sums.image, dist_reduce_fx="sum")
        self.add_state("images", default=torch.tensor(sums.images), dist_reduce_fx="sum")

    def update(self, reconstructions: Tensor, images: Tensor) -> None:
        """Adds images.

        Raises:
            ValueError: if the shapes differ from each other or from that of the metric, or an image leaves [0, 1].
        """
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
