"""Were places found: precision and recall by distance, without classes and without overlap; and were sizes told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mistnn.metrics.detection import share
from mistnn.metrics.scenes import Scenes, pad_scenes
from mistnn.ops.matching import UNMATCHED, greedy_match
from mistnn.records import Detections


class ImpulseScores(NamedTuple):
    """Scores over several images; each NaN where its denominator is 0.

    Attributes:
        precision: share of the detections that have an impulse of their own, 0-1.
        recall: share of the impulses that have a detection of their own, 0-1.
        distance: mean distance of these pairs, in pixels.
    """

    precision: float
    recall: float
    distance: float


def impulse_scores(
    detections: Sequence[Detections], boxes: Sequence[Tensor], radius: float | None = None
) -> ImpulseScores:
    """Matches detections with impulses one-to-one by the distance of their centres, nearest first.

    Convention: Euclidean distance in pixels; a pair counts at a distance of ``radius`` or less. Precision and recall
    are of all images together (micro), not means over images. Labels and sizes of detections are not looked at.

    Where impulses are dense, half a kernel reaches several of them, and places drawn at random score high too: give
    what chance reaches beside the result, or a radius of at most half the least distance between impulses, within
    which no place fits two.

    Args:
        detections: one an image.
        boxes: the boxes around the true impulses of each image.
        radius: in pixels; half the width of the impulse's own box if not given.

    Raises:
        ValueError: if the radius is not a number of 0 or more; see also ``pad_scenes``.

    Reference:
        MIST (CVPR 2021), figure 4 marks correct and erroneous places; its rule is not stated. Half a kernel is ours.
    """
    if radius is not None and not 0 <= radius < math.inf:
        raise ValueError(f"radius must be a finite distance of 0 pixels or more, got {radius}")
    scenes = pad_scenes(detections, boxes)
    reach = scenes.true[..., 2] / 2 if radius is None else torch.full_like(scenes.true[..., 2], radius)
    *_, distances = _nearest_pairs(scenes, reach)
    return ImpulseScores(
        precision=share(len(distances), int(scenes.is_found.sum())),
        recall=share(len(distances), scenes.objects),
        distance=share(float(distances.sum()), len(distances)),
    )


class SizeScores(NamedTuple):
    """How well sizes are told, of detections near an object of their own; NaN where there are too few.

    Attributes:
        correlation: of predicted and true widths, Pearson's, -1 to 1.
        error: mean absolute difference of the widths, in pixels.
        constant_error: the same of the best constant width (the median of the true ones), for comparison.
    """

    correlation: float
    error: float
    constant_error: float


def size_scores(detections: Sequence[Detections], boxes: Sequence[Tensor]) -> SizeScores:
    """Compares widths of detections and objects whose centres are nearest, within half the object's width, one-to-one.

    An overlap above .5 says little of a size: centred boxes pass it up to a factor of 1.41.
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
    """Pairs of detections and objects, nearest first and one-to-one: image, detection, object, distance."""
    squared = (scenes.found[..., None, :2] - scenes.true[..., None, :, :2]).square().sum(-1)
    real = scenes.is_found.unsqueeze(-1) & scenes.is_true.unsqueeze(-2)
    match = greedy_match(-squared, -torch.inf, real & (squared <= reach.square().unsqueeze(-2)))
    image, row = (match != UNMATCHED).nonzero(as_tuple=True)
    column = match[image, row]
    return image, row, column, squared[image, row, column].sqrt()
