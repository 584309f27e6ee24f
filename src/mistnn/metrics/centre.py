"""Scores of detections that are matched by their centres.

``pad_scenes`` describes the arguments and raises ``ValueError`` if they don't fit. Scores are NaN where their
denominator is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mistnn.metrics.detection import ratio
from mistnn.metrics.scenes import Scenes, pad_scenes
from mistnn.ops.matching import UNMATCHED, greedy_match
from mistnn.records import Detections


class CentreScores(NamedTuple):
    """Shares from 0 to 1."""

    precision: float
    recall: float
    f1: float


class CentreTally(NamedTuple):
    """Numbers of correct detections, detections and objects, summed over images."""

    hits: int
    found: int
    objects: int

    def scores(self) -> CentreScores:
        """Precision, recall and F1 of all images together."""
        return CentreScores(
            precision=ratio(self.hits, self.found),
            recall=ratio(self.hits, self.objects),
            f1=ratio(2 * self.hits, self.found + self.objects),
        )


def centre_tally(scenes: Scenes, background: int | None = None) -> CentreTally:
    """Counts correct detections, detections and objects; see ``centre_scores``."""
    found_labels, true_labels = scenes.labels()
    is_found, is_true = scenes.is_found, scenes.is_true
    if background is not None:
        is_found, is_true = is_found & (found_labels != background), is_true & (true_labels != background)
    offset = (scenes.found[..., None, :2] - scenes.true[..., None, :, :2]).abs()
    distance = (offset / (scenes.true[..., None, :, 2:] / 2)).amax(-1)  # NaN for a box without size: never inside
    inside = (distance <= 1) & is_found.unsqueeze(-1) & is_true.unsqueeze(-2) & scenes.same_label()
    match = greedy_match(-distance, -torch.inf, inside)
    return CentreTally(int((match != UNMATCHED).sum()), int(is_found.sum()), int(is_true.sum()))


def centre_scores(
    detections: Sequence[Detections], boxes: Sequence[Tensor], labels: Sequence[Tensor], background: int | None = None
) -> CentreScores:
    """Precision, recall and F1; a detection is correct if its centre lies in a box of the same class. Needs labels.

    Convention: the distance of a detection (x, y) from a box (cx, cy, w, h) is max(abs(x - cx) / (w / 2),
    abs(y - cy) / (h / 2)). A centre is inside at a distance of at most 1, border included. Matching is greedy and
    one-to-one, nearest pairs first.

    Args:
        background: a class that means "no object"; its detections and boxes are ignored. ``None`` if there is none.

    Reference:
        MIST (CVPR 2021), Table 4. The released code assigns to each object, in stored order, the nearest detection
        left; nearest pairs first do not depend on that order. Its background is class 0.
    """
    return centre_tally(pad_scenes(detections, boxes, labels), background).scores()


class ImpulseScores(NamedTuple):
    """Scores over several images.

    Attributes:
        precision: share of detections that are matched with an impulse, 0-1.
        recall: share of impulses that are matched with a detection, 0-1.
        distance: mean distance of the matched pairs, in pixels.
    """

    precision: float
    recall: float
    distance: float


def impulse_scores(
    detections: Sequence[Detections], boxes: Sequence[Tensor], radius: float | None = None
) -> ImpulseScores:
    """Matches detections with impulses one-to-one by the distance of their centres, nearest pairs first.

    Convention: Euclidean distance in pixels; a pair matches at a distance of ``radius`` or less. Precision and recall
    pool all images (micro average). Labels and sizes of detections are ignored.

    Where impulses are dense, half a kernel reaches several of them, and random places score high too. Then report the
    score of random places next to the result, or use a radius of at most half the smallest distance between impulses,
    within which no place matches two.

    Args:
        radius: in pixels, finite and 0 or more; ``None`` for half the width of the impulse's own box.

    Reference:
        MIST (CVPR 2021), figure 4 marks correct and wrong places; its rule is not stated. Half a kernel is ours.
    """
    if radius is not None and not 0 <= radius < math.inf:
        raise ValueError(f"radius must be a finite distance of 0 pixels or more, got {radius}")
    scenes = pad_scenes(detections, boxes)
    reach = scenes.true[..., 2] / 2 if radius is None else torch.full_like(scenes.true[..., 2], radius)
    *_, distances = _nearest_pairs(scenes, reach)
    return ImpulseScores(
        precision=ratio(len(distances), int(scenes.is_found.sum())),
        recall=ratio(len(distances), scenes.objects),
        distance=ratio(float(distances.sum()), len(distances)),
    )


class SizeScores(NamedTuple):
    """Accuracy of the widths of matched detections; NaN if fewer than two are matched.

    Attributes:
        correlation: Pearson correlation of predicted and true widths, -1 to 1.
        error: mean absolute error of the widths, in pixels.
        constant_error: the same for the best constant width (the median of the true ones), for comparison.
    """

    correlation: float
    error: float
    constant_error: float


def size_scores(detections: Sequence[Detections], boxes: Sequence[Tensor]) -> SizeScores:
    """Compares the widths of detections and objects, matched one-to-one within half the object's width.

    An IoU above 0.5 says little about a size: centred boxes pass it up to a factor of 1.41.
    """
    scenes = pad_scenes(detections, boxes)
    image, row, column, _ = _nearest_pairs(scenes, scenes.true[..., 2] / 2)
    found, true = scenes.found[image, row, 2].double(), scenes.true[image, column, 2].double()
    if len(true) < 2:
        return SizeScores(math.nan, math.nan, math.nan)
    spread = float(found.std() * true.std())
    covariance = float(((found - found.mean()) * (true - true.mean())).sum() / (len(true) - 1))
    return SizeScores(
        correlation=covariance / spread if spread > 0 else math.nan,
        error=float((found - true).abs().mean()),
        constant_error=float((true.median() - true).abs().mean()),
    )


def _nearest_pairs(scenes: Scenes, reach: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One-to-one pairs of detections and objects, nearest first: image, detection, object, distance."""
    squared = (scenes.found[..., None, :2] - scenes.true[..., None, :, :2]).square().sum(-1)
    real = scenes.is_found.unsqueeze(-1) & scenes.is_true.unsqueeze(-2)
    match = greedy_match(-squared, -torch.inf, real & (squared <= reach.square().unsqueeze(-2)))
    image, row = (match != UNMATCHED).nonzero(as_tuple=True)
    column = match[image, row]
    return image, row, column, squared[image, row, column].sqrt()
