"""Metrics: pure functions of detections and ground truth, and thin classes that accumulate them over batches.

The classes are torchmetrics classes, imported on first use: torchmetrics is slow to import and loads pyplot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mistnn.metrics.average_precision import COCO_THRESHOLDS, average_precision
from mistnn.metrics.centre import CentreScores, ImpulseScores, SizeScores, centre_scores, impulse_scores, size_scores
from mistnn.metrics.counts import classified, classified_paper
from mistnn.metrics.detection import both, greedy_optimal_gap, iou50
from mistnn.metrics.reconstruction import ReconstructionErrors, reconstruction_errors

if TYPE_CHECKING:
    from mistnn.metrics.stateful import AveragePrecision, CentreMetrics, DetectionMetrics, ReconstructionMetrics

_LAZY = frozenset({"AveragePrecision", "CentreMetrics", "DetectionMetrics", "ReconstructionMetrics"})

__all__ = [
    "COCO_THRESHOLDS",
    "AveragePrecision",
    "CentreMetrics",
    "CentreScores",
    "DetectionMetrics",
    "ImpulseScores",
    "ReconstructionErrors",
    "ReconstructionMetrics",
    "SizeScores",
    "average_precision",
    "both",
    "centre_scores",
    "classified",
    "classified_paper",
    "greedy_optimal_gap",
    "impulse_scores",
    "iou50",
    "reconstruction_errors",
    "size_scores",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mistnn.metrics import stateful

    return getattr(stateful, name)
